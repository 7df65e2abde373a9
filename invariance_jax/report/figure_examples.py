"""One image under every transform and magnitude."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from invariance_jax.errors import UserError
from invariance_jax.report import style
from invariance_jax.report.figure_lines import tick_label
from invariance_jax.report.load import MAGNITUDES
from invariance_jax.transforms import TRANSFORMS

GRID = (len(TRANSFORMS), MAGNITUDES)

_GAP = 0.22
_MARGIN = 1.1


def examples(images: Float[np.ndarray, "T M H W 3"], magnitudes: xr.Dataset) -> Figure:
    """Draws a grid of images, transforms downwards and magnitudes across.

    Args:
        images: float [transforms, magnitudes, height, width, 3], in [0, 1], in the order of
            `magnitudes`.
        magnitudes: With coordinates transform, magnitude_value [transform, magnitude] and unit.

    Returns:
        The figure.
    """
    rows, columns, height, width, _ = images.shape
    # In units of one image: images are 1 wide and `_GAP` apart; values stand in the gap below.
    tall, step = height / width, 1 + _GAP / 3
    across = _MARGIN + columns * step
    inches = min(10.0, 0.86 * across)
    figure = Figure(figsize=(inches, inches / across * rows * (tall + _GAP)))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.axis("off")
    for row in range(rows):
        y = row * (tall + _GAP)
        values = magnitudes["magnitude_value"].values[row]
        for column in range(columns):
            x = _MARGIN + column * step
            panel.imshow(
                images[row, column], extent=(x, x + 1, y + tall, y), aspect="auto", vmin=0, vmax=1
            )
            text = tick_label(values[column])
            panel.text(x + 0.5, y + tall + 0.02, text, ha="center", va="top", fontsize=8)
        name = style.words(str(magnitudes["transform"].values[row]))
        name = name.replace(" ", "\n", 1) if len(name) > len("translate x") else name
        panel.text(_MARGIN - 0.1, y + tall / 2, name, ha="right", va="center", fontsize=9)
        unit = str(magnitudes["unit"].values[row])
        look = {"ha": "right", "va": "top", "fontsize": 7.5, "color": "#444444"}
        panel.text(_MARGIN - 0.1, y + tall + 0.02, unit, **look)
    panel.set_xlim(0, across)
    panel.set_ylim(rows * (tall + _GAP), 0)
    return figure


def check(images: np.ndarray) -> None:
    """Checks the array that a caller gave, before anything is drawn.

    Args:
        images: Should be float [13, 10, height, width, 3], in [0, 1].

    Raises:
        UserError: The array has another shape or range.
    """
    if images.ndim != 5 or images.shape[:2] != GRID or images.shape[-1] != 3:
        raise UserError(
            f"examples has shape {images.shape}; expected ({GRID[0]}, {GRID[1]}, height, width, 3)"
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"examples has values {images.min():.3g} to {images.max():.3g}; expected 0 to 1"
        )
