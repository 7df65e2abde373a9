"""Pairs, and what is said of each class and row, against plain loops."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invariance_jax.errors import UserError
from invariance_jax.factors import changes, pairs, statistics
from invariance_jax.factors.statistics import COUNTS, STATISTICS, tidy


def plain(change, similarity):
    """Every statistic of one class and row, by a loop over its pairs."""

    def mean(values):
        total = 0.0
        for each in values:
            total += each
        return total / len(values) if values else math.nan

    def std(values):
        centre = mean(values)
        return (
            math.sqrt(mean([(each - centre) * (each - centre) for each in values]))
            if values
            else math.nan
        )

    boosts = [each for each in change if each > 0]
    decreases = [each for each in change if each < 0]
    percent = [each / s for each, s in zip(change, similarity, strict=True)]
    percent_boosts = [p for p, each in zip(percent, change, strict=True) if each > 0]
    return {
        "mean_change": mean(change),
        "std_change": std(change),
        "mean_boost": mean(boosts),
        "std_boost": std(boosts),
        "mean_decrease": mean(decreases),
        "std_decrease": std(decreases),
        "mean_percent_change": mean(percent),
        "mean_percent_boost": mean(percent_boosts),
        "proportion_boosted": len(boosts) / len(change),
        "boosts": len(boosts),
        "decreases": len(decreases),
        "pairs": len(change),
    }


def drawn(seed=0, count=83, rows=5):
    """Pairs of three classes in no order; one row never boosts, one never decreases, one is 0."""
    generator = np.random.default_rng(seed)
    change = generator.normal(0, 0.1, (count, rows)).astype(np.float32)
    change[generator.random(change.shape) < 0.2] = 0
    change[:, 1], change[:, 2], change[:, 3] = -abs(change[:, 1]), abs(change[:, 2]), 0
    similarity = generator.uniform(-0.5, 1, count).astype(np.float32)
    return change, similarity, generator.choice([7, 2, 30], count)


ROWS = [f"row {i}" for i in range(5)]


def test_statistics_equal_a_plain_loop_exactly():
    change, similarity, labels = drawn()
    found = statistics(change, similarity, labels, rows=ROWS)
    assert found["class"].values.tolist() == [2, 7, 30] and found.row.values.tolist() == ROWS
    assert set(found.data_vars) == {*STATISTICS, *COUNTS, "pairs"}
    for label in (2, 7, 30):
        mine = labels == label
        for column, row in enumerate(ROWS):
            expected = plain(
                change[mine, column].astype(float).tolist(),
                similarity[mine].astype(float).tolist(),
            )
            of = found.sel({"class": label, "row": row})
            for name, value in expected.items():
                np.testing.assert_array_equal(of[name], value, err_msg=f"{label} {row} {name}")
    assert found.mean_change.dtype == np.float64 and found.boosts.dtype == np.int32
    # Nothing is compared with nothing: every statistic has a value somewhere.
    assert all(np.isfinite(found[name]).any() for name in STATISTICS)
    assert np.isnan(found.mean_boost.sel(row="row 1")).all()
    assert np.isnan(found.std_decrease.sel(row="row 2")).all()


def test_statistics_by_hand():
    change = np.array([[0.5, 0.0], [-0.25, 0.0], [0.25, 0.5], [0.0, 0.5]])
    similarity = np.array([0.5, 0.5, -0.5, 0.25])
    found = statistics(change, similarity, np.zeros(4, int), rows=["a", "b"]).sel({"class": 0})
    expected = {
        "mean_change": (0.125, 0.25),
        # Squares of the distances to the mean: .140625, .140625, .015625, .015625; all .0625.
        "std_change": (math.sqrt(0.078125), 0.25),
        "mean_boost": (0.375, 0.5),
        "std_boost": (0.125, 0.0),
        "mean_decrease": (-0.25, math.nan),
        "std_decrease": (0.0, math.nan),
        # 1, -.5, -.5, 0; and 0, 0, -1, 2.
        "mean_percent_change": (0.0, 0.25),
        # 1 and -.5; -1 and 2.
        "mean_percent_boost": (0.25, 0.5),
        "proportion_boosted": (0.5, 0.5),
        "boosts": (2, 2),
        "decreases": (1, 0),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert int(found.pairs) == 4


def test_one_row_and_classes_of_one_pair():
    found = statistics(np.array([[0.5], [-1.0]]), np.array([0.0, 2.0]), [1, 0], rows=["a"])
    np.testing.assert_array_equal(found.mean_change, [[-1.0], [0.5]])
    np.testing.assert_array_equal(found.std_change, [[0.0], [0.0]])
    # A similarity of 0 has no percentage.
    np.testing.assert_array_equal(found.mean_percent_change, [[-0.5], [np.inf]])


def test_classes_have_names_and_wordnets_where_these_are():
    change, similarity, labels = drawn()
    names = [f"n{i:08d}" for i in range(31)]
    found = statistics(change, similarity, labels, rows=ROWS, class_names=names)
    assert found.wnid.values.tolist() == ["n00000002", "n00000007", "n00000030"]
    assert found.class_name.values.tolist() == found.wnid.values.tolist()
    names[7] = "seven"
    found = statistics(change, similarity, labels, rows=ROWS, class_names=names)
    assert "wnid" not in found and found.class_name.values.tolist()[1] == "seven"
    plain_numbers = statistics(change, similarity, labels, rows=ROWS)
    assert "wnid" not in plain_numbers and plain_numbers.class_name.values.tolist()[0] == "2"


def test_the_table_has_a_line_for_each_class_and_row():
    found = statistics(*drawn(), rows=ROWS)
    lines = list(csv.DictReader(io.StringIO(tidy(found))))
    assert [(each["class"], each["row"]) for each in lines] == [
        (str(label), row) for label in (2, 7, 30) for row in ROWS
    ]
    for line in lines:
        of = found.sel({"class": int(line["class"]), "row": line["row"]})
        assert int(line["pairs"]) == of.pairs and int(line["boosts"]) == of.boosts
        for name in STATISTICS:
            value = float(line[name]) if line[name] else math.nan
            np.testing.assert_allclose(value, of[name], rtol=1e-8, err_msg=name)


def test_arrays_that_do_not_fit_are_refused():
    change, similarity, labels = drawn()
    for wrong in (
        (change[:, :3], similarity, labels),
        (change.T, similarity, labels),
        (change, similarity[:-1], labels),
    ):
        with pytest.raises(UserError, match=r"expected \(83, 5\) and \(83,\) for 83 labels and 5"):
            statistics(*wrong, rows=ROWS)


def test_pairs_by_hand():
    labels = np.array([5, 3, 5, 5, 5, 3, 3, 5, 5, 5, 5])
    # Of class 3 there are three images; of class 5 the batches 0 2 3 4 and 7 8 9 10.
    assert pairs(labels, batch=4).tolist() == [[0, 3], [2, 4], [7, 9], [8, 10]]
    assert pairs(labels, batch=4, limit=1).tolist() == [[0, 3], [2, 4]]
    assert pairs(labels, batch=2, limit=1).tolist() == [[1, 5], [0, 2]]
    assert pairs(labels, batch=12).shape == (0, 2)


def test_1300_images_give_640_pairs_and_many_give_whole_batches():
    assert len(pairs(np.zeros(1300, int))) == 640
    assert len(pairs(np.zeros(5000, int))) == 1008  # 63 batches
    for batch, limit in ((3, 10), (0, 10), (2, 0)):
        with pytest.raises(UserError, match="expected"):
            pairs(np.zeros(9, int), batch=batch, limit=limit)


@given(
    labels=st.lists(st.integers(0, 3), max_size=60),
    half=st.integers(1, 5),
    limit=st.integers(1, 20),
)
def test_pairs_are_disjoint_of_one_class_and_half_a_batch_apart(labels, half, limit):
    labels = np.array(labels, int)
    found = pairs(labels, batch=2 * half, limit=limit)
    assert len(np.unique(found)) == found.size
    for label in range(4):
        images = np.flatnonzero(labels == label).tolist()
        expected = []
        for start in range(0, len(images) - 2 * half + 1, 2 * half):
            if len(expected) >= limit:
                break
            expected += [[images[start + i], images[start + i + half]] for i in range(half)]
        assert [each for each in found.tolist() if labels[each[0]] == label] == expected
    np.testing.assert_array_equal(labels[found[:, 0]], labels[found[:, 1]])


def test_changes_equal_a_plain_loop():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 6, 4)).astype(np.float32)
    transformed = generator.normal(size=(3, 6, 4)).astype(np.float32)
    first[2] = 0

    def cosine(a, b):
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return float(np.dot(a, b)) / float(length) if length else 0.0

    similarity, change = changes(first, second, transformed)
    for pair in range(6):
        before = cosine(first[pair], second[pair])
        assert similarity[pair] == pytest.approx(before, abs=1e-6)
        for row in range(3):
            after = cosine(first[pair], transformed[row, pair])
            assert change[pair, row] == pytest.approx(after - before, abs=1e-6)
