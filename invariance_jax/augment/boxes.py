"""Distributions over the part of an image that is shown: areas, sizes and places of crops.

A box sampler is called as `sampler(key, height, width)` and returns one window for each resampling
of the paper's pipeline. Every distribution here is a pytree: its numbers are leaves, so those of
one structure can be stacked and mapped over, and its sizes are static.
"""

import dataclasses
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    dataclass_transform,
    runtime_checkable,
)

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Scalar = Float[Array, ""]
Size = Int[Array, ""] | int
Range = tuple[float | Scalar, float | Scalar]
T = TypeVar("T")

# torchvision and TensorFlow try so often before they fall back.
TRIES = 10
SQUARE = (1.0, 1.0)
# The smallest area of torchvision's crop; the heavy-tailed and the beta crop keep it.
_SMALLEST = 0.08


@dataclass_transform(kw_only_default=True, frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """Makes a frozen keyword-only dataclass whose fields are leaves unless marked static.

    `jax.tree_util.register_dataclass` does the same, but two such classes with equal static fields
    have equal structures (JAX 0.10), whatever their names; then `jit` may run the program of one
    distribution with the numbers of another. Here the class is part of the structure.

    Args:
        cls: The class; static fields have `metadata={"static": True}`.

    Returns:
        The dataclass, registered.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields = dataclasses.fields(cls)
    static = tuple(each.name for each in fields if each.metadata.get("static"))
    leaves = tuple(each.name for each in fields if not each.metadata.get("static"))

    def flatten(node: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in leaves]
        return children, (cls, *(getattr(node, name) for name in static))

    def unflatten(structure: tuple[Any, ...], children: tuple[Any, ...]) -> T:
        values = (*structure[1:], *children)
        return cls(**dict(zip((*static, *leaves), values, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


class Box(NamedTuple):
    """A rectangle in pixels, float32; pixel i spans [i, i + 1]. It may leave the image.

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

    def mask(self, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        """Which pixels of an image have their centre within the box.

        Args:
            height: Height of the image.
            width: Width of the image.

        Returns:
            bool [height, width].
        """
        y, x = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
        rows = (y >= self.top) & (y < self.top + self.height)
        columns = (x >= self.left) & (x < self.left + self.width)
        return rows[:, None] & columns[None, :]


def box_of(*numbers: Scalar | Size | float) -> Box:
    """Makes a box of numbers of any type.

    Args:
        *numbers: Top, left, height, width.

    Returns:
        The box, float32.
    """
    return Box(*(jnp.asarray(each, jnp.float32) for each in numbers))


class Window(NamedTuple):
    """One resampling: which part is shown, and what its filter sees. All in pixels of its input.

    Attributes:
        box: The part that is stretched to the output.
        cut: The filter sees pixels in here only: the box where the paper crops and then resizes,
            the image where it resizes and then crops. Pixels in here but off the image are black.
        visible: Output pixels whose centre lies outside are black.
    """

    box: Box
    cut: Box
    visible: Box


def crop_then_resize(box: Box) -> Window:
    """The window of a crop that is made before it is resized.

    Args:
        box: The crop, whole pixels; what of it leaves the image is black.

    Returns:
        The window.
    """
    return Window(box=box, cut=box, visible=box)


def source_box(windows: tuple[Window, ...], frames: tuple[int, ...]) -> Box:
    """Follows the last window back to the source.

    Args:
        windows: In the order in which an image passes through them.
        frames: Sides of the square images between them, pixels; one fewer than windows.

    Returns:
        The part of the source that the output shows.
    """
    *outer, last = windows
    box = last.box
    for (window, _, _), frame in zip(reversed(outer), reversed(frames), strict=True):
        rows, columns = window.height / frame, window.width / frame
        top, left = window.top + box.top * rows, window.left + box.left * columns
        box = Box(top, left, box.height * rows, box.width * columns)
    return box


@runtime_checkable
class Boxes(Protocol):
    """A box sampler.

    Attributes:
        frames: Sides of the square images between the paper's resamplings, pixels.
    """

    frames: tuple[int, ...]

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws what is shown of one image.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            One window for each resampling, in the order in which the image passes through them; one
            more than frames. A box leaves what is visible where zeros move into view.
        """


@runtime_checkable
class Area(Protocol):
    """A distribution of the area of a crop, as a fraction of the image's."""

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""


@pytree
class UniformArea:
    """Uniform between two fractions, torchvision's.

    Attributes:
        scale: Smallest and largest area fraction.
    """

    scale: Range

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        return jax.random.uniform(key, (count,), minval=self.scale[0], maxval=self.scale[1])


@pytree
class ExponentialArea:
    """1 / clip(1 + Exp(rate), 1, 1 / .08): small crops are rare where the rate is high.

    Attributes:
        rate: Rate of the exponential distribution, 1 / its mean; positive.
    """

    rate: float | Scalar

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        inverse = 1.0 + jax.random.exponential(key, (count,)) / self.rate
        return 1.0 / jnp.clip(inverse, 1.0, 1.0 / _SMALLEST)


@pytree
class BetaArea:
    """.08 + .92 Beta(1, b): uniform for b = 1, small crops for b above, large ones below.

    Attributes:
        b: Second parameter of the beta distribution, positive.
    """

    b: float | Scalar

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        # Beta(1, b) has the distribution function 1 - (1 - x)^b, which can be inverted; 1 - u is
        # as uniform as u.
        beta = 1.0 - jax.random.uniform(key, (count,)) ** (1.0 / jnp.asarray(self.b))
        return _SMALLEST + (1.0 - _SMALLEST) * beta


@pytree
class InverseScaleArea:
    """s^2 with 1 / s uniform: a heavy tail of small crops.

    Attributes:
        side: Smallest and largest s, the side as a fraction of the image's.
    """

    side: Range

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        lowest, highest = 1.0 / self.side[1], 1.0 / self.side[0]
        return jax.random.uniform(key, (count,), minval=lowest, maxval=highest) ** -2.0


class CropSize(NamedTuple):
    """Height and width of a crop, int32.

    Attributes:
        height: Pixels, at least 1.
        width: Pixels, at least 1.
        found: Whether a try fitted; if not, this is the fallback, which lies in the centre.
    """

    height: Size
    width: Size
    found: Bool[Array, ""]


@runtime_checkable
class CropSizes(Protocol):
    """A distribution of the height and width of a crop.

    All tries are drawn at once; the first that fits wins.

    Attributes:
        positions_left_out: How many of the places at which the crop fits are never drawn.
    """

    positions_left_out: ClassVar[int]

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> CropSize:
        """Draws one size.

        Args:
            key: Random key.
            height: Height of the image in pixels.
            width: Width of the image in pixels.

        Returns:
            A size that fits into the image, or the fallback.
        """


def sides_of(
    key: PRNGKeyArray, area: Float[Array, "tries"], ratio: Range
) -> tuple[Int[Array, "tries"], Int[Array, "tries"]]:
    """Draws sides of rectangles of given areas.

    Args:
        key: Random key.
        area: The areas in pixels.
        ratio: Smallest and largest quotient of the sides; its logarithm is uniform.

    Returns:
        One side and the other, whole pixels.
    """
    low, high = (jnp.log(limit) for limit in ratio)
    quotient = jnp.exp(jax.random.uniform(key, area.shape, minval=low, maxval=high))
    return _round(jnp.sqrt(area * quotient)), _round(jnp.sqrt(area / quotient))


@pytree
class TorchvisionSize:
    """torchvision's RandomResizedCrop: an area and an aspect, independent of each other.

    If no try fits, it is the largest crop whose aspect is allowed.

    Attributes:
        area: Distribution of the area fraction.
        ratio: Smallest and largest aspect, width over height; its logarithm is uniform.
    """

    area: Area
    ratio: Range

    positions_left_out: ClassVar[int] = 0

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> CropSize:
        """Draws one size; see `CropSizes`."""
        key_area, key_aspect = jax.random.split(key)
        area = self.area(key_area, TRIES) * (height * width)
        widths, heights = sides_of(key_aspect, area, self.ratio)
        lowest, highest = self.ratio
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        # A 1-pixel side can round to nothing.
        tallest = jnp.clip(_round(width / lowest), 1, height)
        widest = jnp.clip(_round(height * highest), 1, width)
        aspect = width / height
        fallback = (
            jnp.where(aspect < lowest, tallest, height),
            jnp.where(aspect > highest, widest, width),
        )
        return first_that_fits(heights, widths, fits, fallback)


@pytree
class TensorflowSize:
    """tf.image.sample_distorted_bounding_box: an aspect, then a height uniform over what fits.

    The density of an area a is proportional to 1 / sqrt(a): smaller crops than torchvision's. No
    object has to be covered (`min_object_covered=0`). If no try fits, it is the image's own size.

    Attributes:
        scale: Smallest and largest area fraction.
        ratio: Smallest and largest aspect, width over height; the aspect itself is uniform.
    """

    scale: Range
    ratio: Range

    # TensorFlow's upper bound is exclusive: a smaller crop never touches the far edge.
    positions_left_out: ClassVar[int] = 1

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> CropSize:
        """Draws one size; see `CropSizes`."""
        key_aspect, key_height = jax.random.split(key)
        aspect = jax.random.uniform(
            key_aspect, (TRIES,), minval=self.ratio[0], maxval=self.ratio[1]
        )
        smallest, largest = (bound * (height * width) for bound in self.scale)
        lowest, highest = (_round(jnp.sqrt(area / aspect)) for area in (smallest, largest))
        # The tallest crop that is not too wide either.
        tallest = jnp.floor((width + 0.5) / aspect).astype(jnp.int32)
        tallest = tallest - (_round(tallest * aspect) > width)
        highest = jnp.where(_round(highest * aspect) > width, tallest, highest)
        highest = jnp.minimum(highest, height)
        lowest = jnp.minimum(lowest, highest)
        heights = jax.random.randint(key_height, (TRIES,), lowest, highest + 1)
        # Rounding may have left the range of areas by a pixel.
        heights = heights + (heights * _round(heights * aspect) < smallest)
        heights = heights - (heights * _round(heights * aspect) > largest)
        widths = _round(heights * aspect)
        areas = heights * widths
        fits = (areas >= smallest) & (areas <= largest) & (widths > 0) & (heights > 0)
        fits = fits & (widths <= width) & (heights <= height)
        return first_that_fits(heights, widths, fits, (height, width))


def _round(value: jax.Array) -> jax.Array:
    """To the nearest whole number, half to even."""
    return jnp.round(value).astype(jnp.int32)


def first_that_fits(
    heights: Int[Array, "tries"],
    widths: Int[Array, "tries"],
    fits: Bool[Array, "tries"],
    fallback: tuple[Size | int, Size | int],
) -> CropSize:
    """Picks the first try that fits.

    Args:
        heights: Height of each try in pixels.
        widths: Its width.
        fits: Whether it fits.
        fallback: Height and width where none does.

    Returns:
        The size.
    """
    first = jnp.argmax(fits)
    found = fits[first]
    height, width = fallback
    return CropSize(
        jnp.where(found, heights[first], height), jnp.where(found, widths[first], width), found
    )


@pytree
class RandomResizedCrop:
    """A crop of the source of random size at a random place (paper: `C`, `Cexp`, `Cbeta`).

    Attributes:
        sizes: Distribution of the crop's height and width.
    """

    sizes: CropSizes

    frames: ClassVar[tuple[int, ...]] = ()

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws the window; see `Boxes`."""
        key_size, key_top, key_left = jax.random.split(key, 3)
        size = self.sizes(key_size, height, width)

        def place(key: PRNGKeyArray, side: Size, extent: Size) -> Size:
            count = jnp.maximum(side - extent + 1 - self.sizes.positions_left_out, 1)
            return jnp.where(
                size.found, jax.random.randint(key, (), 0, count), (side - extent) // 2
            )

        top, left = place(key_top, height, size.height), place(key_left, width, size.width)
        return (crop_then_resize(box_of(top, left, size.height, size.width)),)


@pytree
class CenterCrop:
    """The source, translated with zero fill, then a centred crop (`CC`, `TS` and its kin).

    Attributes:
        sizes: Distribution of the crop's height and width.
        t: Largest translation as a fraction of the image's height and width; 0 for none.
    """

    sizes: CropSizes
    t: float | Scalar

    frames: ClassVar[tuple[int, ...]] = ()

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws the window; see `Boxes`."""
        key_size, key_y, key_x = jax.random.split(key, 3)
        size = self.sizes(key_size, height, width)
        # The image moves; seen from the source the crop moves the other way.
        top = (height - size.height) // 2 - _shift(key_y, self.t, height)
        left = (width - size.width) // 2 - _shift(key_x, self.t, width)
        return (crop_then_resize(box_of(top, left, size.height, size.width)),)


def _shift(key: PRNGKeyArray, t: float | Scalar, side: Size | int) -> Scalar:
    """Draws a translation as torchvision's RandomAffine: round(U(-t side, t side)) pixels."""
    reach = t * side
    return jnp.round(jax.random.uniform(key, (), minval=-reach, maxval=reach))


class _ResizedGrid(NamedTuple):
    """The image whose shorter side was resized: its size, its pixels' size in source pixels."""

    height: Size
    width: Size
    row: Scalar
    column: Scalar

    def square(self, top: Size | Scalar, left: Size | Scalar, side: int) -> Box:
        """A square of resized pixels, in source pixels."""
        return Box(top * self.row, left * self.column, side * self.row, side * self.column)


def _resized_grid(resize: int, height: Size, width: Size, squash: bool) -> _ResizedGrid:
    if squash:
        return _ResizedGrid(jnp.int32(resize), jnp.int32(resize), height / resize, width / resize)
    # int(resize * long / short), as torchvision: the two axes differ slightly in scale.
    shorter = jnp.minimum(height, width)
    rows, columns = (resize * height) // shorter, (resize * width) // shorter
    return _ResizedGrid(rows, columns, height / rows, width / columns)


@pytree
class ResizedCenterCrop:
    """Resize the shorter side, translate, crop the centre (`None`, `T`), or crop first (`T2`).

    Attributes:
        size: Side of the crop in resized pixels.
        resize: Shorter side after resizing, in pixels.
        t: Largest translation as a fraction of the height and width of what moves; 0 for none.
        moved: What moves over a black ground: the whole resized image, or its centre crop.
        squash: Whether both sides are resized to `resize`, whatever the aspect.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    t: float | Scalar
    moved: Literal["image", "crop"] = dataclasses.field(default="image", metadata={"static": True})
    squash: bool = dataclasses.field(default=False, metadata={"static": True})

    frames: ClassVar[tuple[int, ...]] = ()

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws the window; see `Boxes`."""
        key_y, key_x = jax.random.split(key)
        grid = _resized_grid(self.resize, height, width, self.squash)
        sides = (grid.height, grid.width) if self.moved == "image" else (self.size, self.size)
        down, right = _shift(key_y, self.t, sides[0]), _shift(key_x, self.t, sides[1])
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
        grid = _resized_grid(self.resize, height, width, self.squash)
        image = box_of(0, 0, height, width)
        # torchvision's centre crop starts at int(round((side - crop) / 2)), half to even.
        top, left = (jnp.round((side - self.size) / 2) for side in (grid.height, grid.width))
        visible = image if self.moved == "image" else grid.square(top, left, self.size)
        # The image moves; seen from the source the crop moves the other way.
        box = grid.square(top - down, left - right, self.size)
        return (Window(box=box, cut=image, visible=visible),)


@pytree
class ResizedRandomCrop:
    """Resize the shorter side, crop a square at a random place, resize that (paper: `R`).

    Attributes:
        size: Side of the output in pixels.
        resize: Shorter side after resizing, in pixels.
        cropsize: Side of the crop in resized pixels, at most `resize`.
        squash: Whether both sides are resized to `resize`, whatever the aspect.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    cropsize: int = dataclasses.field(metadata={"static": True})
    squash: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def frames(self) -> tuple[int, ...]:
        """The crop is an image of its own only if it is resized again."""
        return () if self.cropsize == self.size else (self.cropsize,)

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws the window; see `Boxes`."""
        grid = _resized_grid(self.resize, height, width, self.squash)
        key_top, key_left = jax.random.split(key)
        top = jax.random.randint(key_top, (), 0, grid.height - self.cropsize + 1)
        left = jax.random.randint(key_left, (), 0, grid.width - self.cropsize + 1)
        image = box_of(0, 0, height, width)
        crop = Window(box=grid.square(top, left, self.cropsize), cut=image, visible=image)
        return (crop, *(crop_then_resize(box_of(0, 0, side, side)) for side in self.frames))


@pytree
class CropOfCenterCrop:
    """Resize, crop the centre, translate that, crop a centred square, resize (`CCTSnoAR`).

    Attributes:
        size: Side of the centre crop in resized pixels, and of the output.
        resize: Shorter side after resizing, in pixels.
        t: Largest translation as a fraction of `size`; 0 for none.
        area: Distribution of the square's area as a fraction of the centre crop's.
        squash: Whether both sides are resized to `resize`, whatever the aspect.
    """

    size: int = dataclasses.field(metadata={"static": True})
    resize: int = dataclasses.field(metadata={"static": True})
    t: float | Scalar
    area: Area
    squash: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def frames(self) -> tuple[int, ...]:
        """The centre crop is an image of its own."""
        return (self.size,)

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws the windows; see `Boxes`."""
        outer = ResizedCenterCrop(size=self.size, resize=self.resize, t=0.0, squash=self.squash)
        inner = CenterCrop(sizes=TorchvisionSize(area=self.area, ratio=SQUARE), t=self.t)
        side = jnp.int32(self.size)
        return outer(key, height, width) + inner(key, side, side)
