"""Finds and reads results, of this version and the first one. The only input of the report."""

import csv
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from invariance_jax.config import WEIGHTS_LABEL, ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.evaluation.grid import EMBEDDING, FEATURES_GROUP
from invariance_jax.report.entries import (
    DIMENSIONS,
    HITS,
    MAGNITUDES,
    VARIABLES,
    Accuracy,
    Local,
    Result,
    Results,
    Run,
    described,
    name_of,
)
from invariance_jax.report.pack import PACKED, unpack
from invariance_jax.report.rows import network, tell_apart
from invariance_jax.transforms import TRANSFORMS

_GRID = ("transform", "magnitude_value", "unit", "image", "permutation")
_NAMES = ("model", "augmentation", "seed", "steps")
_IDENTITY = (*_NAMES, "dataset", "split", "parameters_sha256", "config", "versions")
_LOCAL = "local_equivariance_error"
# Words of the first version.
_PADDING_MODES = {"zero": "constant", "cyclic": "wrap"}
# An accuracy table has six decimals.
_ROUNDING = 1e-6

T = TypeVar("T")


def read(directories: Sequence[str | pathlib.Path]) -> Results:
    """Reads the results of one or more folders as one set.

    Args:
        directories: Folders, each with `invariance/*.nc`, `accuracy/*.nc`, `accuracy.csv`,
            `local_equivariance/*.nc` or `similarity_search/*.nc`, or packed ones (`pack.write`).

    Returns:
        The results, sorted by row and seed. A network that stands in several folders counts once;
        a file that cannot be read is left out and named, and so is a folder without results.

    Raises:
        UserError: A folder is missing, there is no result at all, two files disagree about one
            network, or two networks were measured in different ways.
    """
    if not directories:
        raise UserError("no folder given; expected at least one folder of results")
    runs: list[Run] = []
    accuracy: list[Accuracy] = []
    local: list[Local] = []
    problems: list[str] = []
    searches: list[pathlib.Path] = []
    example, pairs = None, {}
    for directory in map(pathlib.Path, directories):
        if not directory.is_dir():
            raise UserError(f"{directory} is not a folder; expected a folder of results")
        before = len(runs) + len(accuracy) + len(problems) + len(searches) + len(local)
        searches += sorted(directory.glob("similarity_search/*.nc"))
        here = _readable(read_run, sorted(directory.glob("invariance/*.nc")), problems)
        known = _readable(read_accuracy, sorted(directory.glob("accuracy/*.nc")), problems)
        names = {each.name for each in known}
        of_table = functools.partial(_read_table, runs=here)
        for lines in _readable(of_table, directory.glob("accuracy.csv"), problems):
            known += [each for each in lines if each.name not in names]
        runs, accuracy = runs + here, accuracy + known
        local += _readable(read_local, sorted(directory.glob("local_equivariance/*.nc")), problems)
        for packed in _readable(unpack, directory.glob(PACKED), problems):
            runs, accuracy = runs + list(packed.runs), accuracy + list(packed.accuracy)
            local += packed.local
            example = packed.example if example is None else example
            pairs |= packed.pairs
        if len(runs) + len(accuracy) + len(problems) + len(searches) + len(local) == before:
            # As of a sweep that still runs: the others can be shown.
            problems.append(
                f"{directory} holds no results; expected invariance/*.nc, accuracy/*.nc, a row in "
                "accuracy.csv, or similarity_search/*.nc"
            )
    found = _together(runs, accuracy, problems, searches, local)
    parts = {"runs": found.runs, "accuracy": found.accuracy, "local": found.local}
    ordered = {name: tuple(sorted(each, key=_order)) for name, each in parts.items()}
    return dataclasses.replace(found, **ordered, example=example, pairs=pairs)


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
    by_feature = None
    if FEATURES_GROUP in results.groups(path):
        of_features = results.read(path, FEATURES_GROUP)[VARIABLES[0]]
        # The embedding is among them; it stands in the main group too.
        of_features = of_features.sel(feature=of_features["feature"] != EMBEDDING)
        if of_features.sizes["feature"]:
            by_feature = of_features.median("image").transpose("feature", "transform", "magnitude")
    return Run(**shared, config=config, data=data, by_feature=by_feature)


def read_local(path: pathlib.Path) -> Local:
    """Reads the local equivariance of one network.

    Args:
        path: A NetCDF file as the evaluation writes it.

    Returns:
        Its medians over images.

    Raises:
        UserError: The file is no such file.
    """
    data, _, shared = _read(path, (_LOCAL, "output", "generator", "image"))
    shared["measured"] |= {name: data[name].values.tolist() for name in ("generator", "image")}
    medians = data[_LOCAL].median("image").transpose("output", "generator")
    return Local(**shared, medians=medians.assign_attrs(data.attrs))


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
    correct = None
    if "label" in data.coords:
        correct = data["correct_top1"].astype(bool).assign_attrs(data.attrs)
    seconds = float(data.attrs["seconds"])
    values = {"top1": top1, "top5": top5, "seconds": seconds}
    return Accuracy(**shared, **values, correct=correct, predicted=data.get("predicted"))


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
    return data, *described(data, path)


def _read_table(path: pathlib.Path, runs: Sequence[Run]) -> list[Accuracy]:
    """Reads an accuracy table; a line is of the network of the runs that is called so."""
    by_name = {run.name: run for run in runs}
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    entries = []
    for line in lines:
        name = name_of(*(line[each] for each in _NAMES))
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
    local: Sequence[Local] = (),
) -> Results:
    """Tells the networks apart. Each counts once; all must have been measured alike."""
    if not (runs or accuracy or searches or local):
        raise UserError("; ".join(problems))
    rows = tell_apart(each.network for each in (*runs, *accuracy, *local))
    alike: dict[Any, Result] = {}
    networks: dict[Any, Result] = {}
    once: dict[type, dict[Any, Any]] = {Accuracy: {}, Run: {}, Local: {}}
    for result in (*runs, *accuracy, *local):
        each = dataclasses.replace(result, row=rows[result.network.row])
        for name in each.measured:
            _check_alike(alike.setdefault((type(each), name), each), each)
        for known in (networks, once[type(each)]):
            _check_same(known.setdefault(each.network.key, each), each)
    accuracy, runs, local = (tuple(known.values()) for known in once.values())
    return Results(
        accuracy=accuracy,
        runs=runs,
        problems=tuple(problems),
        searches=tuple(searches),
        local=local,
    )


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
