"""An augmentation: a distribution over source boxes, a flip, one antialiased resample."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from invariance_jax.augment.boxes import Box, Size, Window, source_box
from invariance_jax.augment.crops import CenterCrop, RandomResizedCrop
from invariance_jax.augment.pytree import pytree
from invariance_jax.augment.resized import CropOfCenterCrop, ResizedCenterCrop, ResizedRandomCrop
from invariance_jax.transforms import resample

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
        """
        key_box, key_flip = jax.random.split(key)
        windows = self.boxes(key_box, height, width)
        rows = self._axis_weights(windows, 0, canvas.shape[0])
        columns = self._axis_weights(windows, 1, canvas.shape[1])
        flip = jax.random.bernoulli(key_flip, self.flip_probability)
        columns = jnp.where(flip, columns[::-1], columns)
        return resample.apply_weights(canvas.astype(jnp.float32) / 255.0, rows, columns)

    def _axis_weights(
        self, windows: tuple[Window, ...], axis: int, canvas: int
    ) -> Float[Array, "{self.size} {canvas}"]:
        """Resampling weights of one axis (0: rows): the product of those of its windows.

        Two resamplings in sequence are one with the product of their matrices; only the rounding to
        whole grey levels between them is lost.
        """
        sides = (canvas, *self.boxes.frames, self.size)
        product = None
        for window, size, out_size in zip(windows, sides[:-1], sides[1:], strict=True):
            weights = resample.antialiased_weights(
                window.box[axis],
                window.box[axis + 2],
                out_size=out_size,
                size=size,
                cut=_edges(window.cut, axis),
                visible=_edges(window.visible, axis),
            )
            product = (
                weights
                if product is None
                else jnp.matmul(weights, product, precision=resample.PRECISION)
            )
        return product


def _edges(box: Box, axis: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The first and last edge of a box along one axis."""
    return box[axis], box[axis] + box[axis + 2]
