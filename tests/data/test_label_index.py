"""Labels of a split: right, read once, and never those of other data."""

import numpy as np
import pytest

from invariance_jax.data import label_index, load_source, records


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def no_reading(monkeypatch):
    def refuse(self, index):
        raise AssertionError("a record was read")

    return lambda: monkeypatch.setattr(records.Records, "__getitem__", refuse)


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


def test_labels_beside_the_data_are_used(tmp_path, dataset_writer, cache, no_reading):
    folder = dataset_writer(tmp_path, labels=LABELS)
    assert label_index.write(folder, "test", "label").tolist() == LABELS[7:]
    assert not cache.exists()
    no_reading()
    assert load_source("tiny", "test", data_dir=str(tmp_path)).labels().tolist() == LABELS[7:]


@pytest.mark.parametrize("damage", ["other data", "half a file", "another file"])
def test_labels_that_do_not_fit_are_read_anew(tmp_path, dataset_writer, damage):
    folder = dataset_writer(tmp_path, labels=LABELS)
    label_index.write(folder, "train", "label")
    (path,) = folder.glob("*.npz")
    if damage == "other data":
        with np.load(path) as found:
            np.savez(path, labels=found["labels"] + 1, identity="[]")
    else:
        path.write_bytes(path.read_bytes()[:50] if damage == "half a file" else b"something")
    source = load_source("tiny", "train", data_dir=str(tmp_path))
    assert source.labels().tolist() == LABELS[:7]


def test_more_images_than_one_chunk(tmp_path, dataset_writer, monkeypatch):
    monkeypatch.setattr(label_index, "_CHUNK", 3)
    dataset_writer(tmp_path, labels=LABELS)
    source = load_source("tiny", "all", data_dir=str(tmp_path))
    assert sorted(source.labels().tolist()) == sorted(LABELS)
    assert source.labels().tolist() == [source[i]["label"] for i in range(12)]


@pytest.mark.real_data
def test_imagenet(real_data):
    source = load_source("imagenet2012", "validation", data_dir=str(real_data / "tfds"))
    labels = source.labels()
    assert len(labels) == 5000 and len(set(labels.tolist())) == 100
    for i in (0, 1234, 4999):
        assert labels[i] == source[i]["label"]
