"""One case of `evaluate.py` in its own process, so that peak memory is the case's own.

Reads the case as JSON from its argument and prints the result as one line of JSON.
"""

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
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.evaluation.shards import Shards
from invariance_jax.factors.search import SimilaritySearch

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

    def names(self) -> list[str]:
        """Ids."""
        return [f"noise{index}" for index in range(self._count)]

    def labels(self) -> np.ndarray:
        """Classes."""
        return np.arange(self._count, dtype=np.int32) % 10


def make_driver(model: models.Model, source: data.Source, **fields: Any) -> Driver:
    """The driver of the whole grid, or of other measurements."""
    side = model.image_size
    preprocess = augment.get("none", size=side, resize=fields.pop("resize", side))
    defaults = {"workers": 0, "memory": 2**40, "description": ""}
    defaults["measurements"] = [Invariance(preprocess=preprocess)]
    return Driver(
        model=model,
        source=source,
        preprocess=preprocess,
        **(defaults | fields),
    )


def cost(case: dict[str, Any]) -> dict[str, Any]:
    """Times the whole grid or search, and as many bare forward passes of the batch, in turn."""
    size, batch = case["size"], case["batch"]
    # Other than the CPU's, one device: the loop beside it has one.
    mesh = devices.make_mesh(case["cpu_devices"] if jax.default_backend() == "cpu" else 1)
    model = models.load_model(
        case["model"], image_size=size, seed=case["seed"], dtype=case["dtype"]
    )
    resize = augment.get("none", size=size).boxes.resize
    searches = case["kind"] == "search"
    fields: dict[str, Any] = {"measurements": [SimilaritySearch(batch=2)]} if searches else {}
    driver = make_driver(
        model,
        # Of ten classes, at least a pair of each.
        Noise(max(batch, 20) if searches else batch, resize, case["seed"]),
        mesh=mesh,
        resize=resize,
        canvas_size=resize,
        # The grid's walk shows a few images twice, for the baseline of others: room for them too.
        per_device_batch_size=batch if searches else 2 * batch,
        shard_size=batch,
        **fields,
    )
    program, ((walk, *_), *_) = driver.plan
    (shown,) = data.batches_at(driver.source, walk.positions[None], canvas_size=resize)
    del shown["mask"]
    shown = jax.device_put(shown, devices.by_example(mesh))
    variables = jax.device_put(model.variables, devices.replicated(mesh))
    forward = jax.jit(lambda variables, x: model.apply(variables, x)[1]["embedding"])
    pixels = model.normalize(jnp.asarray(shown["canvas"][:, :size, :size], jnp.float32) / 255)
    pixels = jax.device_put(pixels, devices.by_example(mesh))
    nothing = jax.device_put(driver.nothing_before(), devices.replicated(mesh))
    if searches:
        # Half of the images are changed, so that a pass takes two rows of them.
        points = -(-len(driver.measurements[0].computed) // 2)
    else:
        points = int(driver.measurements[0].computed.sum())

    def whole_grid() -> Any:
        return program(variables, shown, nothing)

    def bare() -> Any:
        for _ in range(1 + points):
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
    rows = len(walk.positions)
    done = rows * (1 + points)
    return {
        "cells": points,
        "rows": rows,
        "first_seconds": first_seconds,
        "times": times,
        "over_forward": grid_clock / bare_clock,
        "over_forward_core": grid_core / bare_core,
        "cells_per_second": done / grid_clock,
        "cells_per_core_second": done / grid_core,
        "images_per_second": rows / grid_clock,
    }


def memory(case: dict[str, Any]) -> dict[str, Any]:
    """Measures a whole evaluation of so many images, shards and putting together included."""
    model = models.load_model(case["model"], image_size=_SIDE, seed=case["seed"], num_classes=10)
    driver = make_driver(
        model,
        Noise(case["images"], _SIDE, case["seed"]),
        mesh=devices.make_mesh(1),
        canvas_size=_SIDE,
        per_device_batch_size=_BATCH,
        shard_size=4 * _BATCH,
    )
    with tempfile.TemporaryDirectory() as folder:
        shards = Shards(pathlib.Path(folder) / "parts", {})
        shards.claim(overwrite=False)
        ((measurement, found),) = driver.run(shards={"invariance": shards})
        (dataset,) = measurement.datasets(found, driver.images).values()
    return {"results_megabytes": sum(each.nbytes for each in dataset.values()) / 1e6}


def main() -> None:
    """Runs the case of the command line."""
    case = json.loads(sys.argv[1])
    result = {"cost": cost, "search": cost, "memory": memory}[case["kind"]](case)
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
