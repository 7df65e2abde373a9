"""`prepare`: a data set of TensorFlow Datasets as ArrayRecord files, the only use of TensorFlow."""

import importlib.util
import os
import pathlib
from collections.abc import Sequence

import tensorflow_datasets as tfds
from absl import flags

from invariance_jax import progress
from invariance_jax.commands import parsing
from invariance_jax.data import archives
from invariance_jax.data.tfds import TfdsSource
from invariance_jax.errors import UserError

_USAGE = """\
usage: invariance-jax prepare --data_dir=DIR [--dataset=imagenet2012] [--manual_dir=DIR]

Prepares a data set by TensorFlow Datasets, as ArrayRecord files that are then read without
TensorFlow. ImageNet's archives are checked first: its tars must lie in --manual_dir.

  invariance-jax prepare --manual_dir=~/imagenet --data_dir=~/tensorflow_datasets
  invariance-jax prepare --dataset=imagenette/full-size-v2 --data_dir=~/tensorflow_datasets

It needs TensorFlow: pip install 'invariance_jax[prepare]'. Machines that train need none.
"""

# The archives that a data set is made from; the others TFDS downloads itself.
_ARCHIVES = {
    "imagenet2012": (archives.TRAIN, archives.VALIDATION),
    "imagenet2012_subset": (archives.TRAIN, archives.VALIDATION),
    "imagenet2012_real": (archives.VALIDATION,),
}
_PACKAGES = ("tensorflow", "importlib_resources")


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("data_dir", None, "TFDS's data_dir, made if absent", flag_values=values)
        flags.DEFINE_string("manual_dir", None, "folder of ImageNet's tars", flag_values=values)
        flags.DEFINE_string("dataset", "imagenet2012", "name[/config]", flag_values=values)

    parsed = parsing.parse(argv, usage=_USAGE, define=define)
    values = parsed.flags
    data_dir = parsing.required_path(parsed, "data_dir", "DIR")
    names = _ARCHIVES.get(values.dataset.partition("/")[0], ())
    manual_dir = None
    if names or values.manual_dir:
        manual_dir = parsing.required_path(parsed, "manual_dir", "DIR")
    require_tensorflow()
    builder = _builder(values.dataset, data_dir)
    folder = pathlib.Path(builder.data_path)
    if folder.exists():
        print(f"{folder} is already prepared")
    else:
        if names:
            check_archives(manual_dir, names, data_dir)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
            file_format="array_record",
        )
    _write_labels(folder, data_dir)


def require_tensorflow() -> None:
    """Checks that TensorFlow is here, without importing it.

    Raises:
        UserError: It is not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"prepare needs {' and '.join(missing)}; install with: "
            "pip install 'invariance_jax[prepare]'"
        )


def check_archives(manual_dir: pathlib.Path, names: Sequence[str], data_dir: pathlib.Path) -> None:
    """Checks ImageNet's archives and the disk before hours are spent; says what was found.

    Args:
        manual_dir: Folder of the archives.
        names: Which of them are needed.
        data_dir: Where the data set will stand.

    Raises:
        UserError: An archive is missing, damaged, truncated or holds something else, or the disk
            is too small.
    """
    archives.check_present(manual_dir, names)
    archives.check_disk(manual_dir, names, data_dir)
    labels = pathlib.Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt"))
    synsets = frozenset(labels.read_text().split())
    for name in sorted(names, reverse=True):  # validation first: it is the shorter one
        path = manual_dir / name
        with progress.bar(
            total=path.stat().st_size, description=f"checking {name}", unit="bytes"
        ) as bar:
            if name == archives.TRAIN:
                classes, images = archives.check_train(path, synsets, bar.update)
                found = f"{images} images of {classes} of {len(synsets)} classes"
            else:
                found = f"{archives.check_validation(path, bar.update)} images"
        print(f"{path}: {found}")


def _builder(dataset: str, data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    # TensorFlow is about to be imported and would narrate the machine's abilities.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--dataset is {dataset!r}, which TFDS does not know: {first}") from error
    features = builder.info.features
    has_image = "image" in features and isinstance(features["image"], tfds.features.Image)
    if not has_image or not _class_features(builder):
        raise UserError(
            f"--dataset is {dataset!r} with features {', '.join(features)}; expected an Image "
            "named 'image' and a ClassLabel"
        )
    return builder


def _class_features(builder: tfds.core.DatasetBuilder) -> list[str]:
    features = builder.info.features
    return [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]


def _write_labels(folder: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Leaves the labels beside the data, so that no training has to read it all to find a class."""
    builder = tfds.builder_from_directory(folder)
    name = f"{folder.parent.relative_to(data_dir).as_posix()}:{folder.name}"
    for split in builder.info.splits:
        for feature in _class_features(builder):
            labels = TfdsSource(name, split, str(data_dir), feature).write_labels()
            print(f"{folder}: {split}, {feature}: {len(labels)} images")
