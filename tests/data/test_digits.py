import pickle
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from invariance_jax.data import SplitError, load_source
from invariance_jax.data.sources import Source


@pytest.fixture(scope="module")
def train():
    return load_source("digits", "train")


@pytest.fixture(scope="module")
def validation():
    return load_source("digits", "validation")


def positions(source) -> list[int]:
    names = [source[i]["name"] for i in range(len(source))]
    assert source.names() == names
    return [int(name.removeprefix("digits_")) for name in names]


def test_it_is_a_source(train):
    assert isinstance(train, Source)
    assert (train.name, train.split, train.num_classes) == ("digits", "train", 10)
    assert train.class_names == tuple("0123456789")


def test_splits_divide_all_images(train, validation):
    ours, theirs = positions(train), positions(validation)
    assert (len(ours), len(theirs)) == (1438, 359)
    assert ours == sorted(ours)
    assert theirs == sorted(theirs)
    assert sorted(ours + theirs) == list(range(1797))


def test_every_class_is_divided_alike(train, validation):
    total = np.bincount(load_digits().target)
    for source, share in ((train, 0.8), (validation, 0.2)):
        counts = np.bincount([source[i]["label"] for i in range(len(source))], minlength=10)
        assert np.all(np.abs(counts - share * total) <= 0.5)


def test_split_never_changes(validation):
    """Published numbers name this split: it is written down here."""
    assert positions(validation)[:8] == [2, 18, 29, 39, 40, 42, 43, 45]


def test_labels_are_those_of_scikit_learn(train):
    target = load_digits().target
    labels = [train[i]["label"] for i in range(len(train))]
    np.testing.assert_array_equal(labels, target[positions(train)])
    np.testing.assert_array_equal(labels, train.labels())
    assert train.labels().dtype == np.int32 and train.has_labels


def test_pixels_of_one_image_by_hand(train):
    example = train[3]
    scan = load_digits().images[positions(train)[3]]
    grey = np.round(scan * 255 / 16)
    # Bilinear, 8 to 32 pixels: output o lies at (o + .5) / 4 - .5 between the source's pixels.
    at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    low = np.minimum(at.astype(int), 6)
    part = at - low
    rows = grey[low] * (1 - part)[:, None] + grey[low + 1] * part[:, None]
    expected = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    assert example["image"].shape == (32, 32, 3)
    assert example["image"].dtype == np.uint8
    for channel in range(3):
        np.testing.assert_allclose(example["image"][..., channel], expected, atol=1.01)
    # The corners are the scan's own values.
    corners = example["image"][[0, 0, -1, -1], [0, -1, 0, -1], 0]
    np.testing.assert_array_equal(corners, grey[[0, 0, -1, -1], [0, -1, 0, -1]])


@pytest.mark.parametrize(
    ("split", "part"),
    [
        ("train[:5]", slice(0, 5)),
        ("train[10%:20%]", slice(144, 288)),
        ("train[-3:]", slice(-3, None)),
    ],
)
def test_parts_of_a_split(train, split, part):
    assert positions(load_source("digits", split)) == positions(train)[part]


def test_splits_can_be_added(train, validation):
    both = load_source("digits", "validation[:2]+train[:3]")
    assert positions(both) == positions(validation)[:2] + positions(train)[:3]
    assert both.split == "validation[:2]+train[:3]"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", r"^split 'test': unknown split 'test'; one of: train, validation"),
        ("trian[:5]", r"did you mean 'train'"),
        ("train[:9999]", r"\[:9999\] incompatible with 1438 examples.*train \(1438 images\)"),
        ("train[5:5]", r"holds no image"),
        ("train[:", r"^split 'train\[:'.*expected a part of: train \(1438 images\)"),
        ("", r"^split ''"),
    ],
)
def test_wrong_split(split, message):
    with pytest.raises(SplitError, match=message) as caught:
        load_source("digits", split)
    assert "\n" not in str(caught.value)


def test_it_is_pickled_with_its_images(validation, monkeypatch):
    pickled = pickle.dumps(load_source("digits", "validation"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # whoever imports it now fails
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(copy[7]["image"], validation[7]["image"])
    assert copy[7]["name"] == validation[7]["name"]
