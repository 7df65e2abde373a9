"""Measures a model on every image, transform and magnitude, in shards that survive a kill.

Every process takes its own shards and its own devices: nothing travels between them but files of
the shards' folder, which all must see. Three stages, with a barrier after each: the features of
the images as they are; the grid, which needs the features of other images for the baseline; one
process puts everything together.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, Int

from invariance_jax import data, devices, distributed, progress
from invariance_jax.augment import Augmentation
from invariance_jax.config import EvalConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import equivariance, grid, measures, memory
from invariance_jax.evaluation.cells import Cells, make_cells
from invariance_jax.evaluation.features import Layout, make_embed, make_layout, with_embedding
from invariance_jax.evaluation.schedule import Schedule, make_schedule
from invariance_jax.evaluation.shards import Shards
from invariance_jax.transforms import Transform

_FEATURES, _GRID, _DIFFERENCE = "features", "grid", "difference"

Batch = Mapping[str, np.ndarray]
ByFeature = dict[str, dict[str, Float32[np.ndarray, "transform magnitude image"]]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What was measured of every image at every cell of the grid.

    Attributes:
        transformed: By feature and distance: d(z_i, z_t,i), float32, [transform, magnitude,
            image].
        baseline: Likewise: d(z_i, z_t,pi(i)).
        alignment: Equivariance alignment by feature, the same shape; empty if not asked for.
        flip: Whether the transform changes the predicted class.
        correct: Whether the true class has the best score.
        prediction: Class predicted for each image as it is.
        label: True class of each image.
        names: Id of each image.
        permutation: pi.
    """

    transformed: ByFeature
    baseline: ByFeature
    alignment: dict[str, Float32[np.ndarray, "transform magnitude image"]]
    flip: Bool[np.ndarray, "transform magnitude image"]
    correct: Bool[np.ndarray, "transform magnitude image"]
    prediction: Int[np.ndarray, " image"]
    label: Int[np.ndarray, " image"]
    names: tuple[str, ...]
    permutation: Int[np.ndarray, " image"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """What every stage needs to know."""

    variables: Any
    mesh: Mesh
    source: data.Source
    transforms: Mapping[str, Transform]
    cells: Cells
    layout: Layout
    schedule: Schedule
    config: EvalConfig
    shards: Shards
    canvas_size: int
    workers: int
    description: str

    @property
    def permutation(self) -> np.ndarray:
        """pi, over the whole evaluated set."""
        return np.random.default_rng(self.config.seed).permutation(self.schedule.images)


def measure(
    model: nn.Module,
    variables: Any,
    preprocess: Augmentation,
    transforms: Mapping[str, Transform],
    source: data.Source,
    config: EvalConfig,
    shards: Shards,
    *,
    image_size: int,
    canvas_size: int,
    workers: int,
    mesh: Mesh,
    description: str,
) -> Measured | None:
    """Measures a model on every image, transform and magnitude, or goes on with it.

    Host memory holds the features of all images as they are and, in process 0, the results; the
    devices' memory is bounded by `config.grid_batch_size` or `config.memory`.

    Args:
        model: The network.
        variables: Its parameters and batch statistics, on the host.
        preprocess: Canvas to image, without randomness; `none` as a rule.
        transforms: The table of transforms.
        source: The images, at least two.
        config: What to measure and how.
        shards: The folder of finished shards, claimed by this very measurement.
        image_size: Side of what the model sees, pixels.
        canvas_size: Side of the canvas, pixels.
        workers: Processes that decode; 0 for threads.
        mesh: The devices of all processes.
        description: Names the model in progress bars.

    Returns:
        The results in process 0, None in others.

    Raises:
        UserError: A feature is unknown, features or distances are not finite (the image is
            named), memory is too small, or the disk is full.
    """
    mesh = devices.local_mesh(mesh)
    names = with_embedding(config.features)
    if config.equivariance and config.pooling == "none" and len(names) > 1:
        raise UserError(
            "config.eval.equivariance keeps differences of all features at all cells, too many "
            "with config.eval.pooling 'none'; expected 'mean', or no config.eval.features"
        )
    layout = make_layout(model, variables, names, config.pooling, image_size)
    cells = make_cells(transforms, config.domain)
    embed = make_embed(model, names, config.pooling)

    def make_step(cells_at_once: int) -> grid.Step:
        return grid.make_grid_step(
            embed,
            preprocess,
            transforms,
            config.domain,
            config.translation,
            cells,
            layout,
            cells_at_once=cells_at_once,
            equivariance=config.equivariance,
        )

    schedule = make_schedule(
        len(source),
        shard_size=config.shard_size,
        devices=mesh.size,
        largest_pass=config.grid_batch_size
        or largest_pass(make_step(1), variables, layout, canvas_size, config.memory),
        cells=len(cells),
    )
    task = _Task(
        variables=jax.device_put(variables, devices.replicated(mesh)),
        mesh=mesh,
        source=source,
        transforms=transforms,
        cells=cells,
        layout=layout,
        schedule=schedule,
        config=config,
        shards=shards,
        canvas_size=canvas_size,
        workers=workers,
        description=description,
    )
    _save_features(task, grid.make_feature_step(embed, preprocess, mesh))
    step = make_step(schedule.cells_at_once)
    _save_grid(task, grid.grid_on_mesh(step, mesh, equivariance=config.equivariance))
    return _merged(task) if distributed.is_lead() else None


def largest_pass(
    step: grid.Step, variables: Any, layout: Layout, canvas_size: int, limit: int
) -> int:
    """Finds how many images a device can embed at once.

    Args:
        step: From `grid.make_grid_step`, one cell at once.
        variables: Parameters and batch statistics.
        layout: The features.
        canvas_size: Side of the canvas, pixels.
        limit: Bytes of a device's memory.

    Returns:
        Images, at least 1.

    Raises:
        UserError: Not even one image fits.
    """

    def bytes_of(size: int) -> int:
        batch = abstract_batch(size, layout, canvas_size)
        # Two more batches wait on the device, see `data.prefetch_to_device`.
        waiting = 2 * sum(x.size * x.dtype.itemsize for x in batch.values())
        return int(memory.WITH_COPIES * memory.peak_bytes(step, variables, batch)) + waiting

    return memory.largest_batch(bytes_of, limit)


def abstract_batch(size: int, layout: Layout, canvas_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Describes what the grid's step takes.

    Args:
        size: Images.
        layout: The features.
        canvas_size: Side of the canvas, pixels.

    Returns:
        Shapes and dtypes of the batch.
    """
    shapes = {
        "canvas": ((canvas_size, canvas_size, 3), jnp.uint8),
        "features": ((layout.length,), jnp.float32),
        "features_other": ((layout.length,), jnp.float32),
        "mask": ((), jnp.bool_),
        "correct": ((), jnp.bool_),
    } | dict.fromkeys(("height", "width", "label", "index", "prediction"), ((), jnp.int32))
    return {
        name: jax.ShapeDtypeStruct((size, *shape), dtype) for name, (shape, dtype) in shapes.items()
    }


def _save_features(task: _Task, step: grid.Step) -> None:
    """First stage: what the model says of the images as they are."""
    for shard, found in _by_shard(task, step, _FEATURES, lambda batch: batch):
        span = task.schedule.span(shard)
        names = [task.source[position]["name"] for position in range(span.start, span.stop)]
        finite = np.isfinite(found["features"]).all(axis=1)
        if not finite.all():
            raise _not_finite("the features", names, np.flatnonzero(~finite))
        task.shards.save(_FEATURES, shard, found | {"names": np.array(names)})


def _save_grid(task: _Task, step: grid.Step) -> None:
    """Second stage: the grid."""
    schedule = task.schedule
    known = [task.shards.load(_FEATURES, shard) for shard in range(schedule.shards)]
    features, prediction, correct = (
        np.concatenate([each[name] for each in known])
        for name in ("features", "prediction", "correct")
    )
    del known
    user_of = np.argsort(task.permutation)

    def with_features(batch: Batch) -> Batch:
        rows = batch["index"]
        return {
            **batch,
            "features": features[rows],
            "features_other": features[user_of[rows]],
            "prediction": prediction[rows],
            "correct": correct[rows],
        }

    for shard, found in _by_shard(task, step, _GRID, with_features):
        _check_distances(task, shard, found)
        if _DIFFERENCE in found:
            task.shards.save_matrix(_DIFFERENCE, shard, found.pop(_DIFFERENCE))
        # Last: it stands for the whole shard.
        task.shards.save(_GRID, shard, found)


def _by_shard(
    task: _Task, step: grid.Step, kind: str, complete: Callable[[Batch], Batch]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Runs a step over this process's missing shards; each is given when it is whole."""
    schedule = task.schedule
    missing = task.shards.missing(kind, schedule.shards)
    # All have looked before the first one is written.
    devices.barrier(f"{kind} begin")
    mine = missing[jax.process_index() :: jax.process_count()]
    images = sum(task.schedule.span(shard).stop - schedule.span(shard).start for shard in mine)
    if mine:
        batches = data.batches_at(
            task.source,
            np.concatenate([schedule.positions(shard) for shard in mine]),
            canvas_size=task.canvas_size,
            workers=task.workers,
        )
        moved = data.prefetch_to_device(
            _completed(batches, complete), devices.by_example(task.mesh)
        )
        results = devices.one_behind(
            step(task.variables, batch) | {"label": batch["label"]} for batch in moved
        )
        with progress.bar(
            total=images, description=f"{task.description} {kind}", unit="images"
        ) as bar:
            for shard in mine:
                span = schedule.span(shard)
                parts, done = [], 0
                for _ in range(schedule.batches):
                    parts.append(next(results))
                    count = min(
                        schedule.devices * schedule.device_batch, span.stop - span.start - done
                    )
                    done += count
                    bar.update(count)
                yield shard, _joined(parts, span.stop - span.start)
    devices.barrier(f"{kind} end")


def _completed(
    batches: Generator[Batch, None, None], complete: Callable[[Batch], Batch]
) -> Iterator[Batch]:
    """Batches with what they lack; whoever closes this closes the reader under it."""
    with contextlib.closing(batches):
        for batch in batches:
            yield complete(batch)


# Which axis of a result counts the images; elsewhere it is the last.
_IMAGE_AXIS = {"features": 0, "difference": 1}


def _joined(parts: list[dict[str, np.ndarray]], images: int) -> dict[str, np.ndarray]:
    """One shard's results without what its last batch was filled up with."""
    joined = {}
    for name in parts[0]:
        axis = _IMAGE_AXIS.get(name, -1)
        whole = np.concatenate([part[name] for part in parts], axis=axis)
        joined[name] = np.take(whole, np.arange(images), axis=axis)
    return joined


def _not_finite(what: str, names: list[str], rows: np.ndarray) -> UserError:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return UserError(
        f"{what} of image {names[rows[0]]!r}{more} are not finite; did training diverge, or does "
        "config.model.dtype overflow?"
    )


def _check_distances(task: _Task, shard: int, found: Mapping[str, np.ndarray]) -> None:
    bad = ~np.isfinite(found["transformed"]).all(axis=(1, 2))
    if bad.any():
        cell, _ = np.argwhere(bad)[0]
        transform = list(task.transforms.values())[task.cells.transform[cell]]
        what = f"{transform.name} {task.cells.magnitude[cell]:g} {transform.unit}: the features"
        names = task.shards.load(_FEATURES, shard)["names"].tolist()
        raise _not_finite(what, names, np.flatnonzero(bad[cell]))


def _merged(task: _Task) -> Measured:
    """Third stage: all shards as one, every baseline at the image that it belongs to."""
    schedule, cells, names = task.schedule, task.cells, task.layout.names
    permutation = task.permutation
    user_of = np.argsort(permutation)
    images, kinds = schedule.images, measures.DISTANCES
    shape = (len(cells), len(names), len(kinds), images)
    transformed, baseline = np.empty(shape, np.float32), np.empty(shape, np.float32)
    unchanged = np.empty(shape[1:], np.float32)
    flip, correct = (np.empty((len(cells), images), bool) for _ in range(2))
    known = []
    for shard in range(schedule.shards):
        span, part = schedule.span(shard), task.shards.load(_GRID, shard)
        users = user_of[span]
        transformed[..., span] = part["transformed"]
        baseline[..., users] = part["baseline"]
        unchanged[..., users] = part["baseline_unchanged"]
        flip[:, span], correct[:, span] = part["flip"], part["correct"]
        first = task.shards.load(_FEATURES, shard)
        known.append({name: first[name] for name in ("names", "label", "prediction", "correct")})
    whole = {name: np.concatenate([each[name] for each in known]) for name in known[0]}

    def on_grid(values: np.ndarray, elsewhere: np.ndarray) -> ByFeature:
        return {
            name: {
                kind: cells.to_grid(values[:, f, k], elsewhere[f, k])
                for k, kind in enumerate(kinds)
            }
            for f, name in enumerate(names)
        }

    return Measured(
        transformed=on_grid(transformed, np.zeros(shape[1:], np.float32)),
        baseline=on_grid(baseline, unchanged),
        alignment=_alignment(task, permutation) if task.config.equivariance else {},
        flip=cells.to_grid(flip, np.zeros(images, bool)),
        correct=cells.to_grid(correct, whole["correct"]),
        prediction=whole["prediction"],
        label=whole["label"],
        names=tuple(whole["names"].tolist()),
        permutation=permutation,
    )


def _alignment(task: _Task, permutation: np.ndarray) -> dict[str, np.ndarray]:
    found = []
    with progress.bar(
        total=len(task.cells), description=f"{task.description} equivariance", unit="cells"
    ) as bar:
        for each in equivariance.by_cell(
            task.shards,
            task.schedule.shards,
            task.cells,
            task.layout,
            permutation,
            task.config.seed,
        ):
            found.append(each)
            bar.update()
    values = np.stack(found)
    nothing = np.zeros(task.schedule.images, np.float32)
    return {
        name: task.cells.to_grid(values[:, f], nothing) for f, name in enumerate(task.layout.names)
    }
