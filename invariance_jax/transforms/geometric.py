"""Geometric transforms about the image's centre: bilinear, zero fill, torchvision's `affine`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
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


def axis_weights(
    size: int, factor: Scalar | float = 1.0, shift: Scalar | float = 0.0
) -> Float[Array, "{size} {size}"]:
    """Weights of `warp` along one axis, where axes stay axes.

    Args:
        size: Pixels along the axis.
        factor: The pixel at x, from the middle, shows what stands at factor * x + shift.
        shift: In pixels.

    Returns:
        One row of weights for each pixel.
    """
    return resample.interpolation_weights(factor * _centred(size) + shift + (size - 1) / 2, size)


# Weights along one axis of an image that has moved by a distance in pixels.
_MOVED: Mapping[str, Callable[[int, Scalar | float], Float[Array, "size size"]]] = {
    "constant": lambda size, distance: axis_weights(size, shift=-distance),
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
    rows, columns = (axis_weights(size, 1 / magnitude) for size in image.shape[:2])
    return resample.apply_weights(image, rows, columns)


def warp(image: Image, x_of: Sequence[Scalar | float], y_of: Sequence[Scalar | float]) -> Image:
    """Samples an image at affine functions of each pixel's place, bilinear, zero fill.

    Args:
        image: Float [height, width, channels].
        x_of: (a, b, c): the pixel at (x, y), from the middle of the image, shows what stands
            a x + b y + c pixels to the right of the middle.
        y_of: Likewise, down.

    Returns:
        The warped image, same shape and dtype.
    """
    height, width, _ = image.shape
    y, x = _centred(height)[:, None], _centred(width)[None, :]
    return resample.sample_bilinear(
        image,
        y_of[1] * y + y_of[0] * x + (y_of[2] + (height - 1) / 2),
        x_of[1] * y + x_of[0] * x + (x_of[2] + (width - 1) / 2),
    )


def shear_by_rows(image: Image, slope: Scalar | float) -> Image:
    """Shears rows sideways by a matrix of weights for each row: no look-ups, as TPUs want it.

    The matrices depend on the slope alone, so that one set serves a batch.

    Args:
        image: float32 [height, width, channels].
        slope: The pixel at (x, y), from the middle, shows what stands at x + slope * y.

    Returns:
        The sheared image, same shape and dtype.
    """
    height, width, _ = image.shape
    x = _centred(width)[None, :] + slope * _centred(height)[:, None] + (width - 1) / 2
    weights = jax.vmap(resample.interpolation_weights, (0, None))(x, width)
    return jnp.einsum("yox,yxc->yoc", weights, image, precision=resample.PRECISION)


def _sheared(image: Image, slope: Scalar | float) -> Image:
    def by_lookups(image: Image, slope: Scalar | float) -> Image:
        return warp(image, (1.0, slope, 0.0), (0.0, 1.0, 0.0))

    return jax.lax.platform_dependent(image, slope, tpu=shear_by_rows, default=by_lookups)


def shear_x(image: Image, magnitude: Scalar) -> Image:
    """Shears rows sideways about the centre, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Angle in degrees; not an odd multiple of 90.

    Returns:
        The sheared image, same shape and dtype.
    """
    return _sheared(image, jnp.tan(jnp.deg2rad(magnitude)))


def shear_y(image: Image, magnitude: Scalar) -> Image:
    """Shears columns up and down about the centre, zero fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Angle in degrees; not an odd multiple of 90.

    Returns:
        The sheared image, same shape and dtype.
    """
    turned = jnp.swapaxes(image, 0, 1)
    return jnp.swapaxes(_sheared(turned, jnp.tan(jnp.deg2rad(magnitude))), 0, 1)


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
    return warp(image, (cosine, sine, 0.0), (-sine, cosine, 0.0))
