"""Optimizers and learning-rate schedules by name."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from invariance_jax import spec
from invariance_jax.augment.learned import COLLECTION, LearnedAugmentation
from invariance_jax.config import OptimizerConfig
from invariance_jax.errors import UserError

# From parameters to a tree of bools; None for all of them.
Decayed = Callable[[Any], Any] | None


def _constant(peak: float, steps: int) -> optax.Schedule:
    return optax.constant_schedule(peak)


def _cosine(peak: float, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, max(steps, 1))


def _step(peak: float, steps: int, *, every: int, factor: float = 0.1) -> optax.Schedule:
    if every < 1:
        raise UserError(f"every is {every}; expected at least 1 step")
    return optax.exponential_decay(peak, every, factor, staircase=True)


_SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "step": _step,
}


def _sgd(
    rate: optax.Schedule,
    weight_decay: float,
    decayed: Decayed,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    # torch.optim.SGD adds weight decay to the gradient, before the momentum.
    return optax.chain(
        optax.add_decayed_weights(weight_decay, decayed),
        optax.sgd(rate, momentum, nesterov=nesterov),
    )


def _adaptive(
    make: Callable[..., optax.GradientTransformation],
    rate: optax.Schedule,
    weight_decay: float,
    decayed: Decayed,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    return make(rate, b1, b2, weight_decay=weight_decay, mask=decayed)


_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adamw": functools.partial(_adaptive, optax.adamw),
    "lamb": functools.partial(_adaptive, optax.lamb),
}


def kernels(params: Any) -> Any:
    """Says which parameters are kernels: what a convolution or dense layer multiplies by.

    Args:
        params: Parameters of a network.

    Returns:
        The same tree of bools; False for norms, biases, tokens and position embeddings.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


_DECAYED: dict[str, Decayed] = {"all": None, "kernels": kernels}


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Makes the learning rate as a function of the step.

    Args:
        config: The optimizer's config.
        steps: Steps of the whole run.

    Returns:
        The schedule: linear warm-up, then the named schedule over the steps that remain.

    Raises:
        UserError: Unknown schedule or option, or a warm-up longer than the run.
    """
    if config.warmup_steps > steps:
        raise UserError(
            f"config.optimizer.warmup_steps is {config.warmup_steps}; expected at most "
            f"config.train.steps, which is {steps} (a short trial sets both)"
        )
    after = spec.call(
        _SCHEDULES,
        config.schedule,
        config.learning_rate,
        steps - config.warmup_steps,
        kind="schedule",
        field="config.optimizer.schedule",
    )
    if not config.warmup_steps:
        return after
    # The first step already moves: it has rate peak / warmup_steps, not 0.
    warmup = optax.linear_schedule(
        config.learning_rate / config.warmup_steps, config.learning_rate, config.warmup_steps - 1
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(
    config: OptimizerConfig, steps: int, learned: LearnedAugmentation | None = None
) -> optax.GradientTransformation:
    """Makes the optimizer.

    Args:
        config: The optimizer's config.
        steps: Steps of the whole run.
        learned: An augmentation whose widths stand among the parameters: they do not decay, and
            have a learning rate of their own.

    Returns:
        The optimizer with its schedule.

    Raises:
        UserError: Unknown optimizer, schedule or option.
    """
    schedule = make_schedule(config, steps)
    decayed = _DECAYED[config.weight_decay_on]
    if learned:
        of_network = decayed or functools.partial(jax.tree.map, lambda _: True)

        def decayed(params: Any) -> Any:
            return {**of_network(params), COLLECTION: False}

    optimizer = spec.call(
        _OPTIMIZERS,
        config.name,
        schedule,
        config.weight_decay,
        decayed,
        kind="optimizer",
        field="config.optimizer.name",
    )
    if learned:
        slower = optax.scale(learned.learning_rate_factor)
        optimizer = optax.chain(optimizer, optax.masked(slower, _is_learned))
    if not config.grad_clip_norm:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.grad_clip_norm), optimizer)


def _is_learned(params: Any) -> Any:
    return {name: name == COLLECTION for name in params}
