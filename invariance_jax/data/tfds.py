"""Image data sets that TensorFlow Datasets prepared as ArrayRecord, read without TensorFlow."""

import bisect
import itertools
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32

from invariance_jax.data import label_index
from invariance_jax.data.records import Records
from invariance_jax.data.source import Example
from invariance_jax.data.splits import SplitError, resolve
from invariance_jax.errors import UserError

# The feature that holds the class in nearly every data set.
DEFAULT_LABEL = "label"


class TfdsSource:
    """A split of a prepared data set with an image and a class label.

    Images stay encoded: decoding is the pipeline's work.
    """

    def __init__(
        self, name: str, split: str, data_dir: str, label_feature: str = DEFAULT_LABEL
    ) -> None:
        """Opens the data set; nothing is downloaded or prepared.

        Args:
            name: As TFDS writes it, `name[/config][:version]`; the newest version by default.
            split: In TFDS notation.
            data_dir: The folder that was TFDS's `data_dir` when the data set was prepared.
            label_feature: The feature that holds the class.

        Raises:
            UserError: The data set is not there or not readable.
            SplitError: It has no such split, or files of the split are missing.
        """
        self._folder = find_folder(name, data_dir)
        # tfds.data_source would look for the data set's code and its download first.
        builder = tfds.builder_from_directory(self._folder)
        _check_format(builder, name)
        _check_features(builder, name, label_feature)
        files = {key: info.shard_lengths for key, info in builder.info.splits.items()}
        self._spans = resolve(split, files)
        _check_files(builder, split)
        self._records = Records(builder.info.splits[split].file_instructions)
        self._ends = list(itertools.accumulate(s.stop - s.start for s in self._spans))
        self._digits = {key: len(str(sum(lengths))) for key, lengths in files.items()}
        self._label_feature = label_feature
        label = builder.info.features[label_feature]
        self.name = name
        self.split = split
        self.num_classes = int(label.num_classes)
        self.class_names = tuple(label.names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, encoded as it was stored."""
        features = self._records[index]
        file_name = features["file_name"].bytes_list.value if "file_name" in features else ()
        return Example(
            image=features["image"].bytes_list.value[0],
            label=features[self._label_feature].int64_list.value[0],
            name=file_name[0].decode() if file_name and file_name[0] else self._id(index),
        )

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image; the first call for a split reads all its records."""
        whole = {
            split: label_index.read(self._folder, split, self._label_feature)
            for split in {span.split for span in self._spans}
        }
        return np.concatenate([whole[s.split][s.start : s.stop] for s in self._spans])

    def _id(self, index: int) -> str:
        """An id from the position in the whole split, the same in every part of it."""
        which = bisect.bisect_right(self._ends, index)
        span = self._spans[which]
        position = span.stop - (self._ends[which] - index)
        return f"{self.name}-{span.split}-{position:0{self._digits[span.split]}d}"


def find_folder(name: str, data_dir: str) -> pathlib.Path:
    """Finds a prepared data set.

    Args:
        name: `name[/config][:version]`.
        data_dir: TFDS's `data_dir`.

    Returns:
        The folder of the version asked for, or of the newest.

    Raises:
        UserError: No `data_dir`, or no such data set in it.
    """
    if not data_dir:
        raise UserError(
            f"config.data.data_dir is empty; config.data.name {name!r} is a TFDS data set and "
            "needs the folder that it was prepared in"
        )
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(
            f"config.data.data_dir {data_dir!r} is not a folder here; expected a TFDS data_dir on "
            "this machine's file system (mount a bucket first)"
        )
    base, _, version = name.partition(":")
    versions = {
        tfds.core.Version(path.parent.name): path.parent
        for path in (root / base).glob("*/features.json")
        if tfds.core.Version.is_valid(path.parent.name)
        and path.with_name("dataset_info.json").is_file()
    }
    if version:
        versions = {key: path for key, path in versions.items() if str(key) == version}
    if not versions:
        wanted = root / base / (version or "<version>")
        raise UserError(
            f"config.data.name {name!r} is not prepared in config.data.data_dir {data_dir!r}: "
            f"no {wanted}; data sets there: {', '.join(_prepared(root)) or 'none'}"
        )
    return versions[max(versions)]


def _prepared(root: pathlib.Path) -> list[str]:
    """Names of the data sets in a TFDS folder, with configs and versions."""
    files = itertools.chain(root.glob("*/*/features.json"), root.glob("*/*/*/features.json"))
    folders = (path.parent.relative_to(root) for path in files)
    return sorted(f"{folder.parent.as_posix()}:{folder.name}" for folder in folders)


def _check_format(builder: tfds.core.DatasetBuilder, name: str) -> None:
    formats = sorted(each.value for each in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise UserError(
            f"config.data.name {name!r} in {builder.data_dir} is stored as {', '.join(formats)}; "
            "expected array_record: prepare it in another data_dir with "
            f"`tfds build {name} --file_format=array_record --data_dir=FOLDER`"
        )


def _check_features(builder: tfds.core.DatasetBuilder, name: str, label_feature: str) -> None:
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or "image" not in features:
        found = ", ".join(features) if isinstance(features, tfds.features.FeaturesDict) else ""
        raise UserError(
            f"config.data.name {name!r} has no feature 'image'; "
            f"found: {found or type(features).__name__}"
        )
    if not isinstance(features["image"], tfds.features.Image):
        raise UserError(
            f"config.data.name {name!r}: feature 'image' is {type(features['image']).__name__}; "
            "expected Image"
        )
    classes = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
    if label_feature not in classes:
        kind = type(features[label_feature]).__name__ if label_feature in features else "not there"
        raise UserError(
            f"config.data.label_feature {label_feature!r} of config.data.name {name!r} is {kind}; "
            f"expected a ClassLabel: {', '.join(classes) or 'this data set has none'}"
        )


def _check_files(builder: tfds.core.DatasetBuilder, split: str) -> None:
    """An incomplete copy is found now, not after hours of training."""
    files = [pathlib.Path(each.filename) for each in builder.info.splits[split].file_instructions]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise SplitError(
            f"split {split!r}: {len(missing)} of {len(files)} files are missing in "
            f"{builder.data_dir}, the first is {missing[0].name}"
        )
