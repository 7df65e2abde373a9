"""Finds and reads results, of this version and the first one. The only input of the report."""

import csv
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from invariance_jax.config import WEIGHTS_LABEL, ExperimentConfig, check, flatten
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.report.rows import UNTRAINED, Network, Row, network, tell_apart
from invariance_jax.transforms import TRANSFORMS

VARIABLES = ("relative_invariance_cosine", "relative_invariance_euclidean")
# What a file may hold beside: whether the prediction under a transform is another than without
# it, and whether it is right; per image, 0 or 1.
HITS = ("flip", "correct")
DIMENSIONS = ("transform", "magnitude", "image")
_GRID = ("transform", "magnitude_value", "unit", "image", "permutation")
_NAMES = ("model", "augmentation", "seed", "steps")
_IDENTITY = (*_NAMES, "dataset", "split", "parameters_sha256", "config", "versions")
MAGNITUDES = 10
# Words of the first version.
_PADDING_MODES = {"zero": "constant", "cyclic": "wrap"}
# An accuracy table has six decimals.
_ROUNDING = 1e-6

Name = tuple[str, str, int, int]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What was measured of one network.

    Attributes:
        network: The network.
        row: What tells it from those that are shown beside it; None until these are known.
        name: What it is called in an accuracy table: model, training, seed, steps.
        measured: What must be equal for two results to be shown together, by name.
    """

    network: Network
    row: Row | None = None
    name: Name
    measured: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Row and seed in one line."""
        return f"{self.row.label}, seed {self.network.seed}"

    @property
    def steps(self) -> int:
        """Steps that the network was trained; 0 for untrained and imported ones."""
        return self.name[-1]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy(Result):
    """Validation accuracy of one network.

    Attributes:
        top1: Share of images whose first guess is right, 0 to 1.
        top5: Share of images with the right class among five guesses; NaN where it is not known.
        seconds: Time that training took.
        correct: Whether the first guess is right, bool [image] with the coordinate label; None
            where the result has no labels.
    """

    top1: float
    top5: float
    seconds: float
    correct: xr.DataArray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run(Result):
    """Invariance of one network.

    Attributes:
        config: The run's config.
        data: Dims (transform, magnitude, image), variables `VARIABLES`, float32, at most 1, and
            those of `HITS` that the file has.
    """

    config: ExperimentConfig
    data: xr.Dataset


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All that a report shows; some part may be empty, not all.

    Attributes:
        accuracy: One entry a network, all measured on the same images.
        runs: One entry a network, all measured on the same images and grid.
        problems: Of every file that could not be read: which, and why.
        searches: Result files of similarity searches, not read.
    """

    accuracy: tuple[Accuracy, ...]
    runs: tuple[Run, ...]
    problems: tuple[str, ...]
    searches: tuple[pathlib.Path, ...] = ()


def read(directories: Sequence[str | pathlib.Path]) -> Results:
    """Reads the results of one or more folders as one set.

    Args:
        directories: Folders, each with `invariance/*.nc`, `accuracy/*.nc`, `accuracy.csv` or
            `similarity_search/*.nc`.

    Returns:
        The results, sorted by row and seed. A network that stands in several folders counts once;
        a file that cannot be read is left out and named.

    Raises:
        UserError: A folder is missing or empty, no file can be read, two files disagree about one
            network, or two networks were measured in different ways.
    """
    if not directories:
        raise UserError("no folder given; expected at least one folder of results")
    runs: list[Run] = []
    accuracy: list[Accuracy] = []
    problems: list[str] = []
    searches: list[pathlib.Path] = []
    for directory in map(pathlib.Path, directories):
        if not directory.is_dir():
            raise UserError(f"{directory} is not a folder; expected a folder of results")
        before = len(runs) + len(accuracy) + len(problems) + len(searches)
        searches += sorted(directory.glob("similarity_search/*.nc"))
        here = _readable(read_run, sorted(directory.glob("invariance/*.nc")), problems)
        known = _readable(read_accuracy, sorted(directory.glob("accuracy/*.nc")), problems)
        names = {each.name for each in known}
        of_table = functools.partial(_read_table, runs=here)
        for lines in _readable(of_table, directory.glob("accuracy.csv"), problems):
            known += [each for each in lines if each.name not in names]
        runs, accuracy = runs + here, accuracy + known
        if len(runs) + len(accuracy) + len(problems) + len(searches) == before:
            raise UserError(
                f"{directory} holds no results; expected invariance/*.nc, accuracy/*.nc, a row in "
                "accuracy.csv, or similarity_search/*.nc"
            )
    found = _together(runs, accuracy, problems, searches)
    runs, accuracy = (sorted(x, key=_order) for x in (found.runs, found.accuracy))
    return dataclasses.replace(found, runs=tuple(runs), accuracy=tuple(accuracy))


def _order(each: Result) -> tuple[Any, ...]:
    return each.row.sort_key, each.network.seed


def read_files(paths: Sequence[str | pathlib.Path]) -> Results:
    """Reads result files of the invariance as one set.

    Args:
        paths: The files; of a folder, all in its `invariance/`.

    Returns:
        The results in this order; else as `read`.

    Raises:
        UserError: There is no such file, or one is given twice, or as `read`.
    """
    files: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        new = [path] if path.is_file() else sorted(path.glob("invariance/*.nc"))
        if not new:
            raise UserError(
                f"{path} is not a readable result file, nor a folder with invariance/*.nc in it"
            )
        files += new
    for position, path in enumerate(files):
        if any(path.samefile(other) for other in files[:position]):
            raise UserError(f"{path} is given twice; expected each network once")
    problems: list[str] = []
    return _together(_readable(read_run, files, problems), [], problems)


def _readable(
    read_one: Callable[[pathlib.Path], T], paths: Iterable[pathlib.Path], problems: list[str]
) -> list[T]:
    """Reads the files that can be read, and notes the others."""
    found = []
    for path in paths:
        try:
            found.append(read_one(path))
        # Whatever HDF5, xarray, json and csv raise for a damaged file.
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            text = str(error) if isinstance(error, ValueError) else repr(error)
            problems.append(text if str(path) in text else f"{path}: {text}")
    return found


def read_run(path: pathlib.Path) -> Run:
    """Reads the invariance of one network.

    Args:
        path: A NetCDF file as the evaluation writes it.

    Returns:
        The run, with the relative invariances in memory.

    Raises:
        UserError: The file is no such file.
    """
    data, config, shared = _read(path, (*VARIABLES, *_GRID, "domain"))
    transforms, sizes = data["transform"].values.tolist(), data.sizes
    whole = transforms == list(TRANSFORMS) and sizes["magnitude"] == MAGNITUDES and sizes["image"]
    if not whole or any(data[name].dims != DIMENSIONS for name in VARIABLES):
        raise UserError(
            f"{path} holds {' x '.join(f'{size} {name}s' for name, size in sizes.items())}, the "
            f"transforms {', '.join(transforms)}; expected {len(TRANSFORMS)} transforms x "
            f"{MAGNITUDES} magnitudes x at least one image: {', '.join(TRANSFORMS)}"
        )
    # The distances behind them are not shown: holding them too would triple the memory.
    data = data[[*VARIABLES, *(name for name in HITS if name in data)]]
    for name in VARIABLES:
        if not np.isfinite(data[name].values).all():
            raise UserError(f"{path}: {name} has values that are not finite; did training diverge?")
    padding_mode = data.attrs.get("padding_mode", data.attrs.get("translation", "constant"))
    shared["measured"] |= {
        "domain": data.attrs["domain"],
        "padding_mode": _PADDING_MODES.get(padding_mode, padding_mode),
        **{name: data[name].values.tolist() for name in _GRID},
    }
    return Run(**shared, config=config, data=data)


def read_accuracy(path: pathlib.Path) -> Accuracy:
    """Reads the accuracy of one network.

    Args:
        path: A NetCDF file as the evaluation writes it.

    Returns:
        The accuracy.

    Raises:
        UserError: The file is no such file.
    """
    variables = ("correct_top1", "correct_top5")
    data, _, shared = _read(path, (*variables, "image", "seconds"))
    shared["measured"] |= {"image": data["image"].values.tolist()}
    top1, top5 = (float(data[name].mean()) for name in variables)
    if not 0 <= top1 <= top5 <= 1:
        raise UserError(f"{path}: top1 is {top1} and top5 {top5}; expected fractions, 0 to 1")
    correct = data["correct_top1"].astype(bool) if "label" in data.coords else None
    seconds = float(data.attrs["seconds"])
    return Accuracy(**shared, top1=top1, top5=top5, seconds=seconds, correct=correct)


def _read(
    path: pathlib.Path, needed: Sequence[str]
) -> tuple[xr.Dataset, ExperimentConfig, dict[str, Any]]:
    """A result file that has what is needed, its config, and the fields of a `Result`."""
    data = results.read(path)
    for name in (*_IDENTITY, *needed):
        if not (name in data.attrs or name in data.variables):
            raise UserError(
                f"{path} lacks {name!r}; expected a file of the evaluation, with: "
                f"{', '.join((*_IDENTITY, *needed))}"
            )
    config = check(ExperimentConfig, json.loads(data.attrs["config"]))
    name = _name(*(data.attrs[each] for each in _NAMES))
    values, parameters = flatten(config.to_dict()), str(data.attrs["parameters_sha256"])
    # A finished network may be measured with other classes than it was trained with.
    identity = json.loads(data.attrs.get("measurement", "{}"))
    measured = {
        "dataset": data.attrs["dataset"],
        "split": data.attrs["split"],
        "label_feature": identity.get("config.data.label_feature", config.data.label_feature),
        "classes": tuple(identity.get("config.data.classes", config.data.classes)),
    }
    of = network(values, steps=name[-1], parameters=parameters, path=path)
    return data, config, {"network": of, "name": name, "measured": measured}


def _read_table(path: pathlib.Path, runs: Sequence[Run]) -> list[Accuracy]:
    """Reads an accuracy table; a line is of the network of the runs that is called so."""
    by_name = {run.name: run for run in runs}
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    entries = []
    for line in lines:
        name = _name(*(line[each] for each in _NAMES))
        values = {each: float(line.get(each) or math.nan) for each in ("top1", "top5", "seconds")}
        if not 0 <= values["top1"] <= 1:
            raise UserError(f"{path}, {name}: top1 is {line.get('top1')!r}; expected 0 to 1")
        measured = {each: line[each] for each in ("dataset", "split") if line.get(each)}
        of = network(_fields(*name), steps=name[-1], parameters="", path=path)
        if run := by_name.get(name):
            of = dataclasses.replace(run.network, path=path)
            known = {each: run.measured[each] for each in ("dataset", "label_feature", "classes")}
            measured = {**known, "split": run.config.data.validation_split, **measured}
        entries.append(Accuracy(network=of, name=name, measured=measured, **values))
    return entries


def _name(model: str, training: str, seed: str | int, steps: str | int) -> Name:
    """An augmentation means nothing before the first step."""
    counts = int(steps) or training.startswith(WEIGHTS_LABEL)
    return model, training if counts else UNTRAINED, int(seed), int(steps)


def _fields(model: str, training: str, seed: int, steps: int) -> dict[str, Any]:
    """What of a config the names say."""
    known = {"seed": seed, "model.name": model, "train.steps": steps}
    if training.startswith(WEIGHTS_LABEL):
        return known | {"model.weights": training.removeprefix(WEIGHTS_LABEL)}
    name, *policies = training.split(" + ")
    return known | {"augment.name": name, "augment.policies": tuple(policies), "augment.mixing": ()}


def _together(
    runs: Sequence[Run],
    accuracy: Sequence[Accuracy],
    problems: Sequence[str],
    searches: Sequence[pathlib.Path] = (),
) -> Results:
    """Tells the networks apart. Each counts once; all must have been measured alike."""
    if not (runs or accuracy or searches):
        raise UserError("; ".join(problems))
    rows = tell_apart(each.network for each in (*runs, *accuracy))
    alike: dict[Any, Result] = {}
    networks: dict[Any, Result] = {}
    once: dict[type, dict[Any, Any]] = {Accuracy: {}, Run: {}}
    for result in (*runs, *accuracy):
        each = dataclasses.replace(result, row=rows[result.network.row])
        for name in each.measured:
            _check_alike(alike.setdefault((type(each), name), each), each)
        for known in (networks, once[type(each)]):
            _check_same(known.setdefault(each.network.key, each), each)
    accuracy, runs = (tuple(known.values()) for known in once.values())
    return Results(accuracy=accuracy, runs=runs, problems=tuple(problems), searches=tuple(searches))


def _check_same(earlier: Result, other: Result) -> None:
    """One network has one set of parameters and one accuracy."""
    both = (earlier, other)
    top1 = [each.top1 for each in both if isinstance(each, Accuracy)]
    what = f"top1 {' and '.join(map(str, top1))}"
    if len({each.network.parameters for each in both} - {""}) > 1:
        what = "different parameters"
    elif max(top1, default=0) - min(top1, default=0) <= _ROUNDING:
        return
    raise UserError(
        f"{earlier.network.path} and {other.network.path} both hold {other.title}, with {what}; "
        "expected one result a network"
    )


def _check_alike(first: Result, other: Result) -> None:
    """Numbers on other images, grids or baselines cannot stand beside each other."""
    different = []
    for name, ours in first.measured.items():
        theirs = other.measured.get(name, ours)
        short = [len(x) if isinstance(x, list) else repr(x) for x in (ours, theirs)]
        if ours != theirs:
            same = short[0] == short[1]
            different.append(name if same else f"{name} ({short[0]} and {short[1]})")
    if different:
        raise UserError(
            f"{first.network.path} and {other.network.path} differ in {', '.join(different)}; "
            "expected all networks on the same grid, images and permutation"
        )
