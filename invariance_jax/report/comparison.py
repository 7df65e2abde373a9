"""Several result files side by side, transform by transform."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.report import tables
from invariance_jax.report.load import Run
from invariance_jax.report.rows import UNTRAINED
from invariance_jax.report.summaries import MIDDLE_MAGNITUDES, Measure

# What else a result file may hold: whether the prediction under the transform is another than
# without it, and whether it is right; per image, 0 or 1.
EXTRA = ("flip", "correct")
_MEAN = "mean of all"
_MIDDLE = f"magnitudes {MIDDLE_MAGNITUDES[0]} to {MIDDLE_MAGNITUDES[-1]}"
_TITLES = {
    "invariance": f"relative invariance: median over images, mean of {_MIDDLE}",
    "invariance_gap": "invariance gap: trained minus untrained network of that model and seed",
    "flip_rate": f"share of predictions that the transform changes, {_MIDDLE}",
    "accuracy": f"top-1 accuracy under the transform, {_MIDDLE}",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Numbers of several networks, measured on the same images and grid.

    Attributes:
        names: One a network, in the order given: model, training and seed.
        transforms: Names of the transforms.
        quantities: By name ("invariance", "invariance_gap", "flip_rate", "accuracy"), float64
            [transform, network]; NaN where a network has no such number. A quantity that no
            network has is absent.
    """

    names: tuple[str, ...]
    transforms: tuple[str, ...]
    quantities: dict[str, np.ndarray]


def compare(runs: Sequence[Run], *, measure: Measure = "cosine") -> Comparison:
    """Compares networks.

    Args:
        runs: One a result file, read with `EXTRA`; at least one.
        measure: Distance between embeddings.

    Returns:
        The comparison. A gap exists for a trained network whose untrained self (the same model
        and seed) is among the runs.

    Raises:
        UserError: Two files differ in grid, images or permutation, or show one network twice.
    """
    for run in runs[1:]:
        _check_same_measurement(runs[0], run)
    names = tuple(f"{run.row.label}, seed {run.seed}" for run in runs)
    for position, name in enumerate(names):
        if name in names[:position]:
            earlier = runs[names.index(name)]
            raise UserError(
                f"{earlier.path} and {runs[position].path} both hold {name}; "
                "expected each network once"
            )
    invariance = np.stack([_invariance(run.data, measure) for run in runs], axis=1)
    untrained = {
        (run.row.model, run.seed): invariance[:, position]
        for position, run in enumerate(runs)
        if run.row.training == UNTRAINED
    }
    missing = np.full(len(invariance), math.nan)
    quantities = {
        "invariance": invariance,
        "invariance_gap": np.stack(
            [
                invariance[:, position] - untrained.get((run.row.model, run.seed), missing)
                if run.row.training != UNTRAINED
                else missing
                for position, run in enumerate(runs)
            ],
            axis=1,
        ),
    }
    for name, variable in (("flip_rate", "flip"), ("accuracy", "correct")):
        quantities[name] = np.stack(
            [_share(run.data[variable]) if variable in run.data else missing for run in runs],
            axis=1,
        )
    return Comparison(
        names=names,
        transforms=tuple(map(str, runs[0].data["transform"].values)),
        quantities={
            name: values for name, values in quantities.items() if not np.isnan(values).all()
        },
    )


def _invariance(data: xr.Dataset, measure: Measure) -> np.ndarray:
    middle = data[f"relative_invariance_{measure}"].isel(magnitude=list(MIDDLE_MAGNITUDES))
    return middle.astype(np.float64).median("image").mean("magnitude").values


def _share(hits: xr.DataArray) -> np.ndarray:
    middle = hits.isel(magnitude=list(MIDDLE_MAGNITUDES))
    return middle.astype(np.float64).mean(("magnitude", "image")).values


def _check_same_measurement(first: Run, other: Run) -> None:
    """Numbers on other images, grids or baselines cannot stand beside each other."""
    different = [
        name
        for name in ("dataset", "split", "domain", "translation")
        if first.data.attrs.get(name) != other.data.attrs.get(name)
    ]
    different += [
        name
        for name in ("transform", "magnitude_value", "image", "permutation")
        if name not in first.data.coords
        or name not in other.data.coords
        or not np.array_equal(first.data[name].values, other.data[name].values)
    ]
    if different:
        raise UserError(
            f"{first.path} and {other.path} differ in {', '.join(different)}; expected results on "
            "the same grid, images and permutation"
        )


def to_text(comparison: Comparison) -> str:
    """Writes a comparison for the terminal.

    Args:
        comparison: What `compare` returned.

    Returns:
        A list of the networks by number, then a table a quantity, one column a network; "-" where
        there is no number. The last row is the mean over all transforms.
    """
    numbers = [f"[{position}]" for position in range(1, len(comparison.names) + 1)]
    parts = ["\n".join(map(" ".join, zip(numbers, comparison.names, strict=True)))]
    for quantity, values in comparison.quantities.items():
        body = [
            (label, *("-" if math.isnan(x) else f"{x:z.3f}" for x in row))
            for label, row in _rows(comparison, values)
        ]
        parts.append(f"{_TITLES[quantity]}\n" + tables.align(("", *numbers), body, left=1))
    return "\n\n".join(parts)


def to_csv(comparison: Comparison) -> str:
    """Writes a comparison for other programs.

    Args:
        comparison: What `compare` returned.

    Returns:
        CSV text: quantity, transform, then one column a network; empty where there is no number.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("quantity", "transform", *comparison.names))
    for quantity, values in comparison.quantities.items():
        for label, row in _rows(comparison, values):
            writer.writerow((quantity, label, *("" if math.isnan(x) else f"{x:z.6f}" for x in row)))
    return text.getvalue()


def _rows(comparison: Comparison, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    rows = list(zip(comparison.transforms, values, strict=True))
    return [*rows, (_MEAN, values.mean(axis=0))]
