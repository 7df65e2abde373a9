"""Normalisation of images by the statistics of ImageNet."""

import jax.numpy as jnp
from jaxtyping import Array, Float

MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


def normalize(images: Float[Array, "*batch height width 3"]) -> Float[Array, "..."]:
    """Subtracts ImageNet's mean colour and divides by its standard deviation.

    Args:
        images: One image or any batch of them, float32 in [0, 1].

    Returns:
        What models take; same shape and dtype.
    """
    shape = (1,) * (images.ndim - 1) + (3,)
    mean = jnp.array(MEAN, images.dtype).reshape(shape)
    deviation = jnp.array(STANDARD_DEVIATION, images.dtype).reshape(shape)
    return (images - mean) / deviation
