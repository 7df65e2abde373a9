"""Small TFDS data sets, written by hand: no TensorFlow and no download."""

import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

MODULE = "tensorflow_datasets.core.features."
IMAGE = {
    "pythonClassName": MODULE + "image_feature.Image",
    "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"},
}
LABEL = {
    "pythonClassName": MODULE + "class_label_feature.ClassLabel",
    "classLabel": {"numClasses": "3"},
}
TEXT = {"pythonClassName": MODULE + "text_feature.Text", "text": {}}


def pixels_of(number: int) -> np.ndarray:
    """Pixels of the image `number`, each of another size and content."""
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (5 + number % 4, 6 + number % 3, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def record(image: bytes, label: int, file_name: str | None, label_feature: str) -> bytes:
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature[label_feature].int64_list.value.append(label)
    if file_name is not None:
        feature["file_name"].bytes_list.value.append(file_name.encode())
    return example.SerializeToString()


def write_dataset(
    data_dir: pathlib.Path,
    name: str = "tiny",
    version: str = "1.0.0",
    *,
    splits: dict[str, list[int]] | None = None,
    features: dict | None = None,
    file_names: bool = False,
    file_format: str = "array_record",
    labels: list[int] | None = None,
    images: list[bytes] | None = None,
) -> pathlib.Path:
    """Writes a data set; images are numbered on over files and splits."""
    splits = {"train": [4, 3], "test": [5]} if splits is None else splits
    features = {"image": IMAGE, "label": LABEL} if features is None else features
    if file_names:
        features = {**features, "file_name": TEXT}
    label_feature = next((key for key in features if key.endswith("label")), "label")
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    number = 0
    for split, lengths in splits.items():
        for shard, length in enumerate(lengths):
            stem = f"{name.split('/')[0]}-{split}.{file_format}"
            path = folder / f"{stem}-{shard:05d}-of-{len(lengths):05d}"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for _ in range(length):
                label = number % 3 if labels is None else labels[number]
                file_name = f"photo_{number}.JPEG" if file_names else None
                image = png(pixels_of(number)) if images is None else images[number]
                writer.write(record(image, label, file_name, label_feature))
                number += 1
            writer.close()
    info = {
        "name": name.split("/")[0],
        "version": version,
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(length) for length in lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split, lengths in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    structure = {
        "pythonClassName": MODULE + "features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (folder / "features.json").write_text(json.dumps(structure))
    (folder / f"{label_feature}.labels.txt").write_text("ant\nbee\ncow\n")
    return folder


class PixelSource:
    """Images in memory; the label says which."""

    def __init__(self, size: int, unreadable: Sequence[int] = (), label: int | None = None) -> None:
        self.name, self.split = "pixels", "train"
        self.num_classes, self.has_labels = size, True
        self.class_names = tuple(str(i) for i in range(size))
        self._size, self._unreadable, self._label = size, unreadable, label

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict:
        image = b"not an image" if index in self._unreadable else pixels_of(index)
        label = index if self._label is None else self._label
        return {"image": image, "label": label, "name": f"pixels_{index}"}

    def labels(self) -> np.ndarray:
        return np.array([self[i]["label"] for i in range(self._size)], np.int32)

    def names(self) -> list[str]:
        return [self[i]["name"] for i in range(self._size)]


@pytest.fixture(scope="session")
def pixel_source():
    return PixelSource


@pytest.fixture(scope="session")
def image_pixels():
    return pixels_of


@pytest.fixture(scope="session")
def dataset_writer():
    return write_dataset


@pytest.fixture
def feature_json():
    return {"image": IMAGE, "label": LABEL, "text": TEXT}
