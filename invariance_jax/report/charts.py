"""Charts of the summaries, each for pages and papers, or narrow for phones."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from invariance_jax.augment.learned import unit
from invariance_jax.report import style
from invariance_jax.report.rows import words

Colours = Mapping[str, str]
Trajectories = Mapping[str, Sequence[Mapping[str, float | None]]]

# How the metrics call a width in units that people know.
WIDTH = "width/"

# Inches.
WIDE, NARROW = 11, 4.3
# Whiskers span these quantiles: extremes grow with the number of images, quantiles do not.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
HEAT = "cividis"
ZERO = {"color": "#444444", "linewidth": 0.8}
WHISKERS = {"fmt": "none", "ecolor": "black", "lw": 1}


def sources(table: xr.Dataset, *, narrow: bool) -> Figure:
    """Draws a heat map: trainings, in blocks by model, against transforms.

    Args:
        table: From `summaries.invariance`.
        narrow: Let the transforms run downwards.

    Returns:
        The figure.
    """
    blocks = _by_model(table)
    sizes = [block.sizes["row"] for block in blocks.values()]
    height = 5.2 * len(blocks) if narrow else 1.9 + 0.36 * sum(sizes)
    ratios = None if narrow else sizes
    figure = Figure(figsize=(NARROW if narrow else WIDE, height), layout="constrained")
    axes = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=ratios)[:, 0]
    # Colours run from no invariance to full; what is below stays the darkest.
    lowest = _lowest(table["mean"].values)
    for panel, (model, block) in zip(axes, blocks.items(), strict=True):
        values, down, across = (
            block["mean"].values,
            block["training"].values.tolist(),
            _names(table),
        )
        if narrow:
            values, down, across = values.T, across, down
        image = panel.imshow(values, cmap=HEAT, vmin=lowest, vmax=1, aspect="auto")
        colours = matplotlib.colormaps[HEAT](image.norm(values))
        for (line, column), value in np.ndenumerate(values):
            ink = style.readable_on(colours[line, column])
            text = f"{value:z.2f}".replace("-", "\N{MINUS SIGN}")
            panel.text(column, line, text, ha="center", va="center", fontsize=8.5, color=ink)
        panel.set_yticks(range(len(down)), down)
        panel.set_xticks(range(len(across)), across, rotation=35, ha="left", rotation_mode="anchor")
        panel.tick_params(length=0, labelbottom=False, labeltop=narrow or panel is axes[0])
        panel.set_ylabel(model, fontweight="bold")
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    figure.align_ylabels(axes)
    if not narrow:
        figure.colorbar(image, ax=list(axes), label="relative invariance", pad=0.01, aspect=25)
    return figure


def invariance_gap(gap: xr.Dataset, colours: Colours, *, narrow: bool) -> Figure:
    """Draws trained minus untrained, a group of bars a transform, a panel a model.

    Args:
        gap: From `summaries.invariance_gap`, at least one row.
        colours: By training, from `style.colours`.
        narrow: Put one panel below the other.

    Returns:
        The figure.
    """
    blocks, names = _by_model(gap), _names(gap)
    trainings = list(dict.fromkeys(gap["training"].values.tolist()))
    thick = 0.8 / len(trainings)
    height = 1 + len(names) * (0.12 + 0.1 * len(trainings))
    figure, axes = _panels(gap, len(blocks), 1 if narrow else 3, height, colours, narrow)
    for panel, (model, block) in zip(axes, blocks.items(), strict=True):
        for i, training in enumerate(block["training"].values.tolist()):
            shift = thick * (trainings.index(training) - (len(trainings) - 1) / 2)
            place, row = np.arange(len(names)) + shift, block.isel(row=i)
            panel.barh(place, row["mean"], thick, color=colours[training])
            panel.errorbar(row["mean"], place, xerr=row["standard_error"], **WHISKERS)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.axvline(0, **ZERO)
        value_axis(panel, "gap (trained \N{MINUS SIGN} untrained)")
        panel.set_title(model, loc="left", fontweight="bold")
        if panel is not axes[0]:
            panel.sharex(axes[0])
    return figure


def accuracy(table: xr.Dataset, colours: Colours, *, narrow: bool) -> Figure:
    """Draws top-1 accuracy, one bar a row, in blocks by model.

    Args:
        table: From `summaries.accuracy`.
        colours: By training, from `style.colours`.
        narrow: For narrow screens.

    Returns:
        The figure.
    """
    figure, panel, place = _rows(table, narrow)
    values, errors = 100 * table["mean"].values, 100 * table["standard_error"].values
    panel.barh(place, values, 0.75, color=[colours[name] for name in table["training"].values])
    panel.errorbar(values, place, xerr=errors, capsize=2, **WHISKERS)
    for y, value, error in zip(place, values, np.nan_to_num(errors), strict=True):
        panel.text(value + error + 1, y, f"{value:.1f}", va="center")
    panel.set_xlim(0, 109)
    panel.set_xticks(range(0, 101, 20))
    value_axis(panel, "top-1 accuracy (%)")
    return figure


def small_translations(
    by_image: xr.Dataset, medians: xr.Dataset, colours: Colours, *, narrow: bool
) -> Figure:
    """Draws one box a row over images, with the median as number.

    Args:
        by_image: From `summaries.over_seeds` of `summaries.small_translation_by_image`.
        medians: From `summaries.over_seeds` of its median over images.
        colours: By training, from `style.colours`.
        narrow: For narrow screens.

    Returns:
        The figure.
    """
    figure, panel, place = _rows(by_image, narrow)
    stats = np.quantile(by_image["mean"].values, LEVELS, axis=1)
    trainings = by_image["training"].values.tolist()
    draw_boxes(panel, stats, place, 0.7, [colours[name] for name in trainings], "horizontal")
    for y, median in zip(place, medians["mean"].values, strict=True):
        text = f"{median:z.2f}"
        panel.text(1.02, y, text, va="center", transform=panel.get_yaxis_transform())
    panel.set_xlim(_lowest(stats[0]) - 0.03, 1.03)
    value_axis(panel, "relative invariance to small translations")
    return figure


def by_magnitude(bands: xr.Dataset, colours: Colours, *, narrow: bool) -> Figure:
    """Draws every training of one model: the median over images and the interquartile band.

    Args:
        bands: From `summaries.over_seeds` of `summaries.quantiles`, dims (row, quantile,
            transform, magnitude), with the quantiles 0.25, 0.5 and 0.75, of the model's rows;
            coordinates magnitude_value [transform, magnitude] and unit [transform].
        colours: By training, from `style.colours`.
        narrow: Put two panels in a line, not five.

    Returns:
        The figure.
    """
    names, (model,) = _names(bands), _by_model(bands)
    across = 2 if narrow else 5
    figure, axes = _panels(bands, len(names), across, 1.95, colours, narrow, title=model)
    bands = bands.sel(quantile=[0.25, 0.5, 0.75])
    lowest = _lowest(bands["mean"].values)
    for i, (panel, name) in enumerate(zip(axes, names, strict=True)):
        for row in bands["mean"].isel(transform=i):
            low, middle, high = row.transpose("quantile", "magnitude").values
            look = {"color": colours[row["training"].item()], "label": row["training"].item()}
            panel.fill_between(row["magnitude"], low, high, alpha=0.16, linewidth=0, **look)
            panel.plot(row["magnitude"], middle, marker="o", **look)
        _label(panel, name, bands.isel(transform=i), (0, 3, 6, 9), lowest)
    return figure


def boxes_by_magnitude(
    boxes: xr.Dataset, transforms: Sequence[str], colours: Colours, *, narrow: bool
) -> Figure:
    """Draws the paper's plot: boxes over images by magnitude, one box a row.

    Args:
        boxes: From `summaries.over_seeds` of `summaries.quantiles` at `LEVELS`; coordinates as in
            `by_magnitude`.
        transforms: Which ones, a panel each for each model.
        colours: By training, from `style.colours`.
        narrow: Put one panel below the other, and draw every second magnitude.

    Returns:
        The figure.
    """
    blocks, step = _by_model(boxes), 2 if narrow else 1
    chosen = np.arange(step - 1, boxes.sizes["magnitude"], step)
    panels = list(itertools.product(transforms, blocks.items()))
    across = 1 if narrow else min(2, len(blocks))
    figure, axes = _panels(boxes, len(panels), across, 2.1, colours, narrow)
    lowest = _lowest(boxes["mean"].sel(transform=list(transforms)).values)
    for panel, (name, (model, block)) in zip(axes, panels, strict=True):
        thick = 0.84 * step / block.sizes["row"]
        for i, row in enumerate(block["mean"].sel(transform=name)):
            place = chosen + thick * (i - (block.sizes["row"] - 1) / 2)
            stats = row.sel(quantile=list(LEVELS)).isel(magnitude=chosen).values
            colour = [colours[row["training"].item()]] * len(chosen)
            draw_boxes(panel, stats, place, 0.86 * thick, colour, "vertical")
        _label(panel, f"{words(name)}, {model}", block.sel(transform=name), chosen, lowest)
        panel.set_xlim(chosen[0] - 0.5 * step, chosen[-1] + 0.5 * step)
    return figure


def widths(trajectories: Trajectories, *, narrow: bool) -> Figure:
    """Draws how wide learned augmentations became, a panel a generator, a line a run.

    Args:
        trajectories: Rows of metrics by run, with "step" and "width/GENERATOR".
        narrow: Put one panel below the other.

    Returns:
        The figure.
    """
    names = width_names(trajectories)
    across = 1 if narrow else min(3, len(names))
    down = -(-len(names) // across)
    size = (NARROW if narrow else WIDE, 0.4 + 0.2 * len(trajectories) + 2.3 * down)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for spare in axes[len(names) :]:
        spare.axis("off")
    lines = {}
    for panel, name in zip(axes, names, strict=False):
        for label, rows in trajectories.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                colour = lines[label].get_color() if label in lines else None
                (lines[label],) = panel.plot(*zip(*points, strict=True), color=colour)
        generator = name.removeprefix(WIDTH)
        panel.set_title(words(generator), loc="left", fontweight="bold")
        panel.set_xlabel("step")
        panel.set_ylabel(unit(generator))
        panel.set_ylim(bottom=0)
    figure.legend(lines.values(), lines, loc="outside upper left", alignment="left")
    return figure


def width_names(trajectories: Trajectories) -> list[str]:
    """Names of the metrics that are drawn: "width/GENERATOR" of every run."""
    rows = (row for rows in trajectories.values() for row in rows)
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(WIDTH)))


def _by_model(table: xr.Dataset) -> dict[str, xr.Dataset]:
    models = table["model"].values
    return {
        str(model): table.isel(row=np.flatnonzero(models == model))
        for model in dict.fromkeys(models)
    }


def _names(table: xr.Dataset) -> list[str]:
    return [words(name) for name in table["transform"].values.tolist()]


def _lowest(values: np.ndarray) -> float:
    """Where an axis begins: at 0, or below as far as values go and make sense."""
    return max(-1.0, min(0.0, float(values.min())))


def _panels(
    table: xr.Dataset,
    count: int,
    across: int,
    height: float,
    colours: Colours,
    narrow: bool,
    title: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """Makes panels of a height in inches, and a legend of the table's trainings above them."""
    across = min(across, count)
    width, down = NARROW if narrow else WIDE, -(-count // across)
    trainings = list(dict.fromkeys(table["training"].values.tolist()))
    columns = max(1, int(width / (0.5 + 0.08 * max(map(len, trainings)))))
    legend = 0.3 + 0.2 * -(-len(trainings) // columns)
    figure = Figure(figsize=(width, legend + height * down), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.axis("off")
    figure.legend(
        handles=[Patch(color=colours[name], label=name) for name in trainings],
        loc="outside upper left",
        ncols=columns,
        title=title,
        alignment="left",
    )
    return figure, list(axes[:count])


def _rows(table: xr.Dataset, narrow: bool) -> tuple[Figure, Axes, np.ndarray]:
    """Labels rows that lie below one another, in blocks with the model as heading."""
    models = table["model"].values.tolist()
    first = np.asarray([True, *(a != b for a, b in itertools.pairwise(models))])
    place = np.arange(len(models)) + 1.0 * np.cumsum(first)
    size = (NARROW if narrow else 6.5, 0.8 + 0.36 * (len(models) + first.sum()))
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    beside = panel.get_yaxis_transform()
    for i in np.flatnonzero(first):
        panel.text(0.012, place[i] - 0.65, models[i], fontweight="bold", transform=beside)
    panel.set_yticks(place, table["training"].values.tolist())
    panel.set_ylim(place[-1] + 0.6, place[0] - 1.3)
    return figure, panel, place


def value_axis(panel: Axes, label: str) -> None:
    """Lets values run along x.

    Args:
        panel: Where.
        label: What they are.
    """
    panel.set_xlabel(label)
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")


def _label(panel: Axes, title: str, grid: xr.Dataset, ticks: Sequence[int], lowest: float) -> None:
    """Labels a panel of relative invariance against the magnitude of one transform."""
    values = grid["magnitude_value"].values
    panel.set_title(title, loc="left", fontweight="bold")
    panel.set_xticks(ticks, [tick_label(values[i]) for i in ticks])
    panel.set_xlim(-0.55, len(values) - 0.45)
    panel.set_xlabel(axis_label(grid), labelpad=1.5)
    panel.set_ylim(lowest - 0.05, 1.05)
    panel.axhline(0, **ZERO)
    if panel.get_subplotspec().is_first_col():
        panel.set_ylabel("relative invariance")


def axis_label(grid: xr.Dataset) -> str:
    """Says what the magnitudes of one transform count, and how they are sorted if signed.

    Args:
        grid: Coordinates magnitude_value [magnitude] and unit of one transform.

    Returns:
        A label for an axis.
    """
    signed = (grid["magnitude_value"].values < 0).any()
    return str(grid["unit"].item()) + (", sorted by size" if signed else "")


def tick_label(value: float) -> str:
    """Writes a magnitude in at most four characters, with a true minus sign.

    Args:
        value: Magnitude.

    Returns:
        Two decimals below 10, none above; no trailing zeros.
    """
    text = f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")


def draw_boxes(
    panel: Axes,
    stats: np.ndarray,
    place: np.ndarray,
    width: float,
    colours: Sequence[str],
    orientation: Literal["vertical", "horizontal"],
) -> None:
    """Draws boxes.

    Args:
        panel: Where.
        stats: Their quantiles at `LEVELS` [5, boxes].
        place: Where each stands.
        width: Of each.
        colours: Of each.
        orientation: Which way values run.
    """
    names = ("whislo", "q1", "med", "q3", "whishi")
    thin = {"color": "#555555", "linewidth": 0.8}
    drawn = panel.bxp(
        [dict(zip(names, column, strict=True)) for column in stats.T],
        positions=place,
        widths=width,
        orientation=orientation,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        capwidths=width / 2,
        medianprops={"color": "black", "linewidth": 1.4},
        whiskerprops=thin,
        capprops=thin,
    )
    for box, colour in zip(drawn["boxes"], colours, strict=True):
        box.set(facecolor=colour, edgecolor=colour, linewidth=0.3)
