"""Images to augment: photos from a folder, or smooth synthetic ones from a seed."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Suffixes of image files in a folder laid out like ImageNet's.
_SUFFIXES = {".jpeg", ".jpg", ".png"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One size of the problem.

    Attributes:
        canvas: Side of the canvas.
        height: Height of a synthetic image on it.
        width: Width of a synthetic image on it.
        size: Side of the output.
    """

    canvas: int
    height: int
    width: int
    size: int


# The usual photo of ImageNet on its canvas, and Tiny ImageNet's.
SETTINGS = (Setting(512, 375, 500, 224), Setting(64, 64, 64, 64))
# For operations on images that are resampled already.
OPERATION_SETTING = Setting(224, 224, 224, 224)


def load_images(
    setting: Setting, count: int, seed: int, data_dir: str | None
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Loads decoded images that fit the canvas.

    Args:
        setting: The size of the problem.
        count: How many.
        seed: Seed of the synthetic images.
        data_dir: Folder with JPEG or PNG files at any depth; None for synthetic images.

    Returns:
        RGB pixels; files are repeated if there are fewer.

    Raises:
        FileNotFoundError: The folder has no image.
    """
    if data_dir is None:
        rng = np.random.default_rng(seed)
        # Coarse noise, enlarged: smooth as photos are, so that nothing is a special case.
        coarse = rng.integers(0, 256, (count, 12, 16, 3), np.uint8)
        size = (setting.width, setting.height)
        return [np.asarray(Image.fromarray(c).resize(size, Image.BICUBIC)) for c in coarse]
    files = sorted(p for p in pathlib.Path(data_dir).rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise FileNotFoundError(f"--data_dir {data_dir} holds no JPEG or PNG file")
    images = []
    for path in files[:count]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            image.thumbnail((setting.canvas, setting.canvas), Image.BILINEAR)
            images.append(np.asarray(image))
    return [images[number % len(images)] for number in range(count)]
