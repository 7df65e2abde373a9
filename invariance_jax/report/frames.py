"""Tables with a line for each value, as charts and other programs want them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from invariance_jax.report import answers, intervals, summaries
from invariance_jax.report.entries import Local, Result, Run
from invariance_jax.report.intervals import Drawn, Interval
from invariance_jax.report.rows import Row, words

# Whiskers span the first and last: extremes grow with the number of images, quantiles do not.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILES = ("q05", "q25", "median", "q75", "q95")
# Where an axis of relative invariance ends.
LOWEST = -1.0
SOURCES: Mapping[str, str] = {
    "training": "training on images",
    "augmentation": "augmentation",
    "data": "more or other images",
    "architecture": "architecture",
}
VERDICTS = {1: "up", 0: "unclear", -1: "down"}
ALL = "all 13"
_STANDARD = ("random_resized_crop_flip", "random_resized_crop")


def of_rows(rows: Iterable[Row]) -> pd.DataFrame:
    """What rows are called.

    Args:
        rows: The rows.

    Returns:
        Columns row (its label), model, training, augmentation and details ("" for none).
    """
    return pd.DataFrame(
        [(row.label, row.model, row.training, row.head, row.details) for row in rows],
        columns=["row", "model", "training", "augmentation", "details"],
    )


def cells(runs: Sequence[Run]) -> pd.DataFrame:
    """Relative invariance (cosine) at every grid point.

    Args:
        runs: One entry a network; at least one.

    Returns:
        A line a row, transform and magnitude: `of_rows`, transform, magnitude (0 to 9), value and
        unit (of the magnitude), and the quantiles over images, means over seeds, `QUANTILES`.
    """
    bands = summaries.over_seeds(summaries.quantiles(runs, LEVELS))
    named = of_rows(_rows(runs)).set_index("row")
    values = bands["mean"].transpose("row", "transform", "magnitude", "quantile")
    flat = values.values.reshape(-1, len(LEVELS))
    labels, names, magnitudes = (values[x].values for x in ("row", "transform", "magnitude"))
    index = pd.MultiIndex.from_product([labels, map(words, names), magnitudes])
    index.names = ["row", "transform", "magnitude"]
    found = pd.DataFrame(flat, index, QUANTILES).clip(lower=LOWEST).reset_index()
    grid = bands["magnitude_value"].transpose("transform", "magnitude").values
    found["value"] = np.tile(grid.ravel(), len(labels))
    units = np.repeat(bands["unit"].values, len(magnitudes))
    found["unit"] = np.tile(units, len(labels))
    return _named(found, named)


def _rows(entries: Iterable[Result]) -> list[Row]:
    return list(dict.fromkeys(each.row for each in entries))


def _named(found: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """The same with what the rows are called in front."""
    return named.loc[found["row"]].reset_index().join(found.drop(columns="row"))


def table(values: xr.Dataset, rows: Sequence[Row], name: str) -> pd.DataFrame:
    """A table of rows and names as lines.

    Args:
        values: From `summaries.over_seeds`, dims (row, NAME).
        rows: The rows.
        name: The other dim.

    Returns:
        A line a row and name: `of_rows`, the name in words, value, standard_error, seeds.
    """
    lines = [
        (label, words(str(each)), *map(float, cell), int(seeds))
        for label, means, errors, seeds in zip(
            values["row"].values.tolist(),
            values["mean"].transpose("row", name).values,
            values["standard_error"].transpose("row", name).values,
            values["seeds"].values,
            strict=True,
        )
        for each, *cell in zip(values[name].values, means, errors, strict=True)
    ]
    columns = ["row", name, "value", "standard_error", "seeds"]
    found = pd.DataFrame(lines, columns=columns)
    return _named(found, of_rows(rows).set_index("row"))


def invariance(runs: Sequence[Run]) -> pd.DataFrame:
    """Relative invariance (cosine) by transform: see `table` and `summaries.invariance`."""
    return table(summaries.invariance(runs), _rows(runs), "transform")


def gap(runs: Sequence[Run]) -> pd.DataFrame:
    """The invariance gap by transform: see `table` and `summaries.invariance_gap`."""
    return table(summaries.invariance_gap(runs), _rows(runs), "transform")


def small_translations(runs: Sequence[Run]) -> pd.DataFrame:
    """Relative invariance to small translations over images.

    Args:
        runs: One entry a network; at least one.

    Returns:
        A line a row: `of_rows` and `QUANTILES` over images, each with its mean over seeds; the
        median is the mean over seeds of the medians.
    """
    by_run = summaries.small_translation_by_image(runs)
    by_image, medians = summaries.over_seeds(by_run), summaries.over_seeds(by_run.median("image"))
    values = np.quantile(by_image["mean"].values, LEVELS, axis=1).T
    found = pd.DataFrame(values, columns=QUANTILES)
    found["median"] = medians["mean"].values
    found = found.clip(lower=LOWEST)
    found.insert(0, "row", by_image["row"].values.tolist())
    return _named(found, of_rows(_rows(runs)).set_index("row"))


def under_transforms(runs: Sequence[Run]) -> pd.DataFrame:
    """Accuracy at every grid point.

    Args:
        runs: The networks; those whose results hold predictions count.

    Returns:
        A line a row, transform and magnitude: `of_rows`, transform, magnitude, value, unit and
        top1, a fraction, mean over images and seeds; empty where no result holds it.
    """
    known = [run for run in runs if "correct" in run.data]
    lines = []
    for row in _rows(known):
        those = [run.data for run in known if run.row == row]
        shares = [
            each["correct"].mean("image").transpose("transform", "magnitude") for each in those
        ]
        top1 = np.mean([each.values for each in shares], axis=0)
        grid = those[0]["magnitude_value"].transpose("transform", "magnitude").values
        units = those[0]["unit"].values
        for i, name in enumerate(those[0]["transform"].values.tolist()):
            lines += [
                (row.label, words(name), m, grid[i, m], units[i], top1[i, m])
                for m in range(grid.shape[1])
            ]
    columns = ["row", "transform", "magnitude", "value", "unit", "top1"]
    found = pd.DataFrame(lines, columns=columns)
    return _named(found, of_rows(_rows(known)).set_index("row")) if lines else found


def by_depth(runs: Sequence[Run]) -> pd.DataFrame:
    """Relative invariance (cosine) in every layer that was measured.

    Args:
        runs: The networks; those with features before the embedding count.

    Returns:
        A line a row and feature: `of_rows`, feature, depth (its place), invariance: medians over
        images, means of magnitudes 3 to 7, of transforms and of seeds; the embedding is last.
    """
    known = [run for run in runs if run.by_feature is not None]
    middle = {"magnitude": list(summaries.MIDDLE_MAGNITUDES)}
    lines = []
    for row in _rows(known):
        those = [run for run in known if run.row == row]
        before = [run.by_feature.isel(middle).mean(("transform", "magnitude")) for run in those]
        values = np.mean([each.values for each in before], axis=0).tolist()
        names = [*map(str, before[0]["feature"].values), "embedding"]
        values.append(float(summaries.invariance(those)["mean"].mean()))
        lines += [(row.label, x, i, y) for i, (x, y) in enumerate(zip(names, values, strict=True))]
    found = pd.DataFrame(lines, columns=["row", "feature", "depth", "invariance"])
    return _named(found, of_rows(_rows(known)).set_index("row")) if lines else found


def local_equivariance(entries: Sequence[Local]) -> pd.DataFrame:
    """Local equivariance error of the embedding.

    Args:
        entries: One entry a network.

    Returns:
        A line a row and generator: `of_rows`, generator, error: medians over images, means over
        seeds, with their standard_error (NaN for one seed).
    """
    lines = []
    for row in _rows(entries):
        those = [each.medians.sel(output="embedding") for each in entries if each.row == row]
        values = np.stack([each.values for each in those]).astype(np.float64)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(those)) if len(those) > 1 else np.nan
        errors = np.broadcast_to(error, values.shape[1:])
        names = map(words, those[0]["generator"].values.tolist())
        lines += [
            (row.label, *cells) for cells in zip(names, values.mean(axis=0), errors, strict=True)
        ]
    found = pd.DataFrame(lines, columns=["row", "generator", "error", "standard_error"])
    return _named(found, of_rows(_rows(entries)).set_index("row")) if lines else found


def by_part(drawn: Drawn) -> pd.DataFrame:
    """What each source does to invariance, transform by transform: the summary of a report.

    Args:
        drawn: From `intervals.invariance`.

    Returns:
        A line a source and transform (and `ALL` of them): source, compared (of architectures which
        with which), comparisons (how many), transform, change, low, high, verdict (`VERDICTS`).
        The change is the mean over the pairs of rows that differ in that part only. "data" is what
        has more images or classes against what has fewer. With more than three architectures none
        stands for the others, and they are left out.
    """
    names = list(summaries.TRANSFORMS)
    pairs = answers.pairs(drawn.rows)
    groups: dict[tuple[str, str], list[tuple[Row, Row]]] = {}
    for part, changed, reference in pairs:
        compared = ""
        if part == "architecture":
            compared = f"{changed.model} against {reference.model}"
        if part == "data":  # `answers.pairs` has the one with fewer images first
            changed, reference = reference, changed
        if part in SOURCES:
            groups.setdefault((part, compared), []).append((changed, reference))
    of_models = [key for key in groups if key[0] == "architecture"]
    for key in of_models if len(of_models) > 3 else ():
        del groups[key]
    lines = []
    for part in SOURCES:
        for (_, compared), found in ((k, v) for k, v in groups.items() if k[0] == part):
            changes = drawn.contrast(_weights(drawn, found))
            together = _mean(drawn, found)
            for name, each in zip((*map(words, names), ALL), (*changes, together), strict=True):
                source = SOURCES[part] + (f": {compared}" if compared else "")
                lines.append((part, source, len(found), name, *each, VERDICTS[each.verdict]))
    columns = ["part", "source", "comparisons", "transform", "change", "low", "high", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _weights(drawn: Drawn, pairs: Sequence[tuple[Row, Row]]) -> np.ndarray:
    weights = np.zeros(len(drawn.rows))
    for changed, reference in pairs:
        weights[drawn.at(changed)] += 1 / len(pairs)
        weights[drawn.at(reference)] -= 1 / len(pairs)
    return weights


def _mean(drawn: Drawn, pairs: Sequence[tuple[Row, Row]]) -> Interval:
    """The mean over transforms."""
    flat = drawn._replace(values=drawn.values.mean(axis=1), draws=drawn.draws.mean(axis=2))
    return flat.contrast(_weights(drawn, pairs))[0]


def ablation(drawn: Drawn) -> pd.DataFrame:
    """The accuracy of every row, and what its augmentation gained.

    Args:
        drawn: From `intervals.accuracy`.

    Returns:
        A line a row: `of_rows`, seeds, top1, low, high (fractions, with 95 % intervals); gain,
        gain_low, gain_high over the row that is alike but not augmented; share, share_low,
        share_high of the gain of standard augmentation (random resized crop with flip; without
        where that is not there), where that is clearly above 0. NaN where there is none.
    """
    plain = {
        changed: reference
        for part, changed, reference in answers.pairs(drawn.rows)
        if part == "augmentation"
    }
    best = {}
    for name in reversed(_STANDARD):
        best |= {plain[row]: row for row in plain if row.augmentation == (name,)}
    found = of_rows(drawn.rows)
    found["seeds"] = drawn.seeds
    every = intervals.table(drawn)
    found[["top1", "low", "high"]] = every[["value", "low", "high"]]
    nothing = Interval(np.nan, np.nan, np.nan)
    gains, shares = [], []
    for row in drawn.rows:
        reference = plain.get(row)
        gains.append(
            drawn.contrast(_weights(drawn, [(row, reference)]))[0] if reference else nothing
        )
        standard = best.get(reference)
        shares.append(_share(drawn, row, reference, standard) if standard else nothing)
    for name, columns in (("gain", gains), ("share", shares)):
        for end, values in zip(("", "_low", "_high"), zip(*columns, strict=True), strict=True):
            found[name + end] = values
    return found


def _share(drawn: Drawn, row: Row, reference: Row, standard: Row) -> Interval:
    """The share of the standard augmentation's gain."""
    whole = drawn.contrast(_weights(drawn, [(standard, reference)]))[0]
    if whole.verdict <= 0:
        return Interval(np.nan, np.nan, np.nan)
    ours, theirs, plain = (drawn.at(each) for each in (row, standard, reference))
    value = (drawn.values[ours] - drawn.values[plain]) / whole.value
    draws = drawn.draws
    with np.errstate(divide="ignore", invalid="ignore"):  # the few draws without a gain
        ratios = (draws[:, ours] - draws[:, plain]) / (draws[:, theirs] - draws[:, plain])
    low, high = np.percentile(ratios[np.isfinite(ratios)], intervals.LEVELS)
    return Interval(float(value), float(low), float(high))


def accuracy_and_invariance(accuracy: Drawn, invariance: Drawn) -> pd.DataFrame:
    """How accurate and how invariant rows are that have both.

    Args:
        accuracy: From `intervals.accuracy`.
        invariance: From `intervals.invariance`.

    Returns:
        A line a row: `of_rows`, top1, top1_low, top1_high (fractions), invariance, low, high (mean
        over the 13 transforms).
    """
    rows = [row for row in invariance.rows if row in accuracy.rows]
    found = of_rows(rows)
    flat = invariance._replace(
        values=invariance.values.mean(axis=1), draws=invariance.draws.mean(axis=2)
    )
    for drawn, names in (
        (accuracy, ("top1", "top1_low", "top1_high")),
        (flat, ("invariance", "low", "high")),
    ):
        chosen = intervals.table(drawn).iloc[[drawn.at(row) for row in rows]]
        for name, column in zip(names, ("value", "low", "high"), strict=True):
            found[name] = chosen[column].to_numpy()
    return found
