"""Charts of the factors of variation, each for pages and papers, or narrow for phones."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from invariance_jax.factors import rankings, wordnet
from invariance_jax.factors.alignment import Alignment
from invariance_jax.factors.foreground import QUANTITIES
from invariance_jax.report.charts import (
    HEAT,
    LEVELS,
    NARROW,
    WHISKERS,
    WIDE,
    ZERO,
    draw_boxes,
    value_axis,
)
from invariance_jax.report.factors import COMPARED
from invariance_jax.report.rows import words

_KINDS = {"appearance": "#E69F00", "geometric": "#0072B2", "mixed": "#8C8C8C"}
_GAINED, _LOST = "#009E73", "#8C8C8C"
_CHANCE = {"color": "black", "linewidth": 1.6}
# More classes than this cannot be told by their labels, and phones show fewer rows.
_LABELLED, _ROWS_OF_PHONES = 120, 14


def _titled(width: float, height: float, scope: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    lines = int(width * 15)
    figure.suptitle(_wrapped(scope, lines), x=0.01, ha="left", size=8.5, color="#57606a")
    return figure


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.rstrip() for line in lines)


def heat(statistics: xr.Dataset, class_names: Sequence[str], scope: str, *, narrow: bool) -> Figure:
    """Draws the proportion of pairs that each row boosts, classes against rows.

    Args:
        statistics: Statistics of a search; copies are left out.
        class_names: What the classes are called.
        scope: What was searched, for the figure to say.
        narrow: Show the first rows only, for narrow screens.

    Returns:
        The figure: rows sorted by their mean over classes, classes by their mean over rows.
    """
    table = rankings.distinct(statistics)
    order = rankings.order(table, over_classes=True)[0]
    table = table.isel(row=order[:_ROWS_OF_PHONES] if narrow else order)
    values = table["proportion_boosted"].transpose("class", "row").values
    lines = np.argsort(-values.mean(axis=1), kind="stable")
    height = 1.6 + float(np.clip(0.135 * len(lines), 1.2, 9))
    figure = _titled(NARROW if narrow else WIDE, height + 0.3, scope)
    panel = figure.subplots()
    image = panel.imshow(values[lines], cmap=HEAT, vmin=0, aspect="auto", interpolation="none")
    labels, kinds = table["row"].values.tolist(), table["kind"].values.tolist()
    panel.set_xticks(range(len(labels)), map(words, labels), rotation=90, size=7.5)
    for tick, kind in zip(panel.get_xticklabels(), kinds, strict=True):
        tick.set_color(_KINDS[kind])
    named = len(lines) <= _LABELLED
    names = [_cut(class_names[line], 24) for line in lines] if named else []
    size = 8 if len(lines) <= 40 else 6
    panel.set_yticks(range(len(names)), names, size=size)
    if not named:
        panel.set_ylabel(f"{len(lines)} classes")
    panel.tick_params(length=0)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panel, label="proportion of pairs boosted", pad=0.01, aspect=25)
    _legend(figure, dict.fromkeys(kinds))
    return figure


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _legend(figure: Figure, kinds: Mapping[str, None]) -> None:
    handles = [Patch(color=_KINDS[kind], label=kind) for kind in _KINDS if kind in kinds]
    figure.legend(handles=handles, loc="outside lower left", ncols=3)


def first_rows(statistics: xr.Dataset, top: int, scope: str, *, narrow: bool) -> Figure:
    """Draws how often each operation is among the first rows of a class, beside chance.

    Args:
        statistics: Statistics of a search.
        top: How many rows of a class count, by the proportion of pairs boosted.
        scope: What was searched, for the figure to say.
        narrow: For narrow screens.

    Returns:
        The figure.
    """
    counts = rankings.counts(statistics, top)
    slots = top * statistics.sizes["class"]
    place, values = np.arange(counts.size), 100 * counts.values / slots
    figure = _titled(NARROW if narrow else 6.5, 1.6 + 0.26 * counts.size, scope)
    panel = figure.subplots()
    kinds = counts["kind"].values.tolist()
    panel.barh(place, values, 0.72, color=[_KINDS[kind] for kind in kinds])
    _chance(panel, 100 * counts["expected"].values / slots, place)
    panel.set_yticks(place, map(words, counts["operation"].values.tolist()))
    panel.set_ylim(counts.size - 0.4, -0.6)
    value_axis(panel, f"% of the first {top} rows of the classes (line: chance)")
    _legend(figure, dict.fromkeys(kinds))
    return figure


def _chance(panel: Axes, values: np.ndarray, place: np.ndarray) -> None:
    panel.vlines(values, place - 0.4, place + 0.4, **_CHANCE)


def alignment(found: Mapping[str, Alignment], scope: str, *, narrow: bool) -> Figure:
    """Draws which transforms are among the first rows, and whether training gained invariance.

    Args:
        found: By the name of the search.
        scope: What was searched, for the figure to say.
        narrow: Put one panel below the other.

    Returns:
        The figure: for each search the share of each transform, coloured by its invariance gap,
        and at last the paper's bars and the share of all slots whose gap is positive.
    """
    count = len(found) + 1
    sizes = [each.slots.size for each in found.values()]
    height = 1.6 + 0.27 * max(sizes)
    figure = _titled(NARROW if narrow else WIDE, height * (count if narrow else 1), scope)
    panels = figure.subplots(*((count, 1) if narrow else (1, count)), squeeze=False).ravel()
    for panel, (name, each) in zip(panels[:-1], found.items(), strict=True):
        slots = each.slots.isel(transform=np.argsort(-each.slots.values, kind="stable"))
        place = np.arange(slots.size)
        colours = [_GAINED if gap > 0 else _LOST for gap in slots["gap"].values]
        panel.barh(place, 100 * slots.values / slots.values.sum(), 0.72, color=colours)
        _chance(panel, 100 * slots["rows"].values / slots["rows"].values.sum(), place)
        panel.set_yticks(place, map(words, slots["transform"].values.tolist()))
        panel.set_ylim(slots.size - 0.4, -0.6)
        panel.set_title(_wrapped(name, 38), loc="left", fontweight="bold")
        value_axis(panel, "% of the first rows (line: chance)")
    panel, step = panels[-1], len(found) + 1.0
    labels = {}
    for i, (name, each) in enumerate(found.items()):
        place = step * np.arange(3) + i
        labels |= dict.fromkeys(place.tolist(), _wrapped(name, 24))
        values = 100 * np.array([each.positive, each.other, each.share])
        panel.barh(place, values, 0.72, color=[_GAINED, _LOST, _GAINED])
        errors = 100 * np.array([each.positive_error, each.other_error])
        panel.errorbar(values[:2], place[:2], xerr=errors, **WHISKERS)
        interval = 100 * np.array([[each.share - each.low], [each.high - each.share]])
        panel.errorbar(values[2:], place[2:], xerr=interval, **WHISKERS)
        _chance(panel, [100 * each.chance], place[2:])
    for i, text in enumerate(
        ("mean a transform, gap > 0", "mean a transform, gap ≤ 0", "all rows, gap > 0")
    ):
        beside = panel.get_yaxis_transform()
        panel.text(0.012, step * i - 0.62, text, size=8, fontweight="bold", transform=beside)
    panel.set_yticks(list(labels), list(labels.values()))
    panel.set_ylim(3 * step - 1.4, -1.2)
    panel.set_title("Together", loc="left", fontweight="bold")
    value_axis(panel, "% of the first rows (line: chance)")
    labels = {_GAINED: "invariance gap > 0", _LOST: "invariance gap ≤ 0"}
    handles = [Patch(color=colour, label=text) for colour, text in labels.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def specificity(found: xr.Dataset, scope: str, *, narrow: bool) -> Figure:
    """Draws how alike the rankings of two classes are, by how alike the classes are.

    Args:
        found: From `wordnet.specificity`.
        scope: What was searched, for the figure to say.
        narrow: Put one panel below the other.

    Returns:
        The figure: violins of similar and different classes, and over ten bins of similarity.
    """
    wup = found["wup"].values
    groups = {
        f"< {wordnet.DIFFERENT}": wup < wordnet.DIFFERENT,
        f"> {wordnet.SIMILAR}": wup > wordnet.SIMILAR,
    }
    tenth = np.minimum(np.floor(10 * wup + 1e-9), 9)
    bins = {f"{low / 10:.1f}": tenth == low for low in range(10)}
    count = len(COMPARED)
    figure = _titled(NARROW if narrow else WIDE, 4.2 * count if narrow else 5.6, scope)
    shape, ratios = ((2 * count, 1), {}) if narrow else ((2, count), {"height_ratios": (1, 1)})
    panels = figure.subplots(*shape, squeeze=False, **ratios).ravel()
    if narrow:
        panels = np.concatenate([panels[::2], panels[1::2]])
    for (variable, label), two, ten in zip(
        COMPARED.items(), panels[:count], panels[count:], strict=True
    ):
        values = found[variable].values
        _violins(two, values, groups)
        two.set_title(label, loc="left", fontweight="bold")
        two.set_xlabel("Wu-Palmer similarity of the classes")
        _violins(ten, values, bins)
        ten.set_xlabel("Wu-Palmer similarity from")
    return figure


def _violins(panel: Axes, values: np.ndarray, groups: Mapping[str, np.ndarray]) -> None:
    """Draws a violin of each group that has a value, with its median."""
    place = [i for i, chosen in enumerate(groups.values()) if chosen.any()]
    parts = [values[chosen] for chosen in groups.values() if chosen.any()]
    if parts:
        drawn = panel.violinplot(parts, place, widths=0.85, showextrema=False, showmedians=True)
        for body in drawn["bodies"]:
            body.set(facecolor=_KINDS["geometric"], alpha=0.55)
        drawn["cmedians"].set(color="black", linewidth=1.4)
    counts = [int(chosen.sum()) for chosen in groups.values()]
    labels = [f"{name}\n{count:,}" for name, count in zip(groups, counts, strict=True)]
    panel.set_xticks(range(len(groups)), labels, size=8 if len(groups) < 4 else 6.5)
    panel.set_xlim(-0.6, len(groups) - 0.4)


def foreground(boxes: pd.DataFrame, spread: pd.DataFrame, scope: str, *, narrow: bool) -> Figure:
    """Draws where objects are, and how much that varies within a class.

    Args:
        boxes: From `foreground.collect`.
        spread: From `foreground.spread`.
        scope: Where the boxes came from, for the figure to say.
        narrow: Put one panel below the other.

    Returns:
        The figure.
    """
    figure = _titled(NARROW if narrow else WIDE, 5.2 if narrow else 3.2, scope)
    first, second = figure.subplots(*((2, 1) if narrow else (1, 2)))
    stats = np.quantile(boxes[list(QUANTITIES)].to_numpy(), LEVELS, axis=0)
    place = np.arange(len(QUANTITIES))
    colours = [_KINDS["geometric"]] * len(place)
    draw_boxes(first, stats, place, 0.6, colours, "horizontal")
    names = ("left", "upper", "right", "lower", "area", "center, across", "center, down")
    first.set_yticks(place, names)
    first.set_ylim(len(place) - 0.4, -0.6)
    first.set_xlim(-0.02, 1.02)
    value_axis(first, "of the image; all objects")
    by_class = spread.iloc[1:]
    second.scatter(
        by_class["std_center_x"], by_class["std_center_y"], s=14, color=_KINDS["geometric"]
    )
    highest = 1.08 * float(by_class[["std_center_x", "std_center_y"]].max(axis=None)) or 1.0
    second.plot([0, highest], [0, highest], **ZERO)
    second.set_xlim(0, highest)
    second.set_ylim(0, highest)
    second.set_xlabel("standard deviation of the center, across")
    second.set_ylabel("standard deviation, down")
    second.grid(visible=True, axis="both")
    return figure


def examples(
    images: Float[np.ndarray, "row 3 height width 3"],
    titles: Sequence[str],
    scope: str,
    *,
    narrow: bool,
) -> Figure:
    """Draws pairs of images and what rows do to them.

    Args:
        images: float in [0, 1]: x1, x2 and the transformed x2 of each row.
        titles: What to say above each.
        scope: What was searched, for the figure to say.
        narrow: For narrow screens.

    Returns:
        The figure, a column a row of the search.
    """
    across = min(3, len(images)) if narrow else len(images)
    down = -(-len(images) // across)
    width = NARROW if narrow else min(WIDE, 1.75 * across + 0.6)
    figure = _titled(width, down * (3 * (width - 1) / across + 0.6) + 0.3, scope)
    panels = figure.subplots(3 * down, across, squeeze=False)
    for panel in panels.ravel():
        panel.axis("off")
    for i, (each, title) in enumerate(zip(images, titles, strict=True)):
        for j, image in enumerate(each):
            panels[3 * (i // across) + j, i % across].imshow(image, vmin=0, vmax=1)
        panels[3 * (i // across), i % across].set_title(title, size=8)
    for line, name in enumerate(("first", "second", "second,\ntransformed") * down):
        panels[line, 0].text(
            -0.06, 0.5, name, ha="right", va="center", size=8, transform=panels[line, 0].transAxes
        )
    return figure
