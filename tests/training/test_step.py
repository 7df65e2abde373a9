"""The step's parts against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.training.step import cross_entropy, example_keys

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


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_torchs(smoothing):
    # torch: the target is (1 - smoothing) at the true class, plus smoothing / classes everywhere.
    logits = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    label = np.array([0, 1])
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(3)[label] + smoothing / 3
    expected = -(target * log_probability).sum(1)
    found = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(label), smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
