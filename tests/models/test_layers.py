"""BatchNorm: statistics by hand, groups, and what moves when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from invariance_jax.errors import UserError
from invariance_jax.models import layers
from invariance_jax.models.layers import BatchNorm


def images_of(*values, dtype=jnp.float32):
    return jnp.asarray(values, dtype).reshape(-1, 1, 1, 1)


def run(x, *, group=0, train=True, dtype=jnp.float32, variables=None):
    norm = BatchNorm(group, dtype)
    if variables is None:
        variables = norm.init(jax.random.key(0), x, train=False)
    y, updates = norm.apply(variables, x, train=train, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def test_training_by_hand():
    y, stats = run(images_of(1, 3))
    np.testing.assert_allclose(y.ravel(), np.array([-1, 1]) / np.sqrt(1 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(stats["mean"], [0.1 * 2], rtol=1e-6)
    # The biased variance is 1, the unbiased 2.
    np.testing.assert_allclose(stats["var"], [0.9 + 0.1 * 2], rtol=1e-6)


def test_groups_by_hand():
    y, stats = run(images_of(1, 3, 5, 9), group=2)
    expected = [-1 / np.sqrt(1 + 1e-5), 1 / np.sqrt(1 + 1e-5)]
    expected += [-2 / np.sqrt(4 + 1e-5), 2 / np.sqrt(4 + 1e-5)]
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(stats["mean"], [0.1 * (2 + 7) / 2], rtol=1e-6)
    np.testing.assert_allclose(stats["var"], [0.9 + 0.1 * (2 + 8) / 2], rtol=1e-6)


def test_evaluation_by_hand_moves_nothing():
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([5.0])},
        "batch_stats": {"mean": jnp.array([1.0]), "var": jnp.array([4.0])},
    }
    # A group that does not divide the batch is no matter in evaluation.
    y, stats = run(images_of(1, 3, 7), group=2, train=False, variables=variables)
    np.testing.assert_allclose(y.ravel(), [5, 7, 11], rtol=1e-5)
    assert stats["mean"] == 1 and stats["var"] == 4


def test_pixels_count_and_channels_do_not_mix():
    x = np.random.default_rng(0).normal([0, 5], [1, 3], (3, 4, 5, 2)).astype(np.float32)
    y, stats = run(jnp.asarray(x))
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_variance_survives_a_large_mean():
    _, stats = run(images_of(10_000, 10_001))
    np.testing.assert_allclose(stats["var"], [0.9 + 0.1 * 0.5], rtol=1e-6)


def test_bfloat16_has_float32_statistics():
    # 257 is no bfloat16 number.
    y, stats = run(images_of(256, 258, dtype=jnp.bfloat16), dtype=jnp.bfloat16)
    assert y.dtype == jnp.bfloat16 and stats["mean"].dtype == stats["var"].dtype == jnp.float32
    np.testing.assert_allclose(stats["mean"], [25.7], rtol=1e-6)
    np.testing.assert_allclose(y.astype(np.float32).ravel(), [-1, 1])


def test_init_in_training_does_not_move_statistics():
    norm = BatchNorm(0, jnp.float32)
    stats = norm.init(jax.random.key(0), images_of(1, 3), train=True)["batch_stats"]
    assert stats["mean"] == 0 and stats["var"] == 1


@pytest.mark.parametrize("group", [0, 2, 4])
def test_devices_do_not_matter(group):
    x = jax.random.normal(jax.random.key(1), (8, 2, 2, 3)) * 2 + 1
    y, stats = run(x, group=group)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    norm = BatchNorm(group, jnp.float32)
    variables = norm.init(jax.random.key(0), x, train=False)
    step = jax.jit(lambda v, x: norm.apply(v, x, train=True, mutable=["batch_stats"]))
    y8, updates = step(variables, sharded)
    assert len(sharded.addressable_shards) == 8
    np.testing.assert_allclose(y8, y, atol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], stats["mean"], atol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["var"], stats["var"], rtol=1e-5)


def test_errors():
    with pytest.raises(
        UserError, match="ghost_batch_size is 3, but the batch has 4 images; expected a"
    ):
        run(images_of(1, 2, 3, 4), group=3)
    with pytest.raises(UserError, match=r"one value a channel \(ghost_batch_size 1, batch 4"):
        run(images_of(1, 2, 3, 4), group=1)


def statistics(x):
    """Of float32 [ghost, batch, height, width, channels], in float64."""
    x = np.asarray(x, np.float64)
    return x.mean((1, 2, 3)), x.var((1, 2, 3))


@pytest.mark.parametrize("guess", [0.0, 3.0])
def test_one_pass_finds_what_two_passes_find(guess):
    """What TPUs do, with a running mean that is at its start, and one that is near."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 5, 5, 4)) * 2 + jnp.arange(4.0).reshape(
        1, 1, 1, 1, 4
    )
    mean, variance = jax.jit(layers.in_one_pass)(x, jnp.full(4, guess))
    expected = statistics(x)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5, atol=1e-6)
    bound = 1e-6 * (expected[1] + (expected[0] - guess) ** 2)
    assert (np.abs(variance - expected[1]) < bound).all()


@pytest.mark.parametrize(("ratio", "error"), [(10, 3e-5), (100, 3e-3)])
def test_what_one_pass_loses_at_a_large_mean(ratio, error):
    x = jax.random.normal(jax.random.key(0), (1, 8, 16, 16, 4)) + ratio
    _, expected = statistics(x)
    _, variance = layers.in_one_pass(x, jnp.zeros(4))
    np.testing.assert_allclose(variance, expected, rtol=error)
    assert (variance >= 0).all()
    # Nothing once the running mean is near.
    _, variance = layers.in_one_pass(x, jnp.full(4, ratio * 0.999))
    np.testing.assert_allclose(variance, expected, rtol=1e-5)


def test_derivatives_of_the_statistics():
    """The rule against what JAX makes of two passes, forwards and backwards."""
    key = jax.random.key(2)
    x = jax.random.normal(key, (2, 4, 3, 3, 2)) + 5
    weights = jax.random.normal(jax.random.fold_in(key, 1), (2, 2, 2))
    direction = jax.random.normal(jax.random.fold_in(key, 2), x.shape)

    def derivatives(function):
        def value(x):
            mean, variance = function(x, jnp.ones(2))
            return jnp.sum(weights * jnp.sin(jnp.stack([mean, variance])))

        return jax.grad(value)(x), jax.jvp(value, (x,), (direction,))[1]

    for found, expected in zip(
        derivatives(layers.batch_statistics), derivatives(layers.in_two_passes), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
