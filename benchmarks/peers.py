"""Measures how fast invariance is measured, beside what people use with PyTorch.

    python benchmarks/peers.py                                   # where torch is installed too
    python benchmarks/peers.py --lie_deriv=FOLDER                # a checkout of ngruver/lie-deriv
    python benchmarks/peers.py --tmeasures                       # pip install tmeasures statsmodels

One ResNet-18 with the same random weights everywhere, the same images, the grid's transforms and
magnitudes: a plain loop in PyTorch, the same network of PyTorch through our evaluator's callback,
and a Flax network. With `--lie_deriv` its Lie derivatives beside ours, and with `--tmeasures` its
normalised variance over the same cells. In turn, medians.
Writes `benchmarks/results/peers_DEVICE.json`.
"""

import argparse
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import evaluate_torch
import fresh_process
import jax
import numpy as np
import torch
import torchvision
from evaluate_case import make_driver

from invariance_jax import data, devices, models
from invariance_jax.evaluation.local_equivariance import LocalEquivariance
from invariance_jax.evaluation.measurement import MAIN
from invariance_jax.transforms import TRANSFORMS, generators

_MODEL = "resnet18"
# Ours, and the function of lie-deriv that does the same.
_GENERATORS = {
    "rotate": lambda lie, f, x: lie.rotation_lie_deriv(f, x),
    "shear_x": lambda lie, f, x: lie.shear_lie_deriv(f, x, axis="x"),
    "stretch_x": lambda lie, f, x: lie.stretch_lie_deriv(f, x, axis="x"),
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of the images (64)")
    parser.add_argument("--images", type=int, default=64, help="how many, one batch (64)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median counts (5)")
    parser.add_argument("--lie_deriv", type=pathlib.Path, help="a checkout of ngruver/lie-deriv")
    parser.add_argument("--tmeasures", action="store_true", help="beside facundoq/tmeasures")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    return parser.parse_args()


def _images(count: int, size: int) -> np.ndarray:
    """Smooth images of a seed, uint8."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((count, 3, 12, 12), np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return np.rint(255 * fine.permute(0, 2, 3, 1).numpy()).astype(np.uint8)


def _in_turn(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, one after another so that other programs slow all alike."""
    times = {name: [] for name in functions}
    for number in range(repeats + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function())
            if number:  # the first compiles
                times[name].append(time.perf_counter() - begin)
    return times


def _flax(network: torch.nn.Module, size: int) -> models.Model:
    """The same network in Flax."""
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    variables = models.import_weights(_MODEL, state)
    return models.from_flax(models.create(_MODEL, 1000), variables, name=_MODEL, image_size=size)


def _ready(model: models.Model, pixels: np.ndarray, **fields: Any) -> tuple[Any, Any, int]:
    """A driver, its program with what it takes, and how many images that shows."""
    size = pixels.shape[1]
    fields = {"per_device_batch_size": 2 * len(pixels), "shard_size": len(pixels)} | fields
    source = data.ArraySource(pixels)
    driver = make_driver(model, source, mesh=devices.make_mesh(1), canvas_size=size, **fields)
    program, ((walk,),) = driver.plan
    (batch,) = data.batches_at(source, walk.positions[None], canvas_size=size)
    del batch["mask"]
    arguments = (model.variables, batch, driver.nothing_before())
    return driver, lambda: program(*arguments), len(walk.positions)


def _by_tmeasures(
    embed: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, cells: list[Any]
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """The two deviations of tmeasures: over the transforms of an image, and over images."""
    import tmeasures

    class Embedding(tmeasures.pytorch.ActivationsModule):
        def activation_names(self) -> list[str]:
            return ["embedding"]

        def forward_activations(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [embed(x)]

    transforms = [
        lambda image, name=t.name, m=m: evaluate_torch.apply(name, image[None], m)[0]
        for t, m in cells
    ]
    options = tmeasures.pytorch.PyTorchMeasureOptions(batch_size=len(images), verbose=False)
    measures = (
        tmeasures.pytorch.TransformationVarianceInvariance(),
        tmeasures.pytorch.SampleVarianceInvariance(),
    )

    def measured() -> tuple[np.ndarray, np.ndarray]:
        found = (each.eval(list(images), transforms, Embedding(), options) for each in measures)
        over_transforms, over_images = (each.layers[0].numpy() for each in found)
        return over_transforms, over_images

    return measured


def _grid(
    network: torch.nn.Module, pixels: np.ndarray, repeats: int, with_tmeasures: bool
) -> dict[str, Any]:
    """The whole grid in three ways, or four."""
    size = pixels.shape[1]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    cells = [(t, m) for t in TRANSFORMS.values() for m in t.magnitudes if m != t.identity]
    bare = torch.nn.Sequential(*list(network.children())[:-1], torch.nn.Flatten())

    def embed(shown: torch.Tensor) -> torch.Tensor:
        mean, deviation = evaluate_torch.MEAN, evaluate_torch.DEVIATION
        return bare(evaluate_torch.functional.normalize(shown, mean, deviation))

    @torch.inference_mode()
    def loop() -> np.ndarray:
        z = embed(images)
        found = []
        for transform, magnitude in cells:
            transformed = embed(evaluate_torch.apply(transform.name, images, magnitude))
            evaluate_torch.distances(z.flip(0), transformed)
            found.append(evaluate_torch.distances(z, transformed)[0])
        return torch.stack(found).numpy()

    @torch.inference_mode()
    def called(shown: np.ndarray) -> np.ndarray:
        return bare(torch.from_numpy(shown).permute(0, 3, 1, 2)).numpy()

    flax = _flax(network, size)
    function = models.from_function(called, on_host=True, image_size=size)
    callback = models.Model(
        name="callback",
        variables={},
        apply=function.apply,
        normalize=flax.normalize,
        num_classes=None,
        image_size=size,
    )
    runs, found, shown = {"plain loop": loop}, {}, {"plain loop": len(pixels)}
    for name, model in {"our callback": callback, "our Flax": flax}.items():
        driver, runs[name], shown[name] = _ready(model, pixels)
        ((measurement, arrays),) = driver.run()
        found[name] = measurement.datasets(arrays, driver.images)[MAIN].transformed_cosine
    more = {}
    if with_tmeasures:
        runs["tmeasures"] = _by_tmeasures(embed, images, cells)
        shown["tmeasures"] = len(pixels)
        more["tmeasures_difference"] = _agreement(runs["tmeasures"](), embed, images, cells)
    times = _in_turn(runs, repeats)
    expected = loop().T
    apart = {}
    for name, values in found.items():
        ours = np.stack(
            [values.sel(transform=t.name).values[list(t.magnitudes).index(m)] for t, m in cells],
            axis=1,
        )
        apart[name] = float(np.median(np.abs(ours - expected)))
    cells_of = {name: rows * (1 + len(cells)) for name, rows in shown.items()}
    return {
        "seconds": times,
        "cells_per_second": {n: cells_of[n] / float(np.median(t)) for n, t in times.items()},
        "median_difference_of_cosine_distances": apart,
        "median_cosine_distance": float(np.median(expected)),
        **more,
    }


@torch.inference_mode()
def _agreement(
    found: tuple[np.ndarray, np.ndarray],
    embed: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    cells: list[Any],
) -> float:
    """Largest difference of tmeasures' deviations from those of our plain loop, relative."""
    every = [embed(evaluate_torch.apply(t.name, images, m)).double().numpy() for t, m in cells]
    vectors = np.stack(every)  # [cell, image, length]
    largest = 0.0
    for theirs, axis in zip(found, (0, 1), strict=True):
        ours = vectors.std(axis=axis, ddof=1).mean(axis=0)
        largest = max(largest, float(np.abs(theirs - ours).max() / ours.max()))
    return largest


def _lie(
    network: torch.nn.Module, pixels: np.ndarray, folder: pathlib.Path, repeats: int
) -> dict[str, Any]:
    """Lie derivatives of the probabilities, by lie-deriv and by ours."""
    sys.path.insert(0, str(folder))
    from lee import lie_derivs

    mean, deviation = (
        np.array(x, np.float32) for x in (evaluate_torch.MEAN, evaluate_torch.DEVIATION)
    )
    inputs = torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / deviation)
    inputs = inputs.permute(0, 3, 1, 2).contiguous()

    def probabilities(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(network(x), dim=-1)

    def theirs() -> list[Any]:
        return [
            function(lie_derivs, probabilities, inputs).abs().mean(-1).detach().numpy()
            for function in _GENERATORS.values()
        ]

    named = [generators.get(name, "generators") for name in _GENERATORS]
    measured = [LocalEquivariance(generators=named)]
    flax = _flax(network, pixels.shape[1])
    _, ours, _ = _ready(flax, pixels, measurements=measured, per_device_batch_size=len(pixels))
    times = _in_turn({"lie-deriv": theirs, "ours": ours}, repeats)
    count = len(pixels) * len(_GENERATORS)
    return {
        "seconds": times,
        "derivatives_per_second": {n: count / float(np.median(t)) for n, t in times.items()},
    }


def main() -> None:
    """Runs all and writes the file."""
    arguments = _arguments()
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval().to(memory_format=torch.channels_last)
    pixels = _images(arguments.images, arguments.size)
    device = jax.devices()[0].device_kind
    report = {
        "device": device,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "model": _MODEL,
        "size": arguments.size,
        "images": arguments.images,
        "grid": _grid(network, pixels, arguments.repeats, arguments.tmeasures),
    }
    if arguments.lie_deriv:
        report["lie"] = _lie(network, pixels, arguments.lie_deriv, arguments.repeats)
    output = fresh_process.results_file("peers", device, arguments.output)
    output.write_text(json.dumps(report, indent=1) + "\n")
    for name, rate in report["grid"]["cells_per_second"].items():
        print(f"{name:>14} {rate:10,.0f} cells/s")
    for name, rate in report.get("lie", {}).get("derivatives_per_second", {}).items():
        print(f"{name:>14} {rate:10,.1f} Lie derivatives/s")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
