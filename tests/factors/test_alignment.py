"""Alignment of the factors with the invariance gap."""

import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.factors import alignment
from invariance_jax.transforms import TRANSFORMS


def test_mapping_of_rows_to_transforms():
    expected = {
        ("contrast", 3): "decrease_contrast",
        ("contrast", 5): "decrease_contrast",
        ("contrast", 6): "increase_contrast",
        ("rescale", 1): "scale_zoom_out",
        ("rescale", 5): "scale_zoom_out",
        ("rescale", 6): "scale_zoom_in",
        ("rotate", 4): "rotate",
        ("shear_y", 7): "shear_y",
        ("translate_x", 3): "translate_x",
        ("posterize", 6): "posterize",
        ("solarize", 5): "solarize",
    }
    expected |= {(name, 4): None for name in ("color", "sharpness", "autocontrast", "equalize")}
    expected |= {("invert", 4): None, ("brightness", 4): None}
    assert {row: alignment.transform_of(*row) for row in expected} == expected
    # The paper's code took every rescale for zooming in.
    assert {alignment.transform_of("rescale", i, "zoom_in") for i in range(10)} == {"scale_zoom_in"}


ROWS = ("rotate 3", "rotate 9", "rescale 4", "rescale 7", "color 4", "solarize 5", "contrast 3")


@pytest.fixture
def statistics(make_statistics):
    # The first two of the comparable rows: rescale 4, solarize; rotate 3, contrast; rotate 3,
    # rescale 7. What is boosted most has no counterpart, or another index.
    return make_statistics(
        ROWS,
        [
            [0.1, 0.9, 0.8, 0.2, 0.95, 0.7, 0.3],
            [0.8, 0.9, 0.1, 0.2, 0.95, 0.3, 0.7],
            [0.8, 0.9, 0.1, 0.7, 0.95, 0.3, 0.2],
        ],
    )


GAP = dict.fromkeys(TRANSFORMS, -0.1) | {"rotate": 0.2, "scale_zoom_out": 0.3, "solarize": 0.0}


def test_only_comparable_rows_count(statistics):
    table = alignment.comparable(statistics)
    assert list(table["row"].values) == [
        "rotate 3",
        "rescale 4",
        "rescale 7",
        "solarize 5",
        "contrast 3",
    ]
    names = ["rotate", "scale_zoom_out", "scale_zoom_in", "solarize", "decrease_contrast"]
    assert list(table["transform"].values) == names


def test_alignment_by_hand(statistics):
    found = alignment.align(statistics, GAP, top=2)
    transforms = ["rotate", "scale_zoom_out", "scale_zoom_in", "decrease_contrast", "solarize"]
    assert found.slots["transform"].values.tolist() == transforms
    assert found.slots.values.tolist() == [2, 1, 1, 1, 1]
    assert found.slots["gap"].values.tolist() == [0.2, 0.3, -0.1, -0.1, 0.0]
    # Half of each class's two: rescale 4, rotate 3, rotate 3; of five rows two have a gap.
    assert found.share == 0.5 and found.classes == 3 and found.chance == 2 / 5
    assert (found.low, found.high) == (0.5, 0.5)
    assert found.verdict == "more than chance"
    # The bars: shares 2/6 and 1/6; 1/6 three times, the gap of 0 among them.
    assert found.positive == pytest.approx(1 / 4) and found.other == pytest.approx(1 / 6)
    assert found.positive_error == pytest.approx((1 / 6) / np.sqrt(2) / np.sqrt(2))
    assert found.other_error == pytest.approx(0)
    # The slip: both rescales are zooming in, whose gap is negative.
    slip = alignment.align(statistics, GAP, top=2, rescale="zoom_in")
    assert slip.slots.sel(transform="scale_zoom_in") == 2 and slip.chance == 1 / 5
    assert slip.share == pytest.approx(2 / 6) and np.isnan(slip.positive_error)


def test_interval_is_over_classes(statistics):
    found = alignment.align(statistics, GAP | {"solarize": 0.1, "scale_zoom_in": 0.1}, top=2)
    # 1, 1/2, 1
    draws = np.random.default_rng(5).choice([1, 0.5, 1], (20_000, 3)).mean(axis=1)
    assert found.share == pytest.approx(5 / 6)
    assert (found.low, found.high) == pytest.approx(np.percentile(draws, (2.5, 97.5)))
    assert found.verdict == "no clear difference" and found.chance == 4 / 5


def test_mistakes(make_statistics, statistics):
    with pytest.raises(UserError, match="unknown rule for rescale 'zoom_out'"):
        alignment.align(statistics, GAP, rescale="zoom_out")
    with pytest.raises(UserError, match=r"no row of index 3 to 7 .*: color 4, rotate 9"):
        alignment.align(make_statistics(["color 4", "rotate 9"], [[1, 1]]), GAP)
    with pytest.raises(UserError, match="top is 6; expected 1 to 5"):
        alignment.align(statistics, GAP, top=6)
