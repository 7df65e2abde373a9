"""TFDS data sets: images, ids, labels that are read once and never those of other data; errors."""

import io
import pathlib
import pickle
import pwd
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from invariance_jax.data import DataError, SplitError, load_source, tfds
from invariance_jax.data.sources import Source
from invariance_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def records_read(monkeypatch):
    """Positions of the records that are read, one for each time."""
    read, features = [], tfds.TfdsSource._features

    def reads(self, index):
        read.append(index)
        return features(self, index)

    monkeypatch.setattr(tfds.TfdsSource, "_features", reads)
    return read


@pytest.fixture
def no_reading(monkeypatch):
    def refuse(self, index):
        raise AssertionError("a record was read")

    return lambda: monkeypatch.setattr(tfds.TfdsSource, "_features", refuse)


def contents(source) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(source[i]["image"]))) for i in range(len(source))]


def names(source) -> list[str]:
    found = [source[i]["name"] for i in range(len(source))]
    assert source.names() == found
    return found


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


@pytest.mark.parametrize(
    ("split", "numbers"), [("train[2:6]", range(2, 6)), ("test[1:3]+train[:2]", (8, 9, 0, 1))]
)
def test_file_names_are_read_from_this_part_only(
    tmp_path, dataset_writer, monkeypatch, records_read, split, numbers
):
    dataset_writer(tmp_path, file_names=True)
    source, read = load_source("tiny", split, data_dir=str(tmp_path)), []
    parse = tfds.TfdsSource._features
    monkeypatch.setattr(tfds, "_CHUNK", 3)  # several parts
    monkeypatch.setattr(
        tfds.TfdsSource, "_features", lambda self, i: read.append(i) or parse(self, i)
    )
    assert source.names() == [f"photo_{number}.JPEG" for number in numbers]
    assert sorted(records_read) == list(range(4))


def test_positions_as_names_need_no_reading(tmp_path, dataset_writer, no_reading):
    dataset_writer(tmp_path)
    no_reading()
    source = load_source("tiny", "test[3:]+train[:2]", data_dir=str(tmp_path))
    assert source.names() == ["tiny-test-3", "tiny-test-4", "tiny-train-0", "tiny-train-1"]


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
    check_error(
        r"^config.data.name 'tiny' has features image \(Image\), original_label "
        r"\(ClassLabel\); expected .* by config.data.label_feature, label \(ClassLabel\)$",
        data_dir=str(tmp_path),
    )


def test_feature_that_is_no_class(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["image"], "label": feature_json["text"]}
    dataset_writer(tmp_path, features=features)
    check_error(
        r"features image \(Image\), label \(Text\); .*label_feature, label \(ClassLabel\)$",
        data_dir=str(tmp_path),
    )


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
        "config.data.data_dir '.*nowhere' is not a folder here; ",
        data_dir=str(tmp_path / "nowhere"),
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


def test_converted_beside_another_format(tmp_path, dataset_writer, image_pixels):
    """`tfds convert_format` leaves the first files there and goes on calling them its format."""
    folder = dataset_writer(tmp_path, first_format="tfrecord")
    for shard in range(2):
        (folder / f"tiny-train.tfrecord-{shard:05d}-of-00002").write_bytes(b"records")
    source = load_source("tiny", "train[3:5]+test[:1]", data_dir=str(tmp_path))
    assert source.labels().tolist() == [0, 1, 1]
    for pixels, number in zip(contents(source), (3, 4, 7), strict=True):
        np.testing.assert_array_equal(pixels, image_pixels(number))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (
            "dataset_info.json",
            b'{"name": "tiny", "vers',
            "Failed to load JSON: Unterminated string",
        ),
        ("dataset_info.json", b"{}", "Invalid version ''"),
        ("dataset_info.json", b'{"name": "tiny", "version": "1.0.0"}', "no split is in it; copy"),
        ("dataset_info.json", b"\xfc\x01", "'utf-8' codec can't decode byte 0xfc"),
        ("features.json", b"\xfc\x01", "'utf-8' codec can't decode byte 0xfc"),
        ("features.json", b"{", "Expecting property name"),
        ("features.json", b"{}", "Python class name must contain a dot"),
    ],
)
def test_damaged_description_is_named(tmp_path, dataset_writer, file, content, reason):
    path = dataset_writer(tmp_path) / file
    path.write_bytes(content)
    check_error(f"^{path} is damaged: {reason}", data_dir=str(tmp_path))


def test_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("gs://bucket/data", "s3://bucket/data", "hdfs://namenode/data"):
        check_error(f"^config.data.data_dir is '{url}', a URL; expected.*mount", data_dir=url)
    assert list(tmp_path.iterdir()) == []


def test_missing_feature(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["image"], "words": feature_json["text"]}
    dataset_writer(tmp_path, features=features)
    check_error(
        r"^config.data.name 'tiny' has features image \(Image\), words \(Text\); expected "
        r"image \(Image\) and, by config.data.label_feature, label \(ClassLabel\)$",
        data_dir=str(tmp_path),
    )


def test_feature_of_another_kind(tmp_path, dataset_writer, feature_json):
    features = {"image": feature_json["text"], "label": feature_json["label"]}
    dataset_writer(tmp_path, features=features)
    check_error(
        r"features image \(Text\), label \(ClassLabel\); expected image \(Image\)",
        data_dir=str(tmp_path),
    )


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


def test_heavy_libraries_are_imported_where_they_are_used(tmp_path, dataset_writer):
    dataset_writer(tmp_path)
    code = f"""
import sys
import numpy as np
from invariance_jax.data import FolderSource, batches_at, load_source
heavy = {{"altair", "grain", "orbax", "sklearn", "tensorflow_datasets"}}
never = {{"tensorflow", "torch"}}
assert not (heavy | never) & set(sys.modules), sorted(sys.modules)
digits = load_source("digits", "validation")
assert len(digits) == 359 and not (heavy | never) & set(sys.modules), sorted(sys.modules)
assert len(digits.names()) == 359 and "tensorflow_datasets" not in sys.modules
source = load_source("tiny", "train", data_dir={str(tmp_path)!r})
assert "grain" not in sys.modules
assert len(list(batches_at(source, np.arange(8).reshape(2, 4), canvas_size=16))) == 2
assert len(load_source("digits", "train[:2]")) == 2
assert not never & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LABELS = [2, 0, 1, 1, 0, 2, 2, 0, 1, 2, 0, 1]


def test_labels_of_splits_and_parts(tmp_path, dataset_writer):
    dataset_writer(tmp_path, labels=LABELS)
    for split, expected in [
        ("train", LABELS[:7]),
        ("train[2:6]", LABELS[2:6]),
        ("test[1:3]+train[:2]", LABELS[8:10] + LABELS[:2]),
    ]:
        source = load_source("tiny", split, data_dir=str(tmp_path))
        assert source.labels().tolist() == expected
        assert source.labels().dtype == np.int32
        assert [source[i]["label"] for i in range(len(source))] == expected


def test_labels_of_a_part_need_that_part_only(tmp_path, dataset_writer, records_read, no_reading):
    dataset_writer(tmp_path, labels=LABELS)
    splits = {"train[2:6]": LABELS[2:6], "train[1:2]+test[3:]": LABELS[1:2] + LABELS[10:]}
    for split, expected in splits.items():
        source = load_source("tiny", split, data_dir=str(tmp_path))
        assert source.labels().tolist() == source.labels().tolist() == expected
    assert len(records_read) == 4 + 3
    no_reading()
    for split, expected in splits.items():
        assert load_source("tiny", split, data_dir=str(tmp_path)).labels().tolist() == expected


def test_they_are_read_once_and_the_data_folder_is_left_alone(
    tmp_path, dataset_writer, cache, no_reading
):
    folder = dataset_writer(tmp_path, labels=LABELS)
    before = sorted(path.name for path in folder.iterdir())
    assert load_source("tiny", "train", data_dir=str(tmp_path)).labels().tolist() == LABELS[:7]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert len(list(cache.rglob("*.npz"))) == 1
    no_reading()
    assert load_source("tiny", "train[3:]", data_dir=str(tmp_path)).labels().tolist() == LABELS[3:7]
    with pytest.raises(AssertionError):
        load_source("tiny", "test", data_dir=str(tmp_path)).labels()


def test_labels_that_cannot_be_kept_are_read_all_the_same(
    tmp_path, dataset_writer, monkeypatch, records_read, capsys
):
    dataset_writer(tmp_path, labels=LABELS)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    source = load_source("tiny", "train[2:6]", data_dir=str(tmp_path))
    assert source.labels().tolist() == source.labels().tolist() == LABELS[2:6]
    assert len(records_read) == 4
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith("the labels of tiny train[2:6] cannot be kept (cannot write ")
    assert ": a file is where a folder is meant), so the next run reads them again" in said


def test_cache_of_a_user_without_a_home(tmp_path, monkeypatch):
    """No folder called `~` is made in the current one."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    cache = tfds._cache_folder(tmp_path)
    assert cache.parent == pathlib.Path("/home/somebody/.cache/invariance_jax")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert tfds._cache_folder(tmp_path) == pathlib.Path("/~/.cache/invariance_jax") / cache.name


def test_labels_beside_the_data_are_used(tmp_path, dataset_writer, cache, no_reading):
    dataset_writer(tmp_path, labels=LABELS)
    source = load_source("tiny", "test", data_dir=str(tmp_path))
    assert source.write_labels().tolist() == LABELS[7:]
    assert not cache.exists()
    no_reading()
    assert load_source("tiny", "test", data_dir=str(tmp_path)).labels().tolist() == LABELS[7:]


@pytest.mark.parametrize("damage", ["other data", "half a file", "another file"])
def test_labels_that_do_not_fit_are_read_anew(tmp_path, dataset_writer, damage):
    folder = dataset_writer(tmp_path, labels=LABELS)
    load_source("tiny", "train", data_dir=str(tmp_path)).write_labels()
    (path,) = folder.glob("*.npz")
    if damage == "other data":
        with np.load(path) as found:
            np.savez(path, labels=found["labels"] + 1, identity="[]")
    else:
        path.write_bytes(path.read_bytes()[:50] if damage == "half a file" else b"something")
    source = load_source("tiny", "train", data_dir=str(tmp_path))
    assert source.labels().tolist() == LABELS[:7]


def test_more_images_than_one_chunk(tmp_path, dataset_writer, monkeypatch):
    monkeypatch.setattr(tfds, "_CHUNK", 3)
    dataset_writer(tmp_path, labels=LABELS)
    source = load_source("tiny", "all", data_dir=str(tmp_path))
    assert sorted(source.labels().tolist()) == sorted(LABELS)
    assert source.labels().tolist() == [source[i]["label"] for i in range(12)]


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


@pytest.mark.real_data
def test_labels_of_imagenet(real_data):
    source = load_source("imagenet2012", "validation", data_dir=str(real_data / "tfds"))
    labels = source.labels()
    assert len(labels) == 5000 and len(set(labels.tolist())) == 100
    for i in (0, 1234, 4999):
        assert labels[i] == source[i]["label"]
