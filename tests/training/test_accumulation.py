"""The whole step on a network of a few units: microbatches, the moving average, no transfers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from invariance_jax.augment import parse_learned
from invariance_jax.augment.learned import COLLECTION
from invariance_jax.models.layers import MOMENTUM, BatchNorm
from invariance_jax.training.losses import make_loss
from invariance_jax.training.state import init_state
from invariance_jax.training.step import TrainMetrics, make_train_step
from invariance_jax.transforms import normalize

BATCH, SIDE, CLASSES = 8, 4, 3
KEY = jax.random.key(0)


class Linear(nn.Module):
    """Mean colours to logits, with or without BatchNorm before."""

    normed: bool
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, images, *, train):
        if self.normed:
            images = BatchNorm(0, jnp.float32, name="norm")(images, train=train)
        return nn.Dense(self.num_classes, name="head")(images[:, 0, 0]), {}


def plain(key, canvas, height, width, label):
    return canvas.astype(jnp.float32) / 255


def unmixed(key, images, target):
    return images, target


def batch_of(seed):
    generator = np.random.default_rng(seed)
    sides = np.full(BATCH, SIDE, np.int32)
    return jax.device_put(
        {
            "canvas": generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8),
            "label": generator.integers(0, CLASSES, BATCH, np.int32),
            "height": sides,
            "width": sides,
            "index": np.arange(BATCH, dtype=np.int32),
        }
    )


def state_of(model, *, ema=False, learned=None):
    augmentation = learned and learned.initial(CLASSES)
    return init_state(model, optax.sgd(0.1), KEY, SIDE, augmentation=augmentation, ema=ema)


def step_of(model, *, grad_accum_steps=1, ema_decay=0.0, learned=None):
    return make_train_step(
        model,
        jax.vmap(plain),
        unmixed,
        optax.sgd(0.1),
        optax.constant_schedule(0.1),
        KEY,
        normalize=normalize,
        loss=make_loss("cross_entropy", 0.0),
        grad_accum_steps=grad_accum_steps,
        ema_decay=ema_decay,
        learned=learned,
    )


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a, b)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_microbatches_without_batch_norm_change_nothing(parts):
    model = Linear(normed=False)
    state, batch = state_of(model), batch_of(0)
    (whole, whole_metrics), (divided, metrics) = (
        jax.jit(step_of(model, grad_accum_steps=each))(state, TrainMetrics.empty(), batch)
        for each in (1, parts)
    )
    assert_close(divided.params, whole.params)
    found, expected = metrics.compute(), whole_metrics.compute()
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)
    # The logits come back in the order of the batch.
    assert float(found["top1"]) == float(expected["top1"]) > 0


def test_batch_norm_sees_one_microbatch_after_another():
    model = Linear(normed=True)
    state, batch = state_of(model), batch_of(1)
    # Statistics that are not those of the first step.
    moved = {"norm": {"mean": jnp.full(3, 0.3), "var": jnp.full(3, 2.0)}}
    state = dataclasses.replace(state, batch_stats=moved)
    found, _ = jax.jit(step_of(model, grad_accum_steps=2))(state, TrainMetrics.empty(), batch)

    images = normalize(batch["canvas"].astype(jnp.float32) / 255)
    target = jax.nn.one_hot(batch["label"], CLASSES)

    def loss(params, part):
        (logits, _), _ = model.apply(
            {**state.variables, "params": params},
            images[part::2],
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.mean(optax.softmax_cross_entropy(logits, target[part::2]))

    even, odd = (jax.grad(loss)(state.params, part) for part in (0, 1))
    expected = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b) / 2, state.params, even, odd)
    assert_close(found.params, expected)

    running = jnp.full(3, 0.3)
    for part in (0, 1):
        running = (1 - MOMENTUM) * running + MOMENTUM * images[part::2].mean((0, 1, 2))
    np.testing.assert_allclose(found.batch_stats["norm"]["mean"], running, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("per_class", [False, True])
def test_microbatches_draw_copies_as_the_whole_batch_does(per_class):
    learned = parse_learned(f"augerino(train_copies=2, per_class={per_class})")
    model = Linear(normed=False)
    state, batch = state_of(model, learned=learned), batch_of(0)
    whole, parts = (
        jax.jit(step_of(model, grad_accum_steps=each, learned=learned))(
            state, TrainMetrics.empty(), batch
        )[0]
        for each in (1, 4)
    )
    assert_close(parts.params, whole.params)
    moved = abs(whole.params[COLLECTION] - state.params[COLLECTION])
    assert (moved > 1e-5).all()


def test_fixed_widths_stay_while_the_network_learns():
    learned = parse_learned("augerino(generators=('translate_x', 'scale'), fixed=True)")
    model = Linear(normed=False)
    state = state_of(model, learned=learned)
    found, _ = jax.jit(step_of(model, learned=learned))(state, TrainMetrics.empty(), batch_of(0))
    assert (found.params[COLLECTION] == jnp.float32([0.84, 2.44])).all()
    assert abs(found.params["head"]["kernel"] - state.params["head"]["kernel"]).max() > 1e-4


def test_the_average_follows_parameters_and_statistics():
    model = Linear(normed=True)
    state = state_of(model, ema=True)
    run = jax.jit(step_of(model, ema_decay=0.75))
    average = jax.device_get(state.variables)
    for seed in (0, 1):
        state, _ = run(state, TrainMetrics.empty(), batch_of(seed))
        average = jax.tree.map(lambda e, v: 0.75 * e + 0.25 * v, average, state.variables)
    assert_close(state.ema, average)
    assert state.evaluated_variables is state.ema
    distance = jax.tree.map(lambda e, v: float(abs(e - v).max()), state.ema, state.variables)
    assert min(jax.tree.leaves(distance)) > 1e-4


def test_without_average_the_variables_themselves_are_judged():
    state = state_of(Linear(normed=True))
    assert state.ema == {}
    assert state.evaluated_variables["params"] is state.params


def test_the_average_shares_no_memory_with_what_it_averages():
    # The step gives its state's memory away, which it can do once.
    model = Linear(normed=True)
    run = jax.jit(step_of(model, ema_decay=0.5), donate_argnums=(0,))
    state = state_of(model, ema=True)
    first, _ = run(state, TrainMetrics.empty(), batch_of(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.ema)))
    again = dataclasses.replace(first, step=jnp.int32(0))
    assert np.isfinite(jax.device_get(run(again, TrainMetrics.empty(), batch_of(1))[0].step))
