"""Image data sets that TensorFlow Datasets prepared as ArrayRecord, read without TensorFlow.

ArrayRecord gives whole records only, so that finding the images of a class means reading a split:
minutes for ImageNet. So labels are read once and kept in a small file, which `prepare` leaves
beside the data; where there is none, one is made in the user's cache folder. Training never writes
into a data folder, which may be shared or read-only.
"""

import functools
import hashlib
import itertools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Int32
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from invariance_jax import files, progress
from invariance_jax.data.sources import (
    DEFAULT_LABEL,
    DataError,
    Example,
    Span,
    SplitError,
    local_folder,
    resolve,
)
from invariance_jax.errors import UserError

T = TypeVar("T")
Features = Mapping[str, tf_feature_pb2.Feature]

# What the reader raises on a damaged or vanished file, and protobuf on a damaged record.
_READING_ERRORS = (RuntimeError, ValueError, IndexError, OSError)
# Reading waits for the disk most of the time.
_THREADS = 16
_CHUNK = 256


class TfdsSource:
    """A split of a prepared data set with an image and a class label.

    Images stay encoded: decoding is the pipeline's work.
    """

    def __init__(
        self, name: str, split: str, data_dir: str, label_feature: str = DEFAULT_LABEL
    ) -> None:
        """Opens the data set; nothing is downloaded or prepared, and no record is read.

        Args:
            name: As TFDS writes it, `name[/config][:version]`; the newest version by default.
            split: In TFDS notation.
            data_dir: The folder that was TFDS's `data_dir` when the data set was prepared.
            label_feature: The feature that holds the class.

        Raises:
            UserError: The data set is not there or not readable.
            SplitError: It has no such split, or files of the split are missing.
        """
        self._folder = _find_folder(name, data_dir)
        info = _info(self._folder, name)
        _check_features(info.features, name, label_feature)
        self._spans = resolve(split, {key: each.shard_lengths for key, each in info.splits.items()})
        self._whole = {key: range(each.num_examples) for key, each in info.splits.items()}
        self._files = {
            span.split: [each.filename for each in info.splits[span.split].file_instructions]
            for span in self._spans
        }
        self._parts = info.splits[split].file_instructions
        there = set(os.listdir(self._folder))
        missing = [each for each in self._parts if each.basename() not in there]
        if missing:
            raise SplitError(
                f"split {split!r}: {len(missing)} of {len(self._parts)} files are missing in "
                f"{self._folder}, the first is {missing[0].basename()}"
            )
        self._records = ArrayRecordDataSource(self._parts)
        self._has_file_names = "file_name" in info.features
        self._label_feature = label_feature
        self.name, self.split, self.has_labels = name, split, True
        self.num_classes = int(info.features[label_feature].num_classes)
        self.class_names = tuple(info.features[label_feature].names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, encoded as it was stored.

        Raises:
            DataError: Its record cannot be read; the message names the file.
        """
        features = self._features(index)
        return Example(
            image=features["image"].bytes_list.value[0],
            label=self._label(index, features),
            name=self._name(index, features),
        )

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image, -1 where there is none; reads the records if none are kept."""
        return self._labels

    def names(self) -> list[str]:
        """The id of every image; reads the records of this part if file names are in them."""
        if self._has_file_names:
            return self._scan(self._name, f"reading the names of {self.name} {self.split}")
        return [self._name(index, {}) for index in range(len(self))]

    def write_labels(self) -> Int32[np.ndarray, " image"]:
        """Reads the labels of a whole split from its records and keeps them beside the data.

        Returns:
            The class of every image.

        Raises:
            DataError: A record cannot be read.
        """
        labels = self._scanned_labels()
        self._keep_labels(self._folder, self._spans[0], labels)
        return labels

    def _features(self, index: int) -> Features:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            # TFDS's own decoding costs ten times as much as this and gives the same bytes.
            return tf_example_pb2.Example.FromString(self._records[index]).features.feature
        except _READING_ERRORS as error:
            places = ((part, record) for part in self._parts for record in range(part.take))
            part, record = next(itertools.islice(places, index, None))
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"cannot read record {part.skip + record} of {part.filename}: {reason}; the file "
                "is damaged: copy or prepare it again"
            ) from error

    def _label(self, index: int, features: Features) -> int:
        return features[self._label_feature].int64_list.value[0]

    def _name(self, index: int, features: Features) -> str:
        """The file name, or the position in the whole split, the same in every part of it."""
        file_name = features["file_name"].bytes_list.value if self._has_file_names else ()
        if file_name and file_name[0]:
            return file_name[0].decode()
        for span in self._spans:
            if index < len(span.positions):
                break
            index -= len(span.positions)
        digits = len(str(len(self._whole[span.split])))
        return f"{self.name}-{span.split}-{span.positions[index]:0{digits}d}"

    def _scan(self, value: Callable[[int, Features], T], description: str) -> list[T]:
        """Reads all records in several threads, with a bar, and takes one value of each."""

        def chunk(start: int) -> list[T]:
            part = range(len(self))[start : start + _CHUNK]
            return [value(index, self._features(index)) for index in part]

        found: list[T] = []
        with (
            ThreadPoolExecutor(_THREADS) as executor,
            progress.bar(total=len(self), description=description, unit="images") as bar,
        ):
            for values in executor.map(chunk, range(0, len(self), _CHUNK)):
                found += values
                bar.update(len(values))
        return found

    @functools.cached_property
    def _labels(self) -> Int32[np.ndarray, " image"]:
        kept = [self._kept_labels(span) for span in self._spans]
        if all(part is not None for part in kept):
            return np.concatenate(kept)
        labels, start = self._scanned_labels(), 0
        for span in self._spans:
            stop = start + len(span.positions)
            self._keep_labels(_cache_folder(self._folder), span, labels[start:stop])
            start = stop
        return labels

    def _scanned_labels(self) -> Int32[np.ndarray, " image"]:
        what = f"reading the labels of {self.name} {self.split}, once"
        return np.array(self._scan(self._label, what), np.int32)

    def _kept_labels(self, span: Span) -> Int32[np.ndarray, " image"] | None:
        """The labels in a file, of the whole split or of this part, that belongs to these data."""
        whole, cache = Span(span.split, self._whole[span.split]), _cache_folder(self._folder)
        for folder, of in ((self._folder, whole), (cache, whole), (cache, span)):
            try:
                # np.load leaves a damaged file open.
                with (folder / self._label_file(of)).open("rb") as file, np.load(file) as found:
                    if found["identity"] == self._identity(span.split):
                        first = span.positions.start - of.positions.start
                        return found["labels"][first : first + len(span.positions)]
            except (OSError, KeyError, ValueError, zipfile.BadZipFile):
                continue  # absent, or damaged
        return None

    def _keep_labels(
        self, folder: pathlib.Path, span: Span, labels: Int32[np.ndarray, " image"]
    ) -> None:
        path = folder / self._label_file(span)
        with files.atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, labels=labels, identity=self._identity(span.split))

    def _label_file(self, span: Span) -> str:
        first, last = span.positions[0], span.positions[-1]
        part = "" if span.positions == self._whole[span.split] else f".{first}-{last}"
        return f"invariance_jax.{span.split}{part}.{self._label_feature}.npz"

    def _identity(self, split: str) -> str:
        """What the labels are read from: a data set prepared anew has other files."""
        paths = [pathlib.Path(each) for each in self._files[split]]
        return json.dumps([(path.name, path.stat().st_size) for path in paths])


def _cache_folder(folder: pathlib.Path) -> pathlib.Path:
    """The user's cache, as the XDG standard places it, one folder for each data set."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    which = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return pathlib.Path(root) / "invariance_jax" / which


def _find_folder(name: str, data_dir: str) -> pathlib.Path:
    """The folder of the version that `name[/config][:version]` asks for, or of the newest."""
    if not data_dir:
        raise UserError(
            f"config.data.data_dir is empty; config.data.name {name!r} is a TFDS data set and "
            "needs the folder that it was prepared in"
        )
    root = local_folder(data_dir, "config.data.data_dir")
    base, _, version = name.partition(":")
    versions = {
        tfds.core.Version(path.parent.name): path.parent
        for path in (root / base).glob("*/features.json")
        if tfds.core.Version.is_valid(path.parent.name)
        and path.with_name("dataset_info.json").is_file()
        and version in ("", path.parent.name)
    }
    if not versions:
        wanted = root / base / (version or "<version>")
        found = itertools.chain(root.glob("*/*/features.json"), root.glob("*/*/*/features.json"))
        folders = [path.parent.relative_to(root) for path in found]
        prepared = sorted(f"{folder.parent.as_posix()}:{folder.name}" for folder in folders)
        raise UserError(
            f"config.data.name {name!r} is not prepared in config.data.data_dir {data_dir!r}: "
            f"no {wanted}; data sets there: {', '.join(prepared) or 'none'}"
        )
    return versions[max(versions)]


def _info(folder: pathlib.Path, name: str) -> tfds.core.DatasetInfo:
    """What TFDS wrote of a data set beside its records."""
    # tfds.data_source would look for the data set's code and its download first.
    info = tfds.builder_from_directory(folder).info
    formats = sorted(each.value for each in info.available_file_formats())
    if "array_record" not in formats:
        raise UserError(
            f"config.data.name {name!r} in {folder} is stored as {', '.join(formats)}; expected "
            "array_record: prepare it in another data_dir with "
            f"`tfds build {name} --file_format=array_record --data_dir=FOLDER`"
        )
    return info


def _check_features(
    features: tfds.features.FeatureConnector, name: str, label_feature: str
) -> None:
    by_name = features if isinstance(features, tfds.features.FeaturesDict) else {}
    kinds = {key: type(feature).__name__ for key, feature in by_name.items()}
    if kinds.get("image") != "Image":
        raise UserError(
            f"config.data.name {name!r}: feature 'image' is {kinds.get('image', 'not there')}; "
            f"expected Image; found: {', '.join(kinds) or type(features).__name__}"
        )
    classes = [key for key, kind in kinds.items() if kind == "ClassLabel"]
    if label_feature not in classes:
        raise UserError(
            f"config.data.label_feature {label_feature!r} of config.data.name {name!r} is "
            f"{kinds.get(label_feature, 'not there')}; expected a ClassLabel: "
            f"{', '.join(classes) or 'this data set has none'}"
        )
