"""One training step as a pure function: augment, forward, backward, update."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import clu.metrics
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from invariance_jax.augment import LearnedAugmentation, OneMixing
from invariance_jax.augment.learned import COLLECTION, mean_log_probability
from invariance_jax.training.losses import Loss
from invariance_jax.training.state import TrainState

# Folded into a step's key in place of an example's index; no data set is this large.
_WHOLE_BATCH = np.uint32(0xFFFF_FFFE)
_NEVER = jnp.iinfo(jnp.int32).max

Batch = Mapping[str, Array]
Step = Callable[[TrainState, Any, Batch], tuple[TrainState, Any]]


@flax.struct.dataclass
class FirstNonFiniteStep(clu.metrics.Metric):
    """The first step whose loss or new state was not a finite number.

    Attributes:
        step: That step; the largest int32 if there was none.
    """

    step: Int[Array, ""]

    @classmethod
    def empty(cls) -> "FirstNonFiniteStep":
        """No such step."""
        return cls(step=jnp.int32(_NEVER))

    @classmethod
    def from_model_output(
        cls, *, finite: Bool[Array, ""], step: Int[Array, ""], **_: Array
    ) -> "FirstNonFiniteStep":
        """One step."""
        return cls(step=jnp.where(finite, _NEVER, step).astype(jnp.int32))

    def merge(self, other: "FirstNonFiniteStep") -> "FirstNonFiniteStep":
        """The earlier of two."""
        return FirstNonFiniteStep(step=jnp.minimum(self.step, other.step))

    def compute(self) -> int | None:
        """The step, or None."""
        return None if int(self.step) == _NEVER else int(self.step)


# What accumulates between two log lines.
TrainMetrics = clu.metrics.Collection.create(
    loss=clu.metrics.Average.from_output("loss"),
    top1=clu.metrics.Average.from_output("correct"),
    learning_rate=clu.metrics.LastValue.from_output("learning_rate"),
    nonfinite=FirstNonFiniteStep,
)


def example_keys(
    key: PRNGKeyArray, step: Int[Array, ""], index: Int[Array, "batch"]
) -> PRNGKeyArray:
    """Keys of a batch: what an image gets depends on the seed, the step and the image alone.

    Args:
        key: The run's key.
        step: The global step.
        index: Each example's index in its dataset.

    Returns:
        One key for each example, whatever the layout of the batch over devices.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), index)


def mixing_key(key: PRNGKeyArray, step: Int[Array, ""]) -> PRNGKeyArray:
    """Key of what happens to a step's whole batch.

    Args:
        key: The run's key.
        step: The global step.

    Returns:
        One key, none of `example_keys`.
    """
    return jax.random.fold_in(jax.random.fold_in(key, step), _WHOLE_BATCH)


def make_train_step(
    model: nn.Module,
    augment: Callable[..., Array],
    mixing: OneMixing,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    key: PRNGKeyArray,
    *,
    normalize: Callable[[Array], Array],
    loss: Loss,
    grad_accum_steps: int,
    ema_decay: float,
    learned: LearnedAugmentation | None = None,
    whole: NamedSharding | None = None,
) -> Step:
    """Makes the training step, to be jitted as one program.

    Args:
        model: The network.
        augment: From keys, canvases, heights, widths and labels to images, each by itself.
        mixing: What happens to the batch.
        optimizer: The optimizer.
        schedule: Its learning rate, for the metrics.
        key: The run's key.
        normalize: From images in [0, 1] to what the network takes.
        loss: The loss of each example.
        grad_accum_steps: Microbatches; see `_mean_gradients`.
        ema_decay: Decay of the state's moving average; without effect if it has none.
        learned: What happens to normalised images, with widths that stand among the parameters.
        whole: Where divided parameters lie while a batch goes through the network. Without it XLA
            may as well gather the images' features, which are larger.

    Returns:
        `step(state, metrics, batch) -> (state, metrics)`; the batch is as `data.train_batches`
        yields it, the metrics are those given merged with this step's.
    """

    def loss_of(
        params: Any, batch_stats: Any, images: Array, target: Array, *drawn: Array
    ) -> tuple[Array, tuple[Any, Array]]:
        if whole:
            params = jax.lax.with_sharding_constraint(params, whole)
        variables = {"params": params, "batch_stats": batch_stats}
        penalty = 0.0
        if learned:
            raw = params[COLLECTION]
            raw = jax.lax.stop_gradient(raw) if learned.fixed else raw
            images, penalty = learned(raw, images, *drawn), learned.penalty(raw)
        (logits, _), updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        if learned:
            logits = mean_log_probability(logits, learned.train_copies)
        value = jnp.mean(loss(logits, target)) + penalty
        return value, (updates.get("batch_stats", {}), logits)

    gradients_of = _mean_gradients(jax.value_and_grad(loss_of, has_aux=True), grad_accum_steps)

    def step(state: TrainState, metrics: Any, batch: Batch) -> tuple[TrainState, Any]:
        keys = example_keys(key, state.step, batch["index"])
        shown = (batch["canvas"], batch["height"], batch["width"], batch["label"])
        images = augment(keys, *shown)
        target = jax.nn.one_hot(batch["label"], model.num_classes)
        images, target = mixing(mixing_key(key, state.step), images, target)
        drawn = (learned.draw(keys, learned.train_copies), batch["label"]) if learned else ()
        (value, (batch_stats, logits)), gradients = gradients_of(
            state.params, state.batch_stats, normalize(images), target, *drawn
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            optimizer_state=optimizer_state,
            ema=state.ema,
        )
        if state.ema:
            averaged = optax.incremental_update(new_state.variables, state.ema, 1 - ema_decay)
            new_state = dataclasses.replace(new_state, ema=averaged)
        # The loss was computed before the update: a checkpoint must not hold an update that
        # only the next step would show to be broken.
        norm = optax.tree.norm(new_state.variables)
        metrics = metrics.merge(
            TrainMetrics.single_from_model_output(
                loss=value,
                # Of a mixed image, the class of its larger part counts.
                correct=jnp.argmax(logits, axis=-1) == jnp.argmax(target, axis=-1),
                learning_rate=schedule(state.step),
                finite=jnp.isfinite(value) & jnp.isfinite(norm),
                step=new_state.step,
            )
        )
        return new_state, metrics

    return step


def _mean_gradients(value_and_grad: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """Computes a batch's gradients in microbatches, one after another, to save memory.

    Microbatch j holds the images j, j + parts, j + 2 parts, ... of the batch: so every device has
    its share of each, and the numbers do not depend on how many devices there are. Losses are
    means, so the mean of the microbatches' gradients is that of the batch, but for BatchNorm: its
    statistics are those of a microbatch (or of `ghost_batch_size` images of one), and the running
    ones move once for each microbatch, as in PyTorch when gradients are accumulated.

    Args:
        value_and_grad: `f(params, batch_stats, images, target, ...)` to `((loss, (batch_stats,
            logits)), gradients)`; more arrays [batch, ...] may follow.
        parts: How many microbatches; they divide the batch.

    Returns:
        A function of the same form.
    """
    if parts == 1:
        return value_and_grad

    def accumulated(params: Any, batch_stats: Any, *arrays: Array) -> Any:
        def one(carry: tuple[Any, Any], part: tuple[Array, ...]) -> tuple[Any, Any]:
            batch_stats, total = carry
            (loss, (batch_stats, logits)), gradients = value_and_grad(params, batch_stats, *part)
            return (batch_stats, jax.tree.map(jnp.add, total, gradients)), (loss, logits)

        def split(x: Array) -> Array:
            return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)

        start = batch_stats, jax.tree.map(jnp.zeros_like, params)
        (batch_stats, total), (losses, logits) = jax.lax.scan(one, start, tuple(map(split, arrays)))
        gradients = jax.tree.map(lambda x: x / parts, total)
        in_order = jnp.swapaxes(logits, 0, 1).reshape(-1, logits.shape[-1])
        return (jnp.mean(losses), (batch_stats, in_order)), gradients

    return accumulated
