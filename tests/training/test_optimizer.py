"""Schedules and optimizers against torch's rules worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from invariance_jax.config import OptimizerConfig
from invariance_jax.errors import UserError
from invariance_jax.training.optimizer import make_optimizer, make_schedule

CONFIG = OptimizerConfig(
    name="sgd(momentum=0.9)",
    learning_rate=0.1,
    schedule="constant",
    warmup_steps=0,
    weight_decay=0.0,
    weight_decay_on="all",
    grad_clip_norm=0.0,
)


def rates(config, steps, count):
    return [float(make_schedule(config, steps)(step)) for step in range(count)]


def test_step_schedule_decays_at_each_interval():
    config = CONFIG.with_values(schedule="step(every=2, factor=0.1)")
    np.testing.assert_allclose(rates(config, 5, 5), [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-5)


def test_cosine_ends_at_zero_after_warmup():
    config = CONFIG.with_values(schedule="cosine", warmup_steps=2)
    expected = [0.05, 0.1, 0.1, 0.05, 0.0]
    np.testing.assert_allclose(rates(config, 4, 5), expected, atol=1e-6)


def test_sgd_is_torchs():
    # torch: d = g + weight_decay * p; buffer = momentum * buffer + d; p -= rate * buffer
    config = CONFIG.with_values(weight_decay=0.5)
    optimizer = make_optimizer(config, 10)
    params = {"w": jnp.asarray(2.0)}
    state = optimizer.init(params)
    p, buffer = 2.0, 0.0
    for gradient in (1.0, -3.0, 0.5):
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        buffer = 0.9 * buffer + gradient + 0.5 * p
        p -= 0.1 * buffer
        assert float(params["w"]) == pytest.approx(p, rel=1e-6)


def test_adamw_decays_apart_from_the_gradient():
    config = CONFIG.with_values(name="adamw(b2=0.9)", weight_decay=0.5)
    optimizer = make_optimizer(config, 10)
    params = {"w": jnp.asarray(2.0)}
    updates, _ = optimizer.update(
        jax.tree.map(jnp.ones_like, params), optimizer.init(params), params
    )
    # First step: the normalised gradient is 1, and decay adds 0.5 * 2.
    assert float(updates["w"]) == pytest.approx(-0.1 * (1 + 1), rel=1e-5)


def first_updates(config, params, gradients):
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    return updates


def test_lamb_moves_each_parameter_in_proportion_to_its_size():
    # First step: the normalised gradient is its sign, decay adds 0.5 * p, and the whole is scaled
    # to the norm of p (You et al., arXiv 1904.00962, algorithm 2).
    config = CONFIG.with_values(name="lamb", weight_decay=0.5)
    p = np.array([3.0, -4.0])
    direction = np.sign([1.0, 2.0]) + 0.5 * p
    expected = -0.1 * direction * np.linalg.norm(p) / np.linalg.norm(direction)
    found = first_updates(config, {"w": jnp.asarray(p)}, {"w": jnp.asarray([1.0, 2.0])})
    np.testing.assert_allclose(found["w"], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_decay_on_kernels_spares_everything_else(name):
    params = {
        "conv": {"kernel": jnp.full(2, 2.0)},
        "norm": {"scale": jnp.full(2, 2.0), "bias": jnp.full(2, 2.0)},
        "pos_embed": jnp.full(2, 2.0),
    }
    still = jax.tree.map(jnp.zeros_like, params)
    config = CONFIG.with_values(name=name, weight_decay=0.5, weight_decay_on="kernels")
    moved = jax.tree.map(lambda u: bool((u < 0).all()), first_updates(config, params, still))
    assert moved == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
        "pos_embed": False,
    }
    everywhere = config.with_values(weight_decay_on="all")
    moved = jax.tree.map(lambda u: bool((u < 0).all()), first_updates(everywhere, params, still))
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(("limit", "factor"), [(0.0, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_the_whole_gradient_is_shortened_to_the_limit(limit, factor):
    config = CONFIG.with_values(grad_clip_norm=limit)
    gradients = {"a": jnp.asarray([3.0]), "b": jnp.asarray([0.0, 4.0])}  # norm 5
    found = first_updates(config, jax.tree.map(jnp.zeros_like, gradients), gradients)
    np.testing.assert_allclose(found["a"], [-0.1 * 3 * factor], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [0, -0.1 * 4 * factor], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "sdg"}, r"config\.optimizer\.name: unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"name": "sgd(b2=1)"}, r"optimizer 'sgd' has no option 'b2'; its options: momentum"),
        ({"schedule": "cosin"}, r"config\.optimizer\.schedule: unknown schedule 'cosin'"),
        ({"schedule": "step"}, r"config\.optimizer\.schedule: 'step': .*every"),
        ({"schedule": "step(every=0)"}, r"every is 0; expected at least 1 step"),
        ({"warmup_steps": 11}, r"config\.optimizer\.warmup_steps is 11; expected at most"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(CONFIG.with_values(**changes), 10)
