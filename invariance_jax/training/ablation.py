"""Runs that share a program and its input: one network, trained in several ways at once.

The state of all runs is stacked, and its leading axis divided over the axis `run` of the mesh. A
batch is decoded once; every group of devices takes its runs one after another, each on all of the
batch, and branches where they differ. Nothing travels from one group to another but a state that is
saved or validated.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from invariance_jax import devices, distributed
from invariance_jax.config import ExperimentConfig
from invariance_jax.devices import RUN_AXIS
from invariance_jax.errors import UserError
from invariance_jax.fields import differences, flatten
from invariance_jax.training import experiment, loop, optimizer
from invariance_jax.training.checkpoints import Progress
from invariance_jax.training.experiment import Experiment
from invariance_jax.training.loop import Program
from invariance_jax.training.state import TrainState
from invariance_jax.training.step import TrainMetrics

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
    made = optimizer.make_optimizer(config.optimizer, config.train.steps)
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


def program_of_all(experiments: Sequence[Experiment]) -> Program:
    """Makes the program of several runs.

    Args:
        experiments: From `make`.

    Returns:
        The program. Its state and metrics have a leading axis, of as many runs as are divisible by
        the groups of devices; what is beyond the last run is computed and never looked at.
    """
    mesh, first = experiments[0].mesh, experiments[0]
    groups_of_devices = mesh.shape[RUN_AXIS]
    turns = -(-len(experiments) // groups_of_devices)
    slots = turns * groups_of_devices
    by_run, whole = PartitionSpec(RUN_AXIS), PartitionSpec()
    over_runs = devices.by_run(mesh)

    def step_of_group(numbers: Any, states: Any, metrics: Any, batch: Any) -> tuple[Any, Any]:
        # The states are carried, so that each takes its own memory again.
        def turn(carry: Any, at: Any) -> tuple[Any, None]:
            step = loop.step_of(experiments, numbers[at], None)
            return _with(carry, at, step(*_one(carry, at), batch)), None

        carry, _ = jax.lax.scan(turn, (states, metrics), jnp.arange(turns))
        return carry

    step = jax.shard_map(
        step_of_group,
        mesh=mesh,
        axis_names={RUN_AXIS},
        in_specs=(by_run, by_run, by_run, whole),
        out_specs=(by_run, by_run),
        check_vma=False,
    )

    def step_of_all(states: Any, metrics: Any, batch: Any) -> tuple[Any, Any]:
        numbers = jnp.minimum(jnp.arange(slots), len(experiments) - 1)
        return step(numbers, states, metrics, batch)

    def is_here(number: Any) -> Any:
        return jax.lax.axis_index(RUN_AXIS) == number // turns

    def put(states: Any, state: Any, number: Any) -> Any:
        at = number % turns
        mine = jax.tree.map(lambda x, y: jnp.where(is_here(number), y, x), _one(states, at), state)
        return _with(states, at, mine)

    def take(states: Any, number: Any) -> Any:
        def sent(x: Any) -> Any:
            # As whole numbers, so that zeros keep their sign.
            bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
            bits = jax.lax.psum(jnp.where(is_here(number), bits, 0), RUN_AXIS)
            return jax.lax.bitcast_convert_type(bits, x.dtype)

        return jax.tree.map(sent, _one(states, number % turns))

    on_all = {"mesh": mesh, "check_vma": False}
    put = jax.jit(
        jax.shard_map(put, in_specs=(by_run, whole, whole), out_specs=by_run, **on_all),
        donate_argnums=0,
    )
    take = jax.jit(jax.shard_map(take, in_specs=(by_run, whole), out_specs=whole, **on_all))
    empty = jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), first.abstract_state),
        out_shardings=over_runs,
    )
    no_metrics = jax.jit(
        lambda: jax.tree.map(
            lambda x: jnp.broadcast_to(x, (slots, *x.shape)), TrainMetrics.empty()
        ),
        out_shardings=over_runs,
    )

    def join(states: Iterator[TrainState]) -> Any:
        joined = empty()
        for number, state in enumerate(states):
            joined = put(joined, state, number)
        return joined

    return Program(
        step=jax.jit(
            step_of_all,
            in_shardings=(over_runs, over_runs, devices.by_example(mesh)),
            out_shardings=(over_runs, over_runs),
            # Not the metrics: those of each step say when it is done.
            donate_argnums=0,
        ),
        no_metrics=no_metrics,
        join=join,
        part=take,
        split=lambda metrics: [
            jax.tree.map(lambda x, number=number: x[number], metrics)
            for number in range(len(experiments))
        ],
    )


def _one(stacked: Any, at: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, at, keepdims=False), stacked)


def _with(stacked: Any, at: Any, new: Any) -> Any:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, at, 0), stacked, new)


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
        built, program = [experiment.make(configs[0])], loop.program_of_one
    else:
        built, program = make(configs), program_of_all
    announce(distributed.device_map(built[0].mesh))
    _, done = loop.train_each(built, workdirs, program, announce, failed=failed)
    return done
