"""`plan`: what a config will cost on devices that are not here, by the compiler's estimates."""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from invariance_jax.commands import parsing
from invariance_jax.errors import UserError

_USAGE = """\
usage: invariance-jax plan --config=FILE[:ARGUMENT] --topology=v5e:16x16 [--config.FIELD=VALUE ...]
                           [--fit] [--json=FILE] [--sweep=FILE[:ARGUMENT] [--group=N]]

Compiles the training step and the evaluation grid of a config for devices that are not here, and
says what one chip would hold, compute, move and send. No TPU is needed and no data is read, only
the compiler: pip install 'invariance_jax[tpu]'. A large network takes minutes.

  invariance-jax plan --config=configs/imagenet_resnet50_strong.py --topology=v5e:16x16
  invariance-jax plan --config=configs/imagenet_vit_s16.py --topology=v4:4x4x4 --fit --json=x.json

With --sweep in place of --config it compiles the one step that `ablate` runs for a group of runs.

Topologies are v4, v5e, v5p or v6e with the shape of a slice, or "here" for the devices at hand, of
which memory and communication are known, and no time. --fit looks for the largest batch too.
"""

_WHAT = """\
These are estimates, of programs that were compiled and never run. Time is the compiler's own count
of cycles over the chip's clock; to it are added {cycles:g} cycles for each row that is looked up,
what has no count at its bytes over the memory's bandwidth, and collectives at the links' bandwidth,
at least 1 us a hop. None of it was compared with a TPU; docs/tpu.md says what it was held against.
Waiting for input, validation and checkpoints are left out."""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("sweep", None, "in place of --config: a sweep", flag_values=values)
        flags.DEFINE_integer("group", 0, "of the sweep's groups", 0, flag_values=values)
        flags.DEFINE_string("topology", None, "v5e:16x16, or here", flag_values=values)
        flags.DEFINE_bool("fit", False, "find the largest batch that fits", flag_values=values)
        flags.DEFINE_bool("grid", True, "compile the evaluation grid", flag_values=values)
        flags.DEFINE_string("json", None, "a file for all numbers", flag_values=values)
        what = "classes of the images, which are not read"
        flags.DEFINE_integer("num_classes", 1000, what, 1, flag_values=values)

    parsed = parsing.parse(argv, usage=_USAGE, define=define, config="")
    # After the answers that need no compiler.
    from invariance_jax import files, progress
    from invariance_jax.training import ablation, experiment, plan

    configs = _configs(parsed)
    config = configs[0]
    topology = parsing.required(parsed, "topology", "v5e:16x16")
    output = files.local_path(parsed.flags.json, "--json") if parsed.flags.json else None
    available, chip = plan.topology(topology)
    if parsed.flags.fit and chip is None:
        raise UserError("--fit needs --topology of a TPU; these devices do not say what fits")

    # The config's own batch is the first that --fit tries. A large network takes minutes.
    compile_once = functools.cache(plan.compile_training)

    @functools.cache
    def make(batch_size: int) -> Any:
        changed = [each.with_values(train={"batch_size": batch_size}) for each in configs]
        options = {"available": available, "num_classes": parsed.flags.num_classes}
        if len(changed) == 1:
            return (experiment.make(changed[0], **options),)
        return tuple(ablation.make(changed, **options))

    built = make(config.train.batch_size)
    total = 1 + parsed.flags.grid + parsed.flags.fit
    with progress.bar(total=total, description=topology, unit="programs") as bar:
        found: dict[str, Any] = {"topology": topology, "config": config.to_dict()}
        if parsed.flags.fit:
            share = built[0].mesh.shape["data"]
            largest = plan.largest_batch(
                lambda images: plan.used_in_training(make(images * share), compile_once),
                chip.memory,
                first=config.train.batch_size // share,
                step=plan.granule(built[0]),
            )
            if not largest:
                raise UserError(
                    f"not even {plan.granule(built[0])} images a chip fit on {topology}; give "
                    "config.mesh.parameters='fsdp', or config.train.grad_accum_steps"
                )
            found["largest_batch"] = largest * share
            bar.update()
        found |= plan.plan(
            built, chip, grid=parsed.flags.grid, compile_=compile_once, compiled=bar.update
        )
    if output:
        files.write_text(output, json.dumps(found, indent=1) + "\n")
    print(_text(found, config, plan.LOOKUP_CYCLES))


def _configs(parsed: parsing.Parsed) -> list[Any]:
    """The config, or those of a group of a sweep's runs that share a program."""
    if not parsed.flags.sweep:
        return [parsing.required(parsed, "config", "configs/imagenet_resnet50_strong.py")]
    from invariance_jax.commands import sweep

    if parsed.config is not None:
        raise UserError("--config and --sweep are both given; expected one of them")
    runs = sweep.expand(sweep.load(parsed.flags.sweep), pathlib.Path())
    return [run.config for run in sweep.group(runs, parsed.flags.group)]


def _text(found: Mapping[str, Any], config: Any, lookup_cycles: float) -> str:
    """The plan as people read it."""
    training, count = found["training"], found["devices"]
    mesh = ", ".join(f"{axis}={size}" for axis, size in found["mesh"].items())
    runs = found.get("runs")
    what = f"x {runs} runs" if runs else config.augment.label
    lines = [
        f"{config.model.name} {what} on {found['topology']}: {count} x "
        f"{found['device']}, hosts: {found['hosts']}, mesh {mesh}",
        "",
        f"training: a step of {training['images']} images, {training['images'] / count:g} a device",
        *_program(training, found["memory"]),
    ]
    if runs:
        across = len(found["collectives_across_runs"])
        lines.append(f"  across runs       {across or 'no'} collectives")
    if "largest_batch" in found:
        largest = found["largest_batch"]
        lines.append(f"  largest batch     {largest} images, {largest / count:g} a device")
    if found["flops_per_image"]:
        lines.append(f"  arithmetic        {found['flops_per_image'] / 1e9:.1f} GFLOP an image")
    if "hours" in found:
        used = found["model_flops_utilization"]
        lines += [
            f"  rate              {training['images_per_second']:,.0f} images/s a device, "
            f"{found['images_per_second']:,.0f} in all"
            + (f", each for {runs} runs" if runs else "")
            + (f", {used:.0%} of the peak" if used else ""),
            f"  input             {found['images_per_second_and_host']:,.0f} images/s a host, "
            f"{found['bytes_per_second_and_host'] / 1e9:.2f} GB/s of canvases",
            f"  {config.train.steps:,} steps".ljust(20) + f"{found['hours']:.2f} hours",
        ]
    if "grid" in found:
        grid, points = found["grid"], found["grid_points"]
        lines += [
            "",
            f"evaluation: {grid['images']} images at {points} grid points on one device",
            *_program(grid, found["memory"]),
        ]
        if rate := grid["images_per_second"]:
            lines.append(
                f"  rate              {rate:,.1f} images/s a device, {rate * count:,.0f} in all; "
                f"{1e6 / rate / points:,.0f} us a grid point"
            )
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, "", _WHAT.format(cycles=lookup_cycles), f"{versions}."])


def _amount(size: float) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size:g} bytes"


def _program(program: Mapping[str, Any], memory: float | None) -> list[str]:
    """Lines about one compiled program."""
    kinds = ", ".join(f"{kind} {size / 1e9:.2f}" for kind, size in program["memory"].items())
    of = f" of {memory / 1e9:.1f}" if memory else ""
    costs = program["costs"]
    lines = [f"  memory            {program['used'] / 1e9:.2f} GB{of}: {kinds}"]
    lines.append(f"  moved             {_amount(costs['bytes'])} in the device's memory")
    lines += [
        f"  {each['kind']:<17} {each['count']:g} x {_amount(each['bytes'])}, "
        f"{each['group_size'] or 'all'} devices{', async' if each['is_async'] else ''}"
        for each in costs["collectives"]
    ]
    if program["seconds"]:
        parts = ", ".join(f"{kind} {x * 1e3:.2f}" for kind, x in program["seconds"].items())
        hidden = program["hidden_seconds"] * 1e3
        lines.append(
            f"  time              {program['total_seconds'] * 1e3:.2f} ms: {parts}"
            + (f"; hidden {hidden:.2f}" if hidden else "")
        )
    else:
        lines.append("  time              unknown: this device's compiler estimates no cycles")
    if costs["endless_loops"]:
        lines.append(f"  {costs['endless_loops']} loops of unknown length count as one turn")
    return lines
