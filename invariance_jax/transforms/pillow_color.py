"""Enhancements of AutoAugment, as Pillow's `ImageEnhance` computes them on 8-bit values.

Each blends the image with a dull version of itself: 0 keeps the image, -1 is the dull version,
positive magnitudes go the other way.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.transforms.levels import from_levels, to_levels, truncate

Image = Float[Array, "height width 3"]
Scalar = Float[Array, ""]

# ITU-R 601 luma in Pillow's fixed point: parts of 65,536. Every product and sum of levels stays
# below 2^24, so that float32 is exact.
_LUMA = (19595.0, 38470.0, 7471.0)


def _grey(levels: Image) -> Float[Array, "height width 1"]:
    """Luma of each pixel, a whole level."""
    total = jnp.sum(levels * jnp.asarray(_LUMA, jnp.float32)[None, None, :], -1, keepdims=True)
    return truncate(total / 65536 + 0.5)


def _blend(image: Image, dull: Float[Array, "..."], magnitude: Scalar) -> Image:
    """The dull levels plus (1 + magnitude) times what the image has beyond them."""
    levels = to_levels(image)
    blended = dull + (1.0 + magnitude) * (levels - dull)
    return jnp.where(magnitude == 0, image, from_levels(truncate(blended)))


def color(image: Image, magnitude: Scalar) -> Image:
    """Changes the saturation.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is grey, 0 the image as it is, unrounded, 1 doubles
            each pixel's distance to its grey.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    return _blend(image, _grey(to_levels(image)), magnitude)


def contrast(image: Image, magnitude: Scalar) -> Image:
    """Changes the contrast about the mean grey level.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is flat grey, 0 the image as it is, unrounded.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    mean = truncate(jnp.mean(_grey(to_levels(image))) + 0.5)
    return _blend(image, mean, magnitude)


def brightness(image: Image, magnitude: Scalar) -> Image:
    """Changes the brightness.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is black, 0 the image as it is, unrounded.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    return _blend(image, jnp.float32(0), magnitude)


def sharpness(image: Image, magnitude: Scalar) -> Image:
    """Changes the sharpness against a 3x3 blur.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is blurred, 0 the image as it is, unrounded. The
            frame of one pixel never changes: Pillow does not blur it.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    levels = to_levels(image)
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    # Pillow's SMOOTH: the centre counts 5, its eight neighbours 1.
    smooth = truncate((box + 4 * levels[1:-1, 1:-1]) / 13 + 0.5)
    return _blend(image, levels.at[1:-1, 1:-1].set(smooth), magnitude)
