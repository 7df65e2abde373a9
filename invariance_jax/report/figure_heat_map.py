"""Heat map: which row is invariant to which transform."""

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from invariance_jax.report import style

_COLOURS = "cividis"


def sources(table: xr.Dataset) -> Figure:
    """Draws rows (trainings, in blocks by model) against columns (transforms).

    Args:
        table: From `summaries.invariance`.

    Returns:
        The figure, wide.
    """
    models = list(dict.fromkeys(table["model"].values.tolist()))
    sizes = [int((table["model"].values == model).sum()) for model in models]
    figure = Figure(figsize=(11, 1.9 + 0.36 * sum(sizes)), layout="constrained")
    axes = figure.subplots(len(models), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
    for panel, model in zip(axes, models, strict=True):
        block = table.isel(row=np.flatnonzero(table["model"].values == model))
        image = _block(panel, block["mean"].values, _limits(table), size=8.5)
        panel.set_yticks(range(block.sizes["row"]), block["training"].values.tolist())
        panel.set_ylabel(model, fontweight="bold")
        panel.tick_params(labelbottom=False)
    names = [style.words(name) for name in table["transform"].values.tolist()]
    axes[0].set_xticks(range(len(names)), names, rotation=35, ha="left", rotation_mode="anchor")
    axes[0].tick_params(labeltop=True)
    figure.colorbar(image, ax=list(axes), label="relative invariance", pad=0.01, aspect=25)
    return figure


def sources_narrow(table: xr.Dataset) -> Figure:
    """Draws the same for narrow screens: transforms downwards, one block a model.

    Args:
        table: From `summaries.invariance`.

    Returns:
        The figure, narrow.
    """
    models = list(dict.fromkeys(table["model"].values.tolist()))
    names = [style.words(name) for name in table["transform"].values.tolist()]
    figure = Figure(figsize=(4.3, 5.2 * len(models)), layout="constrained")
    axes = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for panel, model in zip(axes, models, strict=True):
        block = table.isel(row=np.flatnonzero(table["model"].values == model))
        _block(panel, block["mean"].values.T, _limits(table), size=9)
        panel.set_yticks(range(len(names)), names)
        trainings = block["training"].values.tolist()
        panel.set_xticks(
            range(len(trainings)), trainings, rotation=30, ha="left", rotation_mode="anchor"
        )
        panel.tick_params(labelbottom=False, labeltop=True)
        panel.set_xlabel(model, fontweight="bold")
        panel.xaxis.set_label_position("bottom")
    return figure


def _limits(table: xr.Dataset) -> tuple[float, float]:
    """Colours run from no invariance to full invariance; below -1 they stay the darkest."""
    return max(-1.0, min(0.0, float(table["mean"].min()))), 1.0


def _block(
    panel: Axes, values: np.ndarray, limits: tuple[float, float], *, size: float
) -> AxesImage:
    image = panel.imshow(
        values, cmap=_COLOURS, vmin=limits[0], vmax=limits[1], aspect="auto", origin="upper"
    )
    colours = matplotlib.colormaps[_COLOURS](image.norm(values))
    for (line, column), value in np.ndenumerate(values):
        panel.text(
            column,
            line,
            f"{value:z.2f}".replace("-", "\N{MINUS SIGN}"),
            ha="center",
            va="center",
            fontsize=size,
            color=style.readable_on(colours[line, column]),
        )
    panel.grid(False)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    return image
