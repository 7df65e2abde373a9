"""Resizes a box of a canvas with Pillow's antialiased filters, in one of two forms.

Matrix units get two dense products. But of a whole canvas, an output pixel sees only a few pixels:
a box is never larger than its canvas, so `2 max(canvas / output, 1)` pixels bound what a triangle
filter reaches, and twice as many what a cubic one does. On a CPU weighing only this band is several
times faster than products with matrices that are nearly all zeros; `benchmarks/` measures both.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Bool, Float, Int, UInt8

from invariance_jax.transforms import resample

Scalar = Float[Array, ""]
Canvas = UInt8[Array, "height width channels"]
Taps = tuple[Int[Array, "out taps"], Float[Array, "out taps"]]
Interpolation = Literal["bilinear", "bicubic"]

# How far the filters reach, in pixels of the larger of source and output.
_SUPPORT = {"bilinear": 1, "bicubic": 2}
_CUBIC = -0.5  # Pillow's; torch has -0.75

# Beyond this share of the canvas the products are as fast and far shorter programs.
_LARGEST_SHARE = 1 / 8


class Axis(NamedTuple):
    """What one axis of the output shows of the source.

    Output pixel o covers the source around c = start + (o + 1/2) length / size; source pixel
    i weighs f(|i + 1/2 - c| / max(length / size, 1)), where f(x) is max(0, 1 - x) or a cubic.

    Attributes:
        start: First edge of the box in source pixels; pixel i spans [i, i + 1].
        length: Side of the box in source pixels, positive and at most the canvas's.
        cut: Pixels whose centre lies outside [low, high] do not count, and the rest is normalised
            to sum 1: the box's edges for crop-then-resize, the image's for resize-then-crop. Pixels
            inside count even off the canvas, where they are black: then the weights on the canvas
            sum to less.
        visible: An output pixel whose centre c lies outside [low, high] is black. This is not
            normalised away: it is zero fill.
        flip: Whether the output is mirrored along this axis.
        antialias: Whether the filter widens where the output has fewer pixels than the box. Without
            it i weighs f(|i + 1/2 - c|): torch's `interpolate`.
    """

    start: Scalar
    length: Scalar
    cut: tuple[Scalar, Scalar]
    visible: tuple[Scalar, Scalar]
    flip: Bool[Array, ""]
    antialias: Bool[Array, ""] | bool = True

    def dense(
        self, size: int, canvas_size: int, interpolation: Interpolation = "bilinear"
    ) -> Float[Array, "{size} {canvas_size}"]:
        """Weights of every source pixel for each output pixel.

        Args:
            size: Number of output pixels.
            canvas_size: Number of source pixels.
            interpolation: The filter.

        Returns:
            The weights, float32.
        """
        pixels = jnp.arange(canvas_size, dtype=jnp.int32)[None, :]
        weights = self._weights(pixels, size, canvas_size, interpolation)
        return jnp.where(self.flip, weights[::-1], weights)

    def taps(self, size: int, canvas_size: int, interpolation: Interpolation = "bilinear") -> Taps:
        """The source pixels that an output pixel can see, and their weights.

        Args:
            size: Number of output pixels.
            canvas_size: Number of source pixels.
            interpolation: The filter.

        Returns:
            Source pixels, all on the canvas, and weights, each [size, tap_count]; a pixel that only
            stands in for one outside the canvas weighs 0.
        """
        pixels = self._near(size, canvas_size, interpolation)
        weights = self._weights(pixels, size, canvas_size, interpolation)
        pixels = jnp.clip(pixels, 0, canvas_size - 1)
        return tuple(jnp.where(self.flip, x[::-1], x) for x in (pixels, weights))

    def _centres(self, size: int) -> Float[Array, "{size}"]:
        """Where the centres of the output pixels lie, in source pixels."""
        steps = jnp.arange(size, dtype=jnp.float32) + 0.5
        return self.start + steps * (self.length / size)

    def _near(
        self, size: int, canvas_size: int, interpolation: Interpolation
    ) -> Int[Array, "{size} taps"]:
        """All whole numbers that a filter reaches from each output pixel, on the canvas or not."""
        reach = tap_count(canvas_size, size, interpolation) // 2
        nearest = jnp.round(self._centres(size) - 0.5).astype(jnp.int32)
        return nearest[:, None] + jnp.arange(-reach, reach + 1, dtype=jnp.int32)[None, :]

    def _weights(
        self,
        pixels: Int[Array, "#{size} taps"],
        size: int,
        canvas_size: int,
        interpolation: Interpolation,
    ) -> Float[Array, "{size} taps"]:
        """Weights of given source pixels, one row of them for each output pixel or for all."""
        reach = jnp.where(self.antialias, jnp.maximum(self.length / size, 1.0), 1.0)
        centres = self._centres(size)

        def filtered(pixels: Int[Array, "_ taps"]) -> Float[Array, "out taps"]:
            positions = pixels.astype(jnp.float32) + 0.5
            counts = (positions >= self.cut[0]) & (positions <= self.cut[1])
            distance = jnp.abs(positions - centres[:, None]) / reach
            return (_triangle if interpolation == "bilinear" else _cubic)(distance) * counts

        weights = filtered(pixels) * ((pixels >= 0) & (pixels < canvas_size))
        if interpolation == "bilinear":
            total = _triangle_sum(centres, reach, self.cut)
        else:
            total = jnp.sum(filtered(self._near(size, canvas_size, interpolation)), axis=1)
        # A row with no source pixel at all is black; the inner `where` keeps its gradient finite.
        shown = (total > 0) & (centres >= self.visible[0]) & (centres <= self.visible[1])
        divisor = jnp.where(shown, total, 1.0)
        return jnp.where(shown[:, None], weights / divisor[:, None], 0.0)


def _triangle(distance: Float[Array, "out taps"]) -> Float[Array, "out taps"]:
    return jnp.maximum(0.0, 1.0 - distance)


def _cubic(x: Float[Array, "out taps"]) -> Float[Array, "out taps"]:
    """Keys, "Cubic convolution interpolation for digital image processing" (1981)."""
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def _triangle_sum(
    centres: Float[Array, "out"], reach: Scalar, cut: tuple[Scalar, Scalar]
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


def tap_count(canvas_size: int, size: int, interpolation: Interpolation = "bilinear") -> int:
    """How many neighbouring source pixels can weigh anything for one output pixel.

    Args:
        canvas_size: Number of source pixels of the canvas; a box's side is at most this.
        size: Number of output pixels.
        interpolation: The filter.

    Returns:
        An odd number: the source pixel nearest to the output pixel's centre and as many on each
        side. The nearest is at most 1/2 away and a triangle reaches less than max(scale, 1).
    """
    return 2 * int(_SUPPORT[interpolation] * max(canvas_size / size, 1.0) + 0.5) + 1


def is_band_narrow(canvas_size: int, size: int, interpolation: Interpolation = "bilinear") -> bool:
    """Whether the taps are so small a share of the canvas that the band pays on a CPU.

    Args:
        canvas_size: Number of source pixels of the canvas.
        size: Number of output pixels.
        interpolation: The filter.

    Returns:
        Whether they are.
    """
    return tap_count(canvas_size, size, interpolation) <= _LARGEST_SHARE * canvas_size


def resize_box(
    canvas: Canvas,
    rows: Axis,
    columns: Axis,
    *,
    size: int,
    interpolation: Interpolation = "bilinear",
    exact: bool = True,
) -> Float[Array, "{size} {size} channels"]:
    """Resizes a box of a canvas.

    One program serves every platform: which form it takes is decided when it is lowered.

    Args:
        canvas: Pixels, 0 to 255.
        rows: What the output's rows show.
        columns: What the output's columns show.
        size: Side of the output.
        interpolation: The filter.
        exact: Whether a TPU computes in the whole of float32, too; see `resize_box_fast`.

    Returns:
        The image, float32 in [0, 1].
    """
    options = {"size": size, "interpolation": interpolation}
    forms = {}
    if all(is_band_narrow(side, size, interpolation) for side in canvas.shape[:2]):
        forms["cpu"] = functools.partial(resize_box_banded, **options)
    if not exact:
        forms["tpu"] = functools.partial(resize_box_fast, **options)
    dense = functools.partial(resize_box_dense, **options)
    return jax.lax.platform_dependent(canvas, rows, columns, **forms, default=dense)


def resize_box_dense(
    canvas: Canvas,
    rows: Axis,
    columns: Axis,
    *,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "{size} {size} channels"]:
    """`resize_box` as two dense products, whatever the platform; the same arguments and result."""
    return resize_boxes(canvas, (rows,), (columns,), sizes=(size,), interpolation=interpolation)


def resize_box_fast(
    canvas: Canvas,
    rows: Axis,
    columns: Axis,
    *,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "{size} {size} channels"]:
    """`resize_box` in three bfloat16 products where a TPU takes six; the same arguments.

    Pixels are whole numbers below 256, exact in bfloat16, and weights keep 16 bits: so the image is
    within a hundredth of a grey level. Columns first makes better tiles.
    """
    height, width, _ = canvas.shape
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGH)
    weights = rows.dense(size, height, interpolation), columns.dense(size, width, interpolation)
    image = product("pw,hwc->hpc", weights[1], canvas.astype(jnp.float32))
    return _in_range(product("oh,hpc->opc", weights[0] / 255.0, image), interpolation)


def resize_boxes(
    canvas: Canvas,
    rows: Sequence[Axis],
    columns: Sequence[Axis],
    *,
    sizes: Sequence[int],
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "size size channels"]:
    """Resizes a box of a canvas, then a box of that, and so on, in one go.

    Resamplings in sequence are one with the product of their matrices; only the rounding to whole
    grey levels between them is lost. The product is wider than one filter's band, hence dense.

    Args:
        canvas: Pixels, 0 to 255.
        rows: What the rows of each image show of the one before.
        columns: What its columns show.
        sizes: The images' sides.
        interpolation: The filter.

    Returns:
        The last image, float32 in [0, 1].
    """
    weights = (
        _product(axes, (side, *sizes), interpolation)
        for axes, side in zip((rows, columns), canvas.shape[:2], strict=True)
    )
    image = resample.apply_weights(canvas.astype(jnp.float32) / 255.0, *weights)
    return _in_range(image, interpolation)


def _in_range(
    image: Float[Array, "height width channels"], interpolation: Interpolation
) -> Float[Array, "height width channels"]:
    """Cuts what a filter with negative weights puts beyond black and white, as Pillow does."""
    return image if interpolation == "bilinear" else jnp.clip(image, 0.0, 1.0)


def _product(
    axes: Sequence[Axis], sizes: Sequence[int], interpolation: Interpolation
) -> Float[Array, "out in"]:
    """Weights of resamplings in sequence along one axis, whose sides are `sizes`."""
    matrices = [
        axis.dense(after, before, interpolation)
        for axis, (before, after) in zip(axes, itertools.pairwise(sizes), strict=True)
    ]
    return functools.reduce(
        lambda product, each: jnp.matmul(each, product, precision=resample.PRECISION), matrices
    )


def resize_box_banded(
    canvas: Canvas,
    rows: Axis,
    columns: Axis,
    *,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "{size} {size} channels"]:
    """`resize_box` by the taps, whatever the platform; the same arguments and result."""
    height, width, channels = canvas.shape
    row_pixels, row_weights = rows.taps(size, height, interpolation)
    taps = columns.taps(size, width, interpolation)
    row_weights = row_weights / 255.0
    # Rows first: they are contiguous, and fewer are left for the columns. XLA would fuse all of
    # this into the last sum and so compute each row, index and weight anew for every tap that
    # uses it; it does not look into a function that must not be inlined.
    with set_xla_metadata(inlineable="false"):
        pixels, weights = _of_each_channel(*taps, channels=channels)
        image = _weigh_rows(canvas.reshape(height, width * channels), row_pixels, row_weights)
    out = sum(
        weight[None, :] * image.at[:, index].get(mode="promise_in_bounds")
        for index, weight in zip(pixels, weights, strict=True)
    )
    return _in_range(out.reshape(out.shape[0], -1, channels), interpolation)


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
    image: UInt8[Array, "height columns"],
    pixels: Int[Array, "out taps"],
    weights: Float[Array, "out taps"],
) -> Float[Array, "out columns"]:
    """Sums of weighted rows."""
    return sum(
        weight[:, None] * image.at[index].get(mode="promise_in_bounds").astype(jnp.float32)
        for index, weight in zip(pixels.T, weights.T, strict=True)
    )
