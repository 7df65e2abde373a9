"""Translation as a camera makes it: what moves into view was there all the time."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from invariance_jax.augment.augmentation import Augmentation
from invariance_jax.augment.boxes import Scalar, Size


def translate_in_context(
    preprocess: Augmentation,
    canvas: UInt8[Array, "canvas_height canvas_width 3"],
    height: Size,
    width: Size,
    *,
    down: Scalar,
    right: Scalar,
) -> Float[Array, "{preprocess.size} {preprocess.size} 3"]:
    """Moves the content of the centre crop by moving the crop over the whole image.

    What comes into view are the pixels that the centre crop had left out: a margin of
    (resized side - crop) / 2 on each side, which at the paper's sizes is 16 pixels along the
    shorter side and more along the longer. Only beyond the image's own border there is nothing
    left to show, and it is black. So an image whose margin is m shows no black up to a shift of m;
    at a shift of one whole side, m pixels of real content are still in view where zero fill shows
    black alone. (Shifman and Weiss, arXiv 2404.07153, call this the realistic translation.)

    Args:
        preprocess: `augment.get("none", ...)`.
        canvas: uint8 pixels with the image in the upper left corner of zeros.
        height: Height of the image within the canvas.
        width: Width of the image within the canvas.
        down: How far down the content moves, in pixels of the output; fractions are interpolated.
        right: How far to the right, likewise.

    Returns:
        The image, float32 in [0, 1], not normalised; at (0, 0) exactly what `preprocess` gives.
    """
    windows = preprocess.boxes.moved_by(height, width, down=down, right=right)
    return preprocess.render(canvas, windows, jnp.bool_(False))
