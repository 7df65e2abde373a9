"""An augmentation: a distribution over source boxes, a flip, one antialiased resample."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from invariance_jax.augment.boxes import Box, Size, Window, source_box
from invariance_jax.augment.crops import CenterCrop, RandomResizedCrop
from invariance_jax.augment.pytree import pytree
from invariance_jax.augment.resized import CropOfCenterCrop, ResizedCenterCrop, ResizedRandomCrop
from invariance_jax.errors import UserError
from invariance_jax.transforms import resample
from invariance_jax.transforms.resize import Axis, resize_box

Boxes = ResizedCenterCrop | ResizedRandomCrop | CropOfCenterCrop | RandomResizedCrop | CenterCrop


@pytree
class Augmentation:
    """One augmentation variant as data; make it with `augment.get`.

    Attributes:
        name: The variant's name.
        size: Side of the output in pixels.
        boxes: Which part of the source is shown.
        flip_probability: How often the output is mirrored left to right.
    """

    name: str = dataclasses.field(metadata={"static": True})
    size: int = dataclasses.field(metadata={"static": True})
    boxes: Boxes
    flip_probability: float | Float[Array, ""]

    def sample_box(self, key: PRNGKeyArray, height: Size, width: Size) -> Box:
        """Draws the part of the source that one output shows.

        Args:
            key: Random key.
            height: Height of the image in source pixels, int32.
            width: Width of the image in source pixels, int32.

        Returns:
            (top, left, box_height, box_width) in source pixels, float32.
        """
        return source_box(self.boxes(key, height, width), self.boxes.frames)

    def __call__(
        self,
        key: PRNGKeyArray,
        canvas: UInt8[Array, "canvas_height canvas_width 3"],
        height: Size,
        width: Size,
    ) -> Float[Array, "{self.size} {self.size} 3"]:
        """Augments one image.

        Args:
            key: Random key.
            canvas: uint8 pixels with the image in the upper left corner of zeros.
            height: Height of the image within the canvas.
            width: Width of the image within the canvas.

        Returns:
            The augmented image, float32 in [0, 1], not normalised.

        Raises:
            UserError: The canvas is not uint8 [height, width, 3].
        """
        _check_canvas(canvas)
        key_box, key_flip = jax.random.split(key)
        windows = self.boxes(key_box, height, width)
        flip = jax.random.bernoulli(key_flip, self.flip_probability)
        return self.render(canvas, windows, flip)

    def render(
        self,
        canvas: UInt8[Array, "canvas_height canvas_width 3"],
        windows: tuple[Window, ...],
        flip: Bool[Array, ""],
    ) -> Float[Array, "{self.size} {self.size} 3"]:
        """Makes the image that given windows show, without randomness.

        Args:
            canvas: uint8 pixels with the image in the upper left corner of zeros.
            windows: One for each resampling, as `boxes` draws them.
            flip: Whether the image is mirrored left to right.

        Returns:
            The image, float32 in [0, 1], not normalised.
        """
        rows = [_axis(window, 0, jnp.bool_(False)) for window in windows]
        # Mirrored once, at the end.
        mirror = [jnp.bool_(False)] * (len(windows) - 1) + [flip]
        columns = [_axis(window, 1, each) for window, each in zip(windows, mirror, strict=True)]
        if len(windows) == 1:
            return resize_box(canvas, rows[0], columns[0], size=self.size)
        return resample.apply_weights(
            canvas.astype(jnp.float32) / 255.0,
            self._composed(rows, canvas.shape[0]),
            self._composed(columns, canvas.shape[1]),
        )

    def _composed(self, axes: list[Axis], canvas: int) -> Float[Array, "{self.size} {canvas}"]:
        """Weights of several resamplings in sequence, along one axis.

        Two are one with the product of their matrices; only the rounding to whole grey levels
        between them is lost. The product is wider than one filter's band, hence dense.
        """
        sides = (canvas, *self.boxes.frames, self.size)
        product = axes[0].dense(sides[1], sides[0])
        for axis, size, out_size in zip(axes[1:], sides[1:-1], sides[2:], strict=True):
            product = jnp.matmul(axis.dense(out_size, size), product, precision=resample.PRECISION)
        return product


def _check_canvas(canvas: Array) -> None:
    if canvas.ndim != 3 or canvas.shape[2] != 3 or 0 in canvas.shape:
        raise UserError(
            f"canvas has shape {canvas.shape}; expected [height, width, 3], one image (map over a "
            "batch with jax.vmap)"
        )
    if canvas.dtype != jnp.uint8:
        raise UserError(f"canvas is {canvas.dtype}; expected uint8, as images are decoded")


def _axis(window: Window, axis: int, flip: Bool[Array, ""]) -> Axis:
    """What one axis (0: rows) of a resampling's output shows."""
    return Axis(
        start=window.box[axis],
        length=window.box[axis + 2],
        cut=_edges(window.cut, axis),
        visible=_edges(window.visible, axis),
        flip=flip,
    )


def _edges(box: Box, axis: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The first and last edge of a box along one axis."""
    return box[axis], box[axis] + box[axis + 2]
