"""One training step as a pure function: augment, forward, backward, update."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from invariance_jax.augment import OneMixing, WithPolicies
from invariance_jax.training.metrics import TrainMetrics
from invariance_jax.training.state import TrainState
from invariance_jax.transforms import normalize

# Folded into a step's key in place of an example's index; no data set is this large.
_WHOLE_BATCH = np.uint32(0xFFFF_FFFE)

Batch = Mapping[str, Array]
Step = Callable[[TrainState, Any, Batch], tuple[TrainState, Any]]


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


def cross_entropy(
    logits: Float[Array, "batch classes"],
    target: Float[Array, "batch classes"],
    smoothing: float,
) -> Float[Array, "batch"]:
    """Cross-entropy with label smoothing, as torch's `CrossEntropyLoss(label_smoothing=...)`.

    Args:
        logits: Scores before the softmax.
        target: Probabilities of the classes: one-hot, or mixed.
        smoothing: Share of the target spread evenly over all classes, 0 to 1.

    Returns:
        The loss of each example.
    """
    log_probability = jax.nn.log_softmax(logits)
    true = jnp.sum(target * log_probability, axis=1)
    return -(1 - smoothing) * true - smoothing * jnp.mean(log_probability, axis=1)


def make_train_step(
    model: nn.Module,
    augmentation: WithPolicies,
    mixing: OneMixing,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    key: PRNGKeyArray,
    *,
    label_smoothing: float,
) -> Step:
    """Makes the training step, to be jitted as one program.

    Args:
        model: The network.
        augmentation: What happens to each image.
        mixing: What happens to the batch.
        optimizer: The optimizer.
        schedule: Its learning rate, for the metrics.
        key: The run's key.
        label_smoothing: Share of the target spread over all classes.

    Returns:
        `step(state, metrics, batch) -> (state, metrics)`; the batch is as `data.train_batches`
        yields it, the metrics are those given merged with this step's.
    """

    def loss_of(
        params: Any, state: TrainState, images: Array, target: Array
    ) -> tuple[Array, tuple[Any, Array]]:
        variables = {**state.variables, "params": params}
        (logits, _), updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        loss = jnp.mean(cross_entropy(logits, target, label_smoothing))
        return loss, (updates.get("batch_stats", {}), logits)

    def step(state: TrainState, metrics: Any, batch: Batch) -> tuple[TrainState, Any]:
        keys = example_keys(key, state.step, batch["index"])
        images = jax.vmap(augmentation)(keys, batch["canvas"], batch["height"], batch["width"])
        target = jax.nn.one_hot(batch["label"], model.num_classes)
        images, target = mixing(mixing_key(key, state.step), images, target)
        (loss, (batch_stats, logits)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params, state, normalize(images), target
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            optimizer_state=optimizer_state,
        )
        # The loss was computed before the update: a checkpoint must not hold an update that
        # only the next step would show to be broken.
        norm = optax.tree.norm(new_state.variables)
        metrics = metrics.merge(
            TrainMetrics.single_from_model_output(
                loss=loss,
                # Of a mixed image, the class of its larger part counts.
                correct=jnp.argmax(logits, axis=-1) == jnp.argmax(target, axis=-1),
                learning_rate=schedule(state.step),
                finite=jnp.isfinite(loss) & jnp.isfinite(norm),
                step=new_state.step,
            )
        )
        return new_state, metrics

    return step
