"""Small multiples: relative invariance against magnitude, one panel a transform."""

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invariance_jax.report import style

_TICKS = (0, 3, 6, 9)


def by_magnitude(
    bands: xr.Dataset,
    magnitudes: xr.Dataset,
    model: str,
    look: style.Look,
    *,
    columns: int,
    width: float,
) -> Figure:
    """Draws every training of one model: the median over images and the interquartile band.

    Args:
        bands: From `summaries.over_seeds` of `summaries.quantiles`, dims (row, quantile,
            transform, magnitude), with the quantiles 0.25, 0.5 and 0.75, of all models.
        magnitudes: With coordinates magnitude_value [transform, magnitude] and unit [transform].
        model: Which model.
        look: Colours and styles of the report.
        columns: Panels side by side.
        width: Inches.

    Returns:
        The figure.
    """
    rows = bands.isel(row=np.flatnonzero(bands["model"].values == model))
    names = bands["transform"].values.tolist()
    # One cell more, for the legend.
    lines = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(width, 0.35 + 1.95 * lines), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    bottom = max(-1.0, float(bands["mean"].min()))
    handles = []
    for cell, panel in enumerate(axes.flat):
        if cell >= len(names):
            panel.axis("off")
            continue
        handles = _panel(panel, rows.isel(transform=cell), model, look)
        _label(panel, magnitudes.isel(transform=cell))
        panel.set_title(style.words(names[cell]))
        panel.set_ylim(min(-0.05, bottom - 0.05), 1.05)
        if cell % columns == 0:
            panel.set_ylabel("relative invariance")
    legend = axes.flat[len(names)].legend(
        handles=handles, loc="center left", title=model, alignment="left", borderaxespad=0
    )
    # A long model name may reach over the empty cells; it must not push the panels apart.
    legend.set_in_layout(False)
    return figure


def _panel(panel: Axes, rows: xr.Dataset, model: str, look: style.Look) -> list[Artist]:
    index = np.arange(rows.sizes["magnitude"])
    handles = []
    for i, training in enumerate(rows["training"].values.tolist()):
        low, middle, high = (
            rows["mean"].isel(row=i).sel(quantile=level).values for level in (0.25, 0.5, 0.75)
        )
        colour = look.colours[training]
        panel.fill_between(index, low, high, color=colour, alpha=0.16, linewidth=0)
        handles += panel.plot(
            index,
            middle,
            color=colour,
            linestyle=look.lines[model],
            marker=look.markers[model],
            label=training,
        )
    panel.axhline(0, color="#444444", linewidth=0.8)
    return handles


def _label(panel: Axes, magnitudes: xr.Dataset) -> None:
    values = magnitudes["magnitude_value"].values
    panel.set_xticks(_TICKS, [tick_label(values[i]) for i in _TICKS])
    panel.set_xlim(-0.4, len(values) - 0.6)
    panel.set_xlabel(axis_label(magnitudes), labelpad=1.5)


def axis_label(magnitudes: xr.Dataset) -> str:
    """Says what the magnitudes of one transform count, and how they are sorted if signed.

    Args:
        magnitudes: Coordinates magnitude_value [magnitude] and unit of one transform.

    Returns:
        A label for an axis.
    """
    signed = (magnitudes["magnitude_value"].values < 0).any()
    return str(magnitudes["unit"].item()) + (", sorted by size" if signed else "")


def tick_label(value: float) -> str:
    """Writes a magnitude in at most four characters, with a true minus sign.

    Args:
        value: Magnitude.

    Returns:
        Two decimals below 10, none above; no trailing zeros.
    """
    text = f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")
