"""Tables as text, for the page and the terminal."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import xarray as xr

from invariance_jax import text_table
from invariance_jax.report import style, summaries
from invariance_jax.report.answers import effects
from invariance_jax.report.load import Accuracy, Results, Run


class Table(NamedTuple):
    """A table.

    Attributes:
        header: Names of the columns.
        body: Rows of as many cells.
        left: How many columns, from the first, hold text.
    """

    header: Sequence[str]
    body: Sequence[Sequence[str]]
    left: int = 2

    def to_text(self) -> str:
        """Lines for the terminal, of at most 100 characters where the labels can be shortened."""
        return text_table.align(self.header, self.body, left=self.left)


def accuracy(entries: Sequence[Accuracy]) -> Table:
    """Accuracy of every row, in percent.

    Args:
        entries: One entry a network; at least one.

    Returns:
        The table; without top-5 accuracy where it is known of no network.
    """
    table = summaries.accuracy(entries)
    top5 = not table["top5"].isnull().all()
    header = ("model", "training", "seeds", "steps", "seconds", "top-1 %", *["top-5 %"] * top5)
    body = [
        (
            *_labels(row),
            f"{row['steps'].item():,.0f}",
            f"{row['seconds'].item():,.0f}",
            number(100 * row["mean"].item(), 100 * row["standard_error"].item(), "{:z.1f}"),
            *["-" if math.isnan(five := row["top5"].item()) else f"{100 * five:z.1f}"] * top5,
        )
        for row in _each_row(table)
    ]
    return Table(header, body)


def invariance(table: xr.Dataset) -> Table:
    """Relative invariance of every row.

    Args:
        table: From `summaries.invariance` or `summaries.grouped_invariance`.

    Returns:
        The table, a column a transform or group.
    """
    columns = [style.words(name) for name in table[table["mean"].dims[1]].values.tolist()]
    body = [
        (
            *_labels(row),
            *(
                number(mean, error, "{:z.2f}")
                for mean, error in zip(
                    row["mean"].values, row["standard_error"].values, strict=True
                )
            ),
        )
        for row in _each_row(table)
    ]
    return Table(("model", "training", "seeds", *columns), body)


def of_effects(runs: Sequence[Run]) -> Table:
    """Rows that differ in one part only, compared.

    Args:
        runs: One entry a network; at least one.

    Returns:
        The table, a line a comparison.
    """
    header = ("part", "compared", "with", "mean change", "mean absolute change", "higher on")
    body = [
        (
            each.part,
            each.changed.label,
            each.reference.label,
            f"{each.change:+z.2f}",
            f"{each.size:.2f}",
            f"{each.raised} of 13",
        )
        for each in effects(runs)
    ]
    return Table(header, body, left=3)


def differences(results: Results) -> Table:
    """Every field in which the rows differ, written in full.

    Args:
        results: From `load.read`.

    Returns:
        The table; empty where a row has no such field.
    """
    rows = dict.fromkeys(each.row for each in (*results.runs, *results.accuracy))
    fields = list(dict.fromkeys(name for row in rows for name in row.fields))
    body = [
        (row.model, row.training, *(_written(row.fields.get(name, "")) for name in fields))
        for row in rows
    ]
    return Table(("model", "training", *fields), body, left=2 + len(fields))


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def provenance(runs: Sequence[Run]) -> Table:
    """Where every number comes from.

    Args:
        runs: One entry a network; at least one.

    Returns:
        The table, a line a network.
    """
    header = ("model", "training", "dataset", "versions", "seed", "steps", "images", "parameters")
    body = [
        (
            run.row.model,
            run.row.training,
            f"{run.data.attrs['dataset']} ({run.data.attrs['split']})",
            ", ".join(f"{k} {v}" for k, v in json.loads(run.data.attrs["versions"]).items()),
            str(run.network.seed),
            f"{run.steps:,}",
            f"{run.data.sizes['image']:,}",
            run.network.parameters[:12],
        )
        for run in runs
    ]
    return Table(header, body, left=4)


def number(mean: float, standard_error: float, form: str) -> str:
    """Writes a value, with its standard error where there is one.

    Args:
        mean: The value.
        standard_error: Its standard error, or NaN.
        form: How to write both, as in `"{:z.2f}"`.

    Returns:
        `0.71` or `0.71 ±0.02`.
    """
    text = form.format(mean)
    return text if math.isnan(standard_error) else f"{text} ±{form.format(standard_error)}"


def _each_row(table: xr.Dataset) -> Iterator[xr.Dataset]:
    return (table.isel(row=i) for i in range(table.sizes["row"]))


def _labels(row: xr.Dataset) -> tuple[str, ...]:
    return tuple(str(row[name].item()) for name in ("model", "training", "seeds"))
