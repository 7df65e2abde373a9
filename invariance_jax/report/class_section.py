"""The report's section on classes: sentences, figures and tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from invariance_jax.report import classes
from invariance_jax.report.charts import NARROW, WHISKERS, WIDE, ZERO, value_axis
from invariance_jax.report.classes import Transfer
from invariance_jax.report.load import Results
from invariance_jax.report.page import Block, Picture
from invariance_jax.report.rows import file_name, words

_AUGMENTED, _OTHER = "#009E73", "#8C8C8C"
_KINDS = {"augmented": _AUGMENTED, "other": _OTHER}


def blocks(results: Results) -> Iterator[Block]:
    """Says and shows what operations of their own did to classes.

    Args:
        results: From `load.read`.

    Yields:
        A part for each run with its standard run, and for each transfer of invariance.

    Raises:
        UserError: A run's list of operations is missing.
    """
    for found in classes.differences(results):
        picture = Picture(
            f"classes_{file_name(found.row.label)}",
            f"Points with intervals. {classes.sentence(found)}",
            draw_differences,
            (found.classes,),
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
            (found,),
            caption="Gain in relative invariance over the baseline, mean over classes (median over "
            "the images of a class, magnitudes 3 to 7), with 95% intervals over classes. Transfer "
            "is the gain of classes without operations over that of augmented ones, where the "
            f"latter is clearly above 0. {found.row.label} over {found.baseline.training}.",
        )
        tables = {"Transfer of invariance": classes.transfer_table(found)}
        title = f"Transfer of invariance: {found.row.label}"
        yield Block(title, [classes.transfer_sentence(found)], [picture], tables)


def draw_differences(table: pd.DataFrame, *, narrow: bool) -> Figure:
    """Draws the difference of every class, sorted, with its interval.

    Args:
        table: `Differences.classes`.
        narrow: For narrow screens.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(NARROW if narrow else WIDE, 3.2), layout="constrained")
    panel = figure.subplots()
    ordered = table.sort_values("difference", ascending=False, kind="stable")
    chosen = ordered["augmented"].to_numpy()
    place, values = np.arange(len(ordered)), 100 * ordered[["difference", "low", "high"]].to_numpy()
    for (name, colour), which in zip(_KINDS.items(), (chosen, ~chosen), strict=True):
        if which.any():
            middle, low, high = values[which].T
            panel.vlines(place[which], low, high, color=colour, linewidth=0.8, alpha=0.5)
            label = f"{which.sum():,} {name} classes"
            panel.plot(place[which], middle, "o", color=colour, markersize=2.5, label=label)
    panel.axhline(0, **ZERO)
    mean = values[:, 0].mean()
    label = f"mean {mean:+z.1f}".replace("-", "\N{MINUS SIGN}")
    panel.axhline(mean, color="black", linestyle="--", linewidth=1, label=label)
    panel.set_xlabel("classes, the largest gain first")
    panel.set_ylabel("difference (points)")
    panel.set_xlim(-1, len(ordered))
    figure.legend(loc="outside upper left", ncols=1 if narrow else 3, alignment="left")
    return figure


def draw_transfer(found: Transfer, *, narrow: bool) -> Figure:
    """Draws the gains of both kinds of classes by transform, and the transfer as number.

    Args:
        found: From `classes.transfers`.
        narrow: For narrow screens.

    Returns:
        The figure.
    """
    gains = found.gains
    size = (NARROW if narrow else 6.5, 1.2 + 0.34 * len(gains))
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    place = np.arange(len(gains))
    for shift, (name, colour) in zip((-0.13, 0.13), _KINDS.items(), strict=True):
        middle, low, high = gains[[name, f"{name}_low", f"{name}_high"]].to_numpy().T
        panel.errorbar(middle, place + shift, xerr=[middle - low, high - middle], **WHISKERS)
        panel.plot(middle, place + shift, "o", color=colour, label=f"{name} classes")
    beside = panel.get_yaxis_transform()
    for y, value in zip(place, gains["transfer"], strict=True):
        text = "-" if np.isnan(value) else f"{value:z.2f}"
        panel.text(1.02, y, text, va="center", transform=beside)
    panel.text(1.02, -0.9, "transfer", va="center", transform=beside)
    panel.set_yticks(place, [words(name) for name in gains.index])
    panel.set_ylim(len(gains) - 0.4, -0.6)
    panel.axvline(0, **ZERO)
    value_axis(panel, "gain in relative invariance")
    figure.legend(loc="outside upper left", ncols=2, alignment="left")
    return figure
