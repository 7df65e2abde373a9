"""Factors of variation in the report: from result files of searches to tables."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from invariance_jax.data.imagenet import in_words
from invariance_jax.errors import UserError, unknown_name
from invariance_jax.evaluation import results
from invariance_jax.factors import alignment, foreground, rankings, wordnet
from invariance_jax.factors.alignment import Alignment
from invariance_jax.factors.statistics import of_search
from invariance_jax.report import summaries
from invariance_jax.report.entries import Run
from invariance_jax.report.rows import file_name, words
from invariance_jax.report.tables import Table

_NEEDED = ("similarity", "change", "label", "class_name", "image1", "image2", "operation", "kind")
_IDENTITY = ("model", "augmentation", "seed", "steps", "dataset", "split", "parameters_sha256")
# How many of the first rows of a class are judged.
TOPS = (5, 25)
_SHOWN = 10
COMPARED = {
    "iou_25": "overlap, first 25 rows",
    "iou_5": "overlap, first 5 rows",
    "spearman": "rank correlation of operations",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """A similarity search.

    Attributes:
        path: Its file.
        title: Model, training and seed.
        data: What the file holds: dims (pair, row).
        statistics: See `statistics.of_search`.
        checks: What the similarity itself says, see `sanity.SimilarityChecks`; None if that was not
            measured.
    """

    path: pathlib.Path
    title: str
    data: xr.Dataset
    statistics: xr.Dataset
    checks: xr.Dataset | None = None

    @property
    def name(self) -> str:
        """The title as part of a file name."""
        return file_name(self.title)

    @property
    def scope(self) -> str:
        """What was searched."""
        said, sizes = self.data.attrs, self.statistics.sizes
        return (
            f"{self.title}; {said['dataset']} {said['split']}; {self.data.sizes['pair']:,} pairs "
            f"of {sizes['class']:,} classes; {sizes['row']} rows, {said['features']}"
        )

    @property
    def class_names(self) -> list[str]:
        """What people call the classes: of a WordNet id its first word."""
        if "wnid" not in self.statistics.coords:
            return self.statistics["class_name"].values.tolist()
        return [in_words(each) for each in self.statistics["wnid"].values.tolist()]


def read(paths: Sequence[pathlib.Path], runs: Sequence[Run] = ()) -> list[Search]:
    """Reads searches.

    Args:
        paths: Files as `search` writes them.
        runs: Networks of the report: some may be those that searched.

    Returns:
        The searches, no two with one title.

    Raises:
        UserError: A file is none of a search.
    """
    found: list[Search] = []
    for path in paths:
        read = results.read(path)
        for name in (*_NEEDED, *_IDENTITY, "mode", "features"):
            if not (name in read.variables or name in read.attrs):
                raise UserError(f"{path} lacks {name!r}; expected a result file of `search`")
        run, said = _run_of(read, runs), read.attrs
        title = (
            run.title if run else f"{said['model']}, {said['augmentation']}, seed {said['seed']}"
        )
        for more in (f", {said['mode']} of {said['features']}", f" ({path})"):
            if any(each.title == title for each in found):
                title += more
        beside = path.parents[1] / "similarity_checks" / path.name
        checks = results.read(beside) if beside.is_file() else None
        found.append(
            Search(path=path, title=title, data=read, statistics=of_search(read), checks=checks)
        )
    return found


def _run_of(search: xr.Dataset, runs: Sequence[Run]) -> Run | None:
    parameters = search.attrs["parameters_sha256"]
    return next((run for run in runs if run.network.parameters == parameters), None)


def of_classes(search: Search, names: Sequence[str]) -> Search:
    """Keeps some classes.

    Args:
        search: The search.
        names: Names or numbers of classes; none keeps all.

    Returns:
        The search of these classes.

    Raises:
        UserError: A class was not searched.
    """
    if not names:
        return search
    labels = search.statistics["class"].values.tolist()
    known = dict(zip(search.statistics["class_name"].values.tolist(), labels, strict=True))
    known |= {str(label): label for label in labels}
    for name in names:
        if name not in known:
            raise unknown_name("class", name, known)
    chosen = np.isin(search.data["label"].values, [known[name] for name in names])
    kept = search.data.isel(pair=np.flatnonzero(chosen))
    return dataclasses.replace(search, data=kept, statistics=of_search(kept))


def align(
    search: Search, runs: Sequence[Run], rescale: alignment.Rescale = "by_direction"
) -> Alignment:
    """Joins a search with the invariance of the network that searched and of its untrained self.

    Args:
        search: The search.
        runs: Invariance results, measured alike.
        rescale: See `alignment.transform_of`.

    Returns:
        The alignment.

    Raises:
        UserError: None of the results is of that network, of the same data set, or its
            untrained self is not among them; the files are named.
    """
    run, said = _run_of(search.data, runs), search.data.attrs
    files = ", ".join(str(each.network.path) for each in runs) or "no result"
    if run is None:
        raise UserError(
            f"{search.path} was searched with the network {said['parameters_sha256'][:12]} "
            f"({search.title}), but no file of the invariance is of it: {files}"
        )
    if run.data.attrs["dataset"] != said["dataset"]:
        raise UserError(
            f"{search.path} is of {said['dataset']} and {run.network.path} of "
            f"{run.data.attrs['dataset']}; expected one data set"
        )
    gap = summaries.invariance_gap(runs)
    if run.row.label not in gap["row"].values:
        raise UserError(
            f"{run.network.path} has no untrained network of the same architecture beside it, so "
            f"that {search.path} has no invariance gap to be aligned with; given: {files}"
        )
    mean = gap["mean"].sel(row=run.row.label)
    by_name = dict(zip(mean["transform"].values.tolist(), mean.values.tolist(), strict=True))
    return alignment.align(search.statistics, by_name, rescale=rescale)


def ranking(search: Search, by: rankings.By = "proportion_boosted", shown: int = _SHOWN) -> Table:
    """The first rows over all classes, copies left out.

    Args:
        search: The search.
        by: See `rankings.order`.
        shown: How many.

    Returns:
        The table.
    """
    table = rankings.distinct(search.statistics)
    order = rankings.order(table, by, over_classes=True)[0][:shown]
    first = table.isel(row=order)
    mean = first[["proportion_boosted", "mean_percent_change"]].mean("class")
    top = min(TOPS[0], table.sizes["row"])
    among = rankings.among_first(rankings.order(table, by), top).mean(axis=0)[order]
    columns = {
        "row": list(map(words, first["row"].values.tolist())),
        "kind": first["kind"].values.tolist(),
        "pairs boosted": [f"{x:.1%}" for x in mean["proportion_boosted"].values],
        "mean change": [f"{x:+z.1%}" for x in mean["mean_percent_change"].values],
        f"classes with it among {top}": [f"{x:.0%}" for x in among],
    }
    return Table(columns)


def shares(search: Search) -> list[tuple[str, str, rankings.AppearanceShare]]:
    """How often the first rows change appearance, in several ways to count.

    Args:
        search: The search.

    Returns:
        Which rows, which ranking, and the share; as far as there are enough rows.
    """
    every = {"all": search.statistics, "distinct": rankings.distinct(search.statistics)}
    return [
        (name, by, rankings.appearance_share(statistics, top, by))
        for name, statistics in every.items()
        for by in ("proportion_boosted", "percent_change")
        for top in TOPS
        if top <= statistics.sizes["row"]
    ]


def appearance(search: Search) -> Table:
    """The shares of appearance beside their base rates.

    Args:
        search: The search.

    Returns:
        The table.
    """
    found = shares(search)
    columns = {
        "rows": [f"{each.rows} {name}" for name, _, each in found],
        "ranked by": [words(by) for _, by, _ in found],
        "verdict": [each.verdict for _, _, each in found],
        "first": [str(each.top) for *_, each in found],
        "appearance": [interval(each.share, each.low, each.high) for *_, each in found],
        "base rate": [f"{each.base_rate:.0%}" for *_, each in found],
        "p": [f"{each.p_value:.3f}" for *_, each in found],
    }
    return Table(columns, left=3)


def aligned(found: Mapping[str, Alignment]) -> Table:
    """Alignments side by side.

    Args:
        found: By the title of the search.

    Returns:
        The table.
    """
    columns = {
        "search": list(found),
        "verdict": [each.verdict for each in found.values()],
        "gap > 0": [interval(each.share, each.low, each.high) for each in found.values()],
        "by chance": [f"{each.chance:.0%}" for each in found.values()],
        "bar, gap > 0": [_with_error(x.positive, x.positive_error) for x in found.values()],
        "bar, gap ≤ 0": [_with_error(x.other, x.other_error) for x in found.values()],
    }
    return Table(columns)


def specific(found: xr.Dataset) -> Table:
    """How much more alike the rankings of similar classes are.

    Args:
        found: From `wordnet.specificity`.

    Returns:
        The table.
    """
    summary = wordnet.summary(found)
    columns = {
        "rankings compared by": [COMPARED[name] for name in summary["compared_by"]],
        f"similar (wup > {wordnet.SIMILAR})": [_or_none("{:.2f}", x) for x in summary["similar"]],
        f"different (wup < {wordnet.DIFFERENT})": [
            _or_none("{:.2f}", x) for x in summary["different"]
        ],
        "difference": [
            _or_none("{:+z.2f} ({:+z.2f} to {:+z.2f})", *each)
            for each in summary[["difference", "low", "high"]].itertuples(index=False)
        ],
    }
    return Table(columns, left=1)


def checked(checks: xr.Dataset) -> Table:
    """What the similarity says of images that are or are not alike.

    Args:
        checks: From `sanity.SimilarityChecks`.

    Returns:
        The table, its eight comparisons.
    """
    columns = {"images": checks["check"].values.tolist()}
    columns |= {name: [f"{x:.3f}" for x in checks[name].values] for name in ("mean", "std")}
    columns["classes or pairs of them"] = [f"{x:,}" for x in checks["groups"].values]
    return Table(columns, left=1)


def spread(found: pd.DataFrame) -> Table:
    """Where objects are, over all and the median class.

    Args:
        found: From `foreground.spread`.

    Returns:
        The table.
    """
    lines = {"all objects": found.iloc[0], "median over classes": found.iloc[1:].median()}
    columns = {"of": list(lines), "objects": [f"{x['objects']:,.0f}" for x in lines.values()]}
    for name in foreground.QUANTITIES:
        columns[f"{words(name)} (quartiles)"] = [
            " ".join(f"{x[f'{name}_{level}']:.2f}" for level in foreground.PERCENTILES)
            for x in lines.values()
        ]
    for name in ("std_center_x", "std_center_y"):
        columns[words(name)] = [f"{x[name]:.3f}" for x in lines.values()]
    return Table(columns, left=1)


def _or_none(form: str, *values: float) -> str:
    return "-" if math.isnan(values[0]) else form.format(*values)


def interval(middle: float, low: float, high: float) -> str:
    """Writes a share with its interval, in percent."""
    return f"{middle:.0%} ({low:.0%} to {high:.0%})"


def _with_error(value: float, error: float) -> str:
    return _or_none("{:.1%}", value) + ("" if math.isnan(error) else f" ±{error:.1%}")
