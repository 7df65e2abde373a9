"""An augmentation: a distribution over source boxes, a flip, one antialiased resample."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from invariance_jax.augment.boxes import Box, RandomResizedCrop, ResizedCenterCrop
from invariance_jax.transforms.resize import Axis, resize_box

Size = Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
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
    boxes: ResizedCenterCrop | RandomResizedCrop
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
        return self.boxes(key, height, width)

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
            canvas: uint8 pixels with the image in the upper left corner.
            height: Height of the image within the canvas.
            width: Width of the image within the canvas.

        Returns:
            The augmented image, float32 in [0, 1], not normalised.
        """
        key_box, key_flip = jax.random.split(key)
        box = self.sample_box(key_box, height, width)
        flip = jax.random.bernoulli(key_flip, self.flip_probability)
        rows = self._axis(box.top, box.height, height, flip=jnp.bool_(False))
        columns = self._axis(box.left, box.width, width, flip=flip)
        return resize_box(canvas, rows, columns, size=self.size)

    def _axis(
        self, start: Float[Array, ""], length: Float[Array, ""], side: Size, flip: Bool[Array, ""]
    ) -> Axis:
        """What one axis of the output shows."""
        image = (jnp.float32(0), side.astype(jnp.float32))
        cut = image if self.boxes.cut == "image" else (start, start + length)
        return Axis(start=start, length=length, cut=cut, visible=image, flip=flip)
