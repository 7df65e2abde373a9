"""Bars: the invariance gap of every transform, and accuracy."""

import itertools

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from invariance_jax.report import style


def invariance_gap(gap: xr.Dataset, look: style.Look, *, narrow: bool) -> Figure:
    """Draws trained minus untrained, a group of bars a transform, a panel a model.

    Args:
        gap: From `summaries.invariance_gap`, at least one row.
        look: Colours and styles of the report.
        narrow: Lay the bars, and put the panels one below the other, for narrow screens.

    Returns:
        The figure.
    """
    models = list(dict.fromkeys(gap["model"].values.tolist()))
    trainings = list(dict.fromkeys(gap["training"].values.tolist()))
    names = [style.words(name) for name in gap["transform"].values.tolist()]
    size = (
        (4.3, (1 + 1.1 * len(trainings) + 3) * len(models))
        if narrow
        else (
            11,
            0.9 + 2.5 * len(models),
        )
    )
    figure = Figure(figsize=size, layout="constrained")
    shared = {"sharey": True} if not narrow else {"sharex": True}
    axes = figure.subplots(len(models), 1, squeeze=False, **shared)[:, 0]
    thick = 0.8 / len(trainings)
    for panel, model in zip(axes, models, strict=True):
        for row in np.flatnonzero(gap["model"].values == model):
            training = str(gap["training"].values[row])
            place = np.arange(len(names)) + thick * (
                trainings.index(training) - (len(trainings) - 1) / 2
            )
            values, errors = gap["mean"].values[row], gap["standard_error"].values[row]
            paint = {
                "color": look.colours[training],
                "hatch": look.hatches[model],
                "edgecolor": "white",
                "linewidth": 0,
            }
            if narrow:
                panel.barh(place, values, thick, **paint)
                panel.errorbar(values, place, xerr=errors, fmt="none", ecolor="black", lw=1)
            else:
                panel.bar(place, values, thick, **paint)
                panel.errorbar(place, values, yerr=errors, fmt="none", ecolor="black", lw=1)
        panel.set_title(model, loc="left", fontweight="bold")
        if narrow:
            panel.set_yticks(range(len(names)), names)
            panel.set_ylim(len(names) - 0.4, -0.6)
            panel.axvline(0, color="#444444", linewidth=0.8)
            panel.grid(visible=True, axis="x")
            panel.grid(visible=False, axis="y")
            panel.tick_params(labelbottom=True)
        else:
            panel.set_xticks(range(len(names)), names, rotation=25, ha="right")
            panel.set_xlim(-0.6, len(names) - 0.4)
            panel.axhline(0, color="#444444", linewidth=0.8)
            panel.set_ylabel("gap (trained \N{MINUS SIGN} untrained)")
            panel.tick_params(labelbottom=panel is axes[-1])
    if narrow:
        axes[-1].set_xlabel("invariance gap (trained \N{MINUS SIGN} untrained)")
    figure.legend(
        handles=[Patch(color=look.colours[name], label=name) for name in trainings],
        loc="outside upper left" if narrow else "outside upper right",
        ncols=1 if narrow else min(6, len(trainings)),
    )
    return figure


def accuracy(table: xr.Dataset, look: style.Look, *, width: float) -> Figure:
    """Draws top-1 accuracy, one bar a row, in blocks by model.

    Args:
        table: From `summaries.accuracy`.
        look: Colours and styles of the report.
        width: Inches.

    Returns:
        The figure.
    """
    count = table.sizes["row"]
    models = table["model"].values.tolist()
    trainings = table["training"].values.tolist()
    values, errors = 100 * table["mean"].values, 100 * table["standard_error"].values
    figure = Figure(figsize=(width, 0.8 + 0.36 * (count + len(set(models)))), layout="constrained")
    panel = figure.subplots()
    place = label_rows(panel, models, trainings)
    panel.barh(
        place,
        values,
        0.75,
        color=[look.colours[training] for training in trainings],
        hatch=[look.hatches[model] for model in models],
        edgecolor="white",
        linewidth=0,
    )
    panel.errorbar(values, place, xerr=errors, fmt="none", ecolor="black", lw=1, capsize=2)
    for y, value, error in zip(place, values, np.nan_to_num(errors), strict=True):
        panel.text(value + error + 1, y, f"{value:.1f}", va="center")
    panel.set_xlim(0, 109)
    panel.set_xticks(range(0, 101, 20))
    panel.set_xlabel("top-1 accuracy (%)")
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")
    return figure


def label_rows(panel: Axes, models: list[str], trainings: list[str]) -> np.ndarray:
    """Labels rows that lie below one another, in blocks by model with the model as heading.

    Args:
        panel: Where.
        models: Model of each row.
        trainings: Training of each row.

    Returns:
        float64 [rows]: where each row lies on the vertical axis.
    """
    first = np.asarray([True, *(a != b for a, b in itertools.pairwise(models))])
    place = np.arange(len(models)) + 1.0 * np.cumsum(first)
    for i in np.flatnonzero(first):
        panel.text(
            0.012,
            place[i] - 0.65,
            models[i],
            fontweight="bold",
            va="bottom",
            transform=panel.get_yaxis_transform(),
        )
    panel.set_yticks(place, trainings)
    panel.set_ylim(place[-1] + 0.6, place[0] - 1.3)
    return place
