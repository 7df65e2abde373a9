"""Policies: random operations on an image of the output's size, `policy(key, image) -> image`.

RandAugment and AutoAugment apply sequences of the operations in `transforms.AUTOAUGMENT`. Each has
two halves: `draw(key)` decides, `apply(image, decisions)` does it and draws nothing. Mapped over a
batch by `jax.vmap`, every operation of the table is computed for every image and one is kept:
`switch` cannot branch within a batch. By `jax.lax.map` it does (`WithPolicies.on_batch`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from invariance_jax.augment.boxes import TRIES, Box, Scalar, box_of, first_that_fits, sides_of
from invariance_jax.augment.policy_tables import AUTOAUGMENT_POLICIES, SubPolicy
from invariance_jax.errors import lookup
from invariance_jax.spec import check_interval, check_number
from invariance_jax.transforms import AUTOAUGMENT, TRANSFORMS, Transform

Image = Float[Array, "height width 3"]


@runtime_checkable
class Policy(Protocol):
    """A random operation on an image that a variant has made."""

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Augments one image.

        Args:
            key: Random key.
            image: float32 [height, width, 3] in [0, 1].

        Returns:
            The augmented image, same shape and dtype.
        """


# RandAugment draws from these with equal chance; `invert` is not among them.
RAND_AUGMENT_OPERATIONS = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_MOST_OPERATIONS = 20
_MOST_BINS = 1000


_OPERATIONS = {
    "identity": dataclasses.replace(
        AUTOAUGMENT["invert"], name="identity", function=lambda image, _: image, identity=0.0
    ),
    **AUTOAUGMENT,
}


def _in_sequence(
    names: Sequence[str],
    image: Image,
    operations: Int[Array, "n"],
    sizes: Float[Array, "n"],
    signs: Float[Array, "n"],
) -> Image:
    """Operations by their numbers, of those named, one after another, at magnitudes of those sizes.

    Within, channels come first: a TPU lays the last axis of a branch's argument along its 128
    lanes, of which three channels would fill three; and what a branch computes of it, unless told
    otherwise.
    """
    rows = [_OPERATIONS[name] for name in names]
    is_signed = jnp.asarray([row.signed for row in rows])
    magnitudes = sizes * jnp.where(is_signed[operations], signs, 1.0)

    channels_first = functools.partial(with_layout_constraint, layouts=Layout((2, 0, 1)))

    def lay_out(image: Image) -> Image:
        return jax.lax.platform_dependent(image, tpu=channels_first, default=lambda image: image)

    def on_planes(row: Transform) -> Callable[[Array, Scalar], Array]:
        def function(planes: Array, magnitude: Scalar) -> Array:
            changed = row.apply(lay_out(jnp.moveaxis(planes, 0, -1)), magnitude)
            return jnp.moveaxis(lay_out(changed), -1, 0)

        return function

    branches = [on_planes(row) for row in rows]

    def one(planes: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        operation, magnitude = step
        return jax.lax.switch(operation, branches, planes, magnitude), None

    # A scan compiles the table of operations once, whatever n is.
    planes, _ = jax.lax.scan(one, jnp.moveaxis(image, -1, 0), (operations, magnitudes))
    return jnp.moveaxis(planes, 0, -1)


class RandAugmentDraw(NamedTuple):
    """What RandAugment decided for one image.

    Attributes:
        operations: Positions in `RAND_AUGMENT_OPERATIONS`, int32 [n].
        signs: 1 or -1 for each, float32 [n]; operations without a sign do not read it.
    """

    operations: Int[Array, "n"]
    signs: Float[Array, "n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Some operations in sequence, each drawn from all, at one strength; see `rand_augment`.

    Attributes:
        n: How many operations.
        m: Their strength, 0 to bins - 1.
        bins: Number of strengths from the weakest magnitude of the table to its strongest.
    """

    n: int
    m: int
    bins: int

    @property
    def magnitudes(self) -> tuple[float, ...]:
        """The magnitude of each operation, without sign."""
        ranges = [_OPERATIONS[name].magnitudes[::9] for name in RAND_AUGMENT_OPERATIONS]
        return tuple(float(np.linspace(*ends, self.bins)[self.m]) for ends in ranges)

    def draw(self, key: PRNGKeyArray) -> RandAugmentDraw:
        """Draws operations, with replacement, and their signs.

        Args:
            key: Random key.

        Returns:
            The decisions for one image.
        """
        key_operations, key_signs = jax.random.split(key)
        choices = len(RAND_AUGMENT_OPERATIONS)
        operations = jax.random.randint(key_operations, (self.n,), 0, choices)
        return RandAugmentDraw(operations, jax.random.rademacher(key_signs, (self.n,), jnp.float32))

    def apply(self, image: Image, draw: RandAugmentDraw) -> Image:
        """Applies decided operations.

        Args:
            image: float32 [height, width, 3] in [0, 1].
            draw: The decisions.

        Returns:
            The image after all operations, same shape and dtype.
        """
        sizes = jnp.asarray(self.magnitudes, jnp.float32)[draw.operations]
        return _in_sequence(RAND_AUGMENT_OPERATIONS, image, draw.operations, sizes, draw.signs)

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Augments one image; see `Policy`."""
        return self.apply(image, self.draw(key))


def rand_augment(n: int = 2, m: int = 9, *, bins: int = 31) -> RandAugment:
    """Makes RandAugment (Cubuk et al., 2020, https://arxiv.org/abs/1909.13719).

    Args:
        n: Number of operations in sequence, at least 1; each is drawn from
            `RAND_AUGMENT_OPERATIONS`.
        m: Strength, 0 to bins - 1: the weakest to the strongest magnitude of AutoAugment.
        bins: Number of strengths: 31 as in torchvision; with 10, m is the index of the magnitude
            in `transforms.AUTOAUGMENT`.

    Returns:
        `policy(key, image) -> image`, frozen.

    Raises:
        UserError: n, m or bins is out of range.

    Examples:
        >>> rand_augment(n=1, m=15).magnitudes[RAND_AUGMENT_OPERATIONS.index("rotate")]
        15.0
    """
    check_number("n", n, 1, _MOST_OPERATIONS, whole=True)
    check_number("bins", bins, 2, _MOST_BINS, whole=True)
    check_number("m", m, 0, bins - 1, whole=True)
    return RandAugment(n=n, m=m, bins=bins)


class AutoAugmentDraw(NamedTuple):
    """What AutoAugment decided for one image.

    Attributes:
        sub_policy: Row of the policy, int32.
        applied: Whether each step of it is applied, bool [2].
        signs: 1 or -1 for each step, float32 [2]; operations without a sign do not read it.
    """

    sub_policy: Int[Array, ""]
    applied: Bool[Array, "2"]
    signs: Float[Array, "2"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAugment:
    """One sub-policy of two steps, drawn from a table; see `auto_augment`.

    Attributes:
        table: The sub-policies.
    """

    table: tuple[SubPolicy, ...]

    def draw(self, key: PRNGKeyArray) -> AutoAugmentDraw:
        """Draws a sub-policy, which of its steps are applied, and their signs.

        Args:
            key: Random key.

        Returns:
            The decisions for one image.
        """
        key_row, key_applied, key_signs = jax.random.split(key, 3)
        row = jax.random.randint(key_row, (), 0, len(self.table))
        probabilities = jnp.asarray([[step[1] for step in pair] for pair in self.table])
        return AutoAugmentDraw(
            row,
            jax.random.bernoulli(key_applied, probabilities[row]),
            jax.random.rademacher(key_signs, (2,), jnp.float32),
        )

    def apply(self, image: Image, draw: AutoAugmentDraw) -> Image:
        """Applies a decided sub-policy.

        Args:
            image: float32 [height, width, 3] in [0, 1].
            draw: The decisions.

        Returns:
            The image after the applied steps, same shape and dtype.
        """
        # "identity" stands for a step that is not applied.
        names = ("identity", *sorted({step[0] for pair in self.table for step in pair}))
        operations = [[names.index(step[0]) for step in pair] for pair in self.table]
        magnitudes = [
            [AUTOAUGMENT[step[0]].magnitudes[step[2]] for step in pair] for pair in self.table
        ]

        chosen = jnp.asarray(operations, jnp.int32)[draw.sub_policy]
        sizes = jnp.asarray(magnitudes, jnp.float32)[draw.sub_policy]
        return _in_sequence(names, image, jnp.where(draw.applied, chosen, 0), sizes, draw.signs)

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Augments one image; see `Policy`."""
        return self.apply(image, self.draw(key))


def auto_augment(policy: str = "imagenet") -> AutoAugment:
    """Makes AutoAugment with a published policy (https://arxiv.org/abs/1805.09501).

    Args:
        policy: "imagenet", "cifar10" or "svhn": what it was found on.

    Returns:
        `policy(key, image) -> image`, frozen.

    Raises:
        UserError: No such policy.
    """
    return AutoAugment(table=lookup(AUTOAUGMENT_POLICIES, policy, "policy"))


def erase(image: Image, box: Box, fill: float | Scalar = 0.0) -> Image:
    """Fills a rectangle.

    Args:
        image: float32 [height, width, channels].
        box: What is filled, in pixels.
        fill: The value.

    Returns:
        The image with the rectangle filled, same shape and dtype.
    """
    return jnp.where(box.mask(*image.shape[:2])[..., None], fill, image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Fills a random rectangle of some images; see `random_erasing`.

    Attributes:
        probability: How often.
        scale: Smallest and largest area, as a fraction of the image's.
        ratio: Smallest and largest aspect, height over width.
        fill: The value.
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    fill: float

    def sample_box(self, key: PRNGKeyArray, height: int, width: int) -> Box:
        """Draws a rectangle of whole pixels; all tries at once, the first that fits wins.

        Args:
            key: Random key.
            height: Height of the image.
            width: Width of the image.

        Returns:
            The rectangle, smaller than the image along both axes; empty if no try fitted.
        """
        key_area, key_aspect, key_top, key_left = jax.random.split(key, 4)
        low, high = self.scale
        area = jax.random.uniform(key_area, (TRIES,), minval=low, maxval=high) * (height * width)
        heights, widths = sides_of(key_aspect, area, self.ratio)
        fits = (heights < height) & (widths < width)
        size = first_that_fits(heights, widths, fits, (0, 0))
        top = jax.random.randint(key_top, (), 0, height - size.height + 1)
        left = jax.random.randint(key_left, (), 0, width - size.width + 1)
        return box_of(top, left, size.height, size.width)

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Erases a rectangle of one image, or keeps it; see `Policy`."""
        key_whether, key_box = jax.random.split(key)
        box = self.sample_box(key_box, *image.shape[:2])
        erased = erase(image, box, self.fill)
        return jnp.where(jax.random.bernoulli(key_whether, self.probability), erased, image)


def random_erasing(
    probability: float = 0.5,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    fill: float = 0.0,
) -> RandomErasing:
    """Makes random erasing (Zhong et al., 2020, https://arxiv.org/abs/1708.04896).

    Args:
        probability: How often a rectangle is erased, 0 to 1.
        scale: Smallest and largest area, as a fraction of the image's.
        ratio: Smallest and largest aspect, height over width.
        fill: The value, 0 to 1. Black by default; torchvision erases the normalised image, where
            0 is the mean colour.

    Returns:
        `erasing(key, image) -> image`, frozen.

    Raises:
        UserError: A number is out of range.
    """
    return RandomErasing(
        probability=check_number("probability", probability, 0, 1),
        scale=check_interval("scale", scale, 1.0),
        ratio=check_interval("ratio", ratio),
        fill=check_number("fill", fill, 0, 1),
    )


_TABLES = {"grid": TRANSFORMS, "autoaugment": AUTOAUGMENT}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomTransform:
    """A transform that is applied to some images; see `random_transform`.

    Attributes:
        transform: The row of the table.
        probability: How often it is applied.
        strongest: Index of the strongest magnitude that is drawn.
    """

    transform: Transform
    probability: float
    strongest: int

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Transforms one image, or keeps it; see `Policy`."""
        key_whether, key_magnitude = jax.random.split(key)
        changed = self.transform.random(key_magnitude, image, strongest=self.strongest)
        return jnp.where(jax.random.bernoulli(key_whether, self.probability), changed, image)


def random_transform(
    *, name: str, probability: float = 0.5, strongest: int = 9, table: str = "grid"
) -> RandomTransform:
    """Makes an augmentation of one transform, its magnitude uniform over the table's.

    Args:
        name: A row of the table: "rotate".
        probability: How often the transform is applied, 0 to 1.
        strongest: Index of the strongest magnitude that is drawn, 0 to 9.
        table: "grid" for `transforms.TRANSFORMS` (section 3 of the paper), "autoaugment" for
            `transforms.AUTOAUGMENT` (section 4).

    Returns:
        `policy(key, image) -> image`, frozen.

    Raises:
        UserError: Unknown table or name, or a number out of range.

    Examples:
        >>> random_transform(name="rotate", strongest=3).transform.unit
        'degrees'
    """
    transform = lookup(lookup(_TABLES, table, "table of transforms"), name, "transform")
    transform.check_strongest(strongest)
    probability = check_number("probability", probability, 0, 1)
    return RandomTransform(transform=transform, probability=probability, strongest=strongest)
