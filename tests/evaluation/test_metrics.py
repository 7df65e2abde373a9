"""The metrics against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.evaluation import metrics


def test_cosine_distance_by_hand():
    a = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    b = jnp.asarray([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [4.0, 3.0]])
    np.testing.assert_allclose(metrics.cosine_distance(a, b), [0, 1, 2, 1 - 24 / 25], atol=1e-6)


def test_cosine_distance_to_a_zero_vector_is_one():
    assert float(metrics.cosine_distance(jnp.zeros((3,)), jnp.ones((3,)))) == 1


def test_small_cosine_distances_are_not_rounded_away():
    # An angle t apart: 1 - cos(t) is t^2 / 2, less than float32 can hold beside 1.
    angle = np.float32(1e-4)
    found = metrics.cosine_distance(
        jnp.asarray([100.0, 0.0]), 3 * jnp.asarray([np.cos(angle), np.sin(angle)])
    )
    assert float(found) == pytest.approx(5e-9, rel=1e-4)


def test_euclidean_distance_by_hand():
    a, b = jnp.asarray([[0.0, 0.0], [1.0, 1.0]]), jnp.asarray([[3.0, 4.0], [1.0, 1.0]])
    np.testing.assert_allclose(metrics.euclidean_distance(a, b), [5, 0])


def test_relative_invariance_by_hand():
    baseline, transformed = jnp.asarray([0.5, 0.5, 0.5]), jnp.asarray([0.0, 0.5, 0.75])
    np.testing.assert_allclose(
        metrics.relative_invariance(baseline, transformed), [1, 0, -0.5], atol=1e-6
    )


def test_relative_invariance_of_a_zero_baseline_is_finite():
    assert float(metrics.relative_invariance(jnp.zeros(()), jnp.zeros(()))) == 0


def test_random_embeddings_are_not_invariant():
    a, b, c = jax.random.normal(jax.random.key(0), (3, 4000, 32))
    invariance = metrics.relative_invariance(
        metrics.cosine_distance(a, c), metrics.cosine_distance(a, b)
    )
    standard_error = 1.2533 * np.std(invariance) / np.sqrt(invariance.size)
    assert abs(np.median(invariance)) < 3 * standard_error


@pytest.mark.parametrize("kind", metrics.DISTANCES)
def test_distance_is_the_named_one(kind):
    a, b = jnp.asarray([1.0, 2.0]), jnp.asarray([2.0, -1.0])
    assert float(metrics.distance(kind, a, b)) == pytest.approx(
        {"cosine": 1.0, "euclidean": 10**0.5}[kind], rel=1e-6
    )


def test_equivariance_alignment_by_hand():
    # Both images are moved to the right; by chance one of the directions would be up.
    right, up = jnp.asarray([[1.0, 0.0]]), jnp.asarray([[0.0, 2.0]])
    found = metrics.equivariance_alignment(right, 3 * right, right, up)
    np.testing.assert_allclose(found, [1.0], atol=1e-6)  # (1 - 0) - (1 - 1)
    np.testing.assert_allclose(
        metrics.equivariance_alignment(right, -right, right, right), [-2.0], atol=1e-6
    )


def test_what_does_not_move_is_not_aligned():
    still = jnp.zeros((2, 3))
    np.testing.assert_array_equal(
        metrics.equivariance_alignment(still, still, still, still), [0.0, 0.0]
    )


def test_invariance_gap_by_hand():
    # Median over three images is the middle one; only magnitudes 3 to 7 count.
    trained = np.zeros((2, 10, 3), np.float32)
    trained[0, :, 1:] = 1.0
    trained[0, 8:] = 100.0
    trained[1, 3:8] = [0.1, 0.2, 9.0]
    untrained = np.zeros((2, 10, 1), np.float32)
    untrained[0, 5] = 0.5
    np.testing.assert_allclose(metrics.invariance_gap(trained, untrained), [0.9, 0.2], rtol=1e-6)


def test_flips_and_hits_by_hand():
    logits = jnp.asarray([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [2.0, 2.0, 0.0]])
    prediction, label = jnp.asarray([1, 0, 0]), jnp.asarray([2, 1, 0])
    np.testing.assert_array_equal(metrics.prediction_flip(prediction, logits), [0, 1, 0])
    # The last one is a tie, which counts against the model.
    np.testing.assert_array_equal(metrics.is_correct(logits, label), [0, 1, 0])
