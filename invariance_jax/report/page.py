"""The page and its figures: from results to files."""

import base64
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jinja2
import markupsafe
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

import invariance_jax
from invariance_jax.files import atomic_path, write_text
from invariance_jax.report import answers, charts, examples, style, summaries, tables
from invariance_jax.report.load import Results, Run

_FOLDER = pathlib.Path(__file__).parent
BOX_TRANSFORMS = ("translate_x", "rotate", "scale_zoom_in", "increase_brightness")
# A figure 11 inches wide then fills the page, and its text is as large as the page's.
_CSS_PIXELS_PER_INCH = 106


@dataclasses.dataclass(frozen=True)
class Picture:
    """One figure of the page.

    Attributes:
        name: File name without ending; letters, digits, `_` and `-` only.
        alternative: What it shows, for those who cannot see it: the main values.
        draw: Draws it, wide for pages and papers, or narrow for phones.
        model: The model that it is about, if it is about one.
    """

    name: str
    alternative: str
    draw: Callable[..., Figure]
    model: str = ""


def write(
    results: Results,
    output_dir: str | pathlib.Path,
    *,
    example: Float[np.ndarray, "transform magnitude height width 3"] | None = None,
    notes: Sequence[str] = (),
    command: str = "",
) -> pathlib.Path:
    """Writes `report.html`, which needs no other file, and its figures as PNG and PDF.

    Args:
        results: From `load.read`.
        output_dir: Where `report.html` and `figures/` shall stand; made if absent.
        example: One image under all transforms and magnitudes, float in [0, 1]; None leaves
            the figure out.
        notes: What is missing, for the page to say, beside the files that could not be read.
        command: The command line that makes the page, printed on it.

    Returns:
        The path of the page.

    Raises:
        UserError: Something is wrong with the example.
    """
    if example is not None:
        examples.check(example)
    output = pathlib.Path(output_dir)
    with style.settings():
        drawn = [_drawn(picture, output / "figures") for picture in pictures(results, example)]
    path = output / "report.html"
    write_text(path, _render(results, drawn, [*results.problems, *notes], command))
    return path


def pictures(results: Results, example: Float[np.ndarray, "..."] | None) -> Iterator[Picture]:
    """Lists the figures that the results allow.

    Args:
        results: From `load.read`.
        example: One image under all transforms, float in [0, 1], or None.

    Yields:
        The pictures, in the order of the page, not drawn yet.
    """
    colours = style.colours(each.row for each in (*results.runs, *results.accuracy))
    if results.runs:
        yield from _of_invariance(results.runs, colours)
    if example is not None:
        what = "Grid of one image under every transform and magnitude."
        yield Picture("examples", what, functools.partial(examples.draw, example))
    if results.accuracy:
        top1 = summaries.accuracy(results.accuracy)
        draw = functools.partial(charts.accuracy, top1, colours)
        yield Picture("accuracy", "Bars: " + _listed(top1["mean"], "{:.1%}"), draw)


def _of_invariance(runs: Sequence[Run], colours: charts.Colours) -> Iterator[Picture]:
    table = summaries.invariance(runs)
    lowest, highest = (
        _cell(table["mean"].isel(place))
        for place in (table["mean"].argmin(...), table["mean"].argmax(...))
    )
    yield Picture(
        "sources",
        f"Heat map. Lowest: {lowest}. Highest: {highest}.",
        functools.partial(charts.sources, table),
    )
    gap = summaries.invariance_gap(runs)
    if gap.sizes["row"]:
        means = _listed(gap["mean"].mean("transform"), "{:+z.2f}")
        yield Picture(
            "invariance_gap",
            f"Bars. Mean gap over the transforms: {means}",
            functools.partial(charts.invariance_gap, gap, colours),
        )
    by_run = summaries.small_translation_by_image(runs)
    small, medians = summaries.over_seeds(by_run), summaries.over_seeds(by_run.median("image"))
    yield Picture(
        "small_translations",
        f"Box plots. Medians: {_listed(medians['mean'], '{:z.2f}')}",
        functools.partial(charts.small_translations, small, medians, colours),
    )
    # The quartiles are among the quantiles that boxes show.
    bands = summaries.over_seeds(summaries.quantiles(runs, charts.LEVELS))
    middle = bands["mean"].sel(quantile=0.5).isel(magnitude=list(summaries.MIDDLE_MAGNITUDES))
    for model in dict.fromkeys(bands["model"].values.tolist()):
        rows = np.flatnonzero(bands["model"].values == model)
        means = _listed(middle.isel(row=rows).mean(("transform", "magnitude")), "{:z.2f}")
        yield Picture(
            f"by_magnitude_{re.sub(r'[^A-Za-z0-9_-]+', '_', model).strip('_')}",
            f"Lines for 13 transforms. Mean over transforms and magnitudes 3 to 7: {means}",
            functools.partial(charts.by_magnitude, bands.isel(row=rows), colours),
            model=model,
        )
    names = ", ".join(map(style.words, BOX_TRANSFORMS))
    yield Picture(
        "boxes_by_magnitude",
        f"Box plots by magnitude for {names}; medians are those of the figures by magnitude.",
        functools.partial(charts.boxes_by_magnitude, bands, BOX_TRANSFORMS, colours),
    )


def _listed(values: xr.DataArray, form: str) -> str:
    pairs = zip(values["row"].values.tolist(), values.values, strict=True)
    return "; ".join(f"{label} {form.format(value)}" for label, value in pairs) + "."


def _cell(cell: xr.DataArray) -> str:
    name = style.words(cell["transform"].item())
    return f"{cell['row'].item()} under {name}, {cell.item():z.2f}"


def _drawn(picture: Picture, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a figure, and says what the page shows of it."""
    figure = picture.draw(narrow=False)
    png = style.save(figure, "png")
    figure.set_layout_engine("none")  # it is laid out now, and that is the slow part
    for ending, content in (("png", png), ("pdf", style.save(figure, "pdf"))):
        with atomic_path(folder / f"{picture.name}.{ending}") as temporary:
            temporary.write_bytes(content)
    narrow = style.save(picture.draw(narrow=True), "png")
    return {
        **dataclasses.asdict(picture),
        "wide": _data_uri(png),
        "narrow": _data_uri(narrow),
        "width": round(figure.get_figwidth() * _CSS_PIXELS_PER_INCH),
    }


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _render(
    results: Results, drawn: Sequence[dict[str, Any]], problems: Sequence[str], command: str
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    accuracy = results.accuracy and {
        "statements": answers.accuracy_statements(results),
        "table": tables.accuracy(results.accuracy),
    }
    return environment.get_template("page.html").render(
        css=markupsafe.Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        answer=answers.answer(results),
        problems=problems,
        pictures={picture["name"]: picture for picture in drawn},
        invariance=_invariance(results.runs) if results.runs else None,
        accuracy=accuracy,
        differences=tables.differences(results),
        command=command,
        version=invariance_jax.__version__,
    )


def _invariance(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "sources": answers.source_statements(runs),
        "small_translations": answers.small_translation_statements(runs),
        "effects": tables.of_effects(runs),
        "groups": tables.invariance(summaries.grouped_invariance(runs)),
        "cosine": tables.invariance(summaries.invariance(runs)),
        "euclidean": tables.invariance(summaries.invariance(runs, measure="euclidean")),
        "provenance": tables.provenance(runs),
        "configs": [(run.title, _pretty(run.data.attrs["config"])) for run in runs],
    }


def _pretty(config: str) -> str:
    return json.dumps(json.loads(config), indent=2, sort_keys=True)
