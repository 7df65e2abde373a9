"""The antialiased filter as a band: of a whole canvas, an output pixel sees only a few pixels.

A box is never larger than its canvas, so `2 max(canvas / output, 1)` pixels bound what a triangle
filter reaches. On a CPU, which has no matrix units, weighing only these is several times faster
than products with matrices that are nearly all zeros; `benchmarks/` measures both.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float, Int, Num

from invariance_jax.transforms.resample import output_centres

Taps = tuple[Int[Array, "out taps"], Float[Array, "out taps"]]

# Beyond this share of the canvas the products are as fast and far shorter programs.
_LARGEST_SHARE = 1 / 8


def tap_count(size: int, out_size: int) -> int:
    """How many neighbouring source pixels can weigh anything for one output pixel.

    Args:
        size: Number of source pixels of the canvas; a box's side is at most this.
        out_size: Number of output pixels.

    Returns:
        An odd number: the source pixel nearest to the output pixel's centre and as many on each
        side. The nearest is at most 1/2 away and the filter reaches less than max(scale, 1).
    """
    return 2 * int(max(size / out_size, 1.0) + 0.5) + 1


def is_worthwhile(size: int, out_size: int) -> bool:
    """Whether the band is narrow enough to pay.

    Args:
        size: Number of source pixels of the canvas.
        out_size: Number of output pixels.

    Returns:
        Whether the taps are a small share of the canvas.
    """
    return tap_count(size, out_size) <= _LARGEST_SHARE * size


def tap_pixels(
    start: Float[Array, ""], length: Float[Array, ""], *, out_size: int, size: int
) -> Int[Array, "{out_size} taps"]:
    """The source pixels around each output pixel's centre.

    Args:
        start: First edge of the box in source pixels.
        length: Side of the box in source pixels, at most `size`.
        out_size: Number of output pixels.
        size: Number of source pixels of the canvas.

    Returns:
        Consecutive pixels, some of them perhaps outside the canvas.
    """
    reach = tap_count(size, out_size) // 2
    nearest = jnp.round(output_centres(start, length, out_size) - 0.5).astype(jnp.int32)
    return nearest[:, None] + jnp.arange(-reach, reach + 1, dtype=jnp.int32)[None, :]


def apply_taps(
    image: Num[Array, "height width channels"], rows: Taps, columns: Taps
) -> Float[Array, "out_height out_width channels"]:
    """Resamples an image along both axes.

    Args:
        image: Any image; it is weighed in float32.
        rows: Source rows (each within the image) and their weights, for each output row.
        columns: Source columns and their weights, for each output column.

    Returns:
        The resampled image, float32.
    """
    height, width, channels = image.shape
    # Rows first: they are contiguous, and fewer are left for the columns. XLA would fuse all of
    # this into the last sum and so compute each row, index and weight anew for every tap that
    # uses it; it does not look into a function that must not be inlined.
    with set_xla_metadata(inlineable="false"):
        pixels, weights = _of_each_channel(*columns, channels=channels)
        image = _weigh_rows(image.reshape(height, width * channels), *rows)
    out = sum(
        weight[None, :] * image.at[:, index].get(mode="promise_in_bounds")
        for index, weight in zip(pixels, weights, strict=True)
    )
    return out.reshape(out.shape[0], -1, channels)


@functools.partial(jax.jit, static_argnames="channels")
def _of_each_channel(
    pixels: Int[Array, "out taps"], weights: Float[Array, "out taps"], *, channels: int
) -> tuple[Int[Array, "taps out_channels"], Float[Array, "taps out_channels"]]:
    """Taps of pixels as taps of the numbers in a row of pixels, the tap's number first."""
    pixels = pixels.T[:, :, None] * channels
    pixels = pixels + jnp.arange(channels, dtype=jnp.int32)[None, None, :]
    return pixels.reshape(pixels.shape[0], -1), jnp.repeat(weights.T, channels, axis=1)


@jax.jit
def _weigh_rows(
    image: Num[Array, "height columns"],
    pixels: Int[Array, "out taps"],
    weights: Float[Array, "out taps"],
) -> Float[Array, "out columns"]:
    """Sums of weighted rows."""
    return sum(
        weight[:, None] * image.at[index].get(mode="promise_in_bounds").astype(jnp.float32)
        for index, weight in zip(pixels.T, weights.T, strict=True)
    )
