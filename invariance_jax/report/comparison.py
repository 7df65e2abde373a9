"""Several networks side by side, transform by transform."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from invariance_jax.errors import lookup
from invariance_jax.factors.rankings import INTERVAL
from invariance_jax.report.entries import Run
from invariance_jax.report.rows import untrained_of
from invariance_jax.report.summaries import GROUPS, MIDDLE_MAGNITUDES, Measure
from invariance_jax.report.tables import Table

_MIDDLE = f"magnitudes {MIDDLE_MAGNITUDES[0]} to {MIDDLE_MAGNITUDES[-1]}"
_TITLES = {
    "invariance": f"relative invariance: median over images, mean of {_MIDDLE}",
    "invariance_gap": "invariance gap: trained minus untrained network of that model and seed",
    "flip_rate": f"share of predictions that the transform changes, {_MIDDLE}",
    "accuracy": f"top-1 accuracy under the transform, {_MIDDLE}",
}


# A cell of the grid that shows images as they are.
_UNTOUCHED = {"transform": "rotate", "magnitude": 0}
OVERALL = "all transforms"
COLUMNS = (*GROUPS, OVERALL, "accuracy")


def compare(runs: Sequence[Run], *, measure: Measure = "cosine") -> pd.DataFrame:
    """Compares networks.

    Args:
        runs: From `load.read_files`, at least one.
        measure: Distance between embeddings.

    Returns:
        float64, a column a network, called by model, training and seed; NaN where it has no such
        number. The index is quantity, transform: "invariance"; "invariance_gap", of trained
        networks whose untrained self (the same model and seed) is among the runs; "flip_rate";
        "accuracy". A quantity that no network has is absent. "mean of all" is the last transform.
    """
    invariance = _middle(runs, f"relative_invariance_{measure}", "median")
    before = untrained_of(run.row for run in runs)
    position = {(run.row, run.network.seed): run.title for run in runs}
    twins = [position.get((before.get(run.row), run.network.seed)) for run in runs]
    gap = invariance - invariance.reindex(columns=twins).to_numpy()
    found = {
        "invariance": invariance,
        "invariance_gap": gap,
        "flip_rate": _middle(runs, "flip", "mean"),
        "accuracy": _middle(runs, "correct", "mean"),
    }
    for values in found.values():
        values.loc["mean of all"] = values.mean(skipna=False)
    known = {name: values for name, values in found.items() if values.notna().any(axis=None)}
    return pd.concat(known, names=["quantity", "transform"])


def _middle(runs: Sequence[Run], variable: str, over_images: str) -> pd.DataFrame:
    """A variable, over images and then over the middle magnitudes."""
    found = {}
    for run in runs:
        found[run.title] = pd.Series(np.nan, run.data["transform"].values)
        if variable in run.data:
            middle = run.data[variable].isel(magnitude=list(MIDDLE_MAGNITUDES)).astype(np.float64)
            found[run.title][:] = getattr(middle, over_images)("image").mean("magnitude")
    return pd.DataFrame(found)


def leaderboard(
    runs: Sequence[Run], *, measure: Measure = "cosine", sort: str = OVERALL, draws: int = 200
) -> pd.DataFrame:
    """Ranks networks, with intervals that say how much of it the choice of images is.

    Args:
        runs: From `load.read_files`, at least one: measured on the same images.
        measure: Distance between embeddings.
        sort: The column by which, highest first; one of `COLUMNS`.
        draws: Of the bootstrap over images. Every network sees the same draws.

    Returns:
        float64, a row a network, called by model, training and seed. Columns (column, "value"),
        (column, "low") and (column, "high") for every group of transforms, `OVERALL` (of all
        transforms: medians over images, means of magnitudes 3 to 7 and of transforms) and
        "accuracy" (of the images as they are; NaN without labels); low and high are the
        ends of the 95 % interval over draws.

    Raises:
        UserError: No such column.
    """
    lookup(dict.fromkeys(COLUMNS), sort, "--sort")
    images = runs[0].data.sizes["image"]
    rng = np.random.default_rng(0)
    samples = [np.arange(images), *(rng.integers(0, images, images) for _ in range(draws))]
    rows = {}
    for run in runs:
        names = list(run.data["transform"].values)
        middle = run.data[f"relative_invariance_{measure}"].isel(magnitude=list(MIDDLE_MAGNITUDES))
        values = middle.transpose("image", "transform", "magnitude").values.astype(np.float64)
        right = np.full(images, np.nan)
        if "correct" in run.data:
            right = run.data["correct"].sel(_UNTOUCHED).values.astype(np.float64)
        found = []
        for sample in samples:
            by_transform = np.median(values[sample], axis=0).mean(axis=1)
            groups = [by_transform[[names.index(x) for x in group]] for group in GROUPS.values()]
            means = [each.mean() for each in (*groups, by_transform, right[sample])]
            found.append(means)
        first, *others = found
        low, high = np.percentile(others, INTERVAL, axis=0)
        rows[run.title] = np.stack([first, low, high], axis=1).ravel()
    columns = pd.MultiIndex.from_product([COLUMNS, ("value", "low", "high")])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.sort_values((sort, "value"), ascending=False, kind="stable")


def leaderboard_text(table: pd.DataFrame) -> str:
    """Writes a leaderboard for the terminal.

    Args:
        table: What `leaderboard` returned.

    Returns:
        The networks by place, then a table with a line for each: values with their intervals.
    """
    places = [f"{place}." for place in range(1, len(table) + 1)]
    names = "\n".join(map(" ".join, zip(places, table.index, strict=True)))
    columns = {"": places}
    for name in COLUMNS:
        cells = table[name].to_numpy()
        columns[name] = [
            "-" if np.isnan(value) else f"{value:z.2f} ({low:z.2f} to {high:z.2f})"
            for value, low, high in cells
        ]
    title = f"Relative invariance, {_MIDDLE}, and accuracy; 95 % intervals over images"
    return f"{names}\n\n{title}\n{Table(columns, left=1).to_text()}"


def to_text(comparison: pd.DataFrame) -> str:
    """Writes a comparison for the terminal.

    Args:
        comparison: What `compare` returned.

    Returns:
        A list of the networks by number, then a table a quantity, one column a network; "-" where
        there is no number.
    """
    numbers = {name: f"[{i}]" for i, name in enumerate(comparison.columns, 1)}
    parts = ["\n".join(f"{number} {name}" for name, number in numbers.items())]
    for quantity, values in comparison.groupby(level="quantity", sort=False):
        columns = {"": list(values.index.get_level_values("transform"))}
        for name, number in numbers.items():
            columns[number] = ["-" if np.isnan(x) else f"{x:z.3f}" for x in values[name]]
        parts.append(f"{_TITLES[quantity]}\n{Table(columns, left=1).to_text()}")
    return "\n\n".join(parts)


def to_csv(comparison: pd.DataFrame) -> str:
    """Writes a comparison for other programs.

    Args:
        comparison: What `compare` returned.

    Returns:
        CSV text: quantity, transform, then one column a network; empty where there is no number.
    """
    return (comparison.round(6) + 0.0).to_csv(float_format="%.6f", lineterminator="\n")
