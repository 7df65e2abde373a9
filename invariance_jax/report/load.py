"""Finds and reads results: accuracy tables and invariance arrays. The only input of the report."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.evaluation import accuracy_table, results
from invariance_jax.report.rows import Row, make_row
from invariance_jax.transforms import TRANSFORMS

VARIABLES = ("relative_invariance_cosine", "relative_invariance_euclidean")
DIMENSIONS = ("transform", "magnitude", "image")
COORDINATES = ("transform", "magnitude", "magnitude_value", "unit", "family", "image")
ATTRIBUTES = (
    "model",
    "augmentation",
    "seed",
    "steps",
    "dataset",
    "split",
    "domain",
    "parameters_sha256",
    "config",
    "versions",
)
MAGNITUDES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Validation accuracy of one trained or untrained network.

    Attributes:
        row: Its model and training.
        seed: Its seed.
        top1: Share of images whose first guess is right, 0 to 1.
        steps: Training steps; 0 for untrained.
        seconds: Time that training took.
    """

    row: Row
    seed: int
    top1: float
    steps: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Invariance of one trained or untrained network.

    Attributes:
        row: Its model and training.
        seed: Its seed.
        steps: Training steps; 0 for untrained.
        path: The file it was read from.
        data: Dims (transform, magnitude, image), variables `VARIABLES`, float32, at most 1.
    """

    row: Row
    seed: int
    steps: int
    path: pathlib.Path
    data: xr.Dataset


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All that a report shows, sorted by row and seed; either part may be empty, not both.

    Attributes:
        accuracy: One entry a network.
        runs: One entry a network, all measured on the same images.
    """

    accuracy: tuple[Accuracy, ...]
    runs: tuple[Run, ...]


def read(directories: Sequence[str | pathlib.Path]) -> Results:
    """Reads the results of one or more folders as one set.

    A network that stands in several folders counts once.

    Args:
        directories: Folders, each with `accuracy.csv` or `invariance/*.nc` or both.

    Returns:
        The results.

    Raises:
        UserError: A folder is missing or empty, a file is not what it should be, two files
            disagree about one network, or two networks were measured on different images.
    """
    if not directories:
        raise UserError("no folder given; expected at least one folder of results")
    accuracy: dict[tuple[Row, int], Accuracy] = {}
    runs: dict[tuple[Row, int], Run] = {}
    for directory in map(pathlib.Path, directories):
        if not directory.is_dir():
            raise UserError(f"{directory} is not a folder; expected a folder of results")
        table = directory / "accuracy.csv"
        files = sorted((directory / "invariance").glob("*.nc"))
        if not table.is_file() and not files:
            raise UserError(
                f"{directory} holds no results; expected accuracy.csv or invariance/*.nc in it"
            )
        for entry in read_accuracy(table) if table.is_file() else ():
            _add_accuracy(accuracy, entry, table)
        for file in files:
            _add_run(runs, read_run(file))
    if not accuracy and not runs:
        raise UserError("accuracy.csv has no rows and there is no invariance/*.nc: nothing to show")

    def order(entry: Accuracy | Run) -> tuple[tuple[str, int, str], int]:
        return entry.row.sort_key, entry.seed

    found = Results(
        accuracy=tuple(sorted(accuracy.values(), key=order)),
        runs=tuple(sorted(runs.values(), key=order)),
    )
    _check_same_images(found.runs)
    return found


def read_accuracy(path: pathlib.Path) -> list[Accuracy]:
    """Reads one accuracy table.

    Args:
        path: A CSV file as the evaluation writes it.

    Returns:
        Its entries in the order of the file.

    Raises:
        UserError: A column is missing or a value is wrong.
    """
    entries = []
    for line in accuracy_table.read(path):
        if not 0 <= line.top1 <= 1:
            raise UserError(
                f"{path}: {line.model}, {line.augmentation}, seed {line.seed}: top1 is "
                f"{line.top1}; expected a fraction, 0 to 1"
            )
        row = make_row(line.model, line.augmentation, line.steps)
        entries.append(
            Accuracy(
                row=row, seed=line.seed, top1=line.top1, steps=line.steps, seconds=line.seconds
            )
        )
    return entries


def read_run(path: pathlib.Path, extra: Sequence[str] = ()) -> Run:
    """Reads the invariance of one network.

    Args:
        path: A NetCDF file as the evaluation writes it.
        extra: Other variables to keep, of those that the file has.

    Returns:
        The run, with the relative invariances in memory.

    Raises:
        UserError: The file is no such file.
    """
    data = results.read(path)
    _check_layout(data, path)
    # The distances behind them are not shown: holding them too would triple the memory.
    data = data[[*VARIABLES, *(name for name in extra if name in data)]]
    for name in VARIABLES:
        if not np.isfinite(data[name].values).all():
            raise UserError(f"{path}: {name} has values that are not finite; did training diverge?")
    steps = int(data.attrs["steps"])
    row = make_row(str(data.attrs["model"]), str(data.attrs["augmentation"]), steps)
    return Run(row=row, seed=int(data.attrs["seed"]), steps=steps, path=path, data=data)


def _check_layout(file: xr.Dataset, path: pathlib.Path) -> None:
    for kind, expected, found in (
        ("variable", VARIABLES, file.data_vars),
        ("coordinate", COORDINATES, file.coords),
        ("attribute", ATTRIBUTES, file.attrs),
    ):
        for name in expected:
            if name not in found:
                raise UserError(
                    f"{path} lacks the {kind} {name!r}; expected a file of the invariance "
                    f"evaluation, with: {', '.join(expected)}"
                )
    for name in VARIABLES:
        if file[name].dims != DIMENSIONS:
            raise UserError(
                f"{path}: {name} has dimensions {file[name].dims}; expected {DIMENSIONS}"
            )
    if tuple(file["transform"].values) != tuple(TRANSFORMS):
        raise UserError(
            f"{path} holds the transforms {', '.join(map(str, file['transform'].values))}; "
            f"expected: {', '.join(TRANSFORMS)}"
        )
    if file.sizes["magnitude"] != MAGNITUDES or not file.sizes["image"]:
        raise UserError(
            f"{path} holds {file.sizes['magnitude']} magnitudes and {file.sizes['image']} images; "
            f"expected {MAGNITUDES} magnitudes and at least one image"
        )


def _add_accuracy(
    known: dict[tuple[Row, int], Accuracy], entry: Accuracy, path: pathlib.Path
) -> None:
    earlier = known.setdefault((entry.row, entry.seed), entry)
    if (earlier.top1, earlier.steps) != (entry.top1, entry.steps):
        raise UserError(
            f"{path}: {entry.row.label}, seed {entry.seed} has top1 {entry.top1} after "
            f"{entry.steps} steps, and {earlier.top1} after {earlier.steps} in an earlier row; "
            "expected one network a model, augmentation and seed"
        )


def _add_run(known: dict[tuple[Row, int], Run], run: Run) -> None:
    earlier = known.setdefault((run.row, run.seed), run)
    ours, theirs = (each.data.attrs["parameters_sha256"] for each in (run, earlier))
    if ours != theirs:
        raise UserError(
            f"{earlier.path} and {run.path} both hold {run.row.label}, seed {run.seed}, with "
            "different parameters; expected one network a model, augmentation and seed"
        )


def _check_same_images(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        first = runs[0]
        for name in ("dataset", "split", "domain"):
            ours, theirs = run.data.attrs[name], first.data.attrs[name]
            if ours != theirs:
                raise UserError(
                    f"{run.path} was measured on {name} {ours!r} and {first.path} on {theirs!r}; "
                    "expected the same images for every network"
                )
        if not np.array_equal(run.data["image"].values, first.data["image"].values):
            raise UserError(
                f"{run.path} was measured on {run.data.sizes['image']} images and {first.path} on "
                f"{first.data.sizes['image']}, or on others; expected the same images for every "
                "network"
            )
