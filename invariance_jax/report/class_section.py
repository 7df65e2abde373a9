"""The report's section on classes: sentences, figures and tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from invariance_jax.report import classes, robustness
from invariance_jax.report.altair import alt
from invariance_jax.report.classes import Transfer
from invariance_jax.report.entries import Results
from invariance_jax.report.page import Block, Picture
from invariance_jax.report.rows import file_name, words
from invariance_jax.report.vega import TABLE, WIDTH, Layout

_AUGMENTED, _OTHER = "#009E73", "#8C8C8C"
_KINDS = {"augmented": _AUGMENTED, "other": _OTHER}


def blocks(results: Results) -> Iterator[Block]:
    """Says and shows what operations of their own did to classes.

    Args:
        results: From `load.read`.

    Yields:
        A part on what standard augmentation costs classes, where other augmentations stand beside
        it; one for each run with its standard run, and for each transfer of invariance.

    Raises:
        UserError: A run's list of operations is missing.
    """
    if robustness.has_class_effects(results.accuracy):
        effects = robustness.class_effects(results.accuracy)
        tables = {
            f"{robustness.EFFECT}, points": robustness.class_effects_means(effects),
            "Class by class, points": robustness.class_effects_table(effects),
        }
        said = (
            "The best of many noisy numbers is too high: beside it stands what remains where the "
            "best augmentation is chosen on one half of the images and judged on the other."
        )
        yield Block("What standard augmentation costs single classes", [said], [], tables)
    for found in classes.differences(results):
        picture = Picture(
            f"classes_{file_name(found.row.label)}",
            f"Points with intervals. {classes.sentence(found)}",
            draw_differences,
            difference_frame(found.classes),
            caption="Top-1 accuracy of every class minus that of the standard run, in points, "
            "sorted; lines are 95% intervals over images, paired. Green: classes with operations "
            f"of their own. {found.row.label} against {found.standard.training}; "
            f"{found.seeds[0]} and {found.seeds[1]} seeds.",
        )
        tables = {
            "Accuracy of classes with operations of their own, of the others, and of all": (
                classes.summary(found)
            ),
            "Classes that gain most and lose most": classes.extremes(found),
        }
        yield Block(found.row.label, [classes.sentence(found)], [picture], tables)
    for found in classes.transfers(results):
        picture = Picture(
            f"transfer_{file_name(found.row.label)}",
            f"Points with intervals. {classes.transfer_sentence(found)}",
            draw_transfer,
            transfer_frame(found),
            caption="Gain in relative invariance over the baseline, mean over classes (median over "
            "the images of a class, magnitudes 3 to 7), with 95% intervals over classes. Transfer "
            "is the gain of classes without operations over that of augmented ones, where the "
            f"latter is clearly above 0. {found.row.label} over {found.baseline.training}.",
        )
        tables = {"Transfer of invariance": classes.transfer_table(found)}
        title = f"Transfer of invariance: {found.row.label}"
        yield Block(title, [classes.transfer_sentence(found)], [picture], tables)


def difference_frame(table: pd.DataFrame) -> pd.DataFrame:
    """The difference of every class, in points, the largest gain first.

    Args:
        table: `Differences.classes`.

    Returns:
        Columns place, class, which (augmented or other), difference, low, high.
    """
    ordered = table.sort_values("difference", ascending=False, kind="stable")
    found = 100 * ordered[["difference", "low", "high"]].reset_index(drop=True)
    found.insert(0, "which", np.where(ordered["augmented"], *_KINDS))
    found.insert(0, "class", ordered["class_name"].tolist())
    found.insert(0, "place", np.arange(len(ordered)))
    return found


def draw_differences(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws the difference of every class, sorted, with its interval.

    Args:
        frame: From `difference_frame`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    numbers = [alt.Tooltip(f"{name}:Q", format="+.1f") for name in ("difference", "low", "high")]
    base = alt.Chart(TABLE).encode(
        x=alt.X("place:Q", title="classes, the largest gain first"),
        color=_kind(),
        tooltip=["class:N", "which:N", *numbers],
    )
    y = {"title": "difference (points)"}
    ends = base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    points = base.mark_point(filled=True, size=28, opacity=1)
    mean = alt.Chart(TABLE).mark_rule(strokeDash=[5, 4]).encode(y="mean(difference):Q")
    zero = alt.Chart(TABLE).mark_rule(opacity=0.4).encode(y=alt.datum(0))
    chart = zero + ends + points.encode(y=alt.Y("difference:Q", **y)) + mean
    return chart.properties(width=WIDTH[layout] - 60, height=240)


def _kind() -> alt.Color:
    scale = alt.Scale(domain=list(_KINDS), range=list(_KINDS.values()))
    return alt.Color("which:N", scale=scale, legend=alt.Legend(orient="top", title=None))


def transfer_frame(found: Transfer) -> pd.DataFrame:
    """The gains of both kinds of classes by transform.

    Args:
        found: From `classes.transfers`.

    Returns:
        Columns transform, which (augmented or other), gain, low, high, transfer.
    """
    gains, parts = found.gains, []
    for name in _KINDS:
        part = gains[[name, f"{name}_low", f"{name}_high", "transfer"]].set_axis(
            ["gain", "low", "high", "transfer"], axis=1
        )
        part.insert(0, "which", name)
        part.insert(0, "transform", [words(each) for each in gains.index])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def draw_transfer(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Draws the gains of both kinds of classes by transform.

    Args:
        frame: From `transfer_frame`.
        layout: Where it is shown.

    Returns:
        The chart.
    """
    transforms = list(dict.fromkeys(frame["transform"]))
    numbers = [alt.Tooltip(f"{x}:Q", format="+.3f") for x in ("gain", "low", "high", "transfer")]
    base = alt.Chart(TABLE).encode(
        y=alt.Y("transform:N", sort=transforms, title=None),
        yOffset=alt.YOffset("which:N", sort=list(_KINDS)),
        color=_kind(),
        tooltip=["transform:N", "which:N", *numbers],
    )
    x = {"title": "gain in relative invariance"}
    ends = base.mark_rule().encode(x=alt.X("low:Q", **x), x2="high:Q")
    points = base.mark_point(filled=True, opacity=1).encode(x=alt.X("gain:Q", **x))
    zero = alt.Chart(TABLE).mark_rule(opacity=0.4).encode(x=alt.datum(0))
    width = min(560, WIDTH[layout] - 140)
    return (zero + ends + points).properties(width=width, height={"step": 13})
