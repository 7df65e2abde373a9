"""Bilinear resampling: two small matrices where axes stay axes, shared gathers where they turn.

Matrices suit TPUs, where a gather is slow and a small matrix product is not; the gather's
indices depend on the magnitude only, so one set serves a whole batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Grey levels need the whole of float32: bfloat16 or TF32 products cost up to one level.
PRECISION = jax.lax.Precision.HIGHEST


def interpolation_weights(
    coordinates: Float[Array, "out"], size: int
) -> Float[Array, "out {size}"]:
    """Weights of plain bilinear interpolation along one axis, zero outside the image.

    Args:
        coordinates: Where to sample, in source pixels; pixel i has its centre at i.
        size: Number of source pixels.

    Returns:
        One row for each coordinate. A row sums to 1 between the first and the last pixel
        centre and falls to 0 within one pixel outside them, as `grid_sample` with zero padding.
    """
    pixels = jnp.arange(size, dtype=jnp.float32)
    return jnp.maximum(0.0, 1.0 - jnp.abs(coordinates[:, None] - pixels[None, :]))


def periodic_weights(coordinates: Float[Array, "out"], size: int) -> Float[Array, "out {size}"]:
    """Weights of plain bilinear interpolation along one axis that is a circle.

    Args:
        coordinates: Where to sample, in source pixels; pixel i has its centre at i, and at every
            i + k * size.
        size: Number of source pixels, at least 2.

    Returns:
        One row for each coordinate, of sum 1. Whole coordinates pick single pixels exactly.
    """
    pixels = jnp.arange(size, dtype=jnp.float32)
    ahead = (coordinates[:, None] - pixels[None, :]) % size
    return jnp.maximum(0.0, 1.0 - jnp.minimum(ahead, size - ahead))


def antialiased_weights(
    start: Float[Array, ""],
    length: Float[Array, ""],
    *,
    out_size: int,
    size: int,
    cut: tuple[Float[Array, ""], Float[Array, ""]],
    visible: tuple[Float[Array, ""], Float[Array, ""]],
) -> Float[Array, "{out_size} {size}"]:
    """Weights of Pillow's antialiased bilinear resize along one axis of a box.

    Output pixel o covers the source around c = start + (o + 1/2) length / out_size; source pixel
    i weighs max(0, 1 - |i + 1/2 - c| / max(length / out_size, 1)).

    Args:
        start: First edge of the box in source pixels; pixel i spans [i, i + 1].
        length: Side of the box in source pixels, positive.
        out_size: Number of output pixels.
        size: Number of source pixels of the canvas.
        cut: Pixels whose centre lies outside [low, high] do not count, and the rest is normalised
            to sum 1: the box's edges for crop-then-resize, the image's for resize-then-crop. Pixels
            inside count even off the canvas, where they are black: then the weights on the canvas
            sum to less.
        visible: An output pixel whose centre c lies outside [low, high] is black. This is not
            normalised away: it is zero fill.

    Returns:
        The weights, float32.
    """
    pixels = jnp.arange(size, dtype=jnp.int32)[None, :]
    return antialiased_weights_at(
        pixels, start, length, out_size=out_size, size=size, cut=cut, visible=visible
    )


def antialiased_weights_at(
    pixels: Int[Array, "#{out_size} taps"],
    start: Float[Array, ""],
    length: Float[Array, ""],
    *,
    out_size: int,
    size: int,
    cut: tuple[Float[Array, ""], Float[Array, ""]],
    visible: tuple[Float[Array, ""], Float[Array, ""]],
) -> Float[Array, "{out_size} taps"]:
    """`antialiased_weights` at given source pixels only: the one place of the formula.

    Args:
        pixels: Which source pixels each output pixel looks at; one row serves all. Any that lie
            outside the canvas weigh 0.
        start: As in `antialiased_weights`.
        length: As in `antialiased_weights`.
        out_size: As in `antialiased_weights`.
        size: As in `antialiased_weights`.
        cut: As in `antialiased_weights`.
        visible: As in `antialiased_weights`.

    Returns:
        The weights, float32.
    """
    reach = jnp.maximum(length / out_size, 1.0)
    centres = output_centres(start, length, out_size)
    positions = pixels.astype(jnp.float32) + 0.5
    distance = jnp.abs(positions - centres[:, None]) / reach
    counts = (positions >= cut[0]) & (positions <= cut[1]) & (pixels >= 0) & (pixels < size)
    weights = jnp.maximum(0.0, 1.0 - distance) * counts
    total = _triangle_sum(centres, reach, cut)
    # A row with no source pixel at all is black; the inner `where` keeps its gradient finite.
    shown = (total > 0) & (centres >= visible[0]) & (centres <= visible[1])
    divisor = jnp.where(shown, total, 1.0)
    return jnp.where(shown[:, None], weights / divisor[:, None], 0.0)


def _triangle_sum(
    centres: Float[Array, "out"],
    reach: Float[Array, ""],
    cut: tuple[Float[Array, ""], Float[Array, ""]],
) -> Float[Array, "out"]:
    """Sum of max(0, 1 - |i + 1/2 - c| / reach) over all whole i with i + 1/2 in the cut."""
    first, last = jnp.ceil(cut[0] - 0.5), jnp.floor(cut[1] - 0.5)
    middle = jnp.floor(centres - 0.5)

    def one_side(low: Float[Array, "out"], high: Float[Array, "out"]) -> Float[Array, "out"]:
        # On one side of the centre the terms are an arithmetic series.
        count = jnp.maximum(high - low + 1.0, 0.0)
        ends = jnp.abs(low + 0.5 - centres) + jnp.abs(high + 0.5 - centres)
        return count * (1.0 - 0.5 * ends / reach)

    left = one_side(jnp.maximum(first, jnp.ceil(centres - reach - 0.5)), jnp.minimum(last, middle))
    right = one_side(
        jnp.maximum(first, middle + 1.0), jnp.minimum(last, jnp.floor(centres + reach - 0.5))
    )
    return left + right


def output_centres(
    start: Float[Array, ""], length: Float[Array, ""], out_size: int
) -> Float[Array, "{out_size}"]:
    """Where the centres of the output pixels of a resized box lie, in source pixels.

    Args:
        start: First edge of the box in source pixels; pixel i spans [i, i + 1].
        length: Side of the box in source pixels.
        out_size: Number of output pixels.

    Returns:
        The centres, float32.
    """
    return start + (jnp.arange(out_size, dtype=jnp.float32) + 0.5) * (length / out_size)


def apply_weights(
    image: Float[Array, "height width channels"],
    rows: Float[Array, "out_height height"],
    columns: Float[Array, "out_width width"],
) -> Float[Array, "out_height out_width channels"]:
    """Resamples an image along both axes.

    Args:
        image: Any float image.
        rows: Weights of source rows for each output row.
        columns: Weights of source columns for each output column.

    Returns:
        `rows @ image @ columns.T` for each channel.
    """
    image = jnp.einsum("oh,hwc->owc", rows, image, precision=PRECISION)
    return jnp.einsum("pw,owc->opc", columns, image, precision=PRECISION)


def sample_bilinear(
    image: Float[Array, "height width channels"],
    y: Float[Array, "out_height out_width"],
    x: Float[Array, "out_height out_width"],
) -> Float[Array, "out_height out_width channels"]:
    """Samples an image at any points, bilinearly, zero outside, as torch's `grid_sample`.

    Args:
        image: Any float image.
        y: Rows to sample at, in source pixels; pixel i has its centre at i.
        x: Columns to sample at.

    Returns:
        The sampled image.
    """
    height, width, channels = image.shape
    pixels = image.reshape(height * width, channels)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = y - top, x - left

    def tap(
        row: Float[Array, "out_height out_width"],
        column: Float[Array, "out_height out_width"],
        weight: Float[Array, "out_height out_width"],
    ) -> Float[Array, "out_height out_width channels"]:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        flat: Int[Array, "out_height out_width"] = (
            jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        ).astype(jnp.int32)
        return pixels[flat] * jnp.where(inside, weight, 0.0)[..., None]

    return (
        tap(top, left, (1 - down) * (1 - right))
        + tap(top, left + 1, (1 - down) * right)
        + tap(top + 1, left, down * (1 - right))
        + tap(top + 1, left + 1, down * right)
    )
