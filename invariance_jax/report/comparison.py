"""Several result files side by side, transform by transform."""

import csv
import io
from collections.abc import Sequence

import numpy as np
import xarray as xr

from invariance_jax import text_table
from invariance_jax.report.load import Run
from invariance_jax.report.rows import untrained_of
from invariance_jax.report.summaries import MIDDLE_MAGNITUDES, Measure

_MEAN = "mean of all"
_MIDDLE = f"magnitudes {MIDDLE_MAGNITUDES[0]} to {MIDDLE_MAGNITUDES[-1]}"
_TITLES = {
    "invariance": f"relative invariance: median over images, mean of {_MIDDLE}",
    "invariance_gap": "invariance gap: trained minus untrained network of that model and seed",
    "flip_rate": f"share of predictions that the transform changes, {_MIDDLE}",
    "accuracy": f"top-1 accuracy under the transform, {_MIDDLE}",
}


def compare(runs: Sequence[Run], *, measure: Measure = "cosine") -> xr.Dataset:
    """Compares networks.

    Args:
        runs: From `load.read_files`, at least one.
        measure: Distance between embeddings.

    Returns:
        Dims (transform, network), float64, NaN where a network has no such number: `invariance`;
        `invariance_gap`, of trained networks whose untrained self (the same model and seed) is
        among the runs; `flip_rate`; `accuracy`. A variable that no network has is absent. The last
        transform is the mean of all; networks are called by model, training and seed.
    """
    invariance = _columns(runs, f"relative_invariance_{measure}", "median")
    position = {(run.row, run.network.seed): i for i, run in enumerate(runs)}
    before = untrained_of(run.row for run in runs)
    twins = [position.get((before.get(run.row), run.network.seed)) for run in runs]
    gaps = [
        invariance[:, i] - (np.nan if twin is None else invariance[:, twin])
        for i, twin in enumerate(twins)
    ]
    found = {
        "invariance": invariance,
        "invariance_gap": np.stack(gaps, axis=1),
        "flip_rate": _columns(runs, "flip", "mean"),
        "accuracy": _columns(runs, "correct", "mean"),
    }
    return xr.Dataset(
        {
            name: (("transform", "network"), np.vstack([values, values.mean(axis=0)]))
            for name, values in found.items()
            if not np.isnan(values).all()
        },
        coords={
            "transform": [*runs[0].data["transform"].values.tolist(), _MEAN],
            "network": [run.title for run in runs],
        },
    )


def _columns(runs: Sequence[Run], variable: str, over_images: str) -> np.ndarray:
    """A variable over images and the middle magnitudes: float64 [transform, run]."""

    def column(run: Run) -> np.ndarray:
        if variable not in run.data:
            return np.full(run.data.sizes["transform"], np.nan)
        middle = run.data[variable].isel(magnitude=list(MIDDLE_MAGNITUDES)).astype(np.float64)
        return getattr(middle, over_images)("image").mean("magnitude").values

    return np.stack([column(run) for run in runs], axis=1)


def to_text(comparison: xr.Dataset) -> str:
    """Writes a comparison for the terminal.

    Args:
        comparison: What `compare` returned.

    Returns:
        A list of the networks by number, then a table a quantity, one column a network; "-" where
        there is no number.
    """
    networks = comparison["network"].values.tolist()
    numbers = [f"[{position}]" for position in range(1, len(networks) + 1)]
    parts = ["\n".join(map(" ".join, zip(numbers, networks, strict=True)))]
    for quantity, rows in _rows(comparison, "{:z.3f}", "-").items():
        table = text_table.align(("", *numbers), rows, left=1)
        parts.append(f"{_TITLES[quantity]}\n{table}")
    return "\n\n".join(parts)


def to_csv(comparison: xr.Dataset) -> str:
    """Writes a comparison for other programs.

    Args:
        comparison: What `compare` returned.

    Returns:
        CSV text: quantity, transform, then one column a network; empty where there is no number.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("quantity", "transform", *comparison["network"].values.tolist()))
    for quantity, rows in _rows(comparison, "{:z.6f}", "").items():
        writer.writerows((quantity, *row) for row in rows)
    return text.getvalue()


def _rows(comparison: xr.Dataset, form: str, missing: str) -> dict[str, list[tuple[str, ...]]]:
    return {
        str(quantity): [
            (name, *(missing if np.isnan(x) else form.format(x) for x in row))
            for name, row in zip(values["transform"].values.tolist(), values.values, strict=True)
        ]
        for quantity, values in comparison.data_vars.items()
    }
