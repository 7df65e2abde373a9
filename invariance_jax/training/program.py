"""The step that is compiled: of a run alone, or of several that share a program and its input.

The states of several are stacked, and the leading axis divided over the axis `run` of the mesh. A
batch is decoded once; every group of devices takes its runs one after another, each on all of the
batch, and branches where they differ. Nothing travels from one group to another but a state that is
saved or validated.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from invariance_jax import devices
from invariance_jax.augment.mixing import partners
from invariance_jax.devices import DATA_AXIS, MODEL_AXIS, RUN_AXIS
from invariance_jax.models import Preprocessing
from invariance_jax.training.experiment import Experiment
from invariance_jax.training.sharding import gathered
from invariance_jax.training.state import TrainState
from invariance_jax.training.step import Step, TrainMetrics, make_train_step


class Program(NamedTuple):
    """The step that is run, of one run or of several, and how their states lie in its own.

    Attributes:
        step: `step(state, metrics, batch) -> (state, metrics)`, compiled at the first call.
        no_metrics: Makes the metrics of no step yet.
        join: Makes the step's state of the runs' states, which come one after another.
        part: What belongs to one run of the step's state, or of a part of that.
        split: What belongs to each run of the step's metrics, on the host.
    """

    step: Callable[..., tuple[Any, Any]]
    no_metrics: Callable[[], Any]
    join: Callable[[Iterator[TrainState]], Any]
    part: Callable[[Any, int], Any]
    split: Callable[[Any], Sequence[Any]]


def program_of_one(experiments: Sequence[Experiment]) -> Program:
    """Makes the program of a run alone.

    Args:
        experiments: Its experiment.

    Returns:
        The program.
    """
    (experiment,) = experiments
    return Program(
        step=compile_step(experiment),
        no_metrics=functools.partial(no_metrics, experiment),
        join=next,
        part=lambda tree, number: tree,
        split=lambda metrics: [metrics],
    )


def compile_step(experiment: Experiment) -> Callable[..., tuple[TrainState, Any]]:
    """Wraps the pure step into one program over the mesh that reuses the state's memory.

    Args:
        experiment: The experiment.

    Returns:
        `step(state, metrics, batch) -> (state, metrics)`, compiled at the first call.
    """
    whole = devices.replicated(experiment.mesh)
    where = jax.tree.map(lambda x: x.sharding, experiment.abstract_state)
    return jax.jit(
        step_of([experiment], 0, experiment.mesh),
        in_shardings=(where, whole, devices.by_example(experiment.mesh)),
        out_shardings=(where, whole),
        # Not the metrics: those of each step say when it is done.
        donate_argnums=0,
    )


def step_of(experiments: Sequence[Experiment], number: Any, mesh: Mesh | None) -> Step:
    """Makes the pure step of one of several runs, which have the network and the batch in common.

    Args:
        experiments: Of all the runs.
        number: Which run, int32 scalar. Where they differ, the program branches by it.
        mesh: The devices; None within a `shard_map` over runs.

    Returns:
        The step.
    """

    def chosen(of_run: Callable[[Experiment], Callable[..., Any]], *sections: str) -> Any:
        """What runs do of which these sections of the config say all, as `f(number, ...)`."""
        keys = [str([operator.attrgetter(x)(run.config) for x in sections]) for run in experiments]
        functions = {key: of_run(run) for key, run in zip(keys, experiments, strict=True)}
        branches, order = list(functions.values()), list(functions)
        if len(branches) == 1:
            return lambda number, *args: branches[0](*args)
        places = [order.index(key) for key in keys]
        return lambda number, *args: jax.lax.switch(jnp.asarray(places)[number], branches, *args)

    def on_each(function: Callable[..., Any], *specs: PartitionSpec) -> Callable[..., Any]:
        """Lets every device work on its own images, and branch for each."""
        sharded = jax.shard_map(
            function,
            mesh=mesh,
            axis_names={DATA_AXIS, MODEL_AXIS},
            in_specs=(whole, *specs),
            out_specs=divided,
            check_vma=False,
        )
        return functools.partial(sharded, number)

    def mixing(key: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        if not any(each.mixing.mixings for each in experiments):
            return images, labels
        # Sent by all runs, whatever they do with them: in a branch only some devices would send.
        return mix(key, images, labels, (partners(images), partners(labels)))

    divided, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    augment = chosen(
        lambda run: run.whole_augmentation.on_batch,
        *("augment.name", "augment.policies", "augment.per_class"),
    )
    mix = on_each(
        chosen(lambda run: run.mixing, "augment.mixing"), *(whole, divided, divided, divided)
    )
    update, schedule, loss = (
        functools.partial(each, number)
        for each in (
            chosen(lambda run: run.optimizer.update, "optimizer"),
            chosen(lambda run: run.schedule, "optimizer"),
            chosen(lambda run: run.loss, "train.loss", "train.label_smoothing"),
        )
    )
    first, seeds = experiments[0], [each.config.seed for each in experiments]
    return make_train_step(
        first.model,
        on_each(augment, *(divided,) * 5),
        mixing,
        optax.GradientTransformation(first.optimizer.init, update),
        schedule,
        jax.random.key(seeds[0] if len(set(seeds)) == 1 else jnp.asarray(seeds)[number]),
        normalize=Preprocessing.of_config(first.config.data).normalize,
        loss=loss,
        grad_accum_steps=first.config.train.grad_accum_steps,
        ema_decay=first.config.train.ema_decay,
        learned=first.learned,
        whole=gathered(mesh) if first.config.mesh.parameters == "fsdp" else None,
    )


def no_metrics(experiment: Experiment) -> Any:
    """Makes the metrics of no step yet.

    Args:
        experiment: The experiment.

    Returns:
        A `TrainMetrics` on the mesh.
    """
    return jax.device_put(TrainMetrics.empty(), devices.replicated(experiment.mesh))


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
            step = step_of(experiments, numbers[at], None)
            return _with(carry, at, step(*_one(carry, at), batch)), None

        # XLA's CPU backend is six times as slow at gradients of convolutions within a loop.
        unroll = turns if mesh.devices.flat[0].platform == "cpu" else 1
        carry, _ = jax.lax.scan(turn, (states, metrics), jnp.arange(turns), unroll=unroll)
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
