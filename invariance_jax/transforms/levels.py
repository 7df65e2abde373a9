"""Arithmetic of 8-bit images in float32, with gradients that pass through the rounding.

AutoAugment is defined by Pillow, which works on the levels 0 to 255. Images stay float32 in [0, 1]
here; the levels are whole numbers in between. The gradient of rounding is taken as 1, so that the
gradient of an operation is that of its rule before rounding, and not zero.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Pillow cuts decimals off. A value that should be whole may lie a rounding error below; a
# thousandth of a level keeps it, the same with and without jit.
_SLACK = 1e-3


@jax.custom_jvp
def _floor(values: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.floor(values)


_floor.defjvps(lambda tangent, _, values: tangent)


def to_levels(image: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rounds an image to 8 bits.

    Args:
        image: float32 in [0, 1].

    Returns:
        Whole numbers 0 to 255 as float32.
    """
    return _floor(image * 255.0 + 0.5)


def from_levels(levels: Float[Array, "..."]) -> Float[Array, "..."]:
    """Turns levels into an image.

    Args:
        levels: Whole numbers 0 to 255 as float32.

    Returns:
        float32 in [0, 1].
    """
    return levels / 255.0


def truncate(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Makes levels of any numbers, as Pillow does: clipped, and decimals cut off.

    Args:
        values: Any float32.

    Returns:
        Whole numbers 0 to 255 as float32.
    """
    return _floor(jnp.clip(values, 0.0, 255.0) + _SLACK)
