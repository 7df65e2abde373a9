"""Small aligned tables for the terminal, at most 100 columns wide."""

from collections.abc import Sequence

WIDTH = 100
_GAP = 2


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
