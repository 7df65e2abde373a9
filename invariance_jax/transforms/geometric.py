"""Geometric transforms about the image's centre: bilinear, zero fill, torchvision's `affine`."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.transforms import resample

Image = Float[Array, "height width channels"]
Scalar = Float[Array, ""]

# The paper's translations are pixels of a 224-pixel image; other sizes move by the same fraction.
REFERENCE_SIZE = 224


def _centred(size: int) -> Float[Array, "{size}"]:
    """Pixel centres along one axis, measured from the middle of the image."""
    return jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2


def _separable(image: Image, y: Float[Array, "height"], x: Float[Array, "width"]) -> Image:
    """Samples at the grid y × x, given from the middle of the image."""
    height, width, _ = image.shape
    rows = resample.interpolation_weights(y + (height - 1) / 2, height)
    columns = resample.interpolation_weights(x + (width - 1) / 2, width)
    return resample.apply_weights(image, rows, columns)


def translate_x(image: Image, magnitude: Scalar) -> Image:
    """Moves the image to the right, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance in pixels of a 224-pixel image: 224 moves everything out of sight
            whatever the width is.

    Returns:
        The moved image, same shape and dtype.
    """
    height, width, _ = image.shape
    return _separable(image, _centred(height), _centred(width) - magnitude * width / REFERENCE_SIZE)


def translate_y(image: Image, magnitude: Scalar) -> Image:
    """Moves the image down, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance in pixels of a 224-pixel image.

    Returns:
        The moved image, same shape and dtype.
    """
    height, width, _ = image.shape
    return _separable(
        image, _centred(height) - magnitude * height / REFERENCE_SIZE, _centred(width)
    )


def scale(image: Image, magnitude: Scalar) -> Image:
    """Zooms about the centre, zero fill, without antialias (as torchvision's `affine`).

    Args:
        image: float32 [height, width, channels].
        magnitude: Factor, positive: above 1 things look larger, below 1 smaller.

    Returns:
        The zoomed image, same shape and dtype.
    """
    height, width, _ = image.shape
    return _separable(image, _centred(height) / magnitude, _centred(width) / magnitude)


def _warp(image: Image, y_of: tuple[Scalar, Scalar], x_of: tuple[Scalar, Scalar]) -> Image:
    """Samples where (y, x), from the middle, maps to y_of · (y, x) and x_of · (y, x)."""
    height, width, _ = image.shape
    y, x = _centred(height)[:, None], _centred(width)[None, :]
    return resample.sample_bilinear(
        image,
        y_of[0] * y + y_of[1] * x + (height - 1) / 2,
        x_of[0] * y + x_of[1] * x + (width - 1) / 2,
    )


def shear_x(image: Image, magnitude: Scalar) -> Image:
    """Shears rows sideways about the centre, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Angle in degrees; not an odd multiple of 90.

    Returns:
        The sheared image, same shape and dtype.
    """
    one, zero = jnp.float32(1), jnp.float32(0)
    return _warp(image, (one, zero), (jnp.tan(jnp.deg2rad(magnitude)), one))


def shear_y(image: Image, magnitude: Scalar) -> Image:
    """Shears columns up and down about the centre, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Angle in degrees; not an odd multiple of 90.

    Returns:
        The sheared image, same shape and dtype.
    """
    one, zero = jnp.float32(1), jnp.float32(0)
    return _warp(image, (one, jnp.tan(jnp.deg2rad(magnitude))), (zero, one))


def rotate(image: Image, magnitude: Scalar) -> Image:
    """Turns the image about its centre, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Angle in degrees, clockwise (torchvision's `affine`).

    Returns:
        The turned image, same shape and dtype.
    """
    angle = jnp.deg2rad(magnitude)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return _warp(image, (cosine, -sine), (sine, cosine))
