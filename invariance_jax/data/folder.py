"""Images as people have them: files in folders, with a folder for each class or without classes."""

import csv
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from invariance_jax import files
from invariance_jax.data.sources import (
    NO_LABEL,
    DataError,
    Example,
    check_labels,
    local_folder,
    resolve,
)
from invariance_jax.errors import UserError

_IMAGE = re.compile(r"[^.].*\.(bmp|gif|jpe?g|p[gnp]m|png|tiff?|webp)", re.IGNORECASE | re.DOTALL)
# Which split a subfolder is.
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class FolderSource:
    """The image files of a folder, sorted by path; their names are relative to it.

    A folder with subfolders has a class for each, sorted by name, with all images below it, as
    torchvision's `ImageFolder` has. A folder of image files alone has no labels. Hidden files, and
    what is no image by the end of its name, are left out.

    If all subfolders are among `train`, `validation` (or `val`) and `test`, or two of them are,
    they are the splits, and each is such a folder with the classes of the first. Otherwise the one
    split is called `all`.

    A table may stand for the folder: a `.csv` file with a column `file` (paths from the table's
    folder on) and, if they are known, `label` and `split`. Labels that are all whole numbers are
    the classes' own; others are names, and classes are their sorted order.
    """

    def __init__(self, path: str | os.PathLike[str], split: str = "all") -> None:
        """Lists the files; none is opened.

        Args:
            path: The folder, or the table.
            split: In TFDS notation; `all` is every image.

        Raises:
            UserError: There is no such folder, it holds no image, some of its images have a class
                and others have none, splits differ in their classes, or the table cannot be read.
            SplitError: There is no such split.
        """
        if os.fspath(path).endswith(".csv"):
            table = files.local_path(path, "the table of images")
            self._root, self.name = table.parent, table.stem
            self.class_names, listed = _read_table(table)
        else:
            self._root = local_folder(path, "the image folder")
            self.name = self._root.resolve().name
            folders = _split_folders(self._root)
            # Those of the first split that has any, so that a label means the same in all splits.
            self.class_names = tuple(next(filter(None, map(_subfolders, folders.values())), ()))
            # A split that is not asked for may hold a million files.
            asked = [name for name in folders if re.search(rf"\b({name}|all)\b", split)]
            listed = {
                name: _listed(self._root, folders[name], self.class_names)
                for name in asked or folders
            }
        if not any(listed.values()):
            raise UserError(
                f"the image folder {str(path)!r} holds no image; expected files as x.jpg, x.png, "
                "x.webp, x.tif, x.bmp, x.gif or x.ppm"
            )
        spans = resolve(split, {name: [len(found)] for name, found in listed.items()})
        chosen = [
            each
            for span in spans
            for each in listed[span.split][span.positions.start : span.positions.stop]
        ]
        self._names = [name for name, _ in chosen]
        self._labels = np.array([label for _, label in chosen], np.int32)
        self.split = split
        self.num_classes = len(self.class_names)
        self.has_labels = check_labels(
            self._labels,
            self._names,
            lambda one, other: (
                f"the image folder {str(path)!r} holds images with a class and without, as "
                f"{one} and {other}; expected a subfolder for each class, or no subfolder"
            ),
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, encoded as it lies there."""
        path = self._root / self._names[index]
        try:
            image = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        return Example(image=image, label=int(self._labels[index]), name=self._names[index])

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image; -1 if there are none."""
        return self._labels

    def names(self) -> list[str]:
        """The path of every image, from the folder on."""
        return list(self._names)


def _read_table(
    path: pathlib.Path,
) -> tuple[tuple[str, ...], dict[str, list[tuple[str, int]]]]:
    """The classes, and of each split path and label of every image, in the table's order."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"the table of images {str(path)!r} cannot be read: {error}") from error
    for number, row in enumerate(rows, 2):
        if not row.get("file") or None in row:
            raise UserError(
                f"the table of images {str(path)!r}, line {number}: expected columns file, label "
                f"and split, the latter two if known; found {row}"
            )
    labels = [row.get("label") or "" for row in rows]
    known = set(labels) - {""}
    if known and all(label.isdecimal() and len(label) < 7 for label in known):
        numbers = {label: int(label) for label in known}
        names = tuple(map(str, range(max(numbers.values()) + 1)))
    else:
        names = tuple(sorted(known))
        numbers = {name: number for number, name in enumerate(names)}
    listed: dict[str, list[tuple[str, int]]] = {}
    for row, label in zip(rows, labels, strict=True):
        split = row.get("split") or "all"
        image = (row["file"], numbers.get(label, NO_LABEL))
        listed.setdefault(_SPLITS.get(split, split), []).append(image)
    return names, listed


def _subfolders(folder: pathlib.Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(each.name for each in entries if each.is_dir() and each.name[0] != ".")


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot list {error.filename}: {error.strerror}") from error


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folder of every split."""
    there = _subfolders(root)
    found = {split: root / name for name, split in _SPLITS.items() if name in there}
    # One of several subfolders that is called `train` is a class of vehicles.
    return found if len(found) > 1 or len(found) == len(there) > 0 else {"all": root}


def _listed(
    root: pathlib.Path, folder: pathlib.Path, classes: Sequence[str]
) -> list[tuple[str, int]]:
    """Path from the root on and label of every image below a folder."""
    found = []
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        below = pathlib.Path(place).relative_to(folder).parts
        if below and below[0] not in classes:
            raise UserError(
                f"the image folder {str(folder)!r} holds {below[0]!r}, which is none of the "
                f"{len(classes)} classes of the first split"
            )
        label = classes.index(below[0]) if below else NO_LABEL
        start = os.path.relpath(place, root)
        found += [
            (os.path.normpath(f"{start}/{name}"), label) for name in names if _IMAGE.fullmatch(name)
        ]
    return sorted(found)
