"""Geometric transforms about the image's centre: bilinear, zero fill, torchvision's `affine`."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.errors import lookup
from invariance_jax.transforms import resample
from invariance_jax.transforms.transform import Image, Scalar

# What a translation shows where the image has left: black, its other side, or what stood beside
# the centre crop (which takes more than the crop, see `augment.translate_in_context`).
PaddingMode = Literal["constant", "wrap", "context"]

# The paper's translations are pixels of a 224-pixel image; other sizes move by the same fraction.
REFERENCE_SIZE = 224


def _centred(size: int) -> Float[Array, "{size}"]:
    """Pixel centres along one axis, measured from the middle of the image."""
    return jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2


def _weights(places: Float[Array, "{size}"], size: int) -> Float[Array, "{size} {size}"]:
    """Weights of places along one axis that are measured from the middle of the image."""
    return resample.interpolation_weights(places + (size - 1) / 2, size)


# Weights along one axis of an image that has moved by a distance in pixels.
_MOVED: Mapping[str, Callable[[int, Scalar | float], Float[Array, "size size"]]] = {
    "constant": lambda size, distance: _weights(_centred(size) - distance, size),
    "wrap": lambda size, distance: resample.periodic_weights(
        jnp.arange(size, dtype=jnp.float32) - distance, size
    ),
}


def _translate(
    image: Image, down: Scalar | float, right: Scalar | float, padding_mode: str
) -> Image:
    """Moves the image by pixels of a 224-pixel image."""
    moved = lookup(_MOVED, padding_mode, "padding mode")
    rows, columns = (
        moved(size, distance * size / REFERENCE_SIZE)
        for size, distance in zip(image.shape[:2], (down, right), strict=True)
    )
    return resample.apply_weights(image, rows, columns)


def translate_x(
    image: Image, magnitude: Scalar, padding_mode: Literal["constant", "wrap"] = "constant"
) -> Image:
    """Moves the image to the right.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance in pixels of a 224-pixel image: 224 is the width whatever that is.
            Fractions of a pixel are interpolated.
        padding_mode: What comes in: "constant" is black. "wrap" is what has left at the other side,
            so that each row keeps its sum: a network of circular convolutions and a global mean is
            exactly invariant to it, and 224 is a whole turn, the image as it is.

    Returns:
        The moved image, same shape and dtype.

    Raises:
        UserError: No such padding mode.
    """
    return _translate(image, 0.0, magnitude, padding_mode)


def translate_y(
    image: Image, magnitude: Scalar, padding_mode: Literal["constant", "wrap"] = "constant"
) -> Image:
    """Moves the image down.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance in pixels of a 224-pixel image, as in `translate_x`.
        padding_mode: What comes in, as in `translate_x`.

    Returns:
        The moved image, same shape and dtype.

    Raises:
        UserError: No such padding mode.
    """
    return _translate(image, magnitude, 0.0, padding_mode)


def scale(image: Image, magnitude: Scalar) -> Image:
    """Zooms about the centre, zero fill, without antialias (as torchvision's `affine`).

    Args:
        image: float32 [height, width, channels].
        magnitude: Factor, positive: above 1 things look larger, below 1 smaller.

    Returns:
        The zoomed image, same shape and dtype.
    """
    rows, columns = (_weights(_centred(size) / magnitude, size) for size in image.shape[:2])
    return resample.apply_weights(image, rows, columns)


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
