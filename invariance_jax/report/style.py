"""How every figure looks, and how it is saved; no display is needed."""

import contextlib
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Literal

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

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
_SPARE = ("#56B4E9", "#882255", "#F0E442", "#332288", "#999933", "#AA4499", "#44AA99", "#661100")


def settings() -> contextlib.AbstractContextManager[None]:
    """Matplotlib's settings while figures are made and saved; restored afterwards.

    Starts from matplotlib's defaults, so that a user's own matplotlibrc changes nothing.

    Returns:
        The context to draw in.
    """
    return matplotlib.style.context(["default", pathlib.Path(__file__).parent / "figure.mplstyle"])


def colours(rows: Iterable[Row]) -> dict[str, str]:
    """Gives every training a colour, the same in every figure of a report.

    Args:
        rows: All rows of the report, repeats allowed.

    Returns:
        "#RRGGBB" by `Row.training`.
    """
    ordered = sorted(rows, key=lambda row: row.sort_key[1:])
    trainings = dict.fromkeys(row.training for row in ordered)
    others = [name for name in trainings if name not in _FIXED]
    free = [*_SPARE, *(colour for name, colour in _FIXED.items() if name not in trainings)]
    found = {name: free[i % len(free)] for i, name in enumerate(others)}
    return found | {name: _FIXED[name] for name in trainings if name in _FIXED}


def save(figure: Figure, kind: Literal["png", "pdf"]) -> bytes:
    """Draws a figure as a file.

    Args:
        figure: What to draw.
        kind: "png" for pages, "pdf" for papers.

    Returns:
        The file's bytes, the same each time.
    """
    buffer = io.BytesIO()
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(buffer, format=kind, metadata=undated)
    return buffer.getvalue()


def readable_on(colour: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with a background (WCAG 2).

    Args:
        colour: Red, green, blue (sRGB) in [0, 1]; more entries are ignored.

    Returns:
        "black" or "white".
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"
