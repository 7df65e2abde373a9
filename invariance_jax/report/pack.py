"""Packed results: what a report shows of many networks as one small folder.

    DIR/results.nc                      invariance, accuracy and local equivariance of all networks
    DIR/runs/NAME/                      lists of operations of classes, widths that were learned
    DIR/similarity_search/, _checks/    searches

A report of the folder is that of the results, but for rounding: relative invariance is kept per
image in steps of 1/50, from -1.02 to 1 (axes end at -1). Euclidean distances, and whether single
predictions change, are left out.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from invariance_jax.evaluation import results
from invariance_jax.files import write_text
from invariance_jax.report.entries import (
    DIMENSIONS,
    VARIABLES,
    Accuracy,
    Local,
    Pairs,
    Result,
    Results,
    Run,
    described,
)
from invariance_jax.report.rows import file_name

PACKED = "results.nc"
_VARIABLE, _CORRECT, _TOP1, _MEDIANS = VARIABLES[0], "correct", "correct_top1", "medians"
_PREDICTED = "predicted"
_STEP, _LOWEST = 0.02, -1.02
_UNKNOWN = -1
_PAIRS = "pairs "
_CONFIGS = ("config", "training_config")
_SEARCHES = ("similarity_search", "similarity_checks")
_COMPRESSED = {"zlib": True, "complevel": 9, "shuffle": False}


def write(
    found: Results,
    folder: pathlib.Path,
    beside: Mapping[pathlib.Path, Mapping[str, str]] = MappingProxyType({}),
    example: np.ndarray | None = None,
    pairs: Mapping[str, Pairs] = MappingProxyType({}),
) -> None:
    """Packs results.

    Args:
        found: From `load.read`.
        folder: Where; made if absent.
        beside: By folder of a run: the text of small files that the report reads there, by name.
        example: An image as it was measured, float [height, width, 3] in [0, 1].
        pairs: Pictures of pairs by the name of the search's file.
    """
    groups = {
        "accuracy": _accuracy(found.accuracy),
        "by_feature": _by_feature(found.runs),
        "local": _local(found.local),
        "example": None if example is None else _pictures(example),
    }
    groups |= {f"{_PAIRS}{name}": _pictures(*each) for name, each in pairs.items()}
    packed = {name: each for name, each in groups.items() if each is not None}
    main = _invariance(found.runs)
    for each in (main, *packed.values()):
        _compress(each)
    results.write(main, folder / PACKED, packed)
    for run in (*found.runs, *found.accuracy):
        texts = beside.get(run.network.path.parents[1], {}) if run.steps else {}
        for name, text in texts.items():
            write_text(folder / "runs" / _name(run) / name, text)
    for search in found.searches:
        for name in _SEARCHES:
            beside = search.parents[1] / name / search.name
            if beside.is_file():
                _copy(beside, folder / name / search.name)


def _pictures(images: np.ndarray, titles: Sequence[str] = ()) -> xr.Dataset:
    dims = [f"axis{i}" for i in range(images.ndim)]
    counts = np.round(255 * images.clip(0, 1)).astype(np.uint8)
    return xr.Dataset({"images": (dims, counts)}, attrs={"titles": json.dumps(list(titles))})


def _compress(data: xr.Dataset) -> None:
    for variable in data.variables.values():
        if variable.dtype.kind in "iuf" and variable.ndim:
            variable.encoding = dict(_COMPRESSED)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a search, but for the place of its images."""
    if source.resolve() == target.resolve():
        return
    data = results.read(source)
    data = data.assign_attrs(
        {key: _elsewhere(data.attrs[key]) for key in _CONFIGS if key in data.attrs}
    )
    groups = {name: results.read(source, name) for name in results.groups(source)}
    for each in (data, *groups.values()):
        _compress(each)
    results.write(data, target, groups)


def _name(each: Result) -> str:
    """The name of a network's folder, which no other one has."""
    label = file_name(f"{each.row.label}_seed{each.network.seed}")
    return f"{label[:80]}_{each.network.parameters[:8]}"


def _said(entries: Iterable[Result], attributes: Sequence[Mapping[str, Any]]) -> str:
    """All attributes of the result files, as JSON text."""
    lines = [
        {key: _plain(value) for key, value in attrs.items()}
        | {key: _elsewhere(attrs[key]) for key in _CONFIGS if key in attrs}
        | {"name": _name(each)}
        for each, attrs in zip(entries, attributes, strict=True)
    ]
    return json.dumps(lines, sort_keys=True)


def _elsewhere(config: str) -> str:
    """A config without the place of the images, which others do not have."""
    values = json.loads(config)
    values["data"]["data_dir"] = ""
    return json.dumps(values, indent=2, sort_keys=True)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _invariance(runs: Sequence[Run]) -> xr.Dataset:
    if not runs:
        return xr.Dataset(attrs={"networks": "[]"})
    first = runs[0].data
    counts = np.stack(
        [
            np.round(run.data[_VARIABLE].transpose(*DIMENSIONS).values.clip(_LOWEST) / _STEP)
            for run in runs
        ]
    )
    dims = ("network", *DIMENSIONS)
    found = xr.Dataset({_VARIABLE: (dims, counts.astype(np.int8))})
    if any(_CORRECT in run.data for run in runs):
        shape = counts.shape[1:]
        known = [
            run.data[_CORRECT].transpose(*DIMENSIONS).values.astype(np.int8)
            if _CORRECT in run.data
            else np.full(shape, _UNKNOWN, np.int8)
            for run in runs
        ]
        found[_CORRECT] = (dims, np.stack(known))
    found = found.assign_coords(first.coords)
    return found.assign_attrs(networks=_said(runs, [run.data.attrs for run in runs]))


def _accuracy(entries: Sequence[Accuracy]) -> xr.Dataset | None:
    known = [each for each in entries if each.correct is not None]
    if not known:
        return None
    hits = np.stack([each.correct.values.astype(np.int8) for each in known])
    found = xr.Dataset({_TOP1: (("network", "image"), hits)})
    if all(each.predicted is not None for each in known):
        guesses = np.stack([each.predicted.values for each in known])
        found[_PREDICTED] = (("network", "image"), guesses.astype(np.int32))
    found["top5"] = ("network", [each.top5 for each in known])
    found = found.assign_coords(known[0].correct.coords)
    return found.assign_attrs(networks=_said(known, [each.correct.attrs for each in known]))


def _by_feature(runs: Sequence[Run]) -> xr.Dataset | None:
    known = {_name(run): run.by_feature for run in runs if run.by_feature is not None}
    if not known:
        return None
    # Names of features differ between architectures.
    parts = [each.values.astype(np.float32) for each in known.values()]
    flat = np.concatenate([part.reshape(-1, *part.shape[-2:]) for part in parts])
    features = [(name, str(x)) for name, each in known.items() for x in each["feature"].values]
    labels = json.dumps(features)
    return xr.Dataset({_MEDIANS: (("line", "transform", "magnitude"), flat)}, attrs={"of": labels})


def _local(entries: Sequence[Local]) -> xr.Dataset | None:
    if not entries:
        return None
    lines = [
        (place, str(output), str(generator))
        for place, each in enumerate(entries)
        for output in each.medians["output"].values
        for generator in each.medians["generator"].values
    ]
    values = np.concatenate([each.medians.values.ravel() for each in entries])
    found = xr.Dataset({_MEDIANS: ("line", values.astype(np.float32))})
    attributes = [each.medians.attrs for each in entries]
    return found.assign_attrs(networks=_said(entries, attributes), of=json.dumps(lines))


def unpack(path: pathlib.Path) -> Results:
    """Reads packed results.

    Args:
        path: The file `PACKED` of a packed folder.

    Returns:
        The results, whose rows are not told apart yet.

    Raises:
        UserError: The file is no such file.
    """
    held, runs, accuracy, local = results.groups(path), [], [], []
    features = _unpacked_features(results.read(path, "by_feature")) if "by_feature" in held else {}
    main = results.read(path)
    for place, attrs in enumerate(json.loads(main.attrs["networks"])):
        one = main.isel(network=place).assign_attrs(attrs)
        config, shared = described(one, _place(path, attrs))
        kept = {_VARIABLE: (_STEP * one[_VARIABLE]).astype(np.float32)}
        if _CORRECT in one and (one[_CORRECT].values != _UNKNOWN).all():
            kept[_CORRECT] = one[_CORRECT].astype(bool)
        data = one.drop_vars([_VARIABLE, _CORRECT], errors="ignore").assign(kept)
        shared["measured"] |= {
            "domain": attrs["domain"],
            "padding_mode": attrs["padding_mode"],
            **{x: main[x].values.tolist() for x in ("transform", "magnitude_value", "unit")},
            **{x: main[x].values.tolist() for x in ("image", "permutation")},
        }
        by_feature = features.get(attrs["name"])
        runs.append(Run(**shared, config=config, data=data, by_feature=by_feature))
    if "accuracy" in held:
        accuracy = _unpacked_accuracy(results.read(path, "accuracy"), path)
    if "local" in held:
        local = _unpacked_local(results.read(path, "local"), path)
    shown = {name: _unpacked_pictures(results.read(path, name)) for name in held if _shows(name)}
    example, _ = shown.pop("example", (None, ()))
    return Results(
        runs=tuple(runs),
        accuracy=tuple(accuracy),
        local=tuple(local),
        problems=(),
        example=example,
        pairs={name.removeprefix(_PAIRS): each for name, each in shown.items()},
    )


def _shows(group: str) -> bool:
    return group == "example" or group.startswith(_PAIRS)


def _unpacked_pictures(data: xr.Dataset) -> Pairs:
    return data["images"].values.astype(np.float32) / 255, json.loads(data.attrs["titles"])


def _place(path: pathlib.Path, attrs: Mapping[str, Any]) -> pathlib.Path:
    """Where a result would stand, so that what lies in its run's folder is found."""
    return path.parent / "runs" / attrs["name"] / "invariance" / f"{attrs['name']}.nc"


def _unpacked_features(data: xr.Dataset) -> dict[str, xr.DataArray]:
    found: dict[str, list[int]] = {}
    labels = json.loads(data.attrs["of"])
    for line, (name, _) in enumerate(labels):
        found.setdefault(name, []).append(line)
    return {
        name: data[_MEDIANS]
        .isel(line=lines)
        .rename(line="feature")
        .assign_coords(feature=[labels[line][1] for line in lines])
        for name, lines in found.items()
    }


def _unpacked_accuracy(data: xr.Dataset, path: pathlib.Path) -> list[Accuracy]:
    found = []
    for place, attrs in enumerate(json.loads(data.attrs["networks"])):
        _, shared = described(data.assign_attrs(attrs), _place(path, attrs))
        shared["measured"] |= {"image": data["image"].values.tolist()}
        correct = data[_TOP1].isel(network=place).astype(bool).assign_attrs(attrs)
        top5, seconds = float(data["top5"].values[place]), float(attrs["seconds"])
        top1 = float(correct.mean())
        values = {"top1": top1, "top5": top5, "seconds": seconds, "correct": correct}
        if _PREDICTED in data:
            values["predicted"] = data[_PREDICTED].isel(network=place)
        found.append(Accuracy(**shared, **values))
    return found


def _unpacked_local(data: xr.Dataset, path: pathlib.Path) -> list[Local]:
    labels, values = json.loads(data.attrs["of"]), data[_MEDIANS].values
    found = []
    for place, attrs in enumerate(json.loads(data.attrs["networks"])):
        lines = [i for i, (of, *_) in enumerate(labels) if of == place]
        outputs, generators = (
            list(dict.fromkeys(labels[i][column] for i in lines)) for column in (1, 2)
        )
        medians = xr.DataArray(
            values[lines].reshape(len(outputs), len(generators)),
            {"output": outputs, "generator": generators},
            ("output", "generator"),
            attrs=attrs,
        )
        _, shared = described(xr.Dataset(attrs=attrs), _place(path, attrs))
        shared["measured"] |= {"generator": generators}
        found.append(Local(**shared, medians=medians))
    return found
