"""Geometric operations of AutoAugment, as Pillow computes them: grey behind, no antialias.

Translation, rotation and scale take the nearest pixel, shear interpolates by a cubic. So does the
code that AutoAugment's policies were published with, and it decides which pixel is seen.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from invariance_jax.transforms.levels import from_levels, to_levels, truncate

Image = Float[Array, "height width channels"]
Scalar = Float[Array, ""]

# What shows where nothing of the image is left.
GREY = 128 / 255
BLACK = 0.0

# The factors of `rescale` (paper, section 4).
RESCALE_FACTORS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 1.625, 2.25, 2.875, 3.5)

# In pixels. A sheared point may lie on the image's very edge; this much decides it, the same with
# and without jit, where rounding errors would.
_EDGE = 1e-4

# Pillow turns images in fixed point with so many steps a pixel.
_STEPS = 65536


def _take(image: Image, row: Int[Array, "..."], column: Int[Array, "..."], fill: float) -> Image:
    """The pixels at (row, column), which broadcast; `fill` outside the image."""
    height, width, channels = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    flat = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    pixels = image.reshape(height * width, channels)[flat]
    return jnp.where(inside[..., None], pixels, fill)


def _indices(height: int, width: int) -> tuple[Int[Array, "height 1"], Int[Array, "1 width"]]:
    return jnp.arange(height)[:, None], jnp.arange(width)[None, :]


def shear_x(image: Image, magnitude: Scalar) -> Image:
    """Moves each row sideways in proportion to its place, cubic interpolation, grey fill.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Columns to the left a row further down.

    Returns:
        The sheared image, same shape and dtype; at 0 the image as it is, unrounded.
    """
    height, width, _ = image.shape
    rows, columns = _indices(height, width)
    source = columns + magnitude * (rows + 0.5)
    first = jnp.floor(source)
    t = (source - first)[..., None]
    levels = to_levels(image)
    # Cubic convolution with a = -1, not the -1/2 of Pillow's resize. Beyond the edge the last
    # pixel is repeated.
    weights = (
        -t + 2 * t**2 - t**3,
        1 - 2 * t**2 + t**3,
        t + t**2 - t**3,
        -(t**2) + t**3,
    )
    mixed = jnp.zeros_like(levels)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = jnp.clip(first.astype(jnp.int32) + offset, 0, width - 1)
        mixed += weight * jnp.take_along_axis(levels, index[..., None], axis=1)
    inside = (source + 0.5 + _EDGE >= 0) & (source + 0.5 + _EDGE < width)
    sheared = jnp.where(inside[..., None], from_levels(truncate(mixed)), GREY)
    return jnp.where(magnitude == 0, image, sheared)


def shear_y(image: Image, magnitude: Scalar) -> Image:
    """Moves each column up and down in proportion to its place, cubic interpolation, grey fill.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Rows upwards a column further right.

    Returns:
        The sheared image, same shape and dtype; at 0 the image as it is, unrounded.
    """
    return shear_x(image.swapaxes(0, 1), magnitude).swapaxes(0, 1)


def translate_x(image: Image, magnitude: Scalar) -> Image:
    """Moves the image to the left by whole pixels, grey fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance as a fraction of the width.

    Returns:
        The moved image, same shape and dtype.
    """
    height, width, _ = image.shape
    rows, columns = _indices(height, width)
    shift = jnp.floor(magnitude * width + 0.5).astype(jnp.int32)
    return _take(image, rows, columns + shift, GREY)


def translate_y(image: Image, magnitude: Scalar) -> Image:
    """Moves the image up by whole pixels, grey fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance as a fraction of the height.

    Returns:
        The moved image, same shape and dtype.
    """
    height, width, _ = image.shape
    rows, columns = _indices(height, width)
    shift = jnp.floor(magnitude * height + 0.5).astype(jnp.int32)
    return _take(image, rows + shift, columns, GREY)


def rotate(image: Image, magnitude: Scalar) -> Image:
    """Turns the image about its centre, nearest pixel, grey fill.

    Args:
        image: float32 [height, width, channels], no side above 16,384 pixels.
        magnitude: Angle in degrees, counterclockwise (Pillow's `rotate`).

    Returns:
        The turned image, same shape and dtype.
    """
    height, width, _ = image.shape
    angle = jnp.deg2rad(magnitude)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)

    def fixed(value: Scalar) -> Int[Array, ""]:
        return jnp.floor(value * _STEPS + 0.5).astype(jnp.int32)

    # Where the centre of the first pixel comes from.
    x = (1 - width) / 2 * cosine - (1 - height) / 2 * sine + width / 2
    y = (1 - width) / 2 * sine + (1 - height) / 2 * cosine + height / 2
    rows, columns = _indices(height, width)
    source_x = fixed(x) + columns * fixed(cosine) + rows * fixed(-sine)
    source_y = fixed(y) + columns * fixed(sine) + rows * fixed(cosine)
    return _take(image, source_y // _STEPS, source_x // _STEPS, GREY)


def rescale(image: Image, magnitude: Scalar) -> Image:
    """Zooms about the centre, nearest pixel, black fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Factor, not 0; its sign is ignored. Above 1 things look larger.

    Returns:
        The zoomed image, same shape and dtype.
    """
    height, width, _ = image.shape
    factor = jnp.abs(jnp.asarray(magnitude, jnp.float32))
    rows, columns = (_scaled_index(size, factor) for size in (height, width))
    return _take(image, rows[:, None], columns[None, :], BLACK)


def _scaled_index(size: int, factor: Scalar) -> Int[Array, "{size}"]:
    """The source pixel of each output pixel along one axis."""
    centred = jnp.arange(size, dtype=jnp.float32) + 0.5 - size / 2
    index = jnp.floor(centred / factor + size / 2).astype(jnp.int32)
    # Whole columns of these zooms fall on an edge between two pixels, where rounding errors of
    # Pillow's float64 choose. No float32 repeats them, so the paper's factors are tabulated.
    is_factor = jnp.asarray(RESCALE_FACTORS, jnp.float32) == factor
    tabulated = np.stack([_pillow_scaled_index(size, each) for each in RESCALE_FACTORS])
    return jnp.where(is_factor.any(), jnp.asarray(tabulated)[jnp.argmax(is_factor)], index)


def _pillow_scaled_index(size: int, factor: float) -> np.ndarray:
    """The same in float64, with Pillow's order of operations: one step added for each pixel."""
    step = 1.0 / factor
    first = step * (-size * 0.5) + size * 0.5 + step * 0.5
    return np.floor(np.cumsum([first] + [step] * (size - 1))).astype(np.int32)
