import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from invariance_jax.data import DataError, SplitError, load_source
from invariance_jax.data.source import Source
from invariance_jax.errors import UserError


def contents(source) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(source[i]["image"]))) for i in range(len(source))]


def names(source) -> list[str]:
    return [source[i]["name"] for i in range(len(source))]


def test_images_labels_and_names(tmp_path, dataset_writer, image_pixels):
    dataset_writer(tmp_path, file_names=True)
    source = load_source("tiny", "train", data_dir=str(tmp_path))
    assert isinstance(source, Source)
    assert (source.name, source.split, source.num_classes) == ("tiny", "train", 3)
    assert source.class_names == ("ant", "bee", "cow")
    assert len(source) == 7
    for i, pixels in enumerate(contents(source)):
        np.testing.assert_array_equal(pixels, image_pixels(i))
    assert [source[i]["label"] for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert names(source) == [f"photo_{i}.JPEG" for i in range(7)]


@pytest.mark.parametrize(
    ("split", "ids"),
    [
        ("train", ["train-0", "train-1", "train-2", "train-3", "train-4", "train-5", "train-6"]),
        ("train[3:6]", ["train-3", "train-4", "train-5"]),
        ("train[-1:]", ["train-6"]),
        ("train[:40%]", ["train-0", "train-1", "train-2"]),
        ("train[1shard]", ["train-4", "train-5", "train-6"]),
        ("test[3:]+train[:2]", ["test-3", "test-4", "train-0", "train-1"]),
    ],
)
def test_ids_do_not_depend_on_the_part(tmp_path, dataset_writer, image_pixels, split, ids):
    dataset_writer(tmp_path)
    source = load_source("tiny", split, data_dir=str(tmp_path))
    assert names(source) == [f"tiny-{each}" for each in ids]
    offsets = {"train": 0, "test": 7}
    for pixels, each in zip(contents(source), ids, strict=True):
        base, number = each.split("-")
        np.testing.assert_array_equal(pixels, image_pixels(offsets[base] + int(number)))


def test_ids_are_padded_with_zeros(tmp_path, dataset_writer):
    dataset_writer(tmp_path, splits={"train": [11]})
    source = load_source("tiny", "train[8:]", data_dir=str(tmp_path))
    assert names(source) == ["tiny-train-08", "tiny-train-09", "tiny-train-10"]


def test_newest_version_unless_one_is_named(tmp_path, dataset_writer):
    dataset_writer(tmp_path, version="9.0.0", splits={"train": [2]})
    dataset_writer(tmp_path, version="10.0.0", splits={"train": [3]})
    assert len(load_source("tiny", "train", data_dir=str(tmp_path))) == 3
    assert len(load_source("tiny:9.0.0", "train", data_dir=str(tmp_path))) == 2


def test_configs_are_folders(tmp_path, dataset_writer):
    dataset_writer(tmp_path, "tiny/small")
    assert len(load_source("tiny/small", "test", data_dir=str(tmp_path))) == 5


def test_it_can_be_pickled(tmp_path, dataset_writer):
    dataset_writer(tmp_path)
    source = load_source("tiny", "train", data_dir=str(tmp_path))
    before = source[5]
    assert pickle.loads(pickle.dumps(source))[5] == before


def test_class_under_another_name(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["image"], "original_label": feature_json["label"]}
    dataset_writer(tmp_path, features=features)
    source = load_source("tiny", "train", data_dir=str(tmp_path), label_feature="original_label")
    assert [source[i]["label"] for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert source.class_names == ("ant", "bee", "cow")
    check_error("ClassLabel: original_label$", data_dir=str(tmp_path))


def test_feature_that_is_no_class(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["image"], "label": feature_json["text"]}
    dataset_writer(tmp_path, features=features)
    check_error("label_feature 'label' .* is Text; expected a ClassLabel", data_dir=str(tmp_path))


@pytest.mark.parametrize(("split", "index"), [("train[2:]", 3), ("train[5:]", 0)])
def test_damaged_record_is_named(tmp_path, dataset_writer, split, index):
    folder = dataset_writer(tmp_path)
    path = folder / "tiny-train.array_record-00001-of-00002"
    data = bytearray(path.read_bytes())
    image = load_source("tiny", "train[5:6]", data_dir=str(tmp_path))[0]["image"]
    at = bytes(data).index(image[8:40])
    data[at : at + 32] = bytes(32)
    path.write_bytes(data)
    source = load_source("tiny", split, data_dir=str(tmp_path))
    assert source[index + 1]["name"] == "tiny-train-6"
    with pytest.raises(DataError, match=rf"^cannot read record 1 of {path}: .*damaged: ") as caught:
        source[index]
    assert "\n" not in str(caught.value)


def test_file_that_was_cut_is_named(tmp_path, dataset_writer):
    path = dataset_writer(tmp_path) / "tiny-train.array_record-00000-of-00002"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=rf"^cannot read record 0 of {path}: "):
        load_source("tiny", "train", data_dir=str(tmp_path))[0]


def check_error(message: str, name: str = "tiny", split: str = "train", data_dir: str = "") -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_source(name, split, data_dir=data_dir)
    assert "\n" not in str(caught.value)


def test_no_data_dir():
    check_error("config.data.data_dir is empty; config.data.name 'tiny'")


def test_data_dir_that_does_not_exist(tmp_path):
    check_error(
        "config.data.data_dir '.*nowhere' is not a folder", data_dir=str(tmp_path / "nowhere")
    )


def test_data_set_that_is_not_there(tmp_path, dataset_writer):
    dataset_writer(tmp_path, "other", "2.0.0")
    dataset_writer(tmp_path, "more/small")
    check_error(
        r"^config.data.name 'tiny' is not prepared in config.data.data_dir .*tiny/<version>; "
        r"data sets there: more/small:1.0.0, other:2.0.0$",
        data_dir=str(tmp_path),
    )
    check_error(r"no .*other/1.0.0; ", name="other:1.0.0", data_dir=str(tmp_path))


def test_empty_data_dir(tmp_path):
    check_error("data sets there: none", data_dir=str(tmp_path))


def test_unknown_split(tmp_path, dataset_writer):
    dataset_writer(tmp_path)
    check_error(
        "split 'tset': unknown split 'tset'; did you mean 'test'. one of: train, test",
        split="tset",
        data_dir=str(tmp_path),
    )


def test_a_part_of_all_splits(tmp_path, dataset_writer):
    dataset_writer(tmp_path)
    check_error(
        r"split 'all\[:10%\]': 'all' does not support slice.*part of: .*train \(7 images\)",
        split="all[:10%]",
        data_dir=str(tmp_path),
    )


def test_stored_in_another_format(tmp_path, dataset_writer):
    dataset_writer(tmp_path, file_format="tfrecord")
    check_error("stored as tfrecord.*--file_format=array_record", data_dir=str(tmp_path))


def test_missing_feature(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["image"], "words": feature_json["text"]}
    dataset_writer(tmp_path, features=features)
    check_error(
        "label_feature 'label' of config.data.name 'tiny' is not there; .* has none$",
        data_dir=str(tmp_path),
    )


def test_feature_of_another_kind(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["text"], "label": feature_json["label"]}
    dataset_writer(tmp_path, features=features)
    check_error("feature 'image' is Text; expected Image", data_dir=str(tmp_path))


def test_incomplete_copy(tmp_path, dataset_writer):
    folder = dataset_writer(tmp_path)
    (folder / "tiny-train.array_record-00001-of-00002").unlink()
    check_error(
        "'train': 1 of 2 files are missing in .*first is tiny-train.array_record-00001-of-00002",
        data_dir=str(tmp_path),
    )
    with pytest.raises(SplitError):
        load_source("tiny", "train", data_dir=str(tmp_path))
    assert len(load_source("tiny", "test", data_dir=str(tmp_path))) == 5


def test_tensorflow_is_not_imported(tmp_path, dataset_writer):
    dataset_writer(tmp_path)
    code = (
        "import sys\n"
        "from invariance_jax.data import evaluation_batches, load_source\n"
        f"source = load_source('tiny', 'train', data_dir={str(tmp_path)!r})\n"
        "batches = list(evaluation_batches(source, batch_size=4, canvas_size=16))\n"
        "assert len(batches) == 2\n"
        "assert len(load_source('digits', 'train[:2]')) == 2\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.real_data
def test_imagenet(real_data):
    source = load_source("imagenet2012", "validation[2498:2502]", data_dir=str(real_data / "tfds"))
    assert source.num_classes == 1000
    assert source.class_names[0] == "n01440764"
    assert len(source) == 4
    for i in range(4):
        assert source[i]["name"].startswith("ILSVRC2012_val_0")
        assert Image.open(io.BytesIO(source[i]["image"])).size == (64, 64)
    whole = load_source("imagenet2012", "validation", data_dir=str(real_data / "tfds"))
    assert [source[i] for i in range(4)] == [whole[i] for i in range(2498, 2502)]
