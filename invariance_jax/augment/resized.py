"""Crops of the resized image: the shorter side becomes `resize` pixels, then a square is cut."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from invariance_jax.augment.areas import Area
from invariance_jax.augment.boxes import Box, Scalar, Size, Window, crop_then_resize
from invariance_jax.augment.crops import CenterCrop, shift
from invariance_jax.augment.pytree import pytree
from invariance_jax.augment.sizes import TorchvisionSize

SQUARE = (1.0, 1.0)


@pytree
class ResizedCenterCrop:
    """Resize the shorter side, translate, crop the centre (`None`, `T`), or crop first (`T2`).

    Attributes:
        size: Side of the crop in resized pixels.
        resize: Shorter side after resizing, in pixels.
        t: Largest translation as a fraction of the height and width of what moves; 0 for none.
        moved: What moves over a black ground: the whole resized image, or its centre crop.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    t: float | Scalar
    moved: Literal["image", "crop"] = dataclasses.field(default="image", metadata={"static": True})

    frames: ClassVar[tuple[int, ...]] = ()

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws one window.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            The part of the source that the crop shows. It leaves what is visible where a
            translation moves zeros into view.
        """
        key_y, key_x = jax.random.split(key)
        grid = _resized_grid(self.resize, height, width)
        sides = (grid.height, grid.width) if self.moved == "image" else (self.size, self.size)
        down, right = shift(key_y, self.t, sides[0]), shift(key_x, self.t, sides[1])
        return self.moved_by(height, width, down=down, right=right)

    def moved_by(
        self, height: Size, width: Size, *, down: Scalar, right: Scalar
    ) -> tuple[Window, ...]:
        """The window after a given translation; `__call__` draws one.

        Args:
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.
            down: How far down the content moves, in resized pixels; fractions are fine.
            right: How far to the right, likewise.

        Returns:
            The window.
        """
        grid = _resized_grid(self.resize, height, width)
        top, left = _center(grid.height, self.size), _center(grid.width, self.size)
        if self.moved == "image":
            visible = _whole(height, width)
        else:
            visible = grid.square(top, left, self.size)
        # The image moves; seen from the source the crop moves the other way.
        box = grid.square(top - down, left - right, self.size)
        return (Window(box=box, cut=_whole(height, width), visible=visible),)


@pytree
class ResizedRandomCrop:
    """Resize the shorter side, crop a square at a random place, resize that (paper: `R`).

    Attributes:
        size: Side of the output in pixels.
        resize: Shorter side after resizing, in pixels.
        cropsize: Side of the crop in resized pixels, at most `resize`.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    cropsize: int = dataclasses.field(metadata={"static": True})

    @property
    def frames(self) -> tuple[int, ...]:
        """The crop is an image of its own only if it is resized again."""
        return () if self.cropsize == self.size else (self.cropsize,)

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws one window, and a second one if the crop is resized again.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            The part of the source that the crop shows; then the whole crop.
        """
        grid = _resized_grid(self.resize, height, width)
        key_top, key_left = jax.random.split(key)
        top = jax.random.randint(key_top, (), 0, grid.height - self.cropsize + 1)
        left = jax.random.randint(key_left, (), 0, grid.width - self.cropsize + 1)
        image = _whole(height, width)
        crop = Window(box=grid.square(top, left, self.cropsize), cut=image, visible=image)
        return (crop, *(crop_then_resize(_whole(frame, frame)) for frame in self.frames))


@pytree
class CropOfCenterCrop:
    """Resize, crop the centre, translate that, crop a centred square, resize (`CCTSnoAR`).

    Attributes:
        size: Side of the centre crop in resized pixels, and of the output.
        resize: Shorter side after resizing, in pixels.
        t: Largest translation as a fraction of `size`; 0 for none.
        area: Distribution of the square's area as a fraction of the centre crop's.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    t: float | Scalar
    area: Area

    @property
    def frames(self) -> tuple[int, ...]:
        """The centre crop is an image of its own."""
        return (self.size,)

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws two windows.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            The centre crop in source pixels; the square in pixels of the centre crop.
        """
        outer = ResizedCenterCrop(size=self.size, resize=self.resize, t=0.0)
        inner = CenterCrop(sizes=TorchvisionSize(area=self.area, ratio=SQUARE), t=self.t)
        side = jnp.int32(self.size)
        return outer(key, height, width) + inner(key, side, side)


class _ResizedGrid(NamedTuple):
    """The resized image: its size, and the size of its pixels in source pixels."""

    height: Size
    width: Size
    row: Scalar
    column: Scalar

    def square(self, top: Size | Scalar, left: Size | Scalar, side: int) -> Box:
        """A square of resized pixels, in source pixels."""
        return Box(top * self.row, left * self.column, side * self.row, side * self.column)


def _resized_grid(resize: int, height: Size, width: Size) -> _ResizedGrid:
    # int(resize * long / short), as torchvision: the two axes differ slightly in scale.
    shorter = jnp.minimum(height, width)
    rows, columns = (resize * height) // shorter, (resize * width) // shorter
    return _ResizedGrid(rows, columns, height / rows, width / columns)


def _center(side: Size, crop: int) -> Scalar:
    """Where torchvision's centre crop starts: int(round((side - crop) / 2)), half to even."""
    return jnp.round((side - crop) / 2)


def _whole(height: Size | int, width: Size | int) -> Box:
    """All of an image."""
    return Box(*(jnp.asarray(x, jnp.float32) for x in (0, 0, height, width)))
