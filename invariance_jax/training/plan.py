"""What a config will cost on devices that are not here: compiled for them, run on none.

The compiler for TPUs (libtpu) needs no TPU. It says how much memory the real programs take, how
they communicate, and how many cycles it believes each instruction takes. Added to that is what it
leaves out: look-ups at `LOOKUP_CYCLES` a row, and collectives over the chips' links.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from invariance_jax import devices, hlo
from invariance_jax.errors import UserError
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.hlo import Collective, Costs
from invariance_jax.training import performance
from invariance_jax.training.experiment import Experiment
from invariance_jax.training.program import compile_step, program_of_all
from invariance_jax.training.step import TrainMetrics

HERE = "here"
# At least so many cycles for each row that a gather looks up, as the machine code has them.
LOOKUP_CYCLES = 4.0
# A message's way to the next chip, whatever its length.
_HOP_SECONDS = 1e-6
# Batches of a chip that are tried; matrix units take eight rows at once.
_GRANULE = 8
_TRIES = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of TPU chip, from its maker's data sheet.

    Attributes:
        clock: Cycles per second of its cores.
        memory: Bytes that programs may fill.
        bandwidth: Of that memory, bytes per second.
        link: Of a link to the next chip, both ways together, bytes per second.
        axes: Axes of the torus that the links form.
    """

    clock: float
    memory: float
    bandwidth: float
    link: float
    axes: int


CHIPS: Mapping[str, Chip] = {
    "v4": Chip(clock=1.05e9, memory=30.75 * 2**30, bandwidth=1.2e12, link=90e9, axes=3),
    "v5e": Chip(clock=1.5e9, memory=15.75 * 2**30, bandwidth=0.81e12, link=90e9, axes=2),
    "v5p": Chip(clock=1.75e9, memory=95.74 * 2**30, bandwidth=2.8e12, link=180e9, axes=3),
    "v6e": Chip(clock=1.75e9, memory=31.25 * 2**30, bandwidth=1.6e12, link=180e9, axes=2),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one run of a program is believed to cost, on each device.

    Attributes:
        images: Of one run, over all devices.
        devices: How many.
        memory: Bytes of a device, by kind.
        costs: What was read from the program.
        seconds: Of one run, by kind: "compute" by the compiler's cycles, "lookups", "uncounted" at
            least (their bytes over the memory's bandwidth), "collectives" that nothing hides; empty
            where the compiler gives no cycles.
        hidden_seconds: Of asynchronous collectives, behind which other work goes on.
    """

    images: int
    devices: int
    memory: Mapping[str, int]
    costs: Costs
    seconds: Mapping[str, float]
    hidden_seconds: float

    @property
    def used(self) -> int:
        """Bytes of a device in all."""
        return sum(self.memory.values())

    @property
    def total_seconds(self) -> float | None:
        """Of one run; what is hidden counts where it takes longer than all else."""
        shown = sum(self.seconds.values())
        return max(shown, self.hidden_seconds) if shown else None

    @property
    def images_per_second(self) -> float | None:
        """Of one device."""
        return self.total_seconds and self.images / self.devices / self.total_seconds

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        derived = ("used", "total_seconds", "images_per_second")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}


class DoesNotFitError(UserError):
    """A program needs more memory than a device has.

    Attributes:
        used: Bytes that it needs.
    """

    def __init__(self, message: str, used: float) -> None:
        super().__init__(message)
        self.used = used


def topology(name: str) -> tuple[list[jax.Device], Chip | None]:
    """Finds the devices of a slice that is not here.

    Args:
        name: `v5e:16x16`, or "here" for the devices at hand.

    Returns:
        The devices, which can only be compiled for, and what their chips can do; None for "here".

    Raises:
        UserError: No such chip or shape, or libtpu is missing.
    """
    if name == HERE:
        return jax.devices(), None
    generation, _, shape = name.partition(":")
    if generation not in CHIPS or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise UserError(
            f"--topology is {name!r}; expected {HERE!r}, or a chip and the shape of a slice, as in "
            f"v5e:16x16, v4:4x4x4; chips: {', '.join(CHIPS)}"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={name} needs the compiler for TPUs, which no TPU is needed for; install "
            "it: pip install 'invariance_jax[tpu]'"
        )
    from jax.experimental import topologies

    # Asked elsewhere, the service that tells a TPU machine what it is does not answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Both cores of a v4 chip are one device, as on the machines themselves.
    options = {"chip_config_name": "megacore"} if generation == "v4" else {}
    try:
        found = topologies.get_topology_desc(name, "tpu", **options).devices
    except Exception as error:  # libtpu raises what it likes
        reason = str(error).splitlines()[0]
        raise UserError(f"--topology is {name!r}, which libtpu does not know: {reason}") from error
    return list(found), CHIPS[generation]


def compile_training(experiments: Sequence[Experiment]) -> Any:
    """Compiles the real training step of arrays that do not exist.

    Args:
        experiments: The experiment, on any devices; or those of runs that share a program.

    Returns:
        The compiled program.

    Raises:
        DoesNotFitError: It needs more memory than a device has.
    """
    first = experiments[0]
    config = first.config
    numbers = jax.ShapeDtypeStruct((config.train.batch_size,), jnp.int32)
    canvas = (config.train.batch_size, config.data.canvas_size, config.data.canvas_size, 3)
    batch = {
        "canvas": jax.ShapeDtypeStruct(canvas, jnp.uint8),
        **dict.fromkeys(("height", "width", "label", "index"), numbers),
    }
    if len(experiments) == 1:
        step = compile_step(first)
        state, metrics = first.abstract_state, jax.eval_shape(TrainMetrics.empty)
    else:
        program = program_of_all(experiments)
        step, metrics = program.step, jax.eval_shape(program.no_metrics)
        state = jax.eval_shape(lambda: program.join(iter(())))
    lowered = step.lower(state, metrics, batch)
    return _compiled(lowered.compile, "the training step", _batch_of(first))


def compile_grid(experiment: Experiment, images: int = 0) -> tuple[Any, int, int]:
    """Compiles the evaluation of the invariance grid for one device; each works alone.

    Args:
        experiment: The experiment, on any devices.
        images: Of a batch; as many as fit into `config.eval.memory` by default.

    Returns:
        The compiled program, its images, and how many grid points need a forward pass.

    Raises:
        DoesNotFitError: It needs more memory than a device has.
    """
    config = experiment.config
    grid = Invariance.from_config(config)
    first = experiment.mesh.devices.ravel()[:1]
    driver = Driver(
        model=experiment.as_model(experiment.abstract_state.evaluated_variables),
        measurements=[grid],
        source=(),
        preprocess=experiment.preprocess,
        canvas_size=config.data.canvas_size,
        workers=0,
        mesh=devices.make_mesh(1, 1, first),
        per_device_batch_size=images or config.eval.per_device_batch_size,
        memory=config.eval.memory,
        shard_size=config.eval.shard_size,
        description="",
    )
    what = "config.eval.per_device_batch_size"
    program, count = _compiled(lambda: driver.fitting(lambda n: n), "the evaluation grid", what)
    return program, count, int(grid.computed.sum())


def _batch_of(experiment: Experiment) -> str:
    return f"config.train.batch_size {experiment.config.train.batch_size}"


def _compiled(compile_: Callable[[], Any], what: str, batch: str) -> Any:
    try:
        return compile_()
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm", str(error))
        if not found:
            raise
        used, has = (float(found[i]) * 1024 ** (1 + "KMG".index(found[i + 1])) for i in (1, 3))
        raise DoesNotFitError(
            f"{what} needs {used / 1e9:.1f} GB a chip, which has {has / 1e9:.1f}, with {batch}; "
            "give --fit, a smaller batch, config.train.grad_accum_steps or config.mesh.parameters",
            used,
        ) from error


def memory_of(compiled: Any) -> dict[str, int]:
    """Bytes of a device that a compiled program takes, by kind."""
    analysis = compiled.memory_analysis()
    return {
        "arguments": analysis.argument_size_in_bytes,
        "results": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
    }


def estimate(compiled: Any, *, images: int, count: int, chip: Chip | None) -> Estimate:
    """Reads what a compiled program will cost.

    Args:
        compiled: The program.
        images: Of one run, over all devices.
        count: Devices.
        chip: What they can do; None for no times.

    Returns:
        The estimate.

    Raises:
        UserError: The installed jaxlib cannot read what the compiler made.
    """
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        versions = " and ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("jaxlib", "libtpu")
            if importlib.util.find_spec(name)
        )
        raise UserError(
            f"the program was compiled, but cannot be read again with {versions}; expected these "
            f"of one age ({str(error).splitlines()[0][:200]})"
        ) from error
    costs = hlo.costs(hlo.parse(text))
    seconds, hidden = {}, 0.0
    if chip and costs.cycles:
        takes = [
            (each.is_async, each.count * collective_seconds(each, chip, count))
            for each in costs.collectives
        ]
        hidden = sum(each for is_async, each in takes if is_async)
        seconds = {
            "compute": costs.cycles / chip.clock,
            "lookups": costs.rows * LOOKUP_CYCLES / chip.clock,
            "uncounted": sum(costs.uncounted.values()) / chip.bandwidth,
            "collectives": sum(each for is_async, each in takes if not is_async),
        }
    return Estimate(
        images=images,
        devices=count,
        memory=memory_of(compiled),
        costs=costs,
        seconds=seconds,
        hidden_seconds=hidden,
    )


def collective_seconds(collective: Collective, chip: Chip, count: int) -> float:
    """Estimates one collective: rings over the links, or the hops of a message if it is short.

    Args:
        collective: What travels.
        chip: The kind of chip.
        count: Devices in all. A group of all uses every axis of the torus, a smaller one one axis.

    Returns:
        Seconds.

    Examples:
        >>> one = Collective("all-reduce", 256, False, 180_000_000, 1.0)
        >>> round(collective_seconds(one, CHIPS["v5e"], 256) * 1e3, 3)  # twice 1 ms, by 255 of 256
        1.992
    """
    group = collective.group_size or count
    if group == 1:
        return 0.0
    axes = chip.axes if group == count else 1
    # Reduced, and then handed out.
    times = 2 if collective.kind == "all-reduce" else 1
    share = 1.0 if collective.kind == "collective-permute" else (group - 1) / group
    hops = 1.0 if share == 1.0 else axes * group ** (1 / axes) / 2
    return times * max(share * collective.bytes / (chip.link * axes), hops * _HOP_SECONDS)


def largest_batch(used: Callable[[int], float], memory: float, first: int, step: int) -> int:
    """Finds the largest batch of a device that fits; every try compiles.

    Args:
        used: From images of a device to the bytes that they need.
        memory: Bytes that there are.
        first: The first try.
        step: Batches are multiples of it.

    Returns:
        Images of a device; 0 if none fits.
    """
    tried: dict[int, float] = {}
    guess = max(step, first // step * step)
    for _ in range(_TRIES):
        tried[guess] = used(guess)
        fitting = [each for each, needs in tried.items() if needs <= memory]
        too_large = [each for each, needs in tried.items() if needs > memory]
        low, high = max(fitting, default=0), min(too_large, default=math.inf)
        if high - low <= step:
            break
        # Along a line through the two nearest tries, of one alone through nothing.
        near = sorted(tried, key=lambda each: abs(each - low))[:2]
        if len(near) == 1:
            guess = int(memory / tried[near[0]] * near[0] * 0.9)
        else:
            slope = (tried[near[1]] - tried[near[0]]) / (near[1] - near[0])
            guess = int(near[0] + (memory - tried[near[0]]) / max(slope, 1.0))
        guess = guess // step * step
        guess = int(min(max(guess, low + step), high - step))
    return max((each for each, needs in tried.items() if needs <= memory), default=0)


def granule(experiment: Experiment) -> int:
    """The images of a device by which a batch can grow.

    Args:
        experiment: The experiment.

    Returns:
        A number whose multiples every microbatch and ghost batch divides.
    """
    config = experiment.config
    return math.lcm(_GRANULE, config.model.ghost_batch_size or 1) * config.train.grad_accum_steps


def used_in_training(
    experiments: Sequence[Experiment],
    compile_: Callable[[Sequence[Experiment]], Any] = compile_training,
) -> float:
    """Bytes of a device that the training step of a batch takes.

    Args:
        experiments: As `compile_training` takes them.
        compile_: `compile_training`, or what remembers what that has given.

    Returns:
        The bytes, also where there are not so many.
    """
    try:
        return sum(memory_of(compile_(experiments)).values())
    except DoesNotFitError as error:
        return error.used


def plan(
    experiments: Sequence[Experiment],
    chip: Chip | None,
    *,
    grid: bool = True,
    compile_: Callable[[Sequence[Experiment]], Any] = compile_training,
    compiled: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Plans a config's training and evaluation on an experiment's devices.

    Args:
        experiments: As `compile_training` takes them; of several the first one's grid is planned.
        chip: What one of the devices can do; None where that is unknown.
        grid: Whether the evaluation grid is compiled, too.
        compile_: `compile_training`, or what remembers what that has given.
        compiled: Called after each program.

    Returns:
        For JSON: "training" and "grid", `Estimate.to_dict`, and what follows from them: rates,
        utilisation, hours, and what hosts must deliver.

    Raises:
        DoesNotFitError: A program needs more memory than a device has.
    """
    experiment, runs = experiments[0], len(experiments)
    config, all_devices = experiment.config, experiment.mesh.devices.ravel()
    count = len(all_devices)
    hosts = len({each.process_index for each in all_devices})
    batch = config.train.batch_size
    program = compile_(experiments)
    training = estimate(program, images=batch, count=count, chip=chip)
    compiled()
    flops = performance.training_flops(experiment.model, config.data.image_size)
    peak = performance.peak_flops(all_devices[0].device_kind, config.mesh.peak_flops)
    found: dict[str, Any] = {
        "device": all_devices[0].device_kind,
        "devices": count,
        "hosts": hosts,
        "mesh": dict(experiment.mesh.shape),
        "memory": chip and chip.memory,
        "versions": versions(),
        "training": training.to_dict(),
        "flops_per_image": flops,
    }
    if runs > 1:
        together = count // experiment.mesh.shape[devices.RUN_AXIS]
        across = hlo.crossing(hlo.parse(program.as_text()), together)
        found |= {"runs": runs, "collectives_across_runs": across}
    if rate := training.images_per_second:
        canvas = 3 * config.data.canvas_size**2
        # Hosts whose chips hold the same images, for other runs, read the same.
        _, parts = devices.part_of_input(experiment.mesh, all_devices[0].process_index)
        found |= {
            "images_per_second": rate * count,
            "model_flops_utilization": rate * flops * runs / peak if flops and peak else None,
            "images_per_second_and_host": rate * count / parts,
            "bytes_per_second_and_host": rate * count / parts * canvas,
            "hours": config.train.steps * training.total_seconds / 3600,
        }
    if grid:
        program, images, points = compile_grid(experiment)
        found["grid"] = estimate(program, images=images, count=1, chip=chip).to_dict()
        found["grid_points"] = points
        compiled()
    return found


def versions() -> dict[str, str]:
    """The compilers' versions."""
    names = ("jax", "jaxlib", "libtpu")
    return {
        name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)
    }
