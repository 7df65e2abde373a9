"""What every network expects of the images it is given."""

import jax.numpy as jnp
from jaxtyping import Array

from invariance_jax.errors import UserError


def check_images(images: Array) -> None:
    """Refuses what cannot be a batch of normalised images.

    Args:
        images: What was given to the network.

    Raises:
        UserError: Not [N, H, W, 3], or not floating point (which normalised images are).
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise UserError(f"images have shape {images.shape}; expected [N, H, W, 3], none of them 0")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; expected normalised float32")
