"""Resizes a box of a canvas: the same filter as products on matrix units, as few taps on a CPU."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from invariance_jax.transforms import banded, resample

Scalar = Float[Array, ""]


class Axis(NamedTuple):
    """What one axis of the output shows of the source; `resample.antialiased_weights` explains.

    Attributes:
        start: First edge of the box in source pixels.
        length: Side of the box in source pixels, positive and at most the canvas's.
        cut: Source pixels outside do not count.
        visible: Output pixels outside are black.
        flip: Whether the output is mirrored along this axis.
    """

    start: Scalar
    length: Scalar
    cut: tuple[Scalar, Scalar]
    visible: tuple[Scalar, Scalar]
    flip: Bool[Array, ""]

    def dense(self, size: int, canvas_size: int) -> Float[Array, "{size} {canvas_size}"]:
        """Weights of every source pixel for each output pixel.

        Args:
            size: Number of output pixels.
            canvas_size: Number of source pixels.

        Returns:
            The weights.
        """
        weights = resample.antialiased_weights(
            self.start,
            self.length,
            out_size=size,
            size=canvas_size,
            cut=self.cut,
            visible=self.visible,
        )
        return jnp.where(self.flip, weights[::-1], weights)

    def taps(
        self, size: int, canvas_size: int
    ) -> tuple[Int[Array, "{size} taps"], Float[Array, "{size} taps"]]:
        """The source pixels that an output pixel can see, and their weights.

        Args:
            size: Number of output pixels.
            canvas_size: Number of source pixels.

        Returns:
            Source pixels, all on the canvas, and weights; a pixel that only stands in for one
            outside the canvas weighs 0.
        """
        pixels = banded.tap_pixels(self.start, self.length, out_size=size, size=canvas_size)
        weights = resample.antialiased_weights_at(
            pixels,
            self.start,
            self.length,
            out_size=size,
            size=canvas_size,
            cut=self.cut,
            visible=self.visible,
        )
        pixels = jnp.clip(pixels, 0, canvas_size - 1)
        return tuple(jnp.where(self.flip, x[::-1], x) for x in (pixels, weights))


def resize_box(
    canvas: UInt8[Array, "height width channels"], rows: Axis, columns: Axis, *, size: int
) -> Float[Array, "{size} {size} channels"]:
    """Resizes a box of a canvas with Pillow's antialiased bilinear filter.

    One program serves every platform: matrix units get two dense products, a CPU gets the band of
    source pixels that can weigh anything. Which one is decided when the program is lowered.

    Args:
        canvas: Pixels, 0 to 255.
        rows: What the output's rows show.
        columns: What the output's columns show.
        size: Side of the output.

    Returns:
        The image, float32 in [0, 1].
    """
    if not all(banded.is_worthwhile(side, size) for side in canvas.shape[:2]):
        return resize_box_dense(canvas, rows, columns, size=size)
    return jax.lax.platform_dependent(
        canvas,
        rows,
        columns,
        cpu=lambda *arguments: resize_box_banded(*arguments, size=size),
        default=lambda *arguments: resize_box_dense(*arguments, size=size),
    )


def resize_box_dense(
    canvas: UInt8[Array, "height width channels"], rows: Axis, columns: Axis, *, size: int
) -> Float[Array, "{size} {size} channels"]:
    """`resize_box` as two dense products.

    Args:
        canvas: Pixels, 0 to 255.
        rows: What the output's rows show.
        columns: What the output's columns show.
        size: Side of the output.

    Returns:
        The image, float32 in [0, 1].
    """
    height, width = canvas.shape[:2]
    return resample.apply_weights(
        canvas.astype(jnp.float32) / 255.0, rows.dense(size, height), columns.dense(size, width)
    )


def resize_box_banded(
    canvas: UInt8[Array, "height width channels"], rows: Axis, columns: Axis, *, size: int
) -> Float[Array, "{size} {size} channels"]:
    """`resize_box` with the few source pixels that each output pixel can see.

    Args:
        canvas: Pixels, 0 to 255.
        rows: What the output's rows show.
        columns: What the output's columns show.
        size: Side of the output.

    Returns:
        The image, float32 in [0, 1].
    """
    height, width = canvas.shape[:2]
    pixels, weights = rows.taps(size, height)
    return banded.apply_taps(canvas, (pixels, weights / 255.0), columns.taps(size, width))
