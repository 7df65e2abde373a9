"""The paper's measures against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.evaluation import measures


def test_cosine_distance_by_hand():
    a = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    b = jnp.asarray([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [4.0, 3.0]])
    np.testing.assert_allclose(measures.cosine_distance(a, b), [0, 1, 2, 1 - 24 / 25], atol=1e-6)


def test_cosine_distance_to_a_zero_vector_is_one():
    assert float(measures.cosine_distance(jnp.zeros((3,)), jnp.ones((3,)))) == 1


def test_euclidean_distance_by_hand():
    a, b = jnp.asarray([[0.0, 0.0], [1.0, 1.0]]), jnp.asarray([[3.0, 4.0], [1.0, 1.0]])
    np.testing.assert_allclose(measures.euclidean_distance(a, b), [5, 0])


def test_relative_invariance_by_hand():
    baseline, transformed = jnp.asarray([0.5, 0.5, 0.5]), jnp.asarray([0.0, 0.5, 0.75])
    np.testing.assert_allclose(
        measures.relative_invariance(baseline, transformed), [1, 0, -0.5], atol=1e-6
    )


def test_relative_invariance_of_a_zero_baseline_is_finite():
    assert float(measures.relative_invariance(jnp.zeros(()), jnp.zeros(()))) == 0


def test_random_embeddings_are_not_invariant():
    a, b, c = jax.random.normal(jax.random.key(0), (3, 4000, 32))
    invariance = measures.relative_invariance(
        measures.cosine_distance(a, c), measures.cosine_distance(a, b)
    )
    standard_error = 1.2533 * np.std(invariance) / np.sqrt(invariance.size)
    assert abs(np.median(invariance)) < 3 * standard_error


@pytest.mark.parametrize("kind", measures.DISTANCES)
def test_distance_is_the_named_one(kind):
    a, b = jnp.asarray([1.0, 2.0]), jnp.asarray([2.0, -1.0])
    assert float(measures.distance(kind, a, b)) == pytest.approx(
        {"cosine": 1.0, "euclidean": 10**0.5}[kind], rel=1e-6
    )
