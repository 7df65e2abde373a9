"""The colour of every training."""

from collections.abc import Iterable

from invariance_jax.report.rows import UNTRAINED, Row

# Colours of Okabe and Ito and of Tol ("muted"), told apart by colour-blind readers. The first
# ones belong to fixed trainings, so that reports can be compared; others take the rest in order.
_FIXED = {
    UNTRAINED: "#8C8C8C",
    "none": "#0072B2",
    "translate": "#E69F00",
    "random_resized_crop": "#009E73",
    "flip": "#CC79A7",
    "random_resized_crop_flip": "#D55E00",
}
_SPARE = ("#56B4E9", "#882255", "#B8A800", "#6655BB", "#999933", "#AA4499", "#44AA99", "#A6522B")


def colours(rows: Iterable[Row]) -> dict[str, str]:
    """Gives every augmentation a colour, the same in every figure of a report.

    Args:
        rows: All rows of the report, repeats allowed.

    Returns:
        "#RRGGBB" by `Row.head`; readable on white and on black.
    """
    ordered = sorted(rows, key=lambda row: row.sort_key[1:])
    heads = dict.fromkeys(row.head for row in ordered)
    others = [name for name in heads if name not in _FIXED]
    free = [*_SPARE, *(colour for name, colour in _FIXED.items() if name not in heads)]
    found = {name: free[i % len(free)] for i, name in enumerate(others)}
    return found | {name: _FIXED[name] for name in heads if name in _FIXED}
