"""How every figure looks, and how it is saved; no display is needed."""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

# A notebook tells every program that it starts how to show figures, in words that may mean nothing
# to another installation. To save figures needs none of it.
_shown_by = os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402

if _shown_by is not None:
    os.environ["MPLBACKEND"] = _shown_by
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _shown_by
import matplotlib.style  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from invariance_jax.report.rows import UNTRAINED, Row  # noqa: E402

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
PNG_DOTS_PER_INCH = 200

_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    # Text in PDF stays text that journals accept (TrueType, not Type 3).
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Matplotlib's settings while figures are made and saved; restored afterwards.

    Starts from matplotlib's defaults, so that a user's own matplotlibrc changes nothing.

    Yields:
        Nothing.
    """
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def colours(rows: Iterable[Row]) -> dict[str, str]:
    """Gives every training a colour, the same in every figure of a report.

    Args:
        rows: All rows of the report, repeats allowed.

    Returns:
        "#RRGGBB" by `Row.training`.
    """
    trainings = dict.fromkeys(
        row.training for row in sorted(rows, key=lambda row: row.sort_key[1:])
    )
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
    figure.savefig(buffer, format=kind, dpi=PNG_DOTS_PER_INCH, metadata=undated)
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


def words(name: str) -> str:
    """A transform's name as people write it: `scale_zoom_in` is "scale zoom in"."""
    return name.replace("_", " ")
