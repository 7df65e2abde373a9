"""AutoAugment's operations as Pillow computes them, in float32 on whole grey levels.

AutoAugment is defined by Pillow, which works on the levels 0 to 255. Images stay float32 in [0, 1]
here; the levels are whole numbers in between. The gradient of rounding is taken as 1, so that the
gradient of an operation is that of its rule before rounding, and not zero.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from invariance_jax.transforms import appearance
from invariance_jax.transforms.transform import Image, Scalar

# Pillow cuts decimals off. A value that should be whole may lie a rounding error below; a
# thousandth of a level keeps it, the same with and without jit.
_SLACK = 1e-3

# ITU-R 601 luma in Pillow's fixed point: parts of 65,536. Every product and sum of levels stays
# below 2^24, so that float32 is exact.
_LUMA = (19595.0, 38470.0, 7471.0)

# What shows where nothing of the image is left.
_GREY = 128 / 255
_BLACK = 0.0

# The factors of `rescale` (paper, section 4).
RESCALE_FACTORS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 1.625, 2.25, 2.875, 3.5)

# In pixels. A sheared point may lie on the image's very edge; this much decides it, the same with
# and without jit, where rounding errors would.
_EDGE = 1e-4

# Neighbours that a cubic weighs.
_TAPS = 4
# Columns that are moved together.
_BLOCK = 16

# Pillow turns images in fixed point with so many steps a pixel.
_STEPS = 65536


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


# Geometry. Translation, rotation and scale take the nearest pixel, shear interpolates by a cubic,
# without antialias. So does the code that AutoAugment's policies were published with, and it
# decides which pixel is seen.


def _take(image: Image, row: Int[Array, "..."], column: Int[Array, "..."], fill: float) -> Image:
    """The pixels at (row, column), which broadcast; `fill` outside the image."""
    height, width, channels = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    flat = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    pixels = image.reshape(height * width, channels)[flat]
    return jnp.where(inside[..., None], pixels, fill)


def _indices(image: Image) -> tuple[Int[Array, "height 1"], Int[Array, "1 width"]]:
    return jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])[None, :]


def _whole(value: Scalar) -> Int[Array, ""]:
    return jnp.floor(value + 0.5).astype(jnp.int32)


def shear_x(image: Image, magnitude: Scalar) -> Image:
    """Moves each row sideways in proportion to its place, cubic interpolation, grey fill.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Columns to the left a row further down.

    Returns:
        The sheared image, same shape and dtype; at 0 the image as it is, unrounded.
    """
    _, width, _ = image.shape
    rows, columns = _indices(image)
    shift = magnitude * (rows + 0.5)
    source = columns + shift
    first = jnp.floor(shift)
    # 1 where the sum was rounded up to a whole number: the cubic then shows that pixel alone.
    t = (source - (first + columns))[..., None]
    levels = to_levels(image)
    # Cubic convolution with a = -1, not the -1/2 of Pillow's resize. Beyond the edge the last
    # pixel is repeated.
    weights = (
        -t + 2 * t**2 - t**3,
        1 - 2 * t**2 + t**3,
        t + t**2 - t**3,
        -(t**2) + t**3,
    )
    moved = jax.lax.platform_dependent(
        levels, first.astype(jnp.int32)[:, 0] - 1, tpu=moved_by_products, default=moved_by_lookup
    )
    mixed = sum(weight * moved[:, place : place + width] for place, weight in enumerate(weights))
    inside = (source + 0.5 + _EDGE >= 0) & (source + 0.5 + _EDGE < width)
    sheared = jnp.where(inside[..., None], from_levels(truncate(mixed)), _GREY)
    return jnp.where(magnitude == 0, image, sheared)


def moved_by_lookup(
    levels: Image, shift: Int[Array, "height"]
) -> Float[Array, "height columns channels"]:
    """Rows from another column on, each from its own; the last pixel is repeated beyond the edge.

    Args:
        levels: Whole numbers 0 to 255.
        shift: The column of each row that comes first; it may lie outside.

    Returns:
        Rows that are `_TAPS - 1` longer.
    """
    width = levels.shape[1]
    index = shift[:, None] + jnp.arange(width + _TAPS - 1, dtype=jnp.int32)[None, :]
    return jnp.take_along_axis(levels, jnp.clip(index, 0, width - 1)[..., None], axis=1)


def moved_by_products(
    levels: Image, shift: Int[Array, "height"]
) -> Float[Array, "height columns channels"]:
    """`moved_by_lookup` without look-ups, which are slow on TPUs: by whole blocks, then within one.

    Both moves are products with matrices of zeros and ones. Levels are exact in bfloat16.
    """
    height, width, channels = levels.shape
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.DEFAULT)
    # Whole blocks that the result takes, and one to move within.
    blocks = -(-(width + _TAPS - 1) // _BLOCK) + 1
    # Further than the image is wide, all is the last pixel.
    shift = jnp.clip(shift, -(width + _TAPS), width)
    before = -(-(width + _TAPS) // _BLOCK) * _BLOCK
    after = -(-(width + before) // _BLOCK) * _BLOCK + blocks * _BLOCK - before - width
    padded = jnp.pad(levels, ((0, 0), (before, after), (0, 0)), mode="edge")
    padded = padded.reshape(height, -1, _BLOCK, channels)
    block, rest = jnp.divmod(shift + before, _BLOCK)
    whole = block[:, None] + jnp.arange(blocks)[None, :]
    whole = jax.nn.one_hot(whole, padded.shape[1], dtype=jnp.float32)
    moved = product("hbs,hskc->hbkc", whole, padded)
    pairs = jnp.concatenate([moved[:, :-1], moved[:, 1:]], axis=2)
    within = rest[:, None] + jnp.arange(_BLOCK)[None, :]
    within = jax.nn.one_hot(within, 2 * _BLOCK, dtype=jnp.float32)
    moved = product("hks,hbsc->hbkc", within, pairs)
    return moved.reshape(height, -1, channels)[:, : width + _TAPS - 1]


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
    return translate_y(image.swapaxes(0, 1), magnitude).swapaxes(0, 1)


def translate_y(image: Image, magnitude: Scalar) -> Image:
    """Moves the image up by whole pixels, grey fill.

    Args:
        image: float32 [height, width, channels].
        magnitude: Distance as a fraction of the height.

    Returns:
        The moved image, same shape and dtype.
    """
    height = image.shape[0]
    grey = ((height, height), (0, 0), (0, 0))
    first = height + jnp.clip(_whole(magnitude * height), -height, height)
    padded = jnp.pad(image, grey, constant_values=_GREY)
    return jax.lax.dynamic_slice_in_dim(padded, first, height)


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
        return _whole(value * _STEPS)

    # Where the centre of the first pixel comes from.
    x = (1 - width) / 2 * cosine - (1 - height) / 2 * sine + width / 2
    y = (1 - width) / 2 * sine + (1 - height) / 2 * cosine + height / 2
    rows, columns = _indices(image)
    source_x = fixed(x) + columns * fixed(cosine) + rows * fixed(-sine)
    source_y = fixed(y) + columns * fixed(sine) + rows * fixed(cosine)
    return _take(image, source_y // _STEPS, source_x // _STEPS, _GREY)


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
    return _take(image, rows[:, None], columns[None, :], _BLACK)


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


# Enhancements. Each blends the image with a dull version of itself: 0 keeps the image, -1 is the
# dull version, positive magnitudes go the other way.


def _grey(levels: Image) -> Float[Array, "height width 1"]:
    """Luma of each pixel, a whole level."""
    total = jnp.sum(levels * jnp.asarray(_LUMA, jnp.float32)[None, None, :], -1, keepdims=True)
    return truncate(total / 65536 + 0.5)


def _blend(image: Image, dull: Float[Array, "..."], magnitude: Scalar) -> Image:
    """The dull levels plus (1 + magnitude) times what the image has beyond them."""
    levels = to_levels(image)
    blended = dull + (1.0 + magnitude) * (levels - dull)
    return jnp.where(magnitude == 0, image, from_levels(truncate(blended)))


def color(image: Image, magnitude: Scalar) -> Image:
    """Changes the saturation.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is grey, 0 the image as it is, unrounded, 1 doubles
            each pixel's distance to its grey.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    return _blend(image, _grey(to_levels(image)), magnitude)


def contrast(image: Image, magnitude: Scalar) -> Image:
    """Changes the contrast about the mean grey level.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is flat grey, 0 the image as it is, unrounded.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    mean = truncate(jnp.mean(_grey(to_levels(image))) + 0.5)
    return _blend(image, mean, magnitude)


def brightness(image: Image, magnitude: Scalar) -> Image:
    """Changes the brightness.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is black, 0 the image as it is, unrounded.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    return _blend(image, jnp.float32(0), magnitude)


def sharpness(image: Image, magnitude: Scalar) -> Image:
    """Changes the sharpness against a 3x3 blur.

    Args:
        image: float32 [height, width, 3] in [0, 1], rounded to 8 bits first.
        magnitude: Change of the factor: -1 is blurred, 0 the image as it is, unrounded. The
            frame of one pixel never changes: Pillow does not blur it.

    Returns:
        The image in [0, 1], same shape and dtype.
    """
    levels = to_levels(image)
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    # Pillow's SMOOTH: the centre counts 5, its eight neighbours 1.
    smooth = truncate((box + 4 * levels[1:-1, 1:-1]) / 13 + 0.5)
    return _blend(image, levels.at[1:-1, 1:-1].set(smooth), magnitude)


# Rules for each level, as `ImageOps` has them.


def posterize(image: Image, magnitude: Scalar) -> Image:
    """Keeps the highest bits of each 8-bit value.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Number of bits kept, rounded to a whole number; its sign is ignored. 8 keeps
            the image as it is, unrounded.

    Returns:
        The posterized image, same shape and dtype. Its gradient is zero below 8 bits.
    """
    return appearance.posterize(image, jnp.round(jnp.abs(magnitude)))


def solarize(image: Image, magnitude: Scalar) -> Image:
    """Inverts the bright pixels.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Threshold as a level, 0 to 256; its sign is ignored. Levels not below it are
            inverted: 256 keeps the image as it is, unrounded.

    Returns:
        The solarized image, same shape and dtype.
    """
    threshold = jnp.abs(magnitude)
    levels = to_levels(image)
    solarized = jnp.where(levels < threshold, levels, 255.0 - levels)
    return jnp.where(threshold >= 256, image, from_levels(solarized))


def invert(image: Image, magnitude: Scalar) -> Image:
    """Inverts every pixel.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Ignored.

    Returns:
        The negative, same shape and dtype.
    """
    del magnitude
    return from_levels(255.0 - to_levels(image))


def autocontrast(image: Image, magnitude: Scalar) -> Image:
    """Stretches each channel to the whole range, from its darkest to its brightest pixel.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Ignored.

    Returns:
        The stretched image, same shape and dtype. A channel of one level stays as it is.
    """
    del magnitude
    levels = to_levels(image)
    darkest = jnp.min(levels, axis=(0, 1), keepdims=True)
    extent = jnp.max(levels, axis=(0, 1), keepdims=True) - darkest
    # The inner `where` keeps the gradient finite.
    stretched = truncate((levels - darkest) * 255.0 / jnp.where(extent > 0, extent, 1.0))
    return from_levels(jnp.where(extent > 0, stretched, levels))


def equalize(image: Image, magnitude: Scalar) -> Image:
    """Gives each channel a histogram as flat as a rule for each level can make it.

    Args:
        image: float32 [height, width, channels] in [0, 1], rounded to 8 bits first.
        magnitude: Ignored.

    Returns:
        The equalized image, same shape and dtype; its gradient is zero. A channel stays as it is
        when fewer than 255 of its pixels are darker than its brightest level.
    """
    del magnitude
    channels = to_levels(image).astype(jnp.int32)
    equalized = jax.lax.platform_dependent(
        channels, tpu=equalized_by_products, default=equalized_by_lookup
    )
    return from_levels(equalized.astype(jnp.float32))


@functools.partial(jax.vmap, in_axes=-1, out_axes=-1)
def equalized_by_lookup(levels: Array) -> Array:
    """Equalizes each channel.

    Args:
        levels: 0 to 255, int32 [height, width, channels].

    Returns:
        Levels, same shape and dtype.
    """
    histogram = jnp.bincount(levels.ravel(), length=256)
    return _spread(levels, histogram, lambda table: table[levels])


@functools.partial(jax.vmap, in_axes=-1, out_axes=-1)
def equalized_by_products(levels: Array) -> Array:
    """`equalized_by_lookup` without look-ups, which are slow on TPUs.

    A level is two digits of base 16, and a table of 256 levels a matrix, which vectors with a
    single 1 add to and read. All numbers are exact in bfloat16.
    """
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.DEFAULT)
    high, low = (jax.nn.one_hot(digit, 16) for digit in jnp.divmod(levels, 16))
    histogram = product("hwa,hwb->ab", high, low).astype(jnp.int32).ravel()

    def read(table: Int[Array, "256"]) -> Array:
        rows = product("hwa,ab->hwb", high, table.reshape(16, 16).astype(jnp.float32))
        return jnp.sum(rows * low, axis=-1).astype(jnp.int32)

    return _spread(levels, histogram, read)


def _spread(levels: Array, histogram: Int[Array, "256"], read: Callable[[Array], Array]) -> Array:
    """Pillow's rule for one channel; `read` gives the entry of a table for each of its levels."""
    brightest = jnp.max(jnp.where(histogram > 0, jnp.arange(256), 0))
    step = (levels.size - jnp.sum(jnp.where(jnp.arange(256) == brightest, histogram, 0))) // 255
    darker = jnp.cumsum(histogram) - histogram
    table = jnp.clip((step // 2 + darker) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, read(table), levels)
