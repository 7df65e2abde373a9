"""The page and its figures: from results to files."""

import base64
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

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
from invariance_jax.report.rows import file_name, words

_FOLDER = pathlib.Path(__file__).parent
BOX_TRANSFORMS = ("translate_x", "rotate", "scale_zoom_in", "increase_brightness")
# A figure 11 inches wide then fills the page, and its text is as large as the page's.
_CSS_PIXELS_PER_INCH = 106


class Picture(NamedTuple):
    """One figure of the page.

    Attributes:
        name: File name without ending; letters, digits, `_` and `-` only.
        alternative: What it shows, for those who cannot see it: the main values.
        draw: Draws it from the data, wide for pages and papers, or narrow for phones.
        data: What `draw` takes.
        model: The model that it is about, if it is about one.
        caption: What stands below it; empty where the page has that.
    """

    name: str
    alternative: str
    draw: Callable[..., Figure]
    data: tuple[Any, ...]
    model: str = ""
    caption: str = ""


class Block(NamedTuple):
    """A part of the section on classes, or of that on the factors of variation.

    Attributes:
        title: Its heading.
        sentences: What it says.
        pictures: Its figures.
        tables: By what stands above each.
    """

    title: str
    sentences: Sequence[str]
    pictures: Sequence[Picture]
    tables: Mapping[str, tables.Table]


def write(
    results: Results,
    output_dir: str | pathlib.Path,
    *,
    example: Float[np.ndarray, "transform magnitude height width 3"] | None = None,
    classes: Sequence[Block] = (),
    factors: Sequence[Block] = (),
    widths: charts.Trajectories | None = None,
    notes: Sequence[str] = (),
    command: str = "",
) -> pathlib.Path:
    """Writes `report.html`, which needs no other file, and its figures as PNG and PDF.

    Args:
        results: From `load.read`.
        output_dir: Where `report.html` and `figures/` shall stand; made if absent.
        example: One image under all transforms and magnitudes, float in [0, 1]; None leaves
            the figure out.
        classes: What there is to say about single classes.
        factors: What there is to say about factors of variation.
        widths: Metrics of runs whose augmentation was learned, by run.
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
        of_blocks = [picture for block in (*classes, *factors) for picture in block.pictures]
        every = [*pictures(results, example, widths or {}), *of_blocks]
        drawn = [_drawn(picture, output / "figures") for picture in every]
    path, missing = output / "report.html", [*results.problems, *notes]
    said = {"classes": classes, "factors": factors, "problems": missing, "command": command}
    write_text(path, _render(results, drawn, **said))
    return path


def pictures(
    results: Results,
    example: Float[np.ndarray, "..."] | None,
    widths: charts.Trajectories = MappingProxyType({}),
) -> Iterator[Picture]:
    """Lists the figures that the results allow.

    Args:
        results: From `load.read`.
        example: One image under all transforms, float in [0, 1], or None.
        widths: Metrics of runs whose augmentation was learned, by run.

    Yields:
        The pictures, in the order of the page, not drawn yet.
    """
    colours = style.colours(each.row for each in (*results.runs, *results.accuracy))
    if results.runs:
        yield from _of_invariance(results.runs, colours)
    if example is not None:
        what = "Grid of one image under every transform and magnitude."
        yield Picture("examples", what, examples.draw, (example,))
    if results.accuracy:
        top1 = summaries.accuracy(results.accuracy)
        what = f"Bars: {_listed(top1['mean'], '{:.1%}')}"
        yield Picture("accuracy", what, charts.accuracy, (top1, colours))
    if widths:
        what = f"Lines. At the end: {_last(widths)}"
        yield Picture("widths", what, charts.widths, (widths,))


def _of_invariance(runs: Sequence[Run], colours: charts.Colours) -> Iterator[Picture]:
    table = summaries.invariance(runs)
    lowest, highest = _cell(table["mean"], np.argmin), _cell(table["mean"], np.argmax)
    what = f"Heat map. Lowest: {lowest}. Highest: {highest}."
    yield Picture("sources", what, charts.sources, (table,))
    gap = summaries.invariance_gap(runs)
    if gap.sizes["row"]:
        means = _listed(gap["mean"].mean("transform"), "{:+z.2f}")
        what = f"Bars. Mean gap over the transforms: {means}"
        yield Picture("invariance_gap", what, charts.invariance_gap, (gap, colours))
    by_run = summaries.small_translation_by_image(runs)
    small, medians = summaries.over_seeds(by_run), summaries.over_seeds(by_run.median("image"))
    what = f"Box plots. Medians: {_listed(medians['mean'], '{:z.2f}')}"
    yield Picture("small_translations", what, charts.small_translations, (small, medians, colours))
    # The quartiles of the lines are among the quantiles of the boxes.
    bands = summaries.over_seeds(summaries.quantiles(runs, charts.LEVELS))
    for model in dict.fromkeys(bands["model"].values.tolist()):
        rows = np.flatnonzero(bands["model"] == model)
        means = _listed(table["mean"].isel(row=rows).mean("transform"), "{:z.2f}")
        what = f"Lines for 13 transforms. Mean over transforms and magnitudes 3 to 7: {means}"
        name = f"by_magnitude_{file_name(model)}"
        yield Picture(name, what, charts.by_magnitude, (bands.isel(row=rows), colours), model)
    names = ", ".join(map(words, BOX_TRANSFORMS))
    what = f"Box plots by magnitude for {names}; medians are those of the figures by magnitude."
    drawn = (bands, BOX_TRANSFORMS, colours)
    yield Picture("boxes_by_magnitude", what, charts.boxes_by_magnitude, drawn)


def _listed(values: xr.DataArray, form: str) -> str:
    pairs = zip(values["row"].values.tolist(), values.values, strict=True)
    return "; ".join(f"{label} {form.format(value)}" for label, value in pairs) + "."


def _last(widths: charts.Trajectories) -> str:
    """The last widths of every run, in words."""
    ends = [
        f"{run}, {words(name.removeprefix(charts.WIDTH))} {rows[-1][name]:.3g}"
        for run, rows in widths.items()
        for name in charts.width_names({run: rows})
    ]
    return "; ".join(ends) + "."


def _cell(values: xr.DataArray, place: Callable[[np.ndarray], np.intp]) -> str:
    """An extreme value, and where it stands."""
    row, column = np.unravel_index(place(values.values), values.shape)
    cell = values[row, column]
    name = words(cell["transform"].item())
    return f"{cell['row'].item()} under {name}, {cell.item():z.2f}"


def _drawn(picture: Picture, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a figure, and says what the page shows of it."""
    figure = picture.draw(*picture.data, narrow=False)
    png = style.save(figure, "png")
    figure.set_layout_engine(None)  # it is laid out now, and to do so again takes long
    for ending, content in (("png", png), ("pdf", style.save(figure, "pdf"))):
        with atomic_path(folder / f"{picture.name}.{ending}") as temporary:
            temporary.write_bytes(content)
    narrow = style.save(picture.draw(*picture.data, narrow=True), "png")
    width = round(figure.get_figwidth() * _CSS_PIXELS_PER_INCH)
    shown = {"wide": _data_uri(png), "narrow": _data_uri(narrow), "width": width}
    return picture._asdict() | shown


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _render(results: Results, drawn: Sequence[dict[str, Any]], **said: Any) -> str:
    """Fills the template, which asks for what it shows."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    modules = {"answers": answers, "summaries": summaries, "tables": tables}
    return environment.get_template("page.html").render(
        css=markupsafe.Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        version=invariance_jax.__version__,
        results=results,
        pictures={picture["name"]: picture for picture in drawn},
        **modules,
        **said,
    )
