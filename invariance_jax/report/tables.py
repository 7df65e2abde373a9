"""Small aligned tables for the terminal, at most 100 columns wide."""

import math
from collections.abc import Sequence

from invariance_jax.report import summaries
from invariance_jax.report.load import Results

WIDTH = 100
_GAP = 2


def accuracy_text(results: Results) -> str:
    """Accuracy by model and training, in percent.

    Args:
        results: From `load.read`, with accuracy.

    Returns:
        Lines of at most 100 characters, without a newline at the end.
    """
    table = summaries.accuracy(results.accuracy)
    body = [
        (
            str(table["model"].values[i]),
            str(table["training"].values[i]),
            str(int(table["seeds"].values[i])),
            f"{table['steps'].values[i]:.0f}",
            number(
                100 * table["mean"].values[i], 100 * table["standard_error"].values[i], "{:z.1f}"
            ),
        )
        for i in range(table.sizes["row"])
    ]
    return align(("model", "training", "seeds", "steps", "top-1 %"), body, left=2)


def invariance_text(results: Results) -> str:
    """Relative invariance (cosine) by model and training, averaged in groups of transforms.

    Args:
        results: From `load.read`, with invariance.

    Returns:
        Lines of at most 100 characters, without a newline at the end.
    """
    table = summaries.grouped_invariance(results.runs)
    body = [
        (
            str(table["model"].values[i]),
            str(table["training"].values[i]),
            *(
                number(mean, error, "{:z.2f}")
                for mean, error in zip(
                    table["mean"].values[i], table["standard_error"].values[i], strict=True
                )
            ),
        )
        for i in range(table.sizes["row"])
    ]
    return align(("model", "training", *summaries.GROUPS), body, left=2)


def number(mean: float, standard_error: float, form: str) -> str:
    """Writes a value, with its standard error where there is one.

    Args:
        mean: The value.
        standard_error: Its standard error, or NaN.
        form: How to write both, as in `"{:z.2f}"`.

    Returns:
        `0.71` or `0.71 ±0.02`.
    """
    text = form.format(mean)
    return text if math.isnan(standard_error) else f"{text} ±{form.format(standard_error)}"


def align(header: Sequence[str], body: Sequence[Sequence[str]], *, left: int) -> str:
    """Sets rows in columns; labels that would make a line longer than 100 are shortened.

    Args:
        header: Names of the columns.
        body: Rows of as many cells.
        left: How many columns, from the first, hold labels; they are flush left, others right.

    Returns:
        The lines, joined.
    """
    rows = [header, *body]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    while sum(widths) + _GAP * (len(widths) - 1) > WIDTH and max(widths[:left]) > 8:
        longest = max(range(left), key=lambda i: widths[i])
        widths[longest] -= 1
    lines = [
        (" " * _GAP)
        .join(
            _shorten(cell, width).ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _shorten(label: str, width: int) -> str:
    """Cuts the middle out: names of variants often differ at the end."""
    if len(label) <= width:
        return label
    tail = (width - 3) // 2
    return f"{label[: width - 3 - tail]}...{label[-tail:]}"
