"""Tables as text, for the page and the terminal."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from invariance_jax.report import summaries
from invariance_jax.report.answers import effects
from invariance_jax.report.entries import Accuracy, Results, Run
from invariance_jax.report.rows import words

WIDTH = 100
_GAP = 2


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Cells by the column's name.
        left: How many columns, from the first, hold text; numbers are flush right.
    """

    columns: Mapping[str, Sequence[str]]
    left: int = 2

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Its rows, without the names."""
        return list(zip(*self.columns.values(), strict=True))

    def to_text(self) -> str:
        """Lines for the terminal; labels that would make one longer than 100 are shortened."""
        widths = [max(map(len, (name, *cells))) for name, cells in self.columns.items()]
        while sum(widths) + _GAP * (len(widths) - 1) > WIDTH and max(widths[: self.left]) > 8:
            widths[widths.index(max(widths[: self.left]))] -= 1
        return "\n".join(
            (" " * _GAP)
            .join(
                _shortened(cell, width).ljust(width) if i < self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            .rstrip()
            for row in (tuple(self.columns), *self.rows)
        )


def _shortened(label: str, width: int) -> str:
    """Cuts the middle out: names of variants often differ at the end."""
    if len(label) <= width:
        return label
    tail = (width - 3) // 2
    return f"{label[: width - 3 - tail]}...{label[-tail:]}"


def accuracy(entries: Sequence[Accuracy]) -> Table:
    """Accuracy of every row, in percent.

    Args:
        entries: One entry a network; at least one.

    Returns:
        The table; without top-5 accuracy where it is known of no network.
    """
    table = summaries.accuracy(entries)
    columns = _labels(table) | {
        "steps": [f"{x:,.0f}" for x in table["steps"].values],
        "seconds": [f"{x:,.0f}" for x in table["seconds"].values],
        "top-1 %": _numbers(100 * table, "{:z.1f}"),
    }
    if table["top5"].notnull().any():
        known = [(x, math.isnan(x)) for x in 100 * table["top5"].values]
        columns["top-5 %"] = ["-" if missing else f"{x:.1f}" for x, missing in known]
    return Table(columns)


def ablation(frame: pd.DataFrame) -> Table:
    """Accuracy of every row with what its augmentation gained.

    Args:
        frame: From `frames.ablation`.

    Returns:
        The table; columns without a number are left out.
    """
    columns = {name: frame[name].astype(str).tolist() for name in ("model", "training", "seeds")}
    columns["top-1 %"] = intervals(100 * frame[["top1", "low", "high"]], "{:z.1f}")
    for name, title, form in (
        ("gain", "gain over none, points", "{:+z.1f}"),
        ("share", "% of the gain of random resized crop", "{:z.0f}"),
    ):
        cells = intervals(100 * frame[[name, f"{name}_low", f"{name}_high"]], form)
        if any(cell != "-" for cell in cells):
            columns[title] = cells
    return Table(columns)


def intervals(values: pd.DataFrame, form: str) -> list[str]:
    """Writes numbers with the ends of their intervals: `34.2 (31.0 to 37.1)`.

    Args:
        values: Columns value, low, high.
        form: How each is written, as of `str.format`.

    Returns:
        A text a line; "-" where there is no number.
    """
    lines = values.itertuples(index=False)
    both = f"{form} ({form} to {form})"
    return ["-" if math.isnan(line[0]) else both.format(*line) for line in lines]


def invariance(table: xr.Dataset) -> Table:
    """Relative invariance of every row.

    Args:
        table: From `summaries.invariance` or `summaries.grouped_invariance`.

    Returns:
        The table, a column a transform or group.
    """
    names = table[table["mean"].dims[1]]
    cells = [_numbers(table.sel({names.name: name}), "{:z.2f}") for name in names]
    return Table(_labels(table) | dict(zip(map(words, names.values), cells, strict=True)))


def of_effects(runs: Sequence[Run]) -> Table:
    """Rows that differ in one part only, compared.

    Args:
        runs: One entry a network; at least one.

    Returns:
        The table, a line a comparison.
    """
    found = effects(runs)
    columns = {
        "part": [each.part for each in found],
        "compared": [each.changed.label for each in found],
        "with": [each.reference.label for each in found],
        "mean change": [f"{each.change:+z.2f}" for each in found],
        "mean absolute change": [f"{each.size:.2f}" for each in found],
        "higher on": [f"{each.raised} of 13" for each in found],
    }
    return Table(columns, left=3)


def differences(results: Results) -> Table:
    """Every field in which the rows differ, written in full.

    Args:
        results: From `load.read`.

    Returns:
        The table; nothing where a row has no such field.
    """
    rows = dict.fromkeys(each.row for each in (*results.runs, *results.accuracy, *results.local))
    fields = dict.fromkeys(name for row in rows for name in row.fields)
    labels = {"model": [row.model for row in rows], "training": [row.training for row in rows]}
    cells = {name: [_written(row.fields.get(name, "")) for row in rows] for name in fields}
    return Table(labels | cells, left=2 + len(cells))


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def provenance(runs: Sequence[Run]) -> Table:
    """Where every number comes from.

    Args:
        runs: One entry a network; at least one.

    Returns:
        The table, a line a network.
    """
    said = [run.data.attrs for run in runs]
    versions = [json.loads(each["versions"]).items() for each in said]
    columns = {
        "model": [run.row.model for run in runs],
        "training": [run.row.training for run in runs],
        "dataset": [f"{each['dataset']} ({each['split']})" for each in said],
        "images are": [each.get("preprocessing", "") for each in said],
        "versions": [", ".join(map(" ".join, each)) for each in versions],
        "seed": [str(run.network.seed) for run in runs],
        "steps": [f"{run.steps:,}" for run in runs],
        "images": [f"{run.data.sizes['image']:,}" for run in runs],
        "parameters": [run.network.parameters[:12] for run in runs],
    }
    # Results of earlier versions do not say it.
    if not any(columns["images are"]):
        del columns["images are"]
    return Table(columns, left=len(columns) - 4)


def _labels(table: xr.Dataset) -> dict[str, list[str]]:
    return {name: list(map(str, table[name].values)) for name in ("model", "training", "seeds")}


def _numbers(table: xr.Dataset, form: str) -> list[str]:
    """Means, with their standard errors where there are several seeds: `0.71 ±0.02`."""
    pairs = zip(table["mean"].values, table["standard_error"].values, strict=True)
    return [
        form.format(mean) + ("" if np.isnan(error) else f" ±{form.format(error)}")
        for mean, error in pairs
    ]
