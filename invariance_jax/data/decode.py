"""Decoding to a canvas: the host's whole work on pixels.

A batch needs one shape and images have many; the augmentation needs the image at its own size.
So an image lies at the top left of a square of zeros, and its height and width go with it.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from invariance_jax.data.sources import DataError

# What Pillow raises on damaged or hostile files.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# libjpeg can shrink by 2, 4 or 8 while it decodes, which is fast but averages blocks. Twice the
# final size is left for the bilinear filter: on ImageNet photos and a canvas of 256 the pixels
# then differ from a full decode by 0.005 grey levels on average (0.8 on a canvas of 64).
_DRAFT_MARGIN = 2
_JPEG_START = b"\xff\xd8"


def decode(
    image: bytes | UInt8[np.ndarray, "height width 3"], canvas_size: int
) -> UInt8[np.ndarray, "fitted_height fitted_width 3"]:
    """Decodes an image and shrinks it if a side is longer than the canvas.

    Grey, palette, CMYK and transparent images become RGB as Pillow converts them (alpha is
    dropped). The EXIF orientation is not applied, as torchvision's `ImageFolder` does not.
    simplejpeg decodes what it can, with the pixels that Pillow would give; Pillow does the rest.

    Args:
        image: An encoded file, or RGB pixels.
        canvas_size: The longest side allowed, pixels.

    Returns:
        RGB pixels, 0 to 255, at the image's own size, or shrunk (Pillow's bilinear filter with
        antialias, aspect kept, no side under 1) so that the longer side is `canvas_size`.

    Raises:
        DataError: The bytes are no image, or the array has another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(
                f"pixels are {image.dtype} {list(image.shape)}; expected uint8 [height, width, 3]"
            )
        size = _fitted_size(image.shape[1], image.shape[0], canvas_size)
        return np.asarray(_resized(Image.fromarray(image), size))
    pixels = _decode_jpeg(image, canvas_size)
    return _decode_any(image, canvas_size) if pixels is None else pixels


def _decode_jpeg(
    image: bytes, canvas_size: int
) -> UInt8[np.ndarray, "fitted_height fitted_width 3"] | None:
    """Decodes a usual JPEG by libjpeg-turbo without Pillow's copies; None for any other file."""
    if not image.startswith(_JPEG_START):
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(image)
        if height * width > Image.MAX_IMAGE_PIXELS:
            return None  # hostile; Pillow refuses it before it takes the memory
        size = _fitted_size(width, height, canvas_size)
        factor = _draft_factor((width, height), size)
        # The smallest of libjpeg's scales that reaches these sizes is 1 / factor.
        pixels = simplejpeg.decode_jpeg(
            image, "RGB", min_height=-(-height // factor), min_width=-(-width // factor)
        )
    except ValueError:
        # CMYK, damaged, or unusual in a way that Pillow may accept: it decides.
        return None
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(_resized(Image.fromarray(pixels), size))


def _draft_factor(size: tuple[int, int], fitted: tuple[int, int]) -> int:
    """By how much Pillow's `draft` would shrink: 8, 4, 2 or 1."""
    most = min(side // (_DRAFT_MARGIN * goal) for side, goal in zip(size, fitted, strict=True))
    return next((factor for factor in (8, 4, 2) if factor <= most), 1)


def _decode_any(
    image: bytes, canvas_size: int
) -> UInt8[np.ndarray, "fitted_height fitted_width 3"]:
    """Decodes whatever Pillow can."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            size = _fitted_size(opened.width, opened.height, canvas_size)
            # Does nothing unless the file is a JPEG that is much larger than the canvas.
            opened.draft(None, (_DRAFT_MARGIN * size[0], _DRAFT_MARGIN * size[1]))
            opened.load()
            # Alpha is dropped; left there, Pillow warns about some transparent palettes.
            opened.info.pop("transparency", None)
            return np.asarray(_resized(opened.convert("RGB"), size))
    except UnidentifiedImageError as error:
        # Pillow's own words show a memory address.
        raise DataError(f"cannot decode {len(image)} bytes: no image format known") from error
    except _DECODING_ERRORS as error:
        raise DataError(f"cannot decode {len(image)} bytes: {error}") from error


def _fitted_size(width: int, height: int, canvas_size: int) -> tuple[int, int]:
    """Width and height after shrinking to the canvas."""
    longest = max(width, height)
    if longest <= canvas_size:
        return width, height
    return (
        max(1, round(width * canvas_size / longest)),
        max(1, round(height * canvas_size / longest)),
    )


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BILINEAR)


def to_canvas(
    image: bytes | UInt8[np.ndarray, "height width 3"], canvas_size: int
) -> tuple[UInt8[np.ndarray, "{canvas_size} {canvas_size} 3"], int, int]:
    """Decodes an image to the top left of a square of zeros.

    Args:
        image: An encoded file, or RGB pixels.
        canvas_size: Side of the square, pixels; longer images are shrunk to fit.

    Returns:
        The canvas, 0 to 255, and the height and width of the image on it.

    Raises:
        DataError: The image cannot be decoded.
    """
    pixels = decode(image, canvas_size)
    height, width = pixels.shape[:2]
    canvas = np.zeros((canvas_size, canvas_size, 3), np.uint8)
    canvas[:height, :width] = pixels
    return canvas, height, width


class BadImage(NamedTuple):
    """An image that cannot be decoded.

    Attributes:
        name: Its id, as `Example` has it.
        reason: What is wrong with it.
    """

    name: str
    reason: str


class BadImageCounter:
    """Says each bad image once, with the number of bad images so far.

    Attributes:
        names: Ids of the bad images met.
    """

    def __init__(self, announce: Callable[[str], object]) -> None:
        """Counts from zero.

        Args:
            announce: Takes each message.
        """
        self.names: set[str] = set()
        self._announce = announce

    def __call__(self, bad: BadImage) -> None:
        """Counts an image; one that was met before, in an earlier epoch, is not counted again."""
        if bad.name in self.names:
            return
        self.names.add(bad.name)
        self._announce(
            f"skipped image {bad.name!r}: {bad.reason}; bad images so far: {len(self.names)}"
        )
