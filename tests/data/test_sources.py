"""Images in memory, and fewer images: which ones, with which labels."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.data import ArraySource, Source, load_source, of_classes, share_of_each_class
from invariance_jax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_source("digits", "train")


def names(source) -> list[str]:
    found = [source[i]["name"] for i in range(len(source))]
    assert source.names() == found
    return found


def test_classes_by_number_and_name(digits):
    subset = of_classes(digits, (3, "7"))
    expected = [i for i in range(len(digits)) if digits[i]["label"] in (3, 7)]
    assert names(subset) == [digits[i]["name"] for i in expected]
    assert set(subset.labels()) == {3, 7}
    np.testing.assert_array_equal(subset.labels(), [subset[i]["label"] for i in range(len(subset))])
    assert isinstance(subset, Source)
    assert (subset.name, subset.split, subset.num_classes) == ("digits", "train", 10)
    assert subset.class_names == digits.class_names


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (10, r"^unknown class 10 of digits; expected a name or a number, 0 \(0\) to 9 \(9\)$"),
        (-1, "unknown class -1"),
        ("ten", "unknown class 'ten'"),
        ("07", "unknown class '07' of digits; did you mean '[07]'"),
    ],
)
def test_unknown_class(digits, wanted, message):
    with pytest.raises(UserError, match=message):
        of_classes(digits, (wanted,))


def test_class_without_an_image(pixel_source):
    with pytest.raises(UserError, match=r"no image of class 1 \(1\) in pixels train"):
        of_classes(pixel_source(4, label=2), (2, 1))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_every_class_keeps_its_share(digits, fraction):
    subset = share_of_each_class(digits, fraction, 0)
    whole, kept = np.bincount(digits.labels()), np.bincount(subset.labels())
    assert np.all(np.abs(kept - fraction * whole) <= 0.5)
    assert len(set(names(subset))) == len(subset) == kept.sum()
    assert names(subset) == sorted(names(subset))  # the order of the source


def test_at_least_one_image_of_each_class_stays(digits):
    np.testing.assert_array_equal(
        np.bincount(share_of_each_class(digits, 1e-6, 0).labels()), np.ones(10)
    )


def test_whole_share_is_everything(digits):
    assert names(share_of_each_class(digits, 1.0, 5)) == names(digits)


def test_smaller_share_is_part_of_a_larger_one(digits):
    shares = [set(names(share_of_each_class(digits, f, 0))) for f in (0.05, 0.2, 0.6)]
    assert shares[0] < shares[1] < shares[2]


def test_seeds_choose_independently(digits):
    first, second = (set(names(share_of_each_class(digits, 0.3, seed))) for seed in (0, 1))
    # Chance: 0.3 x 0.3 of the images are in both.
    assert 0.05 < len(first & second) / len(digits) < 0.13


def test_what_a_class_keeps_does_not_depend_on_other_classes(digits):
    of_all = share_of_each_class(digits, 0.2, 3)
    of_some = share_of_each_class(of_classes(digits, (2, 6)), 0.2, 3)
    assert names(of_some) == names(of_classes(of_all, (2, 6)))


def test_choice_never_changes(digits):
    """Published numbers name a fraction and a seed: the choice is written down here."""
    subset = share_of_each_class(of_classes(digits, (4,)), 0.04, 0)
    assert names(subset) == [
        "digits_0171",
        "digits_0343",
        "digits_0473",
        "digits_1095",
        "digits_1384",
        "digits_1777",
    ]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_fraction_out_of_range(digits, fraction):
    with pytest.raises(UserError, match=rf"fraction is {fraction}; expected more than 0"):
        share_of_each_class(digits, fraction, 0)


def test_classes_of_images_without_labels(image_pixels):
    source = ArraySource([image_pixels(0), image_pixels(1)])
    with pytest.raises(UserError, match=r"^unknown class 'cat': arrays all has no labels$"):
        of_classes(source, ("cat",))
    subset = share_of_each_class(source, 0.5, 0)
    assert (len(subset), subset.has_labels, subset.labels().tolist()) == (1, False, [-1])


def test_arrays_of_several_sizes(image_pixels):
    images = [image_pixels(i) for i in range(4)]
    source = ArraySource(images, [2, 0, 1, 0], [f"photo {i}" for i in range(4)])
    assert isinstance(source, Source)
    assert (source.name, source.split, source.num_classes) == ("arrays", "all", 3)
    assert source.class_names == ("0", "1", "2") and source.has_labels
    for i, image in enumerate(images):
        np.testing.assert_array_equal(source[i]["image"], image)
        assert (source[i]["label"], source[i]["name"]) == ([2, 0, 1, 0][i], f"photo {i}")
    assert source.labels().tolist() == [2, 0, 1, 0] and source.labels().dtype == np.int32
    assert source.names() == ["photo 0", "photo 1", "photo 2", "photo 3"]
    assert pickle.loads(pickle.dumps(source))[3]["name"] == "photo 3"


def test_arrays_without_labels_or_names(image_pixels):
    source = ArraySource(np.stack([image_pixels(0)] * 3))
    assert (source.has_labels, source.num_classes, source.class_names) == (False, 0, ())
    assert source.labels().tolist() == [-1, -1, -1] and source[1]["label"] == -1
    assert source.names() == ["image_00000", "image_00001", "image_00002"]


def test_arrays_may_name_their_classes(image_pixels):
    source = ArraySource([image_pixels(0)], [1], class_names=["ant", "bee", "cow"])
    assert (source.num_classes, source.class_names) == (3, ("ant", "bee", "cow"))
    assert len(of_classes(source, ("bee",))) == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_8_bits(dtype):
    """Every grey level comes back, and so does what lies less than half a level beside it."""
    levels = np.arange(256)
    for shift in (-0.4, 0, 0.4):
        values = np.clip((levels + shift) / 255, 0, 1).astype(dtype)
        image = np.broadcast_to(values.reshape(16, 16, 1), (16, 16, 3))
        pixels = ArraySource(image[None])[0]["image"]
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels[..., 1].reshape(-1), levels)


def test_arrays_of_jax():
    image = jnp.full((2, 4, 5, 3), 0.5).at[1].set(1.0)
    source = ArraySource(image)
    assert [source[i]["image"].max() for i in (0, 1)] == [128, 255]


GOOD = np.zeros((4, 5, 3), np.float32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GOOD - 0.1, r"float32 \[4, 5, 3\] with values from -0.1 to -0.1; expected"),
        (GOOD + 255, r"float32 \[4, 5, 3\] with values from 255 to 255; expected"),
        (
            np.where(np.arange(3) == 1, np.nan, GOOD),
            r".* with values from nan to nan; exp",
        ),
        (GOOD[..., 0], r"float32 \[4, 5\]; expected \[height, width, 3\], uint8 or float"),
        (GOOD[..., :2], r"float32 \[4, 5, 2\]; expected"),
        (GOOD[:0], r"float32 \[0, 5, 3\]; expected"),
        (GOOD.astype(np.uint16), r"uint16 \[4, 5, 3\]; expected"),
        (GOOD.astype(np.int64), r"int64 \[4, 5, 3\]; expected"),
    ],
)
def test_arrays_that_are_no_image_are_named(image, message):
    with pytest.raises(UserError, match=r"^images\[2\] is " + message):
        ArraySource([GOOD, GOOD, image, GOOD])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0]}, r"^labels are int64 \[1\]; expected a whole number for each of 2 images"),
        ({"labels": [0.0, 1.0]}, r"^labels are float64 \[2\]; expected a whole number"),
        ({"labels": [0, -1]}, r"^labels\[1\] is -1; expected 0 to 0$"),
        ({"labels": [3, 0], "class_names": "abc"}, r"^labels\[0\] is 3; expected 0 to 2$"),
        ({"names": ["a"]}, r"^there are 1 names for 2 images$"),
    ],
)
def test_labels_and_names_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        ArraySource([GOOD, GOOD], **options)


@pytest.mark.parametrize("images", [[], np.zeros((0, 4, 5, 3))])
def test_no_arrays(images):
    with pytest.raises(UserError, match="no images; expected at least one"):
        ArraySource(images)
