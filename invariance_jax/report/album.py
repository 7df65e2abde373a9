"""The report's figures in order, each with its caption and a text for those who cannot see it."""

import dataclasses
import re
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from invariance_jax.report import (
    figure_bars,
    figure_boxes,
    figure_examples,
    figure_heat_map,
    figure_lines,
    style,
    summaries,
)
from invariance_jax.report.load import Results

# Magnitudes that the example grid keeps on narrow screens.
_NARROW = (0, 2, 4, 6, 9)
BOX_TRANSFORMS = ("translate_x", "rotate", "scale_zoom_in", "increase_brightness")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure of the page.

    Attributes:
        name: File name without ending; letters, digits, `_` and `-` only.
        title: A few words.
        caption: What it shows and how to read it.
        alternative: The same for screen readers, with the main values.
        wide: Draws it for desktop screens and papers.
        narrow: Draws it for phones.
    """

    name: str
    title: str
    caption: str
    alternative: str
    wide: Callable[[], Figure]
    narrow: Callable[[], Figure]


def pictures(results: Results, examples: Float[np.ndarray, "13 10 H W 3"] | None) -> list[Picture]:
    """Lists the figures that the results allow.

    Args:
        results: From `load.read`.
        examples: One image under all transforms, float in [0, 1], or None.

    Returns:
        The pictures, in the order of the page, not drawn yet.

    Raises:
        UserError: The examples have another shape or range.
    """
    if examples is not None:
        figure_examples.check(examples)
    return list(_pictures(results, examples))


def _pictures(
    results: Results, examples: Float[np.ndarray, "13 10 H W 3"] | None
) -> Iterator[Picture]:
    look = style.look(entry.row for entry in (*results.runs, *results.accuracy))
    if results.runs:
        yield from _invariance(results, look, examples)
    if results.accuracy:
        top1 = summaries.accuracy(results.accuracy)
        yield Picture(
            name="accuracy",
            title="Accuracy",
            caption="Top-1 accuracy on the validation split, mean over seeds; whiskers are one "
            "standard error where there are several seeds.",
            alternative="Bars: " + _listed(top1, "{:.1%}"),
            wide=lambda: figure_bars.accuracy(top1, look, width=6.5),
            narrow=lambda: figure_bars.accuracy(top1, look, width=4.3),
        )


def _invariance(
    results: Results, look: style.Look, images: Float[np.ndarray, "13 10 H W 3"] | None
) -> Iterator[Picture]:
    grid = results.runs[0].data
    table = summaries.invariance(results.runs)
    lowest, highest = (
        table["mean"].where(table["mean"] == extreme, drop=True)
        for extreme in (table["mean"].min(), table["mean"].max())
    )
    yield Picture(
        name="sources",
        title="Where does invariance come from?",
        caption="Relative invariance (cosine), median over images, averaged over magnitudes 3 to "
        "7 of each transform. Down a block, training changes; between blocks, the architecture. "
        "Brighter is more invariant; values below \N{MINUS SIGN}1 look like \N{MINUS SIGN}1.",
        alternative=f"Heat map. Lowest: {_extreme(lowest)}. Highest: {_extreme(highest)}.",
        wide=lambda: figure_heat_map.sources(table),
        narrow=lambda: figure_heat_map.sources_narrow(table),
    )
    gap = summaries.invariance_gap(table)
    if gap.sizes["row"]:
        yield Picture(
            name="invariance_gap",
            title="What training adds, by transform",
            caption="Invariance gap: relative invariance of the trained model minus that of the "
            "untrained model of the same architecture (mean over magnitudes 3 to 7 of the "
            "difference of medians). Above zero, training made it more invariant. Whiskers are "
            "one standard error where both have several seeds.",
            alternative="Bars. Mean gap over the transforms: "
            + _listed(gap.mean("transform"), "{:+z.2f}"),
            wide=lambda: figure_bars.invariance_gap(gap, look, narrow=False),
            narrow=lambda: figure_bars.invariance_gap(gap, look, narrow=True),
        )
    by_run = summaries.small_translation_by_image(results.runs)
    small, medians = summaries.over_seeds(by_run), summaries.over_seeds(by_run.median("image"))
    yield Picture(
        name="small_translations",
        title="Small translations",
        caption="Relative invariance to small translations: for each image the mean over "
        "translate_x and translate_y at magnitudes 1 and 2 (25 and 50 pixels of 224). Boxes hold "
        "the middle half of the images, the line is the median, whiskers reach from 5% to 95%; an "
        "image counts with its mean over seeds. The number is the median, mean over seeds. "
        "The axis does not go below \N{MINUS SIGN}1.",
        alternative="Box plots. Medians: " + _listed(medians, "{:z.2f}"),
        wide=lambda: figure_boxes.small_translations(small, medians, look, width=6.5),
        narrow=lambda: figure_boxes.small_translations(small, medians, look, width=4.3),
    )
    bands = summaries.over_seeds(summaries.quantiles(results.runs))
    for model in dict.fromkeys(bands["model"].values.tolist()):
        yield _lines(model, bands, grid, look)
    boxes = summaries.over_seeds(summaries.quantiles(results.runs, figure_boxes.LEVELS))
    yield Picture(
        name="boxes_by_magnitude",
        title="Spread over images",
        caption="Relative invariance by magnitude, one box a model: the middle half of the images, "
        "the median, whiskers from 5% to 95%. Quantiles are averaged over seeds; "
        "the axis does not go below \N{MINUS SIGN}1. On narrow "
        "screens every second magnitude is left out.",
        alternative="Box plots by magnitude for "
        + ", ".join(style.words(name) for name in BOX_TRANSFORMS)
        + "; medians are those of the figures by magnitude.",
        wide=lambda: figure_boxes.by_magnitude(boxes, grid, BOX_TRANSFORMS, look, narrow=False),
        narrow=lambda: figure_boxes.by_magnitude(boxes, grid, BOX_TRANSFORMS, look, narrow=True),
    )
    if images is not None:
        yield Picture(
            name="examples",
            title="The transforms",
            caption="One image under the 13 transforms (downwards) at the 10 magnitudes (across), "
            "the weakest first; narrow screens show five of them.",
            alternative="Grid of one image under every transform and magnitude.",
            wide=lambda: figure_examples.examples(images, grid),
            narrow=lambda: figure_examples.examples(
                images[:, list(_NARROW)], grid.isel(magnitude=list(_NARROW))
            ),
        )


def _lines(model: str, bands: xr.Dataset, grid: xr.Dataset, look: style.Look) -> Picture:
    rows = bands.isel(row=np.flatnonzero(bands["model"].values == model))
    middle = rows.sel(quantile=0.5).isel(magnitude=list(summaries.MIDDLE_MAGNITUDES))
    return Picture(
        name=f"by_magnitude_{re.sub(r'[^A-Za-z0-9_-]+', '_', model).strip('_')}",
        title=f"Invariance by magnitude: {model}",
        caption="Median over images of relative invariance (line) and the middle half of the "
        "images (band) against the transform's magnitude; the leftmost point is the identity. "
        "1: the embedding does not move. 0 (dark line): as far as that of another image. "
        "Mean over seeds. The axis does not go below \N{MINUS SIGN}1.",
        alternative="Lines for 13 transforms. Mean over transforms and magnitudes 3 to 7: "
        + _listed(middle.mean(("transform", "magnitude")), "{:z.2f}"),
        wide=lambda: figure_lines.by_magnitude(bands, grid, model, look, columns=5, width=11),
        narrow=lambda: figure_lines.by_magnitude(bands, grid, model, look, columns=2, width=4.6),
    )


def _listed(table: xr.Dataset, form: str) -> str:
    values = zip(table["row"].values.tolist(), table["mean"].values, strict=True)
    return "; ".join(f"{label} {form.format(value)}" for label, value in values) + "."


def _extreme(cell: xr.DataArray) -> str:
    row, transform = cell["row"].values[0], cell["transform"].values[0]
    value = float(cell.sel(row=row, transform=transform))
    return f"{row} under {style.words(str(transform))}, {value:z.2f}"
