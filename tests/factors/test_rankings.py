"""Rankings, the first rows, and whether they are mostly appearance."""

import itertools

import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.factors import rankings

ROWS = ("rotate 3", "invert 3", "invert 4", "shear_x 2", "color 0")


@pytest.fixture
def statistics(make_statistics):
    boosted = [[0.5, 0.9, 0.9, 0.5, 0.0], [np.nan, 0.2, 0.2, 0.7, 0.2]]
    percent = [[0.1, -0.2, -0.2, 0.3, 0.0], [0.4, -0.1, -0.1, 0.2, 0.0]]
    return make_statistics(
        ROWS, boosted, percent, copies={"invert 4": "invert 3", "color 0": "identity"}
    )


def labels(statistics, ranking):
    return [[str(statistics["row"].values[i]) for i in each] for each in ranking]


def test_ties_go_to_the_other_measure_and_then_to_the_order_of_the_search(statistics):
    first = ["invert 3", "invert 4", "shear_x 2", "rotate 3", "color 0"]
    # Of three equal ones color 0 has the higher percent change; what is no number comes last.
    second = ["shear_x 2", "color 0", "invert 3", "invert 4", "rotate 3"]
    assert labels(statistics, rankings.order(statistics)) == [first, second]
    first = ["shear_x 2", "rotate 3", "color 0", "invert 3", "invert 4"]
    second = ["rotate 3", "shear_x 2", "color 0", "invert 3", "invert 4"]
    assert labels(statistics, rankings.order(statistics, "percent_change")) == [first, second]


def test_what_is_no_number_comes_last(make_statistics):
    table = make_statistics(("rotate 3", "invert 3"), [[0, 0]], [[np.nan, -0.1]])
    np.testing.assert_array_equal(rankings.order(table, "percent_change"), [[1, 0]])


def test_over_classes_the_means_are_ranked(statistics):
    # Means .5 (of one class), .55, .55, .6, .1.
    ranking = rankings.order(statistics, over_classes=True)
    assert labels(statistics, ranking) == [
        ["shear_x 2", "invert 3", "invert 4", "rotate 3", "color 0"]
    ]
    # Means .25, -.15, -.15, .25, 0.
    ranking = rankings.order(statistics, "percent_change", over_classes=True)
    assert labels(statistics, ranking) == [
        ["shear_x 2", "rotate 3", "color 0", "invert 3", "invert 4"]
    ]


def test_unknown_ranking_and_too_many_rows(statistics):
    with pytest.raises(UserError, match="unknown ranking 'boost'; one of: proportion_boosted"):
        rankings.order(statistics, "boost")
    for top in (0, 6):
        with pytest.raises(UserError, match=f"top is {top}; expected 1 to 5"):
            rankings.among_first(rankings.order(statistics), top)


def test_distinct_rows_are_no_copies_and_change_something(statistics):
    assert list(rankings.distinct(statistics)["row"].values) == [
        "rotate 3",
        "invert 3",
        "shear_x 2",
    ]


def test_first_places_and_counts(statistics):
    ranking = rankings.order(statistics)
    # rotate, invert, shear_x, color
    np.testing.assert_array_equal(
        rankings.first_places(statistics, ranking), [[3, 0, 2, 4], [4, 2, 0, 1]]
    )
    found = rankings.counts(statistics, 2)
    assert dict(zip(found["operation"].values.tolist(), found.values.tolist(), strict=True)) == {
        "invert": 2,
        "shear_x": 1,
        "color": 1,
        "rotate": 0,
    }
    assert found["operation"].values.tolist() == ["invert", "shear_x", "color", "rotate"]
    np.testing.assert_allclose(found["expected"], [2 * 2 * 2 / 5, 4 / 5, 4 / 5, 4 / 5])
    assert found["kind"].values.tolist() == ["appearance", "geometric", "appearance", "geometric"]


def test_sub_policies_are_operations_of_their_own(statistics):
    both = statistics.assign_coords(operation2=("row", ["", "equalize", "", "", ""]))
    assert list(rankings.operations(both)) == [
        "rotate",
        "invert + equalize",
        "invert",
        "shear_x",
        "color",
    ]


def test_appearance_share_against_a_loop(make_statistics):
    rows = ["rotate 3", "rotate 4", "invert 3", "shear_x 2", "color 2", "color 4", "posterize 5"]
    boosted = np.random.default_rng(0).random((6, 7))
    statistics = make_statistics(rows, boosted)
    found = rankings.appearance_share(statistics, 3, draws=4000)
    appearance = np.array([name.split()[0] in ("invert", "color", "posterize") for name in rows])
    shares = [appearance[np.argsort(-each)[:3]].mean() for each in boosted]
    assert found[:3] == (7, 3, pytest.approx(np.mean(shares)))
    assert found.base_rate == 4 / 7
    draws = np.random.default_rng(1)
    means = [np.mean(draws.choice(shares, 6)) for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.06)
    # Every way to give three operations of five the kind "appearance".
    names = ["rotate", "invert", "shear_x", "color", "posterize"]
    excess = []
    for chosen in itertools.combinations(names, 3):
        of_kind = np.array([name.split()[0] in chosen for name in rows])
        excess.append(
            np.mean([of_kind[np.argsort(-each)[:3]].mean() for each in boosted]) - of_kind.mean()
        )
    exact = np.mean(np.array(excess) >= found.share - found.base_rate - 1e-12)
    assert found.p_value == pytest.approx(exact, abs=0.03)


def test_appearance_beyond_chance_is_told_from_the_base_rate(make_statistics):
    appearance = [
        f"{name} {i}" for name in ("invert", "color", "posterize", "solarize") for i in (3, 4)
    ]
    geometric = [
        f"{name} {i}" for name in ("rotate", "shear_x", "shear_y", "translate_x") for i in (3, 4)
    ]
    rows, draws = [*appearance, *geometric], np.random.default_rng(0)
    higher = draws.random((30, 16)) + np.repeat([1, 0], 8)
    found = rankings.appearance_share(make_statistics(rows, higher), 5)
    assert found.share == found.low == found.high == 1 and found.base_rate == 0.5
    assert found.verdict == "more than chance"
    assert found.p_value == pytest.approx(1 / 70, abs=0.005)  # 8 operations, 4 of a kind
    found = rankings.appearance_share(make_statistics(rows[::-1], higher), 5)
    assert found.share == 0 and found.verdict == "less than chance" and found.p_value == 1
    statistics = make_statistics(rows, draws.random((30, 16)))
    found = rankings.appearance_share(statistics, 5)
    assert found.verdict == "no clear difference" and found.low < 0.5 < found.high
    assert found == rankings.appearance_share(statistics, 5)
