"""Lays out the page: pure, from results and drawn pictures to HTML text."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import xarray as xr

import invariance_jax
from invariance_jax.report import small_translations, statements, style, summaries
from invariance_jax.report.effects import effects
from invariance_jax.report.load import Results, Run
from invariance_jax.report.tables import number

_FOLDER = pathlib.Path(__file__).parent
_HEAD = ("sources", "invariance_gap", "small_translations")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture, drawn.

    Attributes:
        name: Its name in the page.
        title: A few words.
        caption: How to read it.
        alternative: For screen readers.
        wide: Data URI of a PNG.
        narrow: Data URI of the one for phones.
        width: Of the wide one, CSS pixels; it is never shown larger.
    """

    name: str
    title: str
    caption: str
    alternative: str
    wide: str
    narrow: str
    width: int


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        header: Names of the columns.
        body: Rows of as many cells.
        left: How many columns, from the first, hold text.
    """

    header: Sequence[str]
    body: Sequence[Sequence[str]]
    left: int = 2


def render(results: Results, drawn: Sequence[Drawn], command: str) -> str:
    """Renders the page.

    Args:
        results: From `load.read`.
        drawn: Every picture of `album.pictures`, drawn.
        command: What makes this page again.

    Returns:
        HTML that needs no other file.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    by_name = {picture.name: picture for picture in drawn}
    accuracy = None
    if results.accuracy:
        accuracy = {
            "statements": statements.accuracy_statements(results),
            "table": _accuracy_table(results),
            "picture": by_name["accuracy"],
        }
    return environment.get_template("page.html").render(
        css=markupsafe.Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        answer=statements.answer(results),
        invariance=_invariance(results, by_name) if results.runs else None,
        accuracy=accuracy,
        command=command,
        version=invariance_jax.__version__,
    )


def _invariance(results: Results, drawn: Mapping[str, Drawn]) -> dict[str, Any]:
    elsewhere = (*_HEAD, "accuracy")
    return {
        "sources": statements.source_statements(results),
        "small_translations": small_translations.sentences(results),
        "pictures": {name: drawn.get(name) for name in _HEAD},
        "details": [picture for name, picture in drawn.items() if name not in elsewhere],
        "effects": _effects_table(results.runs),
        "groups": _wide_table(summaries.grouped_invariance(results.runs), "group"),
        "cosine": _wide_table(summaries.invariance(results.runs), "transform"),
        "euclidean": _wide_table(
            summaries.invariance(results.runs, measure="euclidean"), "transform"
        ),
        "provenance": _provenance(results.runs),
        "configs": [
            (f"{run.row.label}, seed {run.seed}", _pretty(run.data.attrs["config"]))
            for run in results.runs
        ],
    }


def _wide_table(table: xr.Dataset, columns: str) -> Table:
    body = [
        (
            str(table["model"].values[i]),
            str(table["training"].values[i]),
            str(table["seeds"].values[i]),
            *(
                number(mean, error, "{:z.2f}")
                for mean, error in zip(
                    table["mean"].values[i], table["standard_error"].values[i], strict=True
                )
            ),
        )
        for i in range(table.sizes["row"])
    ]
    names = [style.words(name) for name in table[columns].values.tolist()]
    return Table(("model", "training", "seeds", *names), body)


def _effects_table(runs: Sequence[Run]) -> Table:
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
        for each in effects(summaries.invariance(runs))
    ]
    return Table(header, body, left=3)


def _accuracy_table(results: Results) -> Table:
    table = summaries.accuracy(results.accuracy)
    body = [
        (
            str(table["model"].values[i]),
            str(table["training"].values[i]),
            number(
                100 * table["mean"].values[i], 100 * table["standard_error"].values[i], "{:z.1f}"
            ),
            str(table["seeds"].values[i]),
            f"{table['steps'].values[i]:,.0f}",
            f"{table['seconds'].values[i]:,.0f}",
        )
        for i in range(table.sizes["row"])
    ]
    return Table(("model", "training", "top-1 (%)", "seeds", "steps", "seconds"), body)


def _provenance(runs: Sequence[Run]) -> Table:
    header = ("model", "training", "dataset", "versions", "seed", "steps", "images", "parameters")
    body = [
        (
            run.row.model,
            run.row.training,
            f"{run.data.attrs['dataset']} ({run.data.attrs['split']})",
            ", ".join(f"{k} {v}" for k, v in json.loads(run.data.attrs["versions"]).items()),
            str(run.seed),
            f"{run.steps:,}",
            f"{run.data.sizes['image']:,}",
            str(run.data.attrs["parameters_sha256"])[:12],
        )
        for run in runs
    ]
    return Table(header, body, left=4)


def _pretty(config: str) -> str:
    return json.dumps(json.loads(config), indent=2, sort_keys=True)
