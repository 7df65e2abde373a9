"""Images on the page: one under every transform and magnitude, and others beside each other."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from invariance_jax import data
from invariance_jax.config import DataConfig, ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import prepare_one, preprocessing
from invariance_jax.report.entries import MAGNITUDES
from invariance_jax.report.rows import words
from invariance_jax.transforms import TRANSFORMS

GRID = (len(TRANSFORMS), MAGNITUDES)
# Larger ones are shrunk: 130 of them are one page.
_SIDE, _QUALITY = 96, 80


class Shown(NamedTuple):
    """One image of a sheet.

    Attributes:
        uri: The image, as `data:image/webp;base64,...`.
        width: In pixels.
        height: In pixels.
        caption: What stands below it.
    """

    uri: str
    width: int
    height: int
    caption: str


class Sheet(NamedTuple):
    """Images in rows.

    Attributes:
        titles: What stands before each row.
        rows: The images of each.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[Shown]]


def shown(image: Float[np.ndarray, "height width 3"], caption: str) -> Shown:
    """Makes an image a part of a page.

    Args:
        image: float in [0, 1].
        caption: What stands below it.

    Returns:
        The image, its longer side at most 96 pixels.
    """
    picture = Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Shown(f"data:image/webp;base64,{encoded}", *picture.size, caption)


def sheet(images: Float[np.ndarray, "transform magnitude height width 3"]) -> Sheet:
    """Shows an image under all transforms, downwards, at all magnitudes, across.

    Args:
        images: float in [0, 1], in the order of `TRANSFORMS` and of their magnitudes.

    Returns:
        The images.

    Raises:
        UserError: The array has another shape or range.
    """
    check(images)
    titles, rows = [], []
    for transform, line in zip(TRANSFORMS.values(), images, strict=True):
        titles.append(f"{words(transform.name)} ({transform.unit})")
        values = map(tick_label, transform.magnitudes)
        rows.append([shown(each, value) for each, value in zip(line, values, strict=True)])
    return Sheet(titles, rows)


def tick_label(value: float) -> str:
    """Writes a magnitude in at most four characters, with a true minus sign.

    Args:
        value: Magnitude.

    Returns:
        Two decimals below 10, none above; no trailing zeros.
    """
    text = f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")


def prepared(example: data.Example, config: DataConfig) -> Float[np.ndarray, "size size 3"]:
    """Prepares an image as the evaluation does.

    Args:
        example: The image.
        config: How large it becomes.

    Returns:
        float32 in [0, 1].
    """
    preprocess = preprocessing(ExperimentConfig(data=config))
    return np.asarray(prepare_one(preprocess, example, config.canvas_size))


def transformed(
    image: Float[np.ndarray, "size size 3"],
) -> Float[np.ndarray, "transform magnitude size size 3"]:
    """Transforms a prepared image.

    Args:
        image: float32 in [0, 1].

    Returns:
        float32 in [0, 1], in the order of `TRANSFORMS` and of their magnitudes.
    """
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
