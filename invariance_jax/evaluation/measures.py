"""The paper's measures, as pure functions of embeddings (paper, section 3)."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Distance = Literal["cosine", "euclidean"]
DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean")

# The paper's guard against a baseline of zero.
_EPSILON = 1e-8
# torch's cosine_similarity: a vector shorter than this has no direction.
_SHORTEST = 1e-8


def cosine_distance(
    a: Float[Array, "*batch features"], b: Float[Array, "*batch features"]
) -> Float[Array, "*batch"]:
    """One minus the cosine of the angle between two vectors.

    Args:
        a: Vectors along the last axis.
        b: Others; leading axes broadcast.

    Returns:
        0 for the same direction, 1 for a right angle (and for a zero vector), 2 for opposites.
    """
    length_a = jnp.maximum(jnp.linalg.norm(a, axis=-1), _SHORTEST)
    length_b = jnp.maximum(jnp.linalg.norm(b, axis=-1), _SHORTEST)
    return 1.0 - jnp.sum(a * b, axis=-1) / (length_a * length_b)


def euclidean_distance(
    a: Float[Array, "*batch features"], b: Float[Array, "*batch features"]
) -> Float[Array, "*batch"]:
    """Length of the difference of two vectors.

    Args:
        a: Vectors along the last axis.
        b: Others; leading axes broadcast.

    Returns:
        The distance, not negative.
    """
    return jnp.linalg.norm(a - b, axis=-1)


def distance(
    kind: Distance, a: Float[Array, "*batch features"], b: Float[Array, "*batch features"]
) -> Float[Array, "*batch"]:
    """The named distance.

    Args:
        kind: "cosine" or "euclidean".
        a: Vectors along the last axis.
        b: Others; leading axes broadcast.

    Returns:
        `cosine_distance(a, b)` or `euclidean_distance(a, b)`.
    """
    return {"cosine": cosine_distance, "euclidean": euclidean_distance}[kind](a, b)


def relative_invariance(
    baseline: Float[Array, "*batch"], transformed: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """How much nearer an image's transform is than another image's.

    Args:
        baseline: Distance of an image's embedding to that of another image, transformed.
        transformed: Distance of the embedding to that of its own transform.

    Returns:
        (baseline - transformed) / (baseline + 1e-8): 1 is invariant, 0 is no nearer than a
        random other image, negative is farther.
    """
    return (baseline - transformed) / (baseline + _EPSILON)
