"""Box plots over images: small translations, and the paper's boxes by magnitude."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from invariance_jax.report import style
from invariance_jax.report.figure_bars import label_rows
from invariance_jax.report.figure_lines import axis_label, tick_label

# Whiskers span these quantiles: extremes grow with the number of images, quantiles do not.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_NARROW_MAGNITUDES = (1, 3, 5, 7, 9)


def small_translations(
    by_image: xr.Dataset, medians: xr.Dataset, look: style.Look, *, width: float
) -> Figure:
    """Draws one box a row over images, with the median as number.

    Args:
        by_image: From `summaries.over_seeds` of `summaries.small_translation_by_image`.
        medians: From `summaries.over_seeds` of its median over images.
        look: Colours and styles of the report.
        width: Inches.

    Returns:
        The figure.
    """
    models = by_image["model"].values.tolist()
    trainings = by_image["training"].values.tolist()
    size = (width, 0.8 + 0.36 * (len(models) + len(set(models))))
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    place = label_rows(panel, models, trainings)
    stats = np.quantile(by_image["mean"].values, LEVELS, axis=1)
    _boxes(panel, stats, place, 0.7, models, trainings, look, vertical=False)
    for y, median in zip(place, medians["mean"].values, strict=True):
        text = f"{median:z.2f}"
        panel.text(1.02, y, text, va="center", transform=panel.get_yaxis_transform())
    panel.set_xlim(max(-1.0, min(0.0, float(stats[0].min()))) - 0.03, 1.03)
    panel.set_xlabel("relative invariance to small translations")
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")
    return figure


def by_magnitude(
    boxes: xr.Dataset,
    magnitudes: xr.Dataset,
    transforms: Sequence[str],
    look: style.Look,
    *,
    narrow: bool,
) -> Figure:
    """Draws the paper's plot: boxes over images by magnitude, one box a row.

    Args:
        boxes: From `summaries.over_seeds` of `summaries.quantiles` at `LEVELS`.
        magnitudes: With coordinates magnitude_value [transform, magnitude] and unit [transform].
        transforms: Which ones, a panel each.
        look: Colours and styles of the report.
        narrow: One panel a model and transform and every second magnitude, for narrow screens.

    Returns:
        The figure.
    """
    models = list(dict.fromkeys(boxes["model"].values.tolist()))
    blocks = [[model] for model in models] if narrow else [models]
    panels = [(name, block) for name in transforms for block in blocks]
    legend_lines = boxes.sizes["row"] / 3 if not narrow else boxes.sizes["row"] / 1.0
    size = (4.3 if narrow else 11, 2.1 * len(panels) + 0.2 * legend_lines + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharey=True)[:, 0]
    bottom = max(-1.0, min(0.0, float(boxes["mean"].sel(transform=list(transforms)).min())))
    chosen = np.asarray(_NARROW_MAGNITUDES if narrow else range(boxes.sizes["magnitude"]))
    for panel, (name, block) in zip(axes, panels, strict=True):
        rows = boxes.isel(row=np.flatnonzero(np.isin(boxes["model"].values, block)))
        values = rows["mean"].sel(transform=name, quantile=list(LEVELS)).isel(magnitude=chosen)
        thick = 0.84 / rows.sizes["row"]
        for i in range(rows.sizes["row"]):
            shift = thick * (i - (rows.sizes["row"] - 1) / 2)
            place = np.arange(len(chosen)) + shift
            model, training = (str(rows[key].values[i]) for key in ("model", "training"))
            stats = values.isel(row=i).transpose("quantile", "magnitude").values
            many = [model] * len(place), [training] * len(place)
            _boxes(panel, stats, place, 0.86 * thick, *many, look, vertical=True)
        here = magnitudes.sel(transform=name)
        labels = [tick_label(value) for value in here["magnitude_value"].values[chosen]]
        panel.set_xticks(range(len(chosen)), labels)
        panel.set_xlim(-0.55, len(chosen) - 0.45)
        panel.set_xlabel(axis_label(here), labelpad=1.5)
        panel.set_ylabel("relative invariance")
        panel.set_ylim(bottom - 0.05, 1.05)
        panel.axhline(0, color="#444444", linewidth=0.8)
        title = style.words(name) + (f", {block[0]}" if narrow else "")
        panel.set_title(title, loc="left", fontweight="bold")
    figure.legend(
        handles=_legend(boxes, look),
        loc="outside upper left",
        ncols=1 if narrow else 4,
        handleheight=1.2,
    )
    return figure


def _boxes(
    panel: Axes,
    stats: np.ndarray,
    place: np.ndarray,
    width: float,
    models: Sequence[str],
    trainings: Sequence[str],
    look: style.Look,
    *,
    vertical: bool,
) -> None:
    """Draws boxes from their quantiles [5, boxes]."""
    names = ("whislo", "q1", "med", "q3", "whishi")
    drawn = panel.bxp(
        [dict(zip(names, column, strict=True)) for column in stats.T],
        positions=place,
        widths=width,
        orientation="vertical" if vertical else "horizontal",
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        capwidths=width / 2,
        medianprops={"color": "black", "linewidth": 1.4},
        whiskerprops={"color": "#555555", "linewidth": 0.8},
        capprops={"color": "#555555", "linewidth": 0.8},
    )
    for box, model, training in zip(drawn["boxes"], models, trainings, strict=True):
        _paint(box, look.colours[training], look.hatches[model])


def _paint(box: Patch, colour: str, hatch: str) -> None:
    box.set(facecolor=colour, edgecolor="white" if hatch else colour, hatch=hatch, linewidth=0.3)


def _legend(table: xr.Dataset, look: style.Look) -> list[Patch]:
    models, trainings = table["model"].values.tolist(), table["training"].values.tolist()
    handles = []
    for model, training in zip(models, trainings, strict=True):
        patch = Patch(label=f"{model}, {training}")
        _paint(patch, look.colours[training], look.hatches[model])
        handles.append(patch)
    return handles
