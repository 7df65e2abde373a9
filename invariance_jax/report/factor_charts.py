"""Charts of the factors of variation: the rows that each draws, and the drawing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from invariance_jax.factors import rankings, wordnet
from invariance_jax.factors.alignment import Alignment
from invariance_jax.factors.foreground import QUANTITIES
from invariance_jax.report.altair import alt
from invariance_jax.report.factors import COMPARED
from invariance_jax.report.frames import LEVELS, QUANTILES
from invariance_jax.report.rows import words
from invariance_jax.report.vega import TABLE, WIDTH, Layout

_KINDS = {"appearance": "#E69F00", "geometric": "#0072B2", "mixed": "#8C8C8C"}
_GAINED, _LOST = "invariance gap > 0", "invariance gap ≤ 0"
# Of the bins that a violin is drawn from.
_BINS = 24
_PARTS = ("left", "upper", "right", "lower", "area", "center, across", "center, down")
_PERCENT = alt.Axis(format="%")


def heat_frame(statistics: xr.Dataset, class_names: Sequence[str]) -> pd.DataFrame:
    """The proportion of pairs that each row boosts, class by class.

    Args:
        statistics: Statistics of a search; copies are left out.
        class_names: What the classes are called.

    Returns:
        Columns class, row, kind, proportion; classes by their mean over rows, rows by their mean
        over classes, the highest first. Classes of one name are numbered.
    """
    table = rankings.distinct(statistics)
    table = table.isel(row=rankings.order(table, over_classes=True)[0])
    values = table["proportion_boosted"].transpose("class", "row").values
    labels = list(map(words, table["row"].values.tolist()))
    names = [
        name if class_names.count(name) == 1 else f"{name} ({label})"
        for name, label in zip(list(class_names), table["class"].values.tolist(), strict=True)
    ]
    lines = np.argsort(-values.mean(axis=1), kind="stable")
    kinds = table["kind"].values.tolist()
    cells = [
        (names[line], label, kind, float(value))
        for line in lines
        for label, kind, value in zip(labels, kinds, values[line], strict=True)
    ]
    return pd.DataFrame(cells, columns=["class", "row", "kind", "proportion"])


def heat(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws classes against rows.

    Args:
        frame: From `heat_frame`.
        layout: Where it is shown; phones scroll sideways.

    Returns:
        The chart.
    """
    classes, rows = (list(dict.fromkeys(frame[name])) for name in ("class", "row"))
    tall = 14 if len(classes) <= 40 else max(4, 560 // len(classes))
    names = alt.Axis(ticks=False, domain=False, labelLimit=170, labels=tall >= 9)
    # Above the strip of kinds.
    across = alt.Axis(orient="top", labelAngle=-60, labelPadding=12, ticks=False, domain=False)
    tooltip = ["class:N", "row:N", "kind:N", alt.Tooltip("proportion:Q", format=".1%")]
    base = alt.Chart(TABLE).encode(
        x=alt.X("row:N", sort=rows, title=None, axis=across), tooltip=tooltip
    )
    scale = alt.Scale(scheme="cividis", domainMin=0)
    color = alt.Color("proportion:Q", scale=scale, title="proportion of pairs boosted")
    color = color.legend(format="%", orient="bottom")
    cells = base.mark_rect().encode(y=alt.Y("class:N", sort=classes, title=None, axis=names))
    kinds = base.mark_rect(height=6).encode(color=_of_kind(frame), y=alt.value(-4))
    step = 12 if layout == "phone" else max(12, (WIDTH[layout] - 190) // len(rows))
    both = alt.layer(cells.encode(color=color), kinds).resolve_scale(color="independent")
    return both.properties(width={"step": step}, height=tall * len(classes))


def _of_kind(frame: pd.DataFrame) -> alt.Color:
    shown = [kind for kind in _KINDS if (frame["kind"] == kind).any()]
    scale = alt.Scale(domain=shown, range=[_KINDS[kind] for kind in shown])
    return alt.Color("kind:N", scale=scale, legend=alt.Legend(orient="bottom", title=None))


def first_rows_frame(statistics: xr.Dataset, top: int) -> pd.DataFrame:
    """How often each operation is among the first rows of a class.

    Args:
        statistics: Statistics of a search.
        top: How many rows of a class count, by the proportion of pairs boosted.

    Returns:
        Columns operation, kind, share and chance (fractions of all those rows).
    """
    counts = rankings.counts(statistics, top)
    slots = top * statistics.sizes["class"]
    return pd.DataFrame(
        {
            "operation": list(map(words, counts["operation"].values.tolist())),
            "kind": counts["kind"].values.tolist(),
            "share": counts.values / slots,
            "chance": counts["expected"].values / slots,
        }
    )


def first_rows(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws the share of each operation beside chance.

    Args:
        frame: From `first_rows_frame`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    numbers = [alt.Tooltip(f"{name}:Q", format=".1%") for name in ("share", "chance")]
    base = alt.Chart(TABLE).encode(
        y=alt.Y("operation:N", sort=list(frame["operation"]), title=None),
        tooltip=["operation:N", "kind:N", *numbers],
    )
    title = "share of the first rows of all classes (line: chance)"
    bars = base.mark_bar().encode(x=alt.X("share:Q", title=title, axis=_PERCENT))
    chart = bars.encode(color=_of_kind(frame)) + _chance(base)
    return chart.properties(width=min(560, WIDTH[layout] - 130), height={"step": 20})


def _chance(base: alt.Chart) -> alt.Chart:
    line = base.mark_tick(thickness=2.5, height=17, color="#57606a")
    return line.encode(x=alt.X("chance:Q"))


def alignment_frame(found: Mapping[str, Alignment]) -> pd.DataFrame:
    """Which transforms are among the first rows, and whether training gained invariance.

    Args:
        found: By the title of the search.

    Returns:
        Columns search, transform, gap, which (of the gap), share and chance, fractions; and a line
        a search with the transform "all rows with a gap > 0", whose share has low and high.
    """
    lines = []
    for name, each in found.items():
        slots = each.slots.isel(transform=np.argsort(-each.slots.values, kind="stable"))
        total, rows = float(slots.values.sum()), float(slots["rows"].values.sum())
        whole = (name, "all rows with a gap > 0", np.nan, _GAINED, each.share, each.chance)
        lines.append((*whole, each.low, each.high))
        for one in slots:
            gap = float(one["gap"])
            place = (name, words(str(one["transform"].item())), gap, _GAINED if gap > 0 else _LOST)
            lines.append((*place, float(one) / total, float(one["rows"]) / rows, np.nan, np.nan))
    columns = ["search", "transform", "gap", "which", "share", "chance", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def alignment(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws the share of each transform, coloured by its invariance gap, beside chance.

    Args:
        frame: From `alignment_frame`.
        layout: Where it is shown.

    Returns:
        The chart, a panel a search.
    """
    searches = list(dict.fromkeys(frame["search"]))
    across = 1 if layout == "phone" else min(2, len(searches))
    panels = []
    for name in searches:
        of_search = frame.loc[frame["search"] == name, "transform"]
        numbers = [alt.Tooltip(f"{x}:Q", format=".1%") for x in ("share", "chance", "low", "high")]
        base = (
            alt.Chart(TABLE)
            .transform_filter(alt.datum.search == name)
            .encode(
                y=alt.Y("transform:N", sort=list(of_search), title=None),
                tooltip=["transform:N", alt.Tooltip("gap:Q", format="+.3f"), *numbers],
            )
        )
        scale = alt.Scale(domain=[_GAINED, _LOST], range=["#009E73", "#8C8C8C"])
        legend = alt.Legend(orient="bottom", title=None)
        title = "share of the first rows (line: chance)"
        bars = base.mark_bar().encode(
            x=alt.X("share:Q", title=title, axis=_PERCENT),
            color=alt.Color("which:N", scale=scale, legend=legend),
        )
        ends = base.mark_rule().encode(x="low:Q", x2="high:Q")
        chart = bars + ends.transform_filter(alt.datum.low != None) + _chance(base)  # noqa: E711
        width = WIDTH[layout] // across - 190
        panels.append(chart.properties(width=width, height={"step": 19}, title=name))
    return alt.concat(*panels, columns=across)


def specificity_frame(found: xr.Dataset) -> pd.DataFrame:
    """How alike the rankings of two classes are, by how alike the classes are.

    Args:
        found: From `wordnet.specificity`.

    Returns:
        Of violins: a line a comparison (`COMPARED`), group of pairs of classes by their Wu-Palmer
        similarity (different, between, similar) and bin: compared, group, pairs, median, from, to,
        density (the widest is 1).
    """
    wup = found["wup"].values
    groups = {
        f"different (< {wordnet.DIFFERENT})": wup < wordnet.DIFFERENT,
        "between": (wup >= wordnet.DIFFERENT) & (wup <= wordnet.SIMILAR),
        f"similar (> {wordnet.SIMILAR})": wup > wordnet.SIMILAR,
    }
    lines = []
    for variable, title in COMPARED.items():
        values = found[variable].values
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        for name, chosen in groups.items():
            counts, _ = np.histogram(values[chosen], edges)
            if not counts.sum():
                continue
            median = float(np.nanmedian(values[chosen]))
            for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
                place = (title, name, int(chosen.sum()), median, float(start), float(end))
                lines.append((*place, float(count / counts.max())))
    columns = ["compared", "group", "pairs", "median", "from", "to", "density"]
    return pd.DataFrame(lines, columns=columns)


def specificity(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws violins of similar, different and other pairs of classes, with their medians.

    Args:
        frame: From `specificity_frame`.
        layout: Where it is shown.

    Returns:
        The chart, a panel a comparison.
    """
    compared = list(dict.fromkeys(frame["compared"]))
    groups = list(dict.fromkeys(frame["group"]))
    across = 1 if layout == "phone" else len(compared)
    panels = []
    for title in compared:
        base = alt.Chart(TABLE).transform_filter(alt.datum.compared == title)
        base = base.transform_calculate(left="-datum.density", right="datum.density")
        base = base.encode(
            tooltip=["group:N", "pairs:Q", alt.Tooltip("median:Q", format=".2f")],
        )
        bars = base.mark_bar(color=_KINDS["geometric"], opacity=0.6).encode(
            y=alt.Y("from:Q", title=None),
            y2="to:Q",
            x=alt.X("left:Q", axis=None, scale=alt.Scale(domain=[-1.1, 1.1])),
            x2="right:Q",
        )
        line = base.mark_rule(strokeWidth=2).encode(y=alt.Y("median:Q"))
        width = (WIDTH[layout] // across - 70) // len(groups)
        chart = (bars + line).properties(width=width, height=240)
        header = alt.Header(labelOrient="bottom", labelFontSize=10, title=None)
        columns = alt.Column("group:N", sort=groups, header=header)
        panels.append(chart.facet(column=columns, spacing=4, title=title))
    return alt.concat(*panels, columns=across)


def foreground_frame(boxes: pd.DataFrame) -> pd.DataFrame:
    """Where objects are, of all of them.

    Args:
        boxes: From `foreground.collect`.

    Returns:
        A line a quantity: part, and `frames.QUANTILES`, of the image.
    """
    values = np.quantile(boxes[list(QUANTITIES)].to_numpy(), LEVELS, axis=0).T
    frame = pd.DataFrame(values, columns=QUANTILES)
    frame.insert(0, "part", _PARTS)
    return frame


def foreground(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws where objects are.

    Args:
        frame: From `foreground_frame`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    tooltip = ["part:N", *(alt.Tooltip(f"{name}:Q", format=".2f") for name in QUANTILES)]
    y = alt.Y("part:N", sort=list(_PARTS), title=None)
    base = alt.Chart(TABLE).encode(y=y, tooltip=tooltip)
    x = {"title": "of the image; all objects", "scale": alt.Scale(domain=[0, 1])}
    color = _KINDS["geometric"]
    whiskers = base.mark_rule().encode(x=alt.X("q05:Q", **x), x2="q95:Q")
    middle = base.mark_bar(color=color, height=14).encode(x=alt.X("q25:Q", **x), x2="q75:Q")
    line = base.mark_tick(color="white", thickness=2, height=14).encode(x=alt.X("median:Q", **x))
    width = min(480, WIDTH[layout] - 120)
    return (whiskers + middle + line).properties(width=width, height={"step": 22})


def centers(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws how much the centers of objects vary within each class.

    Args:
        frame: Lines of classes of `foreground.spread`, with the column class.
        layout: Where it is shown.

    Returns:
        The chart, a point a class.
    """
    x, y = (
        alt.X("std_center_x:Q", title="standard deviation of the center, across"),
        alt.Y("std_center_y:Q", title="standard deviation, down"),
    )
    tooltip = ["class:N", "std_center_x:Q", "std_center_y:Q"]
    points = alt.Chart(TABLE).mark_point(filled=True, color=_KINDS["geometric"])
    side = min(320, WIDTH[layout] - 70)
    return points.encode(x=x, y=y, tooltip=tooltip).properties(width=side, height=side)
