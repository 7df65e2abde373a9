"""Everything that happens to training images: a variant, then policies, then mixing in pairs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import jax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from invariance_jax import spec
from invariance_jax.augment import mixing, policies
from invariance_jax.augment.boxes import Size
from invariance_jax.augment.variants import Augmentation, Canvas

T = TypeVar("T")

# What a config can name, by the function that makes it.
POLICIES: Mapping[str, Callable[..., policies.Policy]] = MappingProxyType(
    {
        "rand_augment": policies.rand_augment,
        "auto_augment": policies.auto_augment,
        "random_erasing": policies.random_erasing,
        "random_transform": policies.random_transform,
    }
)
MIXINGS: Mapping[str, Callable[..., mixing.Mixing]] = MappingProxyType(
    {"mixup": mixing.mixup, "cutmix": mixing.cutmix}
)


def image_by_image(function: Callable[[Any], Array], arguments: Any) -> Array:
    """Maps a function that chooses by `switch` over the images of one device.

    Within a mapped batch `switch` computes every choice for each image. So images are taken one
    after another, but on GPUs, where a single image is too little work.

    Args:
        function: Of what belongs to one image.
        arguments: A pytree of arrays [batch, ...].

    Returns:
        The results, [batch, ...].
    """
    together = jax.vmap(function)
    return jax.lax.platform_dependent(
        arguments,
        cuda=together,
        rocm=together,
        default=lambda arguments: jax.lax.map(function, arguments),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithPolicies:
    """An augmentation variant, and random operations on the image that it makes.

    Attributes:
        augmentation: The variant.
        policies: What follows, in this order.
    """

    augmentation: Augmentation
    policies: tuple[policies.Policy, ...]

    def __call__(
        self, key: PRNGKeyArray, canvas: Canvas, height: Size, width: Size
    ) -> policies.Image:
        """Augments one image; arguments and result are those of `Augmentation`."""
        if not self.policies:
            return self.augmentation(key, canvas, height, width)
        key, *policy_keys = jax.random.split(key, 1 + len(self.policies))
        image = self.augmentation(key, canvas, height, width)
        return self._follow((image, *policy_keys))

    def on_batch(
        self,
        keys: Key[Array, "batch"],
        canvas: UInt8[Array, "batch canvas_height canvas_width 3"],
        height: Int[Array, "batch"],
        width: Int[Array, "batch"],
        label: Int[Array, "batch"],
    ) -> Float[Array, "batch size size 3"]:
        """Augments the images of one device, as mapping over them does.

        Args:
            keys: Random keys.
            canvas: As `Augmentation` takes them, with a leading axis.
            height: Of the images within their canvases.
            width: Likewise.
            label: Of no matter here; `PerClass` looks at it.

        Returns:
            The augmented images, float32 in [0, 1].
        """
        if not self.policies:
            return jax.vmap(self.augmentation)(keys, canvas, height, width)
        split = jax.vmap(lambda key: jax.random.split(key, 1 + len(self.policies)))(keys)
        keys, *policy_keys = (split[:, place] for place in range(1 + len(self.policies)))
        images = jax.vmap(self.augmentation)(keys, canvas, height, width)
        return image_by_image(self._follow, (images, *policy_keys))

    def _follow(self, arguments: tuple[Array, ...]) -> policies.Image:
        """All policies in sequence, of an image and a key for each."""
        image, *keys = arguments
        for policy, key in zip(self.policies, keys, strict=True):
            image = policy(key, image)
        return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneMixing:
    """Mixes every batch by one of several ways, each as likely as the others.

    Attributes:
        mixings: The ways; none leaves every batch as it is.
    """

    mixings: tuple[mixing.Mixing, ...]

    def __call__(
        self,
        key: PRNGKeyArray,
        images: mixing.Images,
        labels: mixing.Labels,
        others: mixing.Others = None,
    ) -> tuple[mixing.Images, mixing.Labels]:
        """Mixes one batch; see `mixing.Mixing`."""
        if not self.mixings:
            return images, labels
        key_which, key_mixing = jax.random.split(key)
        which = jax.random.randint(key_which, (), 0, len(self.mixings))
        others = others or (mixing.partners(images), mixing.partners(labels))
        return jax.lax.switch(which, self.mixings, key_mixing, images, labels, others)


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
    made = _made(POLICIES, texts, "policy", field)
    return WithPolicies(augmentation=augmentation, policies=made)


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
    return OneMixing(mixings=_made(MIXINGS, texts, "mixing", field))


def _made(
    table: Mapping[str, Callable[..., T]], texts: Sequence[str], kind: str, field: str
) -> tuple[T, ...]:
    return tuple(
        spec.call(table, text, kind=kind, field=f"{field}[{position}]")
        for position, text in enumerate(texts)
    )
