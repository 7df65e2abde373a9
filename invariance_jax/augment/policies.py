"""RandAugment and AutoAugment: random sequences of the operations in `transforms.AUTOAUGMENT`.

Each has two halves: `draw(key)` decides, `apply(image, decisions)` does it and draws nothing.
`policy(key, image)` is both. Mapped over a batch with a key for each image, every operation of
the table is computed for every image and one is kept: `switch` cannot branch within a batch.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from invariance_jax.augment.checks import check_whole
from invariance_jax.augment.policy_tables import AUTOAUGMENT_POLICIES, SubPolicy
from invariance_jax.errors import lookup
from invariance_jax.transforms import AUTOAUGMENT

Image = Float[Array, "height width 3"]

# RandAugment draws from these with equal chance; `invert` is not among them.
RAND_AUGMENT_OPERATIONS = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_MOST_OPERATIONS = 20
_MOST_BINS = 1000


def _keep(image: Image, magnitude: Float[Array, ""]) -> Image:
    del magnitude
    return image


def _apply(
    names: Sequence[str], image: Image, operation: Int[Array, ""], magnitude: Float[Array, ""]
) -> Image:
    """The operation of that number, of those named; "identity" keeps the image."""
    branches = [_keep if name == "identity" else AUTOAUGMENT[name].apply for name in names]
    return jax.lax.switch(operation, branches, image, magnitude)


def _is_signed(name: str) -> bool:
    return name != "identity" and AUTOAUGMENT[name].signed


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
        rows = [AUTOAUGMENT.get(name) for name in RAND_AUGMENT_OPERATIONS]
        ends = [
            (0.0, 0.0) if row is None else row.magnitudes[:: len(row.magnitudes) - 1]
            for row in rows
        ]
        return tuple(float(np.linspace(*each, self.bins)[self.m]) for each in ends)

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
        magnitudes = jnp.asarray(self.magnitudes, jnp.float32)
        is_signed = jnp.asarray([_is_signed(name) for name in RAND_AUGMENT_OPERATIONS])

        def one(image: Image, step: RandAugmentDraw) -> tuple[Image, None]:
            sign = jnp.where(is_signed[step.operations], step.signs, 1.0)
            magnitude = magnitudes[step.operations] * sign
            return _apply(RAND_AUGMENT_OPERATIONS, image, step.operations, magnitude), None

        # A scan compiles the table of operations once, whatever n is.
        return jax.lax.scan(one, image, draw)[0]

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Augments one image.

        Args:
            key: Random key.
            image: float32 [height, width, 3] in [0, 1].

        Returns:
            The augmented image, same shape and dtype.
        """
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
    check_whole("n", n, 1, _MOST_OPERATIONS)
    check_whole("bins", bins, 2, _MOST_BINS)
    check_whole("m", m, 0, bins - 1)
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
        is_signed = jnp.asarray([_is_signed(name) for name in names])

        def one(image: Image, step: tuple[Array, Array, Array, Array]) -> tuple[Image, None]:
            operation, magnitude, applied, sign = step
            magnitude = magnitude * jnp.where(is_signed[operation], sign, 1.0)
            return _apply(names, image, jnp.where(applied, operation, 0), magnitude), None

        steps = (
            jnp.asarray(operations, jnp.int32)[draw.sub_policy],
            jnp.asarray(magnitudes, jnp.float32)[draw.sub_policy],
            draw.applied,
            draw.signs,
        )
        return jax.lax.scan(one, image, steps)[0]

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Augments one image.

        Args:
            key: Random key.
            image: float32 [height, width, 3] in [0, 1].

        Returns:
            The augmented image, same shape and dtype.
        """
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
