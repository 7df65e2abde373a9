"""Which features of a network are compared: the embedding, and any layer's on the way there."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.errors import UserError, unknown_name

Pooling = Literal["mean", "none"]
Embed = Callable[
    [Any, Float[Array, "batch height width 3"]],
    tuple[Float[Array, "batch features"], Float[Array, "batch classes"]],
]

EMBEDDING = "embedding"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each feature lies in the one vector that an image has.

    Attributes:
        names: Features, the embedding first.
        sizes: Length of each.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The part of the vector that each feature takes."""
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes))]
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))

    @property
    def length(self) -> int:
        """Length of the whole vector."""
        return sum(self.sizes)


def with_embedding(names: Sequence[str]) -> tuple[str, ...]:
    """Puts the embedding first; it is always measured.

    Args:
        names: Features that were asked for.

    Returns:
        Each of them once, after the embedding.
    """
    return tuple(dict.fromkeys((EMBEDDING, *names)))


def pool(feature: Float[Array, "batch *positions channels"], pooling: Pooling) -> Array:
    """Turns a feature map, or tokens, into one vector an image.

    Args:
        feature: [batch, height, width, channels], [batch, tokens, channels] or [batch, channels].
        pooling: "mean" over pixels or tokens, which forgets where things are; "none" keeps every
            position: then a moved object is a change.

    Returns:
        [batch, length]; a vector stays as it is.
    """
    if pooling == "mean":
        return jnp.mean(feature, axis=tuple(range(1, feature.ndim - 1)))
    return feature.reshape(feature.shape[0], -1)


def make_embed(model: nn.Module, names: Sequence[str], pooling: Pooling) -> Embed:
    """Makes the function from images to their features and scores.

    Args:
        model: The network.
        names: Which features, in this order.
        pooling: How feature maps become vectors.

    Returns:
        `embed(variables, images) -> (vectors, logits)`: images float32, normalised; vectors
        float32 [batch, length], the features one after another as `Layout` says.
    """

    def embed(variables: Any, images: Array) -> tuple[Array, Array]:
        logits, features = model.apply(variables, images, train=False)
        vectors = [pool(features[name], pooling) for name in names]
        return jnp.concatenate(vectors, axis=-1).astype(jnp.float32), logits

    return embed


def make_layout(
    model: nn.Module, variables: Any, names: Sequence[str], pooling: Pooling, image_size: int
) -> Layout:
    """Finds out how long the features are, without computing any.

    Args:
        model: The network.
        variables: Its parameters and batch statistics.
        names: Which features, in this order.
        pooling: How feature maps become vectors.
        image_size: Side of the images, pixels.

    Returns:
        The layout.

    Raises:
        UserError: The network has no such feature.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)

    def vectors(variables: Any, images: Array) -> dict[str, Array]:
        _, features = model.apply(variables, images, train=False)
        for name in names:
            if name not in features:
                error = unknown_name("feature", name, features)
                raise UserError(f"config.eval.features: {error}")
        return {name: pool(features[name], pooling) for name in names}

    shapes = jax.eval_shape(vectors, variables, images)
    return Layout(tuple(names), tuple(shapes[name].shape[1] for name in names))
