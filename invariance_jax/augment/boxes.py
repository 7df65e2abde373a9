"""Distributions over source boxes: what part of an image a training example shows.

Each sampler is a pytree: its numbers are leaves, so samplers of one structure can be stacked and
mapped over, and its sizes are static.
"""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

Scalar = Float[Array, ""]
Size = Int[Array, ""]

# torchvision tries so often before it falls back to a centred crop.
TRIES = 10


class Box(NamedTuple):
    """A rectangle in source pixels, float32; pixel i spans [i, i + 1]. It may leave the image.

    Attributes:
        top: Upper edge.
        left: Left edge.
        height: Extent downwards, positive.
        width: Extent to the right, positive.
    """

    top: Scalar
    left: Scalar
    height: Scalar
    width: Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizedCenterCrop:
    """Resize the shorter side, translate with zero fill, crop the centre (paper: `None`, `T`).

    Attributes:
        size: Side of the crop in resized pixels.
        resize: Shorter side after resizing, in pixels.
        t: Largest translation as a fraction of the resized width and height; 0 for none.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    t: float | Scalar

    # Resized first and cropped afterwards: the filter sees what lies outside the crop.
    cut: ClassVar[Literal["box", "image"]] = "image"

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> Box:
        """Draws one box.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            The part of the source that the crop shows. It leaves the image where a translation
            moves zeros into view.
        """
        key_y, key_x = jax.random.split(key)
        shorter = jnp.minimum(height, width)
        top, box_height = self._axis(key_y, height, shorter)
        left, box_width = self._axis(key_x, width, shorter)
        return Box(top, left, box_height, box_width)

    def _axis(self, key: PRNGKeyArray, side: Size, shorter: Size) -> tuple[Scalar, Scalar]:
        """Start and extent along one axis, in source pixels."""
        # Integers as torchvision computes them: int(resize * long / short), and a crop that
        # starts at int(round((side - size) / 2)), half to even.
        resized = (self.resize * side) // shorter
        start = jnp.round((resized - self.size) / 2)
        reach = self.t * resized
        shift = jnp.round(jax.random.uniform(key, (), minval=-reach, maxval=reach))
        scale = side / resized
        return (start - shift) * scale, self.size * scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """torchvision's RandomResizedCrop: random area, aspect and position (paper: `C`).

    Attributes:
        scale: Smallest and largest area, as a fraction of the image's.
        ratio: Smallest and largest aspect, width over height.
    """

    scale: tuple[float | Scalar, float | Scalar]
    ratio: tuple[float | Scalar, float | Scalar]

    # Cropped first: the filter never sees what lies outside the box.
    cut: ClassVar[Literal["box", "image"]] = "box"

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> Box:
        """Draws one box; all tries at once, the first that fits wins.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            A box of whole pixels inside the image.
        """
        key_area, key_aspect, key_top, key_left = jax.random.split(key, 4)
        area = jax.random.uniform(key_area, (TRIES,), minval=self.scale[0], maxval=self.scale[1])
        area = area * (height * width)
        log_aspect = jax.random.uniform(
            key_aspect, (TRIES,), minval=jnp.log(self.ratio[0]), maxval=jnp.log(self.ratio[1])
        )
        widths = jnp.round(jnp.sqrt(area * jnp.exp(log_aspect))).astype(jnp.int32)
        heights = jnp.round(jnp.sqrt(area / jnp.exp(log_aspect))).astype(jnp.int32)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)

        first = jnp.argmax(fits)
        found = fits[first]
        fallback_height, fallback_width = self._fallback(height, width)
        box_height = jnp.where(found, heights[first], fallback_height)
        box_width = jnp.where(found, widths[first], fallback_width)
        top = jax.random.randint(key_top, (), 0, height - box_height + 1)
        left = jax.random.randint(key_left, (), 0, width - box_width + 1)
        top = jnp.where(found, top, (height - box_height) // 2)
        left = jnp.where(found, left, (width - box_width) // 2)
        return Box(*(jnp.asarray(x, jnp.float32) for x in (top, left, box_height, box_width)))

    def _fallback(self, height: Size, width: Size) -> tuple[Size, Size]:
        """Size of the largest centred crop whose aspect is allowed."""
        aspect = width / height
        lowest, highest = self.ratio
        narrow_height = jnp.round(width / lowest).astype(jnp.int32)
        wide_width = jnp.round(height * highest).astype(jnp.int32)
        # A 1-pixel side can round to nothing.
        box_height = jnp.where(aspect < lowest, jnp.clip(narrow_height, 1, height), height)
        box_width = jnp.where(aspect > highest, jnp.clip(wide_width, 1, width), width)
        return box_height, box_width
