"""Appearance transforms: each pixel by a rule, the geometry untouched."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.transforms.transform import Image, Scalar

# ITU-R 601 luma as torchvision's `rgb_to_grayscale` writes it.
_LUMA = (0.2989, 0.587, 0.114)


def grey(image: Image) -> Float[Array, "height width 1"]:
    """Makes an image grey.

    Args:
        image: float32 [height, width, 3].

    Returns:
        The luma of each pixel, float32.
    """
    # A sum and not a dot product: accelerators would round a product's factors to fewer bits.
    return jnp.sum(image * jnp.array(_LUMA, jnp.float32)[None, None, :], axis=-1, keepdims=True)


def posterize(image: Image, magnitude: Scalar) -> Image:
    """Keeps the highest bits of each 8-bit value.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Number of bits kept, 0 to 8. 8 keeps the image as it is, unrounded; 0 is black.

    Returns:
        The posterized image, same shape and dtype. Its gradient is zero below 8 bits.
    """
    step = 2.0 ** (8.0 - magnitude)
    levels = jnp.floor(jnp.round(image * 255.0) / step) * step / 255.0
    return jnp.where(magnitude >= 8.0, image, levels)


def posterize_normalized(image: Image, magnitude: Scalar) -> Image:
    """Keeps the highest bits of normalised values, as the original does.

    It multiplies by 100 and casts to an unsigned byte as C does: decimals are cut off, and
    negative numbers wrap around, -1 to 255.

    Args:
        image: float32 [height, width, channels], normalised.
        magnitude: Number of bits kept, 0 to 8. Even 8 changes the image.

    Returns:
        Values in [0, 2.55], same shape and dtype. Its gradient is zero.
    """
    step = 2.0 ** (8.0 - magnitude)
    byte = jnp.trunc(image * 100.0) % 256.0
    return jnp.floor(byte / step) * step / 100.0


def solarize(image: Image, magnitude: Scalar) -> Image:
    """Inverts the bright pixels.

    Args:
        image: float32 [height, width, channels] in [0, 1].
        magnitude: Threshold: x >= threshold becomes 1 - x. At 1 saturated pixels are still
            inverted, as in torchvision.

    Returns:
        The solarized image, same shape and dtype.
    """
    return jnp.where(image >= magnitude, 1.0 - image, image)


def contrast(image: Image, magnitude: Scalar) -> Image:
    """Blends with the mean of the grey image, clipped.

    Args:
        image: float32 [height, width, 3] in [0, 1].
        magnitude: Factor, not negative: 0 is flat grey, 1 the image, 2 twice the contrast.

    Returns:
        The blended image in [0, 1], same shape and dtype.
    """
    mean = jnp.mean(grey(image))
    return jnp.clip(image * magnitude + mean * (1.0 - magnitude), 0.0, 1.0)


def brightness(image: Image, magnitude: Scalar) -> Image:
    """Multiplies by a factor, clipped.

    Args:
        image: float32 [height, width, channels] in [0, 1].
        magnitude: Factor, not negative: 0 is black, 1 the image, 2 twice as bright.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    return jnp.clip(image * magnitude, 0.0, 1.0)
