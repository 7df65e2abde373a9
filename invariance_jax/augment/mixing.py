"""Mixup and CutMix: images of a batch mixed in pairs, and their labels with them.

An image's partner is the one before it in the global batch. The batch is a random draw already,
so this is as random as a permutation; and where the batch is spread over devices, each sends one
image to its neighbour where a permutation would send all to all.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax.augment.boxes import Box
from invariance_jax.spec import check_number

Images = Float[Array, "batch height width channels"]
Labels = Float[Array, "batch classes"]
Others = tuple[Images, Labels] | None


@runtime_checkable
class Mixing(Protocol):
    """A random operation on a batch and its labels."""

    def __call__(
        self, key: PRNGKeyArray, images: Images, labels: Labels, others: Others = None
    ) -> tuple[Images, Labels]:
        """Mixes one batch.

        Args:
            key: Random key.
            images: float32 [batch, height, width, channels].
            labels: One-hot, or any probabilities of classes, float32 [batch, classes].
            others: Images and labels of all partners, where these are a device's part of a batch;
                `partners` of what is given by default.

        Returns:
            Mixed images and labels, same shapes and dtypes.
        """


# A Beta distribution is all but an atom below the one and above the other.
_ALPHAS = (1e-3, 1e3)


def partners(values: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """What belongs to each image's partner.

    Args:
        values: Images or labels, [batch, ...].

    Returns:
        The value before each; the last one before the first.
    """
    return jnp.roll(values, 1, axis=0)


def mix(
    images: Images, labels: Labels, weight: Float[Array, ""], others: Others = None
) -> tuple[Images, Labels]:
    """Mixes each image and its label with those of its partner.

    Args:
        images: float32 [batch, height, width, channels].
        labels: Probabilities of classes, float32 [batch, classes].
        weight: Share of the image itself, 0 to 1.
        others: See `Mixing`.

    Returns:
        weight × image + (1 - weight) × partner, and the labels likewise.
    """
    shown, named = others or (partners(images), partners(labels))
    return weight * images + (1 - weight) * shown, weight * labels + (1 - weight) * named


def paste(images: Images, labels: Labels, box: Box, others: Others = None) -> tuple[Images, Labels]:
    """Pastes a rectangle of each image's partner into it, at the same place.

    Args:
        images: float32 [batch, height, width, channels].
        labels: Probabilities of classes, float32 [batch, classes].
        box: The rectangle in whole pixels, within the image.
        others: See `Mixing`.

    Returns:
        The images, and the labels mixed by the share of pixels that each shows.
    """
    _, height, width, _ = images.shape
    pasted = box.mask(height, width)
    share = box.height * box.width / (height * width)
    shown, named = others or (partners(images), partners(labels))
    return (
        jnp.where(pasted[None, :, :, None], shown, images),
        (1 - share) * labels + share * named,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """Mixes every image of a batch with its partner; see `mixup`.

    Attributes:
        alpha: Of the Beta(alpha, alpha) distribution of the weight.
    """

    alpha: float

    def __call__(
        self, key: PRNGKeyArray, images: Images, labels: Labels, others: Others = None
    ) -> tuple[Images, Labels]:
        """Mixes one batch; see `Mixing`."""
        return mix(images, labels, jax.random.beta(key, self.alpha, self.alpha), others)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix:
    """Pastes rectangles between the images of a batch; see `cutmix`.

    Attributes:
        alpha: Of the Beta(alpha, alpha) distribution of the share that is kept.
    """

    alpha: float

    def sample_box(self, key: PRNGKeyArray, height: int, width: int) -> Box:
        """Draws a rectangle with the image's aspect, cut at the image's edges.

        Args:
            key: Random key.
            height: Height of the images.
            width: Width of the images.

        Returns:
            The rectangle in whole pixels; it may be empty.
        """
        key_share, key_y, key_x = jax.random.split(key, 3)
        kept = jax.random.beta(key_share, self.alpha, self.alpha)
        half = 0.5 * jnp.sqrt(1.0 - kept)
        (top, bottom), (left, right) = (
            _span(key_axis, size, jnp.floor(half * size))
            for key_axis, size in ((key_y, height), (key_x, width))
        )
        return Box(top, left, bottom - top, right - left)

    def __call__(
        self, key: PRNGKeyArray, images: Images, labels: Labels, others: Others = None
    ) -> tuple[Images, Labels]:
        """Mixes one batch; every image gets the same rectangle. See `Mixing`."""
        return paste(images, labels, self.sample_box(key, *images.shape[1:3]), others)


def _span(
    key: PRNGKeyArray, size: int, half: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A stretch of 2 × half about a random pixel, cut at 0 and size."""
    centre = jax.random.randint(key, (), 0, size).astype(jnp.float32)
    return jnp.maximum(centre - half, 0.0), jnp.minimum(centre + half, size)


def mixup(alpha: float = 0.2) -> Mixup:
    """Makes mixup (Zhang et al., 2018, https://arxiv.org/abs/1710.09412).

    Args:
        alpha: Strength, above 0: of the Beta(alpha, alpha) distribution of the weight, one weight
            a batch; 1 is uniform.

    Returns:
        `mixing(key, images, labels) -> (images, labels)`, frozen.

    Raises:
        UserError: alpha is out of range.
    """
    return Mixup(alpha=check_number("alpha", alpha, *_ALPHAS))


def cutmix(alpha: float = 1.0) -> CutMix:
    """Makes CutMix (Yun et al., 2019, https://arxiv.org/abs/1905.04899).

    Args:
        alpha: Of the Beta(alpha, alpha) distribution of the share of the image that is kept,
            above 0; 1 is uniform.

    Returns:
        `mixing(key, images, labels) -> (images, labels)`, frozen.

    Raises:
        UserError: alpha is out of range.
    """
    return CutMix(alpha=check_number("alpha", alpha, *_ALPHAS))
