"""The paper's measures, as pure functions of embeddings (paper, section 3)."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Numbers = Array | np.ndarray
Distance = Literal["cosine", "euclidean"]
DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean")

# Magnitudes 3 to 7 of 0 to 9: neither nearly nothing nor so strong that no network bears it.
GAP_MAGNITUDES = slice(3, 8)

# The paper's guard against a baseline of zero.
_EPSILON = 1e-8
# torch's cosine_similarity: a vector shorter than this has no direction.
_SHORTEST = 1e-8


def cosine_distance(
    a: Float[Numbers, "*#batch features"],
    b: Float[Numbers, "*#batch features"],
) -> Float[Array, "..."]:
    """One minus the cosine of the angle between two vectors.

    Args:
        a: Vectors along the last axis.
        b: Others; leading axes broadcast.

    Returns:
        0 for the same direction, 1 for a right angle (and for a zero vector), 2 for opposites.
    """
    length_a = jnp.linalg.norm(a, axis=-1, keepdims=True)
    length_b = jnp.linalg.norm(b, axis=-1, keepdims=True)
    unit_a, unit_b = (
        vector / jnp.maximum(length, _SHORTEST) for vector, length in ((a, length_a), (b, length_b))
    )
    # Of unit vectors both say the same, but 1 - cos rounds small distances away.
    chord = 0.5 * jnp.sum((unit_a - unit_b) ** 2, axis=-1)
    angle = 1.0 - jnp.sum(unit_a * unit_b, axis=-1)
    directed = (jnp.minimum(length_a, length_b) >= _SHORTEST)[..., 0]
    return jnp.where(directed, chord, angle)


def euclidean_distance(
    a: Float[Numbers, "*#batch features"],
    b: Float[Numbers, "*#batch features"],
) -> Float[Array, "..."]:
    """Length of the difference of two vectors.

    Args:
        a: Vectors along the last axis.
        b: Others; leading axes broadcast.

    Returns:
        The distance, not negative.
    """
    return jnp.linalg.norm(a - b, axis=-1)


def distance(
    kind: Distance,
    a: Float[Numbers, "*#batch features"],
    b: Float[Numbers, "*#batch features"],
) -> Float[Array, "..."]:
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
    baseline: Float[Numbers, "*batch"], transformed: Float[Numbers, "*batch"]
) -> Float[Numbers, "*batch"]:
    """How much nearer an image's transform is than another image's.

    Args:
        baseline: Distance of an image's embedding to that of another image, transformed.
        transformed: Distance of the embedding to that of its own transform.

    Returns:
        (baseline - transformed) / (baseline + 1e-8): 1 is invariant, 0 is no nearer than a
        random other image, negative is farther.
    """
    return (baseline - transformed) / (baseline + _EPSILON)


def equivariance_alignment(
    difference: Float[Array, "*batch features"],
    difference_other: Float[Array, "*batch features"],
    shuffled: Float[Array, "*batch features"],
    shuffled_other: Float[Array, "*batch features"],
) -> Float[Array, "*batch"]:
    """How much more alike a transform's effects on two images are than chance would have it.

    An equivariant embedding moves in the same direction whatever the image is.

    Args:
        difference: d_i = z_i - z_t,i: how the transform moved image i.
        difference_other: d_pi(i), the same of another image.
        shuffled: b_i: rows of a matrix that holds all d with every column permuted
            independently over the images.
        shuffled_other: b_pi(i).

    Returns:
        d(b_i, b_pi(i)) - d(d_i, d_pi(i)) with d the cosine distance: above 0, the transform moves
        both images more alike than chance; at most 2. Where nothing moves it is 0.
    """
    return cosine_distance(shuffled, shuffled_other) - cosine_distance(difference, difference_other)


def invariance_gap(
    trained: Float[np.ndarray, "*cells magnitude image"],
    untrained: Float[np.ndarray, "*cells magnitude other_image"],
) -> Float[np.ndarray, "*cells"]:
    """How much more invariant training made a network.

    Args:
        trained: Relative invariance of the trained network, magnitudes in the grid's order.
        untrained: That of the untrained network of the same architecture; the images may differ.

    Returns:
        The mean over magnitudes 3 to 7 of (median over images of trained - that of untrained).
    """
    medians = [np.median(each, axis=-1)[..., GAP_MAGNITUDES] for each in (trained, untrained)]
    return np.mean(medians[0] - medians[1], axis=-1)


def prediction_flip(
    prediction: Int[Array, "*#batch"], logits: Float[Array, "*#batch classes"]
) -> Bool[Array, "..."]:
    """Whether a transform changes what the network says an image is.

    Args:
        prediction: Class with the highest score before the transform.
        logits: Scores after it.

    Returns:
        True where the class with the highest score is another one.
    """
    return jnp.argmax(logits, axis=-1) != prediction


def rank_of_label(
    logits: Float[Array, "*batch classes"], label: Int[Array, "*batch"]
) -> Int[Array, "*batch"]:
    """How many other classes score at least as high as the true one.

    Args:
        logits: Scores.
        label: The true class of each.

    Returns:
        0 where the true class alone is best. Ties count against the model, and so does a score
        that is not a number.
    """
    true = jnp.take_along_axis(logits, label[..., None], axis=-1)
    return jnp.sum(~(logits < true), axis=-1) - 1


def is_correct(
    logits: Float[Array, "*batch classes"], label: Int[Array, "*batch"]
) -> Bool[Array, "*batch"]:
    """Whether the true class has the best score; the mean over images is top-1 accuracy.

    Args:
        logits: Scores.
        label: True classes.

    Returns:
        True where it has; see `rank_of_label`.
    """
    return rank_of_label(logits, label) == 0
