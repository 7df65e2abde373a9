"""The class of every image of a split, read once and kept.

ArrayRecord gives whole records only, so that finding the images of a class means reading the
split: minutes for ImageNet. The labels are kept in a small file: `prepare` leaves it beside the
data; where there is none, it is made in the user's cache folder. Training never writes into a data
folder, which may be shared or read-only.
"""

import hashlib
import json
import os
import pathlib
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32

from invariance_jax import files, progress
from invariance_jax.data.records import Records

# Reading waits for the disk most of the time.
_THREADS = 16
_CHUNK = 256


def read(folder: pathlib.Path, split: str, feature: str) -> Int32[np.ndarray, " image"]:
    """Gives the labels of a whole split, from a file if there is one that fits.

    Args:
        folder: The data set's version folder.
        split: A whole split, `train`.
        feature: The feature that holds the class.

    Returns:
        The class of every image, in the split's order; -1 where there is none.

    Raises:
        DataError: A record cannot be read.
    """
    cached = _cache_folder(folder)
    for place in (folder, cached):
        labels = _load(place / _file_name(split, feature), _identity(folder, split))
        if labels is not None:
            return labels
    return write(folder, split, feature, cached)


def write(
    folder: pathlib.Path, split: str, feature: str, place: pathlib.Path | None = None
) -> Int32[np.ndarray, " image"]:
    """Reads the labels of a whole split from its records and keeps them.

    Args:
        folder: The data set's version folder.
        split: A whole split.
        feature: The feature that holds the class.
        place: Folder for the label file; beside the data by default.

    Returns:
        The class of every image.

    Raises:
        DataError: A record cannot be read.
    """
    labels = _scan(folder, split, feature)
    path = (place or folder) / _file_name(split, feature)
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, labels=labels, identity=_identity(folder, split))
    return labels


def _file_name(split: str, feature: str) -> str:
    return f"invariance_jax.{split}.{feature}.npz"


def _cache_folder(folder: pathlib.Path) -> pathlib.Path:
    """The user's cache, as the XDG standard places it, one folder for each data set."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    which = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return pathlib.Path(root) / "invariance_jax" / which


def _shards(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
    instructions = tfds.builder_from_directory(folder).info.splits[split].file_instructions
    return [pathlib.Path(each.filename) for each in instructions]


def _identity(folder: pathlib.Path, split: str) -> str:
    """What the labels were read from: a data set prepared anew has other files."""
    return json.dumps([(path.name, path.stat().st_size) for path in _shards(folder, split)])


def _load(path: pathlib.Path, identity: str) -> Int32[np.ndarray, " image"] | None:
    """The labels in a file, or None if there is no such file or it belongs to other data."""
    try:
        with path.open("rb") as file, np.load(file) as found:
            return found["labels"] if found["identity"] == identity else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _scan(folder: pathlib.Path, split: str, feature: str) -> Int32[np.ndarray, " image"]:
    instructions = tfds.builder_from_directory(folder).info.splits[split].file_instructions
    records = Records(instructions)

    def labels_of(start: int) -> Int32[np.ndarray, " part"]:
        part = range(start, min(start + _CHUNK, len(records)))
        return np.array([records[i][feature].int64_list.value[0] for i in part], np.int32)

    found = []
    description = f"reading the labels of {folder.parent.name} {split}, once"
    with (
        ThreadPoolExecutor(_THREADS) as executor,
        progress.bar(total=len(records), description=description, unit="images") as bar,
    ):
        for part in executor.map(labels_of, range(0, len(records), _CHUNK)):
            found.append(part)
            bar.update(len(part))
    return np.concatenate(found)
