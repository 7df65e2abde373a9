"""Plain bilinear interpolation: two small matrices where axes stay axes, gathers where they turn.

Matrices suit TPUs, where a gather is slow and a small matrix product is not; the gather's
indices depend on the magnitude only, so one set serves a whole batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Grey levels need the whole of float32: bfloat16 or TF32 products cost up to one level.
PRECISION = jax.lax.Precision.HIGHEST

_Grid = Float[Array, "out_height out_width"]


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
    image: Float[Array, "height width channels"], y: _Grid, x: _Grid
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

    def tap(row: _Grid, column: _Grid, weight: _Grid) -> Float[Array, "..."]:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        flat = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        return pixels[flat.astype(jnp.int32)] * jnp.where(inside, weight, 0.0)[..., None]

    return (
        tap(top, left, (1 - down) * (1 - right))
        + tap(top, left + 1, (1 - down) * right)
        + tap(top + 1, left, down * (1 - right))
        + tap(top + 1, left + 1, down * right)
    )
