"""Fewer images: which ones, with which labels."""

import numpy as np
import pytest

from invariance_jax.data import load_source, of_classes, share_of_each_class
from invariance_jax.data.source import Source
from invariance_jax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_source("digits", "train")


def names(source) -> list[str]:
    return [source[i]["name"] for i in range(len(source))]


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
