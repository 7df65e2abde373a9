"""The eight comparisons, against a plain loop."""

import csv
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import data
from invariance_jax.errors import UserError
from invariance_jax.factors.sanity import ANGLES, SimilarityChecks, check_pairs, over_groups
from invariance_jax.transforms import TRANSFORMS

from ..evaluation.conftest import linear, measured, pixels_of
from .test_search import coloured

CHECKS = SimilarityChecks(limit=2, class_pairs=2, seed=3)
# As many within the three classes as there are batches of neighbours; two pairs of classes.
WITHIN, ACROSS = 6, 4


@pytest.fixture(scope="module")
def source():
    return coloured()


@pytest.fixture(scope="module")
def found(source):
    return measured([CHECKS], source, linear(), per_device_batch_size=6)["similarity_checks"][""]


def test_positionsare_neighbours_within_classes_and_of_the_same_rank_across():
    labels = np.array([4, 4, 9, 4, 9, 4, 9, 0])
    found = check_pairs(labels, limit=2, class_pairs=100, seed=0).tolist()
    # Class 0 has one image: none within it, one across.
    assert found == [[0, 1], [3, 5], [2, 4], [7, 0], [7, 2], [0, 2], [1, 4]]


def test_positionsof_classes_are_drawn_of_all_and_not_the_first():
    labels = np.arange(40)
    drawn = {seed: check_pairs(labels, limit=1, class_pairs=30, seed=seed) for seed in (0, 1)}
    for each in drawn.values():
        assert len(np.unique(each, axis=0)) == 30 and np.all(each[:, 0] < each[:, 1])
        assert len(np.unique(each[:, 0])) > 10
    assert drawn[0].tolist() != drawn[1].tolist()


def test_means_and_deviations_are_of_groups_first():
    values = np.array([1.0, 2.0, 10.0, 3.0, 0.0])
    groups = np.array([[0, 1], [0, 1], [2, 3], [0, 1], [2, 3]])
    mean, std, count = over_groups(values, groups)
    assert (mean, count) == (3.5, 2) and std == pytest.approx((np.sqrt(2 / 3) + 5) / 2)
    assert np.isnan(over_groups(values[:0], groups[:0])[:2]).all()


def test_the_table_equals_a_plain_loop(source, found):
    images, labels, embed = pixels_of(source), source.labels(), jax.jit(linear())
    positions = check_pairs(labels, limit=2, class_pairs=2, seed=3)
    assert len(positions) == WITHIN + ACROSS
    angles = np.asarray(CHECKS.angles(positions.reshape(-1)))
    turn = jax.jit(jax.vmap(TRANSFORMS["rotate"].apply))
    shown = images[positions.reshape(-1)]
    z = {
        name: np.asarray(embed(each), np.float64)
        for name, each in {
            "as they are": shown,
            "5": turn(shown, np.full(len(shown), 5.0)),
            "90": turn(shown, np.full(len(shown), 90.0)),
            "turned by one random angle": turn(shown, angles[2]),
            "each turned by its own": turn(shown, angles[3]),
        }.items()
    }

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = {}
    for angle in ("5", "90"):
        by_class = {}
        for i in range(2 * WITHIN):
            similarity = cosine(z["as they are"][i], z[angle][i])
            by_class.setdefault(labels[positions.reshape(-1)[i]], []).append(similarity)
        expected[f"itself, turned by {angle} degrees"] = by_class
    for what, numbers in (
        ("within a class", range(WITHIN)),
        ("across classes", range(WITHIN, WITHIN + ACROSS)),
    ):
        for view in ("as they are", "turned by one random angle", "each turned by its own"):
            by_class = {}
            for i in numbers:
                similarity = cosine(z[view][2 * i], z[view][2 * i + 1])
                by_class.setdefault(tuple(labels[positions[i]]), []).append(similarity)
            expected[f"{what}, {view}"] = by_class
    assert found.check.values.tolist() == list(expected) and len(expected) == 8
    for name, by_class in expected.items():
        of = found.sel(check=name)
        mean = np.mean([np.mean(each) for each in by_class.values()])
        std = np.mean([np.std(each) for each in by_class.values()])
        np.testing.assert_allclose(of["mean"], mean, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(of["std"], std, atol=5e-6, err_msg=name)
        assert int(of["groups"]) == len(by_class)
    assert len({round(float(each), 4) for each in found["mean"]}) == 8


def test_angles_are_one_of_each_pair_or_each_images_own():
    found = np.asarray(CHECKS.angles(np.arange(200)))
    assert (found[0] == ANGLES[0]).all() and (found[1] == ANGLES[1]).all()
    np.testing.assert_array_equal(found[2, 0::2], found[2, 1::2])
    assert len(np.unique(found[2])) == 100 and len(np.unique(found[3])) == 200
    for drawn in found[2:]:
        assert 0 <= drawn.min() < 20 and 340 < drawn.max() < 360
    # What a pair gets depends on it alone.
    np.testing.assert_array_equal(
        found[:, 20:40], CHECKS.angles(np.roll(np.arange(200), -20))[:, :20]
    )


def test_it_is_shown_and_tabled(found):
    lines = CHECKS.summary(found).splitlines()
    assert lines[0] == "Cosine similarity of images (embedding), means over classes of"
    assert len(lines) == 10 and lines[2].split()[-2] == f"{float(found['mean'][0]):.4f}"
    table = list(csv.DictReader(io.StringIO(CHECKS.sidecar(found))))
    assert [float(each["std"]) for each in table] == pytest.approx(found["std"].values, rel=1e-8)


def test_images_without_labels_cannot_be_checked():
    source = data.ArraySource(np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"config\.search\.checks_split: arrays all has no labels"):
        CHECKS.order(source)


def test_angles_are_those_of_the_pair_of_images():
    checks = SimilarityChecks()
    positions = [(0, 5), (1, 5), (0, 6), (5, 0)]
    angles = np.asarray(checks.angles(jnp.array(positions).reshape(-1)))[2:].reshape(2, -1, 2)
    shared, own = angles
    assert (shared[:, 0] == shared[:, 1]).all() and (own[:, 0] != own[:, 1]).all()
    assert len(np.unique(shared)) == len(positions) and len(np.unique(own)) == 2 * len(positions)
    # Whatever else is in the batch, and for another seed others.
    alone = np.asarray(checks.angles(jnp.array(positions[1])))[2:]
    np.testing.assert_array_equal(alone, angles[:, 1])
    assert not np.isin(SimilarityChecks(seed=1).angles(jnp.array(positions[1]))[2:], angles).any()
