"""Runs that share a program and its input: which can, who goes on together, and their training."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from invariance_jax import distributed
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.fields import differences, flatten
from invariance_jax.training import experiment, loop, optimizer
from invariance_jax.training.checkpoints import Progress
from invariance_jax.training.experiment import Experiment
from invariance_jax.training.program import program_of_all, program_of_one

T = TypeVar("T")

# What a run may have for itself: the program chooses it by the run's number, or does not know it.
_OWN_SECTIONS = ("augment", "optimizer", "eval", "search")
_OWN_FIELDS = ("seed", "model.weights", "train.loss", "train.label_smoothing")
_OWN_FIELDS += ("train.keep_checkpoints",)
# Widths that are learned stand among the parameters.
_COMMON_FIELDS = ("augment.learned",)
_ORDER, _MOMENTS = "data.shuffle_seed", "optimizer"
_OF_MOMENTS = ("name", "weight_decay_on", "grad_clip_norm")
_LAYOUT = "replicated"


def in_common(config: ExperimentConfig) -> dict[str, Any]:
    """What runs must have in common to share a program.

    Args:
        config: A run's config.

    Returns:
        Path of a field to its value; "data.shuffle_seed" as it is in effect; and at "optimizer"
        what the optimizer keeps of each parameter.

    Raises:
        UserError: Unknown optimizer or option.
    """
    found = {
        path: value
        for path, value in flatten(config.to_dict()).items()
        if path in _COMMON_FIELDS
        or not (path in _OWN_FIELDS or path.partition(".")[0] in _OWN_SECTIONS)
    }
    # Whatever the schedule, its state is a count.
    plain = config.optimizer.with_values(schedule="constant", warmup_steps=0)
    made = optimizer.make_optimizer(plain, config.train.steps)
    one = {name: jax.ShapeDtypeStruct((2,), jnp.float32) for name in ("kernel", "bias")}
    moments = jax.tree.structure(jax.eval_shape(made.init, one))
    return found | {_ORDER: config.order_seed, _MOMENTS: str(moments)}


def groups(configs: Sequence[ExperimentConfig]) -> list[list[int]]:
    """Finds the runs that can share a program.

    Args:
        configs: Of all runs.

    Returns:
        Their numbers by group, in order of the first of each; also of runs that are alone.

    Raises:
        UserError: As `in_common`.
    """
    found: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        alone = config.mesh.parameters != _LAYOUT
        found.setdefault(repr((in_common(config), alone and number)), []).append(number)
    return list(found.values())


def difference(ours: ExperimentConfig, theirs: ExperimentConfig) -> str:
    """Says why a run cannot share another's program.

    Args:
        ours: The run's config.
        theirs: The other's.

    Returns:
        Every field with both values, in one line.

    Raises:
        UserError: As `in_common`.
    """
    if ours.mesh.parameters != _LAYOUT:
        return f"config.mesh.parameters is {ours.mesh.parameters!r}, not {_LAYOUT!r}"
    first, second = in_common(ours), in_common(theirs)

    def said(path: str) -> str:
        if path == _MOMENTS:
            of_optimizer = differences(ours.optimizer, theirs.optimizer)
            return ", ".join(
                f"config.optimizer.{name} is {here!r}, not {there!r}, and with it what is kept of "
                "each parameter"
                for name, (here, there) in of_optimizer.items()
                if name in _OF_MOMENTS
            )
        text = f"config.{path} is {first[path]!r}, not {second[path]!r}"
        return text + ("; without it config.seed orders the images" if path == _ORDER else "")

    return ", ".join(said(path) for path in first if first[path] != second[path])


def who_go_on_together(steps: Mapping[T, Sequence[int]]) -> list[list[T]]:
    """Divides the runs of a group by how far they are.

    Runs that were trained together have the last checkpoint or the one before in common. One that
    was trained alone, or failed, would throw the others back.

    Args:
        steps: Steps of the checkpoints of each run, the oldest first.

    Returns:
        The runs that can go on together, those that are furthest first.
    """
    left, found = dict(steps), []
    while left:
        furthest = max(left.values(), key=lambda each: max(each, default=0))
        near = furthest[-2:] or [0]
        together = [run for run, each in left.items() if max(each, default=0) in near]
        found.append(together)
        for run in together:
            del left[run]
    return found


def make(
    configs: Sequence[ExperimentConfig],
    *,
    available: Sequence[jax.Device] | None = None,
    num_classes: int | None = None,
) -> list[Experiment]:
    """Builds what the configs of one group name; data and shapes once for all.

    Args:
        configs: Of the runs, which have everything `in_common`.
        available: The devices; those at hand by default.
        num_classes: Of the training images; by default they are opened and asked.

    Returns:
        Their experiments, on one mesh.

    Raises:
        UserError: As `experiment.make`, or the parameters are to be divided over devices.
    """
    layout = configs[0].mesh
    if layout.parameters != _LAYOUT:
        raise UserError(
            f"config.mesh.parameters is {layout.parameters!r}; expected {_LAYOUT!r} for runs that "
            "share a program"
        )
    options = {"available": available, "num_classes": num_classes}
    first = experiment.make(configs[0], runs=len(configs), **options)
    return [first, *(experiment.make(each, like=first, **options) for each in configs[1:])]


def train(
    configs: Sequence[ExperimentConfig],
    workdirs: Sequence[pathlib.Path],
    *,
    announce: Callable[[str], object] = print,
    failed: Callable[[int, str], object] = lambda number, reason: None,
) -> list[Progress | None]:
    """Trains runs of one group together, or goes on with them.

    Args:
        configs: Of the runs, which have everything `in_common`.
        workdirs: Their folders; afterwards each is what `train` would have left.
        announce: Takes each message for the person who watches.
        failed: Is told the number of a run whose loss became infinite or not a number, and why.

    Returns:
        What each run knows at its end; None of those that failed.

    Raises:
        UserError: As `loop.train`, of any run.
        NonFiniteLossError: All have failed.
        Interrupted: SIGTERM or SIGINT came.
        CheckpointError: A checkpoint could not be written or read.
    """
    if len(configs) == 1:
        built, program = [experiment.make(configs[0])], program_of_one
    else:
        built, program = make(configs), program_of_all
    announce(distributed.device_map(built[0].mesh))
    _, done = loop.train_each(built, workdirs, program, announce, failed=failed)
    return done
