"""How every figure looks: one colour a training, one line style, marker and hatch a model."""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from invariance_jax.report.rows import UNTRAINED, Row, training_rank

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
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "----")
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
    "hatch.linewidth": 0.6,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What tells rows apart, the same in every figure of a report.

    Attributes:
        colours: Colour, "#RRGGBB", by training.
        lines: Line style by model.
        markers: Marker by model.
        hatches: Hatch of bars and boxes by model.
    """

    colours: Mapping[str, str]
    lines: Mapping[str, str]
    markers: Mapping[str, str]
    hatches: Mapping[str, str]


def look(rows: Iterable[Row]) -> Look:
    """Gives every training a colour, and every model a line style, a marker and a hatch.

    Args:
        rows: All rows of the report, repeats allowed.

    Returns:
        The look.
    """
    rows = list(rows)
    trainings = sorted({row.training for row in rows}, key=lambda n: (training_rank(n), n))
    models = sorted({row.model for row in rows})
    others = [name for name in trainings if name not in _FIXED]
    free = [*_SPARE, *(colour for name, colour in _FIXED.items() if name not in trainings)]
    colours = {name: _FIXED[name] for name in trainings if name in _FIXED}
    colours |= {name: free[i % len(free)] for i, name in enumerate(others)}
    lines, markers, hatches = (
        {name: styles[i % len(styles)] for i, name in enumerate(models)}
        for styles in (LINES, MARKERS, HATCHES)
    )
    return Look(colours=colours, lines=lines, markers=markers, hatches=hatches)


def save_png(figure: Figure) -> bytes:
    """Draws a figure as PNG.

    Args:
        figure: What to draw.

    Returns:
        The file's bytes, the same each time.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PNG_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def save_pdf(figure: Figure) -> bytes:
    """Draws a figure as PDF, for papers.

    Args:
        figure: What to draw.

    Returns:
        The file's bytes, the same each time.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
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
