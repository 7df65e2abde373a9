"""How the place and size of the object vary from image to image: from boxes or masks."""

import csv
import pathlib
import xml.etree.ElementTree
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from invariance_jax.errors import UserError

# A mask's pixels brighter than this, of 1, are the object.
_THRESHOLD = 0.1
PERCENTILES = (25, 50, 75)


class Box(NamedTuple):
    """Where the object is, relative to its image: x to the right, y downwards, 0 to 1.

    Attributes:
        x0: Left end.
        y0: Upper end.
        x1: Right end.
        y1: Lower end.
        area: Share of the image that it takes.
        center_x: Its centre of mass.
        center_y: The same, downwards.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    area: float
    center_x: float
    center_y: float


QUANTITIES = Box._fields


def of_corners(
    corners: Sequence[float], width: float, height: float, *, source: object = "box"
) -> Box:
    """Makes a box relative to its image; its centre of mass is its middle.

    Args:
        corners: x0, y0, x1, y1 in pixels.
        width: Of the image, in pixels.
        height: The same.
        source: Where the box came from, for the error.

    Returns:
        The box.

    Raises:
        UserError: It does not lie in the image.
    """
    x0, y0, x1, y1 = corners
    if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height) or width <= 0 or height <= 0:
        raise UserError(
            f"{source}: ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is no box (x0, y0, x1, y1) of an image of "
            f"{width:g} x {height:g} pixels"
        )
    x0, x1, y0, y1 = x0 / width, x1 / width, y0 / height, y1 / height
    return Box(x0, y0, x1, y1, (x1 - x0) * (y1 - y0), (x0 + x1) / 2, (y0 + y1) / 2)


def of_mask(mask: Float[np.ndarray, "height width"]) -> Box | None:
    """Measures the object in a mask.

    Args:
        mask: How much each pixel belongs to it, 0 to 1; those above 0.1 count.

    Returns:
        Extent, share of pixels and centre of mass of the pixels, weighted by the mask; None where
        no pixel counts.
    """
    weight = np.where(mask > _THRESHOLD, mask, 0.0)
    rows, columns = np.nonzero(weight)
    if not len(rows):
        return None
    height, width = mask.shape
    total = weight.sum()
    return Box(
        x0=columns.min() / width,
        y0=rows.min() / height,
        x1=(columns.max() + 1) / width,
        y1=(rows.max() + 1) / height,
        area=len(rows) / mask.size,
        center_x=float(weight.sum(axis=0) @ (np.arange(width) + 0.5) / total / width),
        center_y=float(weight.sum(axis=1) @ (np.arange(height) + 0.5) / total / height),
    )


def read(path: pathlib.Path, image_size: float | None = None) -> pd.DataFrame:
    """Reads boxes or masks.

    Args:
        path: A CSV file with the columns file_name, x0, y0, x1, y1 in pixels, and width and height
            of the image unless `image_size` says it; the class is what stands before the first
            "_" or "/" of file_name. Or a folder CLASS/*.xml, as ImageNet's boxes are, every object
            of a file a box of its own; or a folder CLASS/*.png of masks, white on black.
        image_size: Side of all images of a CSV file, in pixels.

    Returns:
        As `collect`.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    if path.is_file():
        return collect(_of_csv(path, image_size))
    for ending, of_file in (("xml", _of_xml), ("png", _of_png)):
        files = sorted(path.glob(f"*/*.{ending}"))
        if files:
            return collect((file.parent.name, box) for file in files for box in of_file(file))
    raise UserError(
        f"{path} holds no boxes; expected a CSV file, or a folder CLASS/*.xml of ImageNet's boxes "
        "or CLASS/*.png of masks"
    )


def _of_csv(path: pathlib.Path, image_size: float | None) -> Iterable[tuple[str, Box]]:
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                corners = [float(row[name]) for name in Box._fields[:4]]
                sides = [float(image_size or row[name]) for name in ("width", "height")]
                name = row["file_name"].replace("/", "_").partition("_")[0]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}, line {number}: {error!r}; expected the columns file_name, x0, y0, "
                    "x1, y1, and width and height unless the size of all images is given"
                ) from error
            yield name, of_corners(corners, *sides, source=f"{path}, line {number}")


def _of_xml(path: pathlib.Path) -> Iterable[Box]:
    try:
        tree = xml.etree.ElementTree.parse(path)
        sides = [float(tree.findtext(f"size/{name}", "")) for name in ("width", "height")]
        for box in tree.iterfind("object/bndbox"):
            corners = [float(box.findtext(each, "")) for each in ("xmin", "ymin", "xmax", "ymax")]
            yield of_corners(corners, *sides, source=path)
    except (xml.etree.ElementTree.ParseError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no file of ImageNet's boxes: {error}") from error


def _of_png(path: pathlib.Path) -> Iterable[Box | None]:
    with Image.open(path) as image:
        yield of_mask(np.asarray(image.convert("L"), np.float64) / 255)


def collect(boxes: Iterable[tuple[str, Box | None]]) -> pd.DataFrame:
    """Puts boxes together.

    Args:
        boxes: Class and box of each object; None for a mask without one.

    Returns:
        A line an object: `class_name` and float64 columns as the fields of `Box`. The attribute
        `skipped` counts masks without an object.

    Raises:
        UserError: There is no box.
    """
    every = list(boxes)
    kept = [(name, *box) for name, box in every if box is not None]
    if not kept:
        raise UserError(f"no object in {len(every)} boxes or masks; expected at least one")
    table = pd.DataFrame(kept, columns=["class_name", *QUANTITIES])
    table.attrs["skipped"] = len(every) - len(kept)
    return table


def spread(boxes: pd.DataFrame) -> pd.DataFrame:
    """Sums boxes up.

    Args:
        boxes: From `collect`.

    Returns:
        A line a class, called by its name, and one for all objects, called "all": `objects`, their
        number; the percentiles 25, 50 and 75 of each field of a box, as `area_50`;
        `std_center_x` and `std_center_y`, standard deviations (ddof 0) of the centre of mass.
    """

    def of(groups: pd.api.typing.DataFrameGroupBy) -> pd.DataFrame:
        found = {"objects": groups.size()}
        for percentile in PERCENTILES:
            values = groups[list(QUANTITIES)].quantile(percentile / 100)
            found |= {f"{name}_{percentile}": values[name] for name in QUANTITIES}
        deviations = groups[["center_x", "center_y"]].std(ddof=0)
        return pd.DataFrame(found | {f"std_{name}": deviations[name] for name in deviations})

    every = boxes.assign(class_name="all")
    return pd.concat([of(each.groupby("class_name")) for each in (every, boxes)])
