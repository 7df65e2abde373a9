"""The step's parts against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny_runs import tiny

from invariance_jax.training import experiment
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


def test_only_training_may_resample_roughly():
    built = experiment.make(tiny())
    assert not built.augmentation.augmentation.exact and built.preprocess.exact
