"""One image under every transform and magnitude: its pixels, and the figure."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from invariance_jax import data
from invariance_jax.config import DataConfig, ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import prepare_one, preprocessing
from invariance_jax.report.charts import tick_label
from invariance_jax.report.load import MAGNITUDES
from invariance_jax.report.rows import words
from invariance_jax.transforms import TRANSFORMS

GRID = (len(TRANSFORMS), MAGNITUDES)
# Magnitudes that narrow screens show.
_NARROW = (0, 2, 4, 6, 9)
# In units of one image.
_GAP = 0.22
_MARGIN = 1.1


def transformed(
    example: data.Example, config: DataConfig
) -> Float[np.ndarray, "transform magnitude size size 3"]:
    """Transforms an image after the evaluation's own preparation.

    Args:
        example: The image.
        config: How large it becomes.

    Returns:
        float32 in [0, 1], in the order of `TRANSFORMS` and of their magnitudes.
    """
    preprocess = preprocessing(ExperimentConfig(data=config))
    image = prepare_one(preprocess, example, config.canvas_size)
    # Rules may leave the range by a rounding error.
    return np.clip(_on_grid(image), 0, 1)


@jax.jit
def _on_grid(image: Float[Array, "size size 3"]) -> Float[Array, "transform magnitude size size 3"]:
    magnitudes = {name: jnp.asarray(x.magnitudes, jnp.float32) for name, x in TRANSFORMS.items()}
    cells = [jax.vmap(x.apply, (None, 0))(image, magnitudes[x.name]) for x in TRANSFORMS.values()]
    return jnp.stack(cells)


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


def draw(
    images: Float[np.ndarray, "transform magnitude height width 3"], *, narrow: bool
) -> Figure:
    """Draws the images, transforms downwards and magnitudes across.

    Args:
        images: float in [0, 1], in the order of `TRANSFORMS` and of their magnitudes.
        narrow: Show five magnitudes, for narrow screens.

    Returns:
        The figure.
    """
    chosen = _NARROW if narrow else range(MAGNITUDES)
    height, width, rows, columns = *images.shape[2:4], len(TRANSFORMS), len(chosen)
    # Images are 1 wide and `_GAP` apart; values stand in the gap below.
    tall, step = height / width, 1 + _GAP / 3
    across, down = _MARGIN + columns * step, rows * (tall + _GAP)
    inches = min(10.0, 0.86 * across)
    figure = Figure(figsize=(inches, inches / across * down))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.axis("off")
    beside = {"x": _MARGIN - 0.1, "ha": "right"}
    for row, transform in enumerate(TRANSFORMS.values()):
        top, bottom = row * (tall + _GAP), row * (tall + _GAP) + tall
        for column, magnitude in enumerate(chosen):
            left, value = _MARGIN + column * step, tick_label(transform.magnitudes[magnitude])
            place = (left, left + 1, bottom, top)
            panel.imshow(images[row, magnitude], extent=place, aspect="auto", vmin=0, vmax=1)
            panel.text(left + 0.5, bottom + 0.02, value, ha="center", va="top", size=8)
        name = words(transform.name)
        name = name.replace(" ", "\n", 1) if len(name) > len("translate x") else name
        panel.text(y=top + tall / 2, s=name, va="center", size=9, **beside)
        look = {"va": "top", "size": 7.5, "color": "#444444"}
        panel.text(y=bottom + 0.02, s=transform.unit, **look, **beside)
    panel.set_xlim(0, across)
    panel.set_ylim(down, 0)
    return figure
