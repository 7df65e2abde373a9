"""Schedules and optimizers against torch's rules worked out by hand."""

import dataclasses

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
    clip_norm=0.0,
)


def rates(config, steps, count):
    return [float(make_schedule(config, steps)(step)) for step in range(count)]


def test_step_schedule_decays_at_each_interval():
    config = dataclasses.replace(CONFIG, schedule="step(every=2, factor=0.1)")
    np.testing.assert_allclose(rates(config, 5, 5), [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-5)


def test_cosine_ends_at_zero_after_warmup():
    config = dataclasses.replace(CONFIG, schedule="cosine", warmup_steps=2)
    expected = [0.05, 0.1, 0.1, 0.05, 0.0]
    np.testing.assert_allclose(rates(config, 4, 5), expected, atol=1e-6)


def test_sgd_is_torchs():
    # torch: d = g + weight_decay * p; buffer = momentum * buffer + d; p -= rate * buffer
    config = dataclasses.replace(CONFIG, weight_decay=0.5)
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
    config = dataclasses.replace(CONFIG, name="adamw(b2=0.9)", weight_decay=0.5)
    optimizer = make_optimizer(config, 10)
    params = {"w": jnp.asarray(2.0)}
    updates, _ = optimizer.update(
        jax.tree.map(jnp.ones_like, params), optimizer.init(params), params
    )
    # First step: the normalised gradient is 1, and decay adds 0.5 * 2.
    assert float(updates["w"]) == pytest.approx(-0.1 * (1 + 1), rel=1e-5)


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
        make_optimizer(dataclasses.replace(CONFIG, **changes), 10)
