"""Estimates of the training step and the grid on TPUs, by the compiler for them; no TPU is needed.

    pip install libtpu
    python benchmarks/tpu_plan.py                          # all cases for v5e:2x2; minutes each
    python benchmarks/tpu_plan.py --cases=vit_s16 --label=after

Writes each case into `benchmarks/results/tpu_v5e.json` as soon as it is compiled, beside those of
other labels; README.md explains it.
"""

import argparse
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from invariance_jax import augment, files, hlo
from invariance_jax.commands import parsing
from invariance_jax.training import experiment, performance, plan

HERE = pathlib.Path(__file__).parent
BASE = "configs/imagenet_base.py"
RAND_AUGMENT = "('rand_augment(n=2, m=9)',)"
# Images of a chip, and what differs from BASE.
CASES: dict[str, tuple[int, dict[str, str]]] = {
    "resnet18": (128, {"model.name": "resnet18"}),
    "resnet50": (128, {"model.name": "resnet50"}),
    "vit_s16": (64, {"model.name": "vit_s16"}),
    "vit_b16": (64, {"model.name": "vit_b16"}),
    "resnet18 rand_augment": (128, {"augment.policies": RAND_AUGMENT}),
    "vit_s16 rand_augment": (64, {"model.name": "vit_s16", "augment.policies": RAND_AUGMENT}),
}
# Beside as many bare forward passes, of which one is of the images as they are.
GRIDS = {"grid resnet50": (128, {"model.name": "resnet50"})}
CALIBRATION = "calibration"
# One device's images, after one another, without a network.
ALONE = "rand_augment alone"


def _built(available: Any, images: int, changes: dict[str, str]) -> experiment.Experiment:
    """The experiment of one case on these devices."""
    batch = str(images * len(available))
    overrides = [("train.batch_size", batch), *changes.items()]
    config = parsing.overridden(parsing.load_config(BASE), overrides)
    return experiment.make(config, available=available, num_classes=1000)


def _case(name: str, available: Any, chip: plan.Chip) -> dict[str, Any]:
    """Compiles one case; microseconds of an image on a chip, and what they are made of."""
    if name == CALIBRATION:
        return _calibration(available[0], chip)
    count = len(available)
    if name == ALONE:
        program, each = _rand_augment(available[0]), 32
        found = plan.estimate(program, images=each, count=1, chip=chip)
    elif name in GRIDS:
        images, changes = GRIDS[name]
        built = _built(available, 8, changes)
        program, images, points = plan.compile_grid(built, images)
        found = plan.estimate(program, images=images, count=1, chip=chip)
        bare = plan.estimate(_forward(built, images), images=images, count=1, chip=chip)
        passes = 1 + points
        ratio = found.total_seconds / (passes * bare.total_seconds)
        return summary(found, images * passes) | {"over_forward": ratio}
    else:
        images, changes = CASES[name]
        program = plan.compile_training([_built(available, images, changes)])
        found = plan.estimate(program, images=images * count, count=count, chip=chip)
        each = images
    return summary(found, each)


def summary(found: plan.Estimate, each: int) -> dict[str, Any]:
    """The numbers that are kept of an estimate.

    Args:
        found: The estimate.
        each: Images of a device, or images times grid points.

    Returns:
        Microseconds for each of these by kind and in all, and what a run of the program takes.
    """
    collectives = found.costs.collectives
    return {
        "images_a_device": found.images // found.devices,
        "devices": found.devices,
        "microseconds": {kind: x / each * 1e6 for kind, x in found.seconds.items()},
        "microseconds_in_all": found.total_seconds / each * 1e6,
        "gigabytes": found.used / 1e9,
        "gigabytes_moved": found.costs.bytes / 1e9,
        "collectives": sum(one.count for one in collectives),
        "collective_megabytes": sum(one.count * one.bytes for one in collectives) / 1e6,
    }


def _forward(built: experiment.Experiment, images: int) -> Any:
    """The program of one forward pass on one device."""
    where = SingleDeviceSharding(built.mesh.devices.ravel()[0])
    model = built.as_model(built.abstract_state.evaluated_variables)

    def embed(variables: Any, images: Any) -> Any:
        return model.apply(variables, model.normalize(images))[1]["embedding"]

    size = built.config.data.image_size
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model.variables)
    shown = jax.ShapeDtypeStruct((images, size, size, 3), jnp.float32)
    return jax.jit(embed, in_shardings=where, out_shardings=where).lower(shapes, shown).compile()


def _rand_augment(device: jax.Device) -> Any:
    """The program of RandAugment(2) on images of 224 pixels."""
    where = SingleDeviceSharding(device)
    policy = augment.POLICIES["rand_augment"](n=2, m=9)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 32))
    images = jax.ShapeDtypeStruct((32, 224, 224, 3), jnp.float32)
    program = jax.jit(
        lambda *arguments: jax.lax.map(lambda pair: policy(*pair), arguments),
        in_shardings=where,
        out_shardings=where,
    )
    return program.lower(keys, images).compile()


def _calibration(device: jax.Device, chip: plan.Chip) -> dict[str, float]:
    """The compiler's estimates of what data sheets know: a large product, a large sum."""
    where = SingleDeviceSharding(device)

    def seconds(function: Any, *shapes: Any) -> float:
        program = jax.jit(function, in_shardings=where, out_shardings=where).lower(*shapes)
        return hlo.costs(hlo.parse(program.compile().as_text())).cycles / chip.clock

    peak = performance.PEAK_FLOPS[device.device_kind]
    square = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16)
    long = jax.ShapeDtypeStruct((2**28,), jnp.bfloat16)
    return {
        "product_of_peak": 2 * 8192**3 / seconds(jnp.dot, square, square) / peak,
        "sum_of_bandwidth": 3 * 2**29 / seconds(jnp.add, long, long) / chip.bandwidth,
    }


def main() -> None:
    """Compiles the cases, prints a table and writes the file."""
    names = [CALIBRATION, ALONE, *CASES, *GRIDS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="the slice (v5e:2x2)")
    parser.add_argument("--cases", default=",".join(names), help="which, with commas between")
    parser.add_argument("--label", default="now", help="what the code is called (now)")
    parser.add_argument(
        "--output", type=pathlib.Path, default=HERE / "results" / "tpu_v5e.json", help="the file"
    )
    arguments = parser.parse_args()
    cases = arguments.cases.split(",")
    if unknown := set(cases) - set(names):
        parser.error(f"--cases: unknown {sorted(unknown)}; expected of {', '.join(names)}")
    available, chip = plan.topology(arguments.topology)
    for name in cases:
        found = _case(name, available, chip)
        report = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
        header = {"topology": arguments.topology, "versions": plan.versions()}
        report.setdefault(arguments.label, {})[name] = header | found
        files.write_text(arguments.output, json.dumps(report, indent=1) + "\n")
        print(f"{name}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
