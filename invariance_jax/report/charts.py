"""Charts of the summaries, each described once for pages, phones and papers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from invariance_jax.augment.learned import unit
from invariance_jax.report.altair import alt
from invariance_jax.report.frames import ALL, LOWEST
from invariance_jax.report.rows import words
from invariance_jax.report.vega import TABLE, WIDTH, Layout

Colours = Mapping[str, str]
Trajectories = Mapping[str, Sequence[Mapping[str, float | None]]]

# How the metrics call a width in units that people know.
WIDTH_OF = "width/"
_INVARIANCE = "relative invariance"
_DIRECTIONS = {"up": "#0072B2", "unclear": "#8C8C8C", "down": "#D55E00"}
_SHAPES = {"up": "triangle-up", "unclear": "circle", "down": "triangle-down"}
_LINE, _LABELS = 17, 250
_BANDS = 5
_DASHES = ([1, 0], [5, 3], [2, 2], [8, 3, 2, 3], [12, 3])


def by_part(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws what each source does to invariance: up, down or unclear, transform by transform.

    Args:
        frame: From `frames.by_part`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    sources, transforms = _unique(frame, "source"), _unique(frame, "transform")
    transforms = [ALL, *(name for name in transforms if name != ALL)]
    phone = layout == "phone"
    names = alt.X if not phone else alt.Y
    parts = alt.Y if not phone else alt.X
    base = alt.Chart(TABLE).encode(
        names("transform:N", sort=transforms, title=None, axis=_names_axis(phone)),
        parts(
            "source:N",
            sort=sources,
            title=None,
            axis=alt.Axis(
                labelLimit=_LABELS,
                labelAngle=-90 if phone else 0,
                orient="top" if phone else "left",
            ),
        ),
        tooltip=[
            "source:N",
            "transform:N",
            _number("change", "+.3f"),
            _number("low", "+.3f"),
            _number("high", "+.3f"),
            "verdict:N",
            alt.Tooltip("comparisons:Q", title="pairs of rows"),
        ],
    )
    marks = base.mark_point(filled=True, opacity=1, size=170).encode(
        color=_of("verdict", _DIRECTIONS),
        shape=_of("verdict", _SHAPES),
    )
    text = base.mark_text(dy=17, fontSize=10).encode(alt.Text("change:Q", format="+.2f"))
    long, short = 46 * len(transforms), 52 * len(sources)
    size = {"width": min(long, WIDTH[layout] - _LABELS), "height": short}
    if phone:
        size = {"width": 62 * len(sources), "height": 40 * len(transforms)}
    return (marks + text).properties(**size)


def _names_axis(phone: bool) -> alt.Axis:
    return alt.Axis(
        orient="left" if phone else "top", labelAngle=0 if phone else -35, domain=False, ticks=False
    )


def _of(field: str, values: Mapping[str, str]) -> dict[str, Any]:
    scale = {"domain": list(values), "range": list(values.values())}
    legend = {"title": None, "orient": "bottom", "direction": "horizontal"}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _unique(frame: pd.DataFrame, name: str) -> list[str]:
    return list(dict.fromkeys(frame[name]))


def _number(field: str, form: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=form, title=title or words(field))


def _named(*more: Any) -> list[Any]:
    """What a mark says when it is pointed at."""
    return ["model:N", "training:N", *more]


def _colour(frame: pd.DataFrame, colours: Colours, layout: Layout) -> alt.Color:
    shown = _unique(frame, "augmentation")
    width = 8 * max(map(len, shown)) + 40
    return alt.Color(
        "augmentation:N",
        scale=alt.Scale(domain=shown, range=[colours[name] for name in shown]),
        legend=alt.Legend(
            orient="top", title=None, columns=max(1, WIDTH[layout] // width), symbolOpacity=1
        ),
    )


def _dash(frame: pd.DataFrame, layout: Layout) -> alt.StrokeDash | dict[str, Any]:
    """Tells apart what else differs; nothing is said where nothing else does."""
    shown = _unique(frame, "details")
    if len(shown) == 1:
        return alt.value([1, 0])
    dashes = [_DASHES[i % len(_DASHES)] for i in range(len(shown))]
    legend = alt.Legend(
        orient="top",
        title=None,
        columns=1 if layout == "phone" else 4,
        labelExpr="datum.label || 'all else alike'",
        symbolType="stroke",
        symbolSize=400,
    )
    return alt.StrokeDash("details:N", scale=alt.Scale(domain=shown, range=dashes), legend=legend)


def _choice() -> alt.Parameter:
    """A click on the legend leaves one augmentation, by shift several."""
    return alt.selection_point(name="isolate", fields=["augmentation"], bind="legend")


def _isolated(
    chart: alt.TopLevelMixin, layout: Layout, opacity: float = 1.0, *, first: bool = True
) -> alt.TopLevelMixin:
    """Dims what the legend does not leave; of several panels the first has the choice."""
    if layout == "paper":
        return chart.encode(opacity=alt.value(opacity))
    chosen = _choice()
    lit = chart.encode(opacity=alt.condition(chosen, alt.value(opacity), alt.value(0.06)))
    return lit.add_params(chosen) if first else lit


def accuracy_and_invariance(
    frame: pd.DataFrame, layout: Layout, *, colours: Colours
) -> alt.TopLevelMixin:
    """Draws accuracy against invariance, a point a row.

    Args:
        frame: From `frames.accuracy_and_invariance`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart.
    """
    base = alt.Chart(TABLE).encode(
        x=alt.X(
            "invariance:Q",
            title=f"{_INVARIANCE}, mean of 13 transforms",
            scale=alt.Scale(zero=False),
        ),
        y=alt.Y(
            "top1:Q", title="top-1 accuracy", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)
        ),
        color=_colour(frame, colours, layout),
        tooltip=_named(_number("top1", ".1%", "top-1"), _number("invariance", ".3f")),
    )
    points = base.mark_point(filled=True, size=80).encode(
        shape=alt.Shape("model:N", legend=alt.Legend(orient="top", title=None))
    )
    across = base.mark_rule().encode(x=alt.X("low:Q"), x2="high:Q")
    down = base.mark_rule().encode(y=alt.Y("top1_low:Q"), y2="top1_high:Q")
    chart = (
        _isolated(points, layout, 0.95)
        + across.encode(opacity=alt.value(0.35))
        + down.encode(opacity=alt.value(0.35))
    )
    return chart.properties(width=min(640, WIDTH[layout] - 70), height=380)


def heat(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws a heat map: trainings, in blocks by model, against transforms.

    Args:
        frame: From `frames.invariance`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    transforms, phone = _unique(frame, "transform"), layout == "phone"
    lowest = max(LOWEST, min(0.0, float(frame["value"].min())))
    scale = alt.Scale(scheme="cividis", domain=[lowest, 1], clamp=True)
    blocks = []
    for model in _unique(frame, "model"):
        of_model = frame[frame["model"] == model]
        trainings = _unique(of_model, "training")
        names = alt.Axis(
            orient="top",
            labelAngle=-45,
            labels=phone or not blocks,
            ticks=False,
            domain=False,
            labelLimit=160,
        )
        training = {"field": "training", "type": "nominal", "sort": trainings, "title": None}
        transform = {"field": "transform", "type": "nominal", "sort": transforms, "title": None}
        beside = alt.Axis(ticks=False, domain=False, labelLimit=_LABELS)
        x, y = (training, transform) if phone else (transform, training)
        base = (
            alt.Chart(TABLE)
            .transform_filter(alt.datum.model == model)
            .encode(
                x=alt.X(**x, axis=names),
                y=alt.Y(**y, axis=beside),
                tooltip=_named(
                    "transform:N",
                    _number("value", ".3f", _INVARIANCE),
                    _number("standard_error", ".3f"),
                    "seeds:Q",
                ),
            )
        )
        cells = base.mark_rect().encode(
            color=alt.Color(
                "value:Q", scale=scale, title=_INVARIANCE, legend=alt.Legend(orient="bottom")
            )
        )
        halfway = (lowest + 1) / 2
        ink = alt.condition(alt.datum.value > halfway, alt.value("black"), alt.value("white"))
        text = base.mark_text(fontSize=10).encode(text=alt.Text("value:Q", format=".2f"), color=ink)
        long = (WIDTH[layout] - _LABELS) if not phone else max(36 * len(trainings), 120)
        tall = 22 * len(trainings) if not phone else 22 * len(transforms)
        blocks.append((cells + text).properties(width=long, height=tall, title=model))
    return alt.vconcat(*blocks, spacing=12)


def by_magnitude(frame: pd.DataFrame, layout: Layout, *, colours: Colours) -> alt.TopLevelMixin:
    """Draws medians over images, and the middle half of them, against magnitude.

    On a page model and transform are chosen; for papers all transforms of the first model stand
    side by side, and `frame` holds one model.

    Args:
        frame: From `frames.cells`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart.
    """
    lowest = max(LOWEST, min(0.0, float(frame["q25"].min())))
    base = alt.Chart(TABLE).encode(
        x=alt.X("magnitude:O", title="magnitude", axis=alt.Axis(labelAngle=0)),
        color=_colour(frame, colours, layout),
        detail="details:N",
        tooltip=_named(
            "transform:N",
            _number("value", ".3~f", "at"),
            "unit:N",
            _number("median", ".3f"),
            _number("q25", ".3f", "quarter below"),
            _number("q75", ".3f", "quarter above"),
        ),
    )
    # A page's axis follows what is chosen; panels for papers share one.
    scale = alt.Scale(domain=[lowest, 1]) if layout == "paper" else alt.Scale(domainMax=1)
    y = alt.Y("median:Q", title=_INVARIANCE, scale=scale)
    lines = base.mark_line(point=alt.OverlayMarkDef(size=28)).encode(
        y=y, strokeDash=_dash(frame, layout)
    )
    band = base.mark_area().encode(y=alt.Y("q25:Q", title=_INVARIANCE), y2="q75:Q")
    few = len(frame.drop_duplicates(["model", "training"])) <= _BANDS * frame["model"].nunique()
    # Of many rows the bands hide each other: they are shown of what the legend leaves.
    faint = alt.value(0.12 if few else 0)
    shown = faint
    if layout != "paper":
        shown = alt.condition(_choice(), alt.value(0.16), faint, empty=False)
    band = band.encode(opacity=shown)
    if layout == "paper":
        lines = lines.encode(opacity=alt.value(1))
        chart = (band + lines).properties(width=130, height=105)
        return chart.facet(
            alt.Facet("transform:N", sort=_unique(frame, "transform"), title=None), columns=5
        )
    chart = _chosen(band + _isolated(lines, layout), frame, ("model", "transform"))
    return chart.properties(width=min(760, WIDTH[layout] - 60), height=340)


def _chosen(
    chart: alt.TopLevelMixin, frame: pd.DataFrame, fields: Sequence[str]
) -> alt.TopLevelMixin:
    """Lets a page's reader choose, of some columns, which value is shown."""
    for field in fields:
        values = _unique(frame, field)
        box = alt.binding_select(options=values, name=f"{words(field)} ")
        picked = alt.selection_point(
            name=f"pick_{field}", fields=[field], bind=box, value=values[0]
        )
        chart = chart.add_params(picked).transform_filter(picked)
    return chart


def boxes(frame: pd.DataFrame, layout: Layout, *, colours: Colours) -> alt.TopLevelMixin:
    """Draws boxes over images by magnitude, as the paper does, one a row.

    Args:
        frame: From `frames.cells`; for papers of one model.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart: model and transform are chosen on a page, and stand side by side for papers.
    """
    trainings = _unique(frame, "training")
    lowest = max(LOWEST, min(0.0, float(frame["q05"].min())))
    base = alt.Chart(TABLE).encode(
        x=alt.X("magnitude:O", title="magnitude", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("training:N", sort=trainings),
        color=_colour(frame, colours, layout),
        tooltip=_named(
            _number("value", ".3~f", "at"),
            "unit:N",
            *(_number(x, ".3f") for x in ("q05", "q25", "median", "q75", "q95")),
        ),
    )
    scale = alt.Scale(domain=[lowest, 1]) if layout == "paper" else alt.Scale(domainMax=1)
    whiskers = base.mark_rule().encode(y=alt.Y("q05:Q", scale=scale, title=_INVARIANCE), y2="q95:Q")
    middle = base.mark_bar().encode(y=alt.Y("q25:Q", title=_INVARIANCE), y2="q75:Q")
    line = base.mark_tick(color="white", thickness=1.5).encode(
        y="median:Q", color=alt.value("white")
    )
    if layout == "paper":
        chart = (whiskers + middle + line).properties(width=270, height=110)
        return chart.facet(
            alt.Facet("transform:N", sort=_unique(frame, "transform"), title=None), columns=3
        )
    chart = _chosen(whiskers + _isolated(middle, layout) + line, frame, ("model", "transform"))
    return chart.properties(width=WIDTH[layout] - 60, height=340)


def gap(frame: pd.DataFrame, layout: Layout, *, colours: Colours) -> alt.TopLevelMixin:
    """Draws trained minus untrained, a point with its standard error for each row and transform.

    Args:
        frame: From `frames.gap`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart, a panel a model.
    """
    models, transforms = _unique(frame, "model"), _unique(frame, "transform")
    across = 1 if layout == "phone" else min(3, len(models))
    base = alt.Chart(TABLE).encode(
        y=alt.Y("transform:N", sort=transforms, title=None),
        yOffset=alt.YOffset("training:N", sort=_unique(frame, "training")),
        x=alt.X("value:Q", title="gap (trained − untrained)"),  # noqa: RUF001
        color=_colour(frame, colours, layout),
        tooltip=_named(
            "transform:N",
            _number("value", "+.3f", "gap"),
            _number("standard_error", ".3f"),
            "seeds:Q",
        ),
    )
    bars = _isolated(base.mark_bar(), layout, 0.9)
    zero = alt.Chart(TABLE).mark_rule().encode(x=alt.datum(0))
    step = max(4, 30 // max(1, frame["training"].nunique()))
    width = (WIDTH[layout] - 160) // across
    chart = (bars + zero).properties(width=width, height={"step": step})
    return chart.facet(alt.Facet("model:N", sort=models, title=None), columns=across)


def small_translations(
    frame: pd.DataFrame, layout: Layout, *, colours: Colours
) -> alt.TopLevelMixin:
    """Draws one box a row over images.

    Args:
        frame: From `frames.small_translations`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart, a block a model.
    """
    lowest = max(LOWEST, min(0.0, float(frame["q05"].min())))
    x = {"scale": alt.Scale(domain=[lowest, 1]), "title": f"{_INVARIANCE} to small translations"}
    base = _beside(
        frame, [_number(name, ".3f") for name in ("q05", "q25", "median", "q75", "q95")]
    ).encode(color=_colour(frame, colours, layout))
    whiskers = base.mark_rule().encode(x=alt.X("q05:Q", **x), x2="q95:Q")
    middle = base.mark_bar(height=12).encode(x=alt.X("q25:Q", **x), x2="q75:Q")
    line = base.mark_tick(thickness=2, height=12).encode(
        x=alt.X("median:Q", **x), color=alt.value("white")
    )
    return _in_blocks(whiskers + _isolated(middle, layout) + line, frame, layout)


def _beside(frame: pd.DataFrame, tooltip: Sequence[Any]) -> alt.Chart:
    """Rows one below the other, named at the side."""
    y = alt.Y(
        "training:N", sort=_unique(frame, "training"), title=None, axis=alt.Axis(labelLimit=_LABELS)
    )
    return alt.Chart(TABLE).encode(y=y, tooltip=_named(*tooltip))


def _in_blocks(chart: alt.TopLevelMixin, frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """A block a model, with its own rows."""
    width = min(620, WIDTH[layout] - (170 if layout == "phone" else _LABELS + 40))
    models = _unique(frame, "model")
    facet = alt.Row(
        "model:N",
        sort=models,
        title=None,
        header=alt.Header(labelAngle=0, labelAlign="left", labelOrient="top", labelAnchor="start"),
    )
    chart = chart.properties(width=width, height={"step": _LINE})
    return chart.facet(row=facet, spacing=8).resolve_scale(y="independent")


def accuracy(frame: pd.DataFrame, layout: Layout, *, colours: Colours) -> alt.TopLevelMixin:
    """Draws top-1 accuracy, one bar a row with its interval, in blocks by model.

    Args:
        frame: From `frames.ablation`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart.
    """
    x = {"title": "top-1 accuracy", "axis": alt.Axis(format="%")}
    shown = [
        _number("top1", ".1%", "top-1"),
        _number("low", ".1%"),
        _number("high", ".1%"),
        "seeds:Q",
        _number("gain", "+.1%"),
    ]
    base = _beside(frame, shown).encode(color=_colour(frame, colours, layout))
    bars = base.mark_bar(height=12).encode(x=alt.X("top1:Q", **x))
    ends = base.mark_rule(strokeWidth=1.2).encode(
        x=alt.X("low:Q", **x), x2="high:Q", color=alt.value("#57606a")
    )
    return _in_blocks(_isolated(bars, layout) + ends, frame, layout)


def under_transforms(frame: pd.DataFrame, layout: Layout, *, colours: Colours) -> alt.TopLevelMixin:
    """Draws accuracy of transformed images against magnitude.

    Args:
        frame: From `frames.under_transforms`; for papers of one model.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart: model and transform are chosen on a page, and stand side by side for papers.
    """
    base = alt.Chart(TABLE).encode(
        x=alt.X("magnitude:O", title="magnitude", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("top1:Q", title="top-1 accuracy", axis=alt.Axis(format="%")),
        color=_colour(frame, colours, layout),
        detail="details:N",
        strokeDash=_dash(frame, layout),
        tooltip=_named(
            "transform:N",
            _number("value", ".3~f", "at"),
            "unit:N",
            _number("top1", ".1%", "top-1"),
        ),
    )
    lines = base.mark_line(point=alt.OverlayMarkDef(size=28))
    if layout == "paper":
        chart = lines.properties(width=130, height=105)
        return chart.facet(
            alt.Facet("transform:N", sort=_unique(frame, "transform"), title=None), columns=5
        )
    chart = _chosen(_isolated(lines, layout), frame, ("model", "transform"))
    return chart.properties(width=min(760, WIDTH[layout] - 60), height=300)


def by_depth(frame: pd.DataFrame, layout: Layout, *, colours: Colours) -> alt.TopLevelMixin:
    """Draws invariance from the first layer that was measured to the embedding.

    Args:
        frame: From `frames.by_depth`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart, a panel a model.
    """
    models = _unique(frame, "model")
    across = 1 if layout == "phone" else min(2, len(models))
    panels = []
    for model in models:
        features = _unique(frame[frame["model"] == model], "feature")
        base = alt.Chart(TABLE).transform_filter(alt.datum.model == model)
        lines = base.mark_line(point=alt.OverlayMarkDef(size=28)).encode(
            x=alt.X("feature:N", sort=features, title=None, axis=alt.Axis(labelAngle=-25)),
            y=alt.Y("invariance:Q", title=_INVARIANCE, scale=alt.Scale(zero=False)),
            color=_colour(frame, colours, layout),
            strokeDash=_dash(frame, layout),
            detail="details:N",
            tooltip=_named("feature:N", _number("invariance", ".3f")),
        )
        width = WIDTH[layout] // across - 80
        panels.append(
            _isolated(lines, layout, first=not panels).properties(
                width=width, height=230, title=model
            )
        )
    return alt.concat(*panels, columns=across)


def local_equivariance(
    frame: pd.DataFrame, layout: Layout, *, colours: Colours
) -> alt.TopLevelMixin:
    """Draws the local equivariance error of every row, a panel a generator.

    Args:
        frame: From `frames.local_equivariance`.
        layout: Where it is shown.
        colours: By augmentation, from `style.colours`.

    Returns:
        The chart.
    """
    generators = _unique(frame, "generator")
    across = 1 if layout == "phone" else min(3, len(generators))
    rows = _unique(frame, "row")
    # A tick a decade, where there is room for it.
    axis = alt.Axis(tickCount=3, format="~g", labelOverlap="greedy", labelSeparation=6)
    panels = []
    for place, generator in enumerate(generators):
        beside = alt.Axis(labelLimit=_LABELS, labels=place % across == 0)
        points = (
            alt.Chart(TABLE)
            .transform_filter(alt.datum.generator == generator)
            .mark_point(filled=True, size=55)
            .encode(
                y=alt.Y("row:N", sort=rows, title=None, axis=beside),
                x=alt.X("error:Q", title="error", scale=alt.Scale(type="log"), axis=axis),
                color=_colour(frame, colours, layout),
                tooltip=_named(_number("error", ".3g"), _number("standard_error", ".2g")),
            )
        )
        width = (WIDTH[layout] - _LABELS) // across - 30 if across > 1 else WIDTH[layout] - _LABELS
        panels.append(
            _isolated(points, layout, first=not panels).properties(
                width=max(width, 90), height={"step": _LINE}, title=generator
            )
        )
    return alt.concat(*panels, columns=across)


def widths(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws how wide learned augmentations became, a panel a generator, a line a run.

    Args:
        frame: From `width_frame`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    names = _unique(frame, "generator")
    across = 1 if layout == "phone" else min(3, len(names))
    panels = []
    for name in names:
        base = alt.Chart(TABLE).transform_filter(alt.datum.generator == name)
        panels.append(
            base.mark_line(point=alt.OverlayMarkDef(size=22))
            .encode(
                x=alt.X("step:Q", title="step"),
                y=alt.Y("value:Q", title=frame.loc[frame["generator"] == name, "unit"].iloc[0]),
                color=alt.Color(
                    "run:N",
                    sort=_unique(frame, "run"),
                    legend=alt.Legend(orient="bottom", title=None, columns=1),
                ),
                tooltip=["run:N", "step:Q", _number("value", ".3f", name)],
            )
            .properties(width=WIDTH[layout] // across - 70, height=200, title=name)
        )
    return alt.concat(*panels, columns=across)


def width_frame(trajectories: Trajectories) -> pd.DataFrame:
    """Widths of learned augmentations as lines.

    Args:
        trajectories: Rows of metrics by run, with "step" and "width/GENERATOR".

    Returns:
        Columns run, generator, unit, step, value.
    """
    lines = [
        (
            run,
            words(name.removeprefix(WIDTH_OF)),
            unit(name.removeprefix(WIDTH_OF)),
            row["step"],
            row[name],
        )
        for name in width_names(trajectories)
        for run, rows in trajectories.items()
        for row in rows
        if row.get(name) is not None
    ]
    return pd.DataFrame(lines, columns=["run", "generator", "unit", "step", "value"])


def width_names(trajectories: Trajectories) -> list[str]:
    """Names of the metrics that are drawn: "width/GENERATOR" of every run."""
    rows = (row for rows in trajectories.values() for row in rows)
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(WIDTH_OF)))
