"""Operations of AutoAugment on each level by a rule, as Pillow's `ImageOps` computes them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.transforms import appearance
from invariance_jax.transforms.levels import from_levels, to_levels, truncate

Image = Float[Array, "height width channels"]
Scalar = Float[Array, ""]


def posterize(image: Image, magnitude: Scalar) -> Image:
    """Keeps the highest bits of each 8-bit value.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Number of bits kept, rounded to a whole number; its sign is ignored. 8 keeps
            the image as it is, unrounded.

    Returns:
        The posterized image, same shape and dtype. Its gradient is zero below 8 bits.
    """
    return appearance.posterize(image, jnp.round(jnp.abs(magnitude)))


def solarize(image: Image, magnitude: Scalar) -> Image:
    """Inverts the bright pixels.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Threshold as a level, 0 to 256; its sign is ignored. Levels not below it are
            inverted: 256 keeps the image as it is, unrounded.

    Returns:
        The solarized image, same shape and dtype.
    """
    threshold = jnp.abs(magnitude)
    levels = to_levels(image)
    solarized = jnp.where(levels < threshold, levels, 255.0 - levels)
    return jnp.where(threshold >= 256, image, from_levels(solarized))


def invert(image: Image, magnitude: Scalar) -> Image:
    """Inverts every pixel.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Ignored.

    Returns:
        The negative, same shape and dtype.
    """
    del magnitude
    return from_levels(255.0 - to_levels(image))


def autocontrast(image: Image, magnitude: Scalar) -> Image:
    """Stretches each channel to the whole range, from its darkest to its brightest pixel.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Ignored.

    Returns:
        The stretched image, same shape and dtype. A channel of one level stays as it is.
    """
    del magnitude
    levels = to_levels(image)
    darkest = jnp.min(levels, axis=(0, 1), keepdims=True)
    extent = jnp.max(levels, axis=(0, 1), keepdims=True) - darkest
    # The inner `where` keeps the gradient finite.
    stretched = truncate((levels - darkest) * 255.0 / jnp.where(extent > 0, extent, 1.0))
    return from_levels(jnp.where(extent > 0, stretched, levels))


def equalize(image: Image, magnitude: Scalar) -> Image:
    """Gives each channel a histogram as flat as a rule for each level can make it.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Ignored.

    Returns:
        The equalized image, same shape and dtype; its gradient is zero. A channel stays as it is
        when fewer than 255 of its pixels are darker than its brightest level.
    """
    del magnitude
    channels = to_levels(image).astype(jnp.int32)
    equalized = jax.vmap(_equalize_channel, in_axes=-1, out_axes=-1)(channels)
    return from_levels(equalized.astype(jnp.float32))


def _equalize_channel(levels: Array) -> Array:
    """Pillow's rule for one channel of int32 levels [height, width]."""
    histogram = jnp.bincount(levels.ravel(), length=256)
    step = (levels.size - histogram[jnp.max(levels)]) // 255
    darker = jnp.cumsum(histogram) - histogram
    table = jnp.clip((step // 2 + darker) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table[levels], levels)
