"""One case of `evaluate.py` in its own process, so that peak memory is the case's own.

Reads the case as JSON from its argument and prints the result as one line of JSON.
"""

import dataclasses
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invariance_jax import augment, data, devices, models
from invariance_jax.config import ExperimentConfig, check
from invariance_jax.configs import digits
from invariance_jax.evaluation import features, grid, invariance
from invariance_jax.evaluation.cells import make_cells
from invariance_jax.evaluation.shards import Shards
from invariance_jax.transforms import TRANSFORMS, normalize

# Of the memory case: small, so that many images take little time.
_SIDE, _BATCH = 16, 64


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of all cores together."""
    begin, core_begin = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return time.perf_counter() - begin, time.process_time() - core_begin


class Noise:
    """Images from a seed, made when they are read: they take no memory."""

    name, split, num_classes, has_labels = "noise", "all", 10, True
    class_names = tuple(map(str, range(10)))

    def __init__(self, count: int, side: int, seed: int) -> None:
        self._count, self._side, self._seed = count, side, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> data.Example:
        rng = np.random.default_rng([self._seed, index])
        pixels = rng.integers(0, 256, (self._side, self._side, 3), np.uint8)
        return {"image": pixels, "label": index % 10, "name": f"noise{index}"}


def cost(case: dict[str, Any]) -> dict[str, Any]:
    """Times the whole grid and as many bare forward passes of the same batch, in turn."""
    size, batch = case["size"], case["batch"]
    # Other than the CPU's, one device: the loop beside it has one.
    mesh = devices.make_mesh(case["cpu_devices"] if jax.default_backend() == "cpu" else 1)
    model = models.create(case["model"], 1000, dtype=case["dtype"])
    images = jnp.zeros((1, size, size, 3))
    variables = jax.jit(model.init, static_argnames="train")(
        jax.random.key(case["seed"]), images, train=False
    )
    variables = jax.device_put(variables, devices.replicated(mesh))
    names = features.with_embedding(())
    embed = features.make_embed(model, names, "mean")
    layout = features.make_layout(model, variables, names, "mean", size)
    cells = make_cells(TRANSFORMS, "pixel")
    preprocess = augment.get("none", size=size)
    feature_step = grid.make_feature_step(embed, preprocess, mesh)
    grid_step = grid.grid_on_mesh(
        grid.make_grid_step(
            embed,
            preprocess,
            TRANSFORMS,
            "pixel",
            "zero",
            cells,
            layout,
            cells_at_once=1,
            equivariance=False,
        ),
        mesh,
        equivariance=False,
    )
    (shown,) = data.evaluation_batches(
        Noise(batch, preprocess.boxes.resize, case["seed"]),
        batch_size=batch,
        canvas_size=preprocess.boxes.resize,
    )
    shown = jax.device_put(shown, devices.by_example(mesh))
    forward = jax.jit(embed)
    pixels = normalize(jnp.asarray(shown["canvas"][:, :size, :size], jnp.float32) / 255)
    pixels = jax.device_put(pixels, devices.by_example(mesh))

    def whole_grid() -> Any:
        known = feature_step(variables, shown)
        other = {"features_other": known["features"][::-1]}
        return grid_step(variables, {**shown, **known, **other})

    def bare() -> Any:
        for _ in range(1 + len(cells)):
            found = forward(variables, pixels)
        return found

    begin = time.perf_counter()
    timed(whole_grid)
    first_seconds = time.perf_counter() - begin
    timed(lambda: forward(variables, pixels))
    times = {"grid": [], "bare": []}
    # In turn, so that other programs on the machine slow both alike.
    for _ in range(case["repeats"]):
        times["grid"].append(timed(whole_grid))
        times["bare"].append(timed(bare))
    (grid_clock, grid_core), (bare_clock, bare_core) = (
        np.median(times[name], axis=0).tolist() for name in ("grid", "bare")
    )
    done = batch * (1 + len(cells))
    return {
        "cells": len(cells),
        "first_seconds": first_seconds,
        "times": times,
        "over_forward": grid_clock / bare_clock,
        "over_forward_core": grid_core / bare_core,
        "cells_per_second": done / grid_clock,
        "cells_per_core_second": done / grid_core,
        "images_per_second": batch / grid_clock,
    }


def memory(case: dict[str, Any]) -> dict[str, Any]:
    """Measures a whole evaluation of so many images, shards and merging included."""
    values = digits.get_config("resnet8,none")
    config = check(ExperimentConfig, values)
    config = dataclasses.replace(config.eval, grid_batch_size=_BATCH, shard_size=4 * _BATCH)
    model = models.create(case["model"], 10)
    variables = jax.jit(model.init, static_argnames="train")(
        jax.random.key(case["seed"]), jnp.zeros((1, _SIDE, _SIDE, 3)), train=False
    )
    with tempfile.TemporaryDirectory() as folder:
        shards = Shards(pathlib.Path(folder) / "parts")
        shards.claim({}, overwrite=False)
        measured = invariance.measure(
            model,
            jax.device_get(variables),
            augment.get("none", size=_SIDE, resize=_SIDE),
            TRANSFORMS,
            Noise(case["images"], _SIDE, case["seed"]),
            config,
            shards,
            image_size=_SIDE,
            canvas_size=_SIDE,
            workers=0,
            mesh=devices.make_mesh(1),
            description="memory",
        )
    arrays = jax.tree.leaves([measured.transformed, measured.baseline])
    arrays += [measured.flip, measured.correct]
    return {"results_megabytes": sum(array.nbytes for array in arrays) / 1e6}


def main() -> None:
    """Runs the case of the command line."""
    case = json.loads(sys.argv[1])
    result = {"cost": cost, "memory": memory}[case["kind"]](case)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    result["process_peak_megabytes"] = peak / 1e6
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        result["device_peak_megabytes"] = stats["peak_bytes_in_use"] / 1e6
    print(json.dumps(result))


if __name__ == "__main__":
    main()
