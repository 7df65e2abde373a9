"""The step's parts against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.training.losses import cross_entropy
from invariance_jax.training.step import example_keys, mixing_key

KEY = jax.random.key(0)


def test_an_examples_key_depends_on_seed_step_and_index_alone():
    index = jnp.asarray([7, 3, 5])
    keys = jax.random.key_data(example_keys(KEY, jnp.int32(4), index))
    expected = [jax.random.fold_in(jax.random.fold_in(KEY, 4), i) for i in (7, 3, 5)]
    np.testing.assert_array_equal(keys, [jax.random.key_data(each) for each in expected])
    alone = jax.random.key_data(example_keys(KEY, jnp.int32(4), index[2:]))
    np.testing.assert_array_equal(alone, keys[2:])
    later = jax.random.key_data(example_keys(KEY, jnp.int32(5), index))
    assert (later != keys).any(axis=1).all()


def test_the_batchs_key_moves_with_the_step_and_is_no_examples():
    here, later = (jax.random.key_data(mixing_key(KEY, jnp.int32(s))).tolist() for s in (4, 5))
    assert here != later
    last = jnp.asarray([0, 2**31 - 1])  # the first and the last index of int32
    assert here not in jax.random.key_data(example_keys(KEY, jnp.int32(4), last)).tolist()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_torchs(smoothing):
    # torch: the target is (1 - smoothing) at the true class, plus smoothing / classes everywhere.
    logits = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.array([[1.0, 0.0, 0.0], [0.0, 0.7, 0.3]])
    smoothed = (1 - smoothing) * target + smoothing / 3
    expected = -(smoothed * log_probability).sum(1)
    found = cross_entropy(*(jnp.asarray(x, jnp.float32) for x in (logits, target)), smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
