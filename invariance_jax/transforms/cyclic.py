"""Translation on a circle: what leaves at one side comes in at the other.

Nothing is lost, so a network of circular convolutions and a global mean is exactly invariant to it.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.transforms import resample
from invariance_jax.transforms.geometric import REFERENCE_SIZE

Image = Float[Array, "height width channels"]
Scalar = Float[Array, ""]
# What a translation shows where the image has left: black, its other side, or its surroundings.
Translation = Literal["zero", "cyclic", "context"]


def cyclic_translate_x(image: Image, magnitude: Scalar) -> Image:
    """Moves the image to the right; what leaves comes in at the left (`jnp.roll`).

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance in pixels of a 224-pixel image; fractions of a pixel are interpolated
            between neighbours on the circle. 224 is a whole turn: the image as it is.

    Returns:
        The moved image, same shape and dtype; each row keeps its sum.
    """
    _, width, _ = image.shape
    return _roll(image, jnp.float32(0), magnitude * width / REFERENCE_SIZE)


def cyclic_translate_y(image: Image, magnitude: Scalar) -> Image:
    """Moves the image down; what leaves comes in at the top.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance in pixels of a 224-pixel image, as in `cyclic_translate_x`.

    Returns:
        The moved image, same shape and dtype; each column keeps its sum.
    """
    height, _, _ = image.shape
    return _roll(image, magnitude * height / REFERENCE_SIZE, jnp.float32(0))


def _roll(image: Image, down: Scalar, right: Scalar) -> Image:
    height, width, _ = image.shape
    rows = resample.periodic_weights(jnp.arange(height, dtype=jnp.float32) - down, height)
    columns = resample.periodic_weights(jnp.arange(width, dtype=jnp.float32) - right, width)
    return resample.apply_weights(image, rows, columns)
