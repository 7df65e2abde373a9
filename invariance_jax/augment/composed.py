"""Everything that happens to training images: a variant, then policies, then mixing in pairs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from invariance_jax import spec
from invariance_jax.augment.augmentation import Augmentation
from invariance_jax.augment.boxes import Size
from invariance_jax.augment.erasing import random_erasing
from invariance_jax.augment.mixing import CutMix, Mixup, cutmix, mixup
from invariance_jax.augment.policies import auto_augment, rand_augment
from invariance_jax.augment.random_transform import random_transform

Image = Float[Array, "height width 3"]
Policy = Callable[[PRNGKeyArray, Image], Image]
Mixing = Mixup | CutMix

# What a config can name, by the function that makes it.
POLICIES: Mapping[str, Callable[..., Policy]] = MappingProxyType(
    {
        "rand_augment": rand_augment,
        "auto_augment": auto_augment,
        "random_erasing": random_erasing,
        "random_transform": random_transform,
    }
)
MIXINGS: Mapping[str, Callable[..., Mixing]] = MappingProxyType({"mixup": mixup, "cutmix": cutmix})


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithPolicies:
    """An augmentation variant, and random operations on the image that it makes.

    Attributes:
        augmentation: The variant.
        policies: What follows, in this order.
    """

    augmentation: Augmentation
    policies: tuple[Policy, ...]

    def __call__(
        self,
        key: PRNGKeyArray,
        canvas: UInt8[Array, "canvas_height canvas_width 3"],
        height: Size,
        width: Size,
    ) -> Image:
        """Augments one image; arguments and result are those of `Augmentation`."""
        if not self.policies:
            return self.augmentation(key, canvas, height, width)
        key, *policy_keys = jax.random.split(key, 1 + len(self.policies))
        image = self.augmentation(key, canvas, height, width)
        for policy, policy_key in zip(self.policies, policy_keys, strict=True):
            image = policy(policy_key, image)
        return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneMixing:
    """Mixes every batch by one of several ways, each as likely as the others.

    Attributes:
        mixings: The ways; none leaves every batch as it is.
    """

    mixings: tuple[Mixing, ...]

    def __call__(
        self,
        key: PRNGKeyArray,
        images: Float[Array, "batch height width 3"],
        labels: Float[Array, "batch classes"],
    ) -> tuple[Float[Array, "batch height width 3"], Float[Array, "batch classes"]]:
        """Mixes one batch.

        Args:
            key: Random key.
            images: float32.
            labels: Probabilities of classes, float32.

        Returns:
            Mixed images and labels, same shapes and dtypes.
        """
        if not self.mixings:
            return images, labels
        key_which, key_mixing = jax.random.split(key)
        which = jax.random.randint(key_which, (), 0, len(self.mixings))
        return jax.lax.switch(which, self.mixings, key_mixing, images, labels)


def with_policies(
    augmentation: Augmentation, texts: Sequence[str], field: str = "policies"
) -> WithPolicies:
    """Adds random operations to an augmentation variant.

    Args:
        augmentation: The variant.
        texts: Names of `POLICIES` with options, in order: "rand_augment(n=2, m=9)".
        field: How error messages call them.

    Returns:
        `augmentation(key, canvas, height, width) -> image`, frozen.

    Raises:
        UserError: Unknown name or option, or a number out of range.

    Examples:
        >>> from invariance_jax import augment
        >>> augment.with_policies(augment.get("flip"), ["random_erasing"]).policies[0].fill
        0.0
    """
    policies = tuple(
        spec.call(POLICIES, text, kind="policy", field=f"{field}[{position}]")
        for position, text in enumerate(texts)
    )
    return WithPolicies(augmentation=augmentation, policies=policies)


def one_mixing(texts: Sequence[str], field: str = "mixing") -> OneMixing:
    """Makes the mixing of batches.

    Args:
        texts: Names of `MIXINGS` with options; every step draws one of them.
        field: How error messages call them.

    Returns:
        `mixing(key, images, labels) -> (images, labels)`, frozen.

    Raises:
        UserError: Unknown name or option, or a number out of range.

    Examples:
        >>> one_mixing(["mixup(alpha=0.8)", "cutmix"]).mixings[0].alpha
        0.8
    """
    return OneMixing(
        mixings=tuple(
            spec.call(MIXINGS, text, kind="mixing", field=f"{field}[{position}]")
            for position, text in enumerate(texts)
        )
    )
