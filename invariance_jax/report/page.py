"""The page and its figures: from results to files."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2
import markupsafe
import numpy as np
import pandas as pd
from jaxtyping import Float

import invariance_jax
from invariance_jax.files import atomic_path, write_text
from invariance_jax.report import (
    answers,
    charts,
    claims,
    examples,
    frames,
    intervals,
    style,
    summaries,
    tables,
    vega,
)
from invariance_jax.report.altair import alt
from invariance_jax.report.entries import Results
from invariance_jax.report.rows import file_name

_FOLDER = pathlib.Path(__file__).parent
_KINDS: tuple[vega.Kind, ...] = ("svg", "pdf", "png")


class Picture(NamedTuple):
    """One figure of the page.

    Attributes:
        name: File name without ending; letters, digits, `_` and `-` only.
        alternative: What it shows, for those who cannot see it: the main values.
        draw: Describes the chart, from its rows and the layout.
        frame: Its rows.
        caption: What stands below it; empty where the page has that.
        by_model: Whether files for papers show one model each.
    """

    name: str
    alternative: str
    draw: Callable[[pd.DataFrame, vega.Layout], alt.TopLevelMixin]
    frame: pd.DataFrame
    caption: str = ""
    by_model: bool = False


class Block(NamedTuple):
    """A part of the section on classes, or of that on the factors of variation.

    Attributes:
        title: Its heading.
        sentences: What it says.
        pictures: Its figures.
        tables: By what stands above each.
        images: Pictures of images, by what stands below each.
    """

    title: str
    sentences: Sequence[str]
    pictures: Sequence[Picture]
    tables: Mapping[str, tables.Table]
    images: Mapping[str, examples.Sheet] = MappingProxyType({})


def write(
    results: Results,
    output_dir: str | pathlib.Path,
    *,
    example: Float[np.ndarray, "transform magnitude height width 3"] | None = None,
    classes: Sequence[Block] = (),
    factors: Sequence[Block] = (),
    judged: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    widths: charts.Trajectories | None = None,
    notes: Sequence[str] = (),
    command: str = "",
    figures: bool = True,
) -> pathlib.Path:
    """Writes `report.html`, which needs no other file, and its figures as SVG, PDF and PNG.

    Args:
        results: From `load.read`.
        output_dir: Where `report.html` and `figures/` shall stand; made if absent.
        example: One image under all transforms and magnitudes, float in [0, 1]; None leaves
            the figure out.
        classes: What there is to say about single classes.
        factors: What there is to say about factors of variation.
        judged: What `claims.claims` takes of searches.
        widths: Metrics of runs whose augmentation was learned, by run.
        notes: What is missing, for the page to say, beside the files that could not be read.
        command: The command line that makes the page, printed on it.
        figures: Whether to write the figures too.

    Returns:
        The path of the page.

    Raises:
        UserError: Something is wrong with the example.
    """
    sheet = None if example is None else examples.sheet(example)
    output = pathlib.Path(output_dir)
    of_blocks = [picture for block in (*classes, *factors) for picture in block.pictures]
    invariance = intervals.invariance(results.runs) if results.runs else None
    accuracy = intervals.accuracy(results.accuracy) if results.accuracy else None
    every = [*pictures(results, invariance, accuracy, widths or {}), *of_blocks]
    path, missing = output / "report.html", [*results.problems, *notes]
    said = {"classes": classes, "factors": factors, "problems": missing, "command": command}
    said["claims"] = claims.claims(invariance, accuracy, judged)
    text = _render(results, every, sheet=sheet, **said)
    for picture in every if figures else ():
        save(picture, output / "figures")
    write_text(path, text)
    return path


def save(picture: Picture, folder: pathlib.Path) -> None:
    """Writes a figure for papers, and its rows as CSV.

    Args:
        picture: The figure.
        folder: Where.
    """
    parts = {picture.name: picture.frame}
    if picture.by_model:
        models = picture.frame["model"].unique()
        parts = {
            f"{picture.name}_{file_name(model)}": picture.frame[picture.frame["model"] == model]
            for model in models
        }
    for name, frame in parts.items():
        chart = picture.draw(frame, "paper")
        files = {kind: vega.save(chart, frame, kind) for kind in _KINDS}
        files["csv"] = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
        for ending, content in files.items():
            with atomic_path(folder / f"{name}.{ending}") as temporary:
                temporary.write_bytes(content)


def pictures(
    results: Results,
    invariance: intervals.Drawn | None,
    accuracy: intervals.Drawn | None,
    widths: charts.Trajectories = MappingProxyType({}),
) -> Iterator[Picture]:
    """Lists the figures that the results allow.

    Args:
        results: From `load.read`.
        invariance: From `intervals.invariance`.
        accuracy: From `intervals.accuracy`.
        widths: Metrics of runs whose augmentation was learned, by run.

    Yields:
        The pictures, in the order of the page, not drawn yet.
    """
    every = (*results.runs, *results.accuracy, *results.local)
    colours = style.colours(each.row for each in every)
    coloured = {"colours": colours}
    runs, draw = results.runs, functools.partial
    if invariance:
        parts = frames.by_part(invariance)
        if len(parts):
            yield Picture("sources", f"Symbols. {_verdicts(parts)}", charts.by_part, parts)
    if invariance and accuracy:
        both = frames.accuracy_and_invariance(accuracy, invariance)
        if len(both):
            what = f"Points. Top-1: {_listed(both, 'top1', '{:.1%}')}"
            yield Picture(
                "accuracy_and_invariance",
                what,
                draw(charts.accuracy_and_invariance, **coloured),
                both,
            )
    if accuracy:
        table = frames.ablation(accuracy)
        what = f"Bars: {_listed(table, 'top1', '{:.1%}')}"
        yield Picture("accuracy", what, draw(charts.accuracy, **coloured), table)
    if runs:
        table = frames.invariance(runs)
        lowest, highest = (
            table.loc[place] for place in (table["value"].idxmin(), table["value"].idxmax())
        )
        what = f"Heat map. Lowest: {_cell(lowest)}. Highest: {_cell(highest)}."
        yield Picture("heat_map", what, charts.heat, table)
        cells = frames.cells(runs)
        means = table.groupby("row", sort=False)["value"].mean().reset_index()
        what = f"Mean over transforms and magnitudes 3 to 7: {_listed(means, 'value', '{:z.2f}')}"
        for name, chart in (
            ("by_magnitude", charts.by_magnitude),
            ("boxes_by_magnitude", charts.boxes),
        ):
            yield Picture(name, what, draw(chart, **coloured), cells, by_model=True)
        gap = frames.gap(runs)
        if len(gap):
            means = gap.groupby("row", sort=False)["value"].mean().reset_index()
            what = f"Bars. Mean gap over the transforms: {_listed(means, 'value', '{:+z.2f}')}"
            yield Picture("invariance_gap", what, draw(charts.gap, **coloured), gap)
        small = frames.small_translations(runs)
        what = f"Box plots. Medians: {_listed(small, 'median', '{:z.2f}')}"
        yield Picture(
            "small_translations", what, draw(charts.small_translations, **coloured), small
        )
        under = frames.under_transforms(runs)
        if len(under):
            strongest = under[under["magnitude"] == under["magnitude"].max()]
            means = strongest.groupby("row", sort=False)["top1"].mean().reset_index()
            what = f"Lines. At the strongest magnitude: {_listed(means, 'top1', '{:.1%}')}"
            yield Picture(
                "under_transforms",
                what,
                draw(charts.under_transforms, **coloured),
                under,
                by_model=True,
            )
        depth = frames.by_depth(runs)
        if len(depth):
            first = depth[depth["depth"] == 0]
            what = f"Lines. In the first layer: {_listed(first, 'invariance', '{:z.2f}')}"
            yield Picture("by_depth", what, draw(charts.by_depth, **coloured), depth)
    local = frames.local_equivariance(results.local)
    if len(local):
        first = local[local["generator"] == local["generator"].iloc[0]]
        name = first["generator"].iloc[0]
        what = f"Points. Under {name}: {_listed(first, 'error', '{:.2g}')}"
        yield Picture(
            "local_equivariance", what, draw(charts.local_equivariance, **coloured), local
        )
    if widths:
        table = charts.width_frame(widths)
        last = table.groupby(["run", "generator"], sort=False)["value"].last()
        ends = "; ".join(f"{run}, {name} {value:.3g}" for (run, name), value in last.items())
        yield Picture("widths", f"Lines. At the end: {ends}.", charts.widths, table)


def _verdicts(parts: pd.DataFrame) -> str:
    together = parts[parts["transform"] == frames.ALL]
    lines = zip(together["source"], together["change"], together["verdict"], strict=True)
    return "; ".join(f"{name} {change:+z.2f} ({verdict})" for name, change, verdict in lines) + "."


def _listed(frame: pd.DataFrame, column: str, form: str) -> str:
    pairs = zip(frame["row"], frame[column], strict=True)
    return "; ".join(f"{label} {form.format(value)}" for label, value in pairs) + "."


def _cell(line: pd.Series) -> str:
    return f"{line['row']} under {line['transform']}, {line['value']:z.2f}"


def _shown(picture: Picture, names: Mapping[int, str]) -> dict[str, Any]:
    """What the page's script draws from."""
    layouts: tuple[vega.Layout, ...] = ("page", "phone")
    specs = {layout: vega.to_spec(picture.draw(picture.frame, layout)) for layout in layouts}
    return specs | {"data": names[id(picture.frame)]}


def _render(
    results: Results, every: Sequence[Picture], *, sheet: examples.Sheet | None, **said: Any
) -> str:
    """Fills the template, which asks for what it shows."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    # Charts of one table share it.
    names: dict[int, str] = {}
    for picture in every:
        names.setdefault(id(picture.frame), picture.name)
    datasets = {names[id(picture.frame)]: vega.packed(picture.frame) for picture in every}
    themes = {
        "light": vega.config(),
        "dark": vega.config(ink="#e6e9ed", soft="#a5adb7", line="#3c444d"),
    }
    modules = {"answers": answers, "summaries": summaries, "tables": tables}
    scripts = {
        "bundle": markupsafe.Markup(vega.bundle().replace("</script", "<\\/script")),
        "script": markupsafe.Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
    }
    return environment.get_template("page.html").render(
        css=markupsafe.Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        version=invariance_jax.__version__,
        results=results,
        pictures={picture.name: picture for picture in every},
        specs={picture.name: _shown(picture, names) for picture in every},
        datasets=datasets,
        themes=themes,
        sheet=sheet,
        **scripts,
        **modules,
        **said,
    )
