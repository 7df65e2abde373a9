"""Result files and the accuracy table."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.evaluation import accuracy_table, results
from invariance_jax.evaluation.accuracy_table import AccuracyRow
from invariance_jax.evaluation.grid import GridDistances
from invariance_jax.transforms import TRANSFORMS

SHAPE = (13, 10, 4)


@pytest.fixture
def dataset():
    generator = np.random.default_rng(0)
    distances = GridDistances(
        transformed={k: generator.random(SHAPE, np.float32) for k in ("cosine", "euclidean")},
        baseline={k: generator.random(SHAPE, np.float32) for k in ("cosine", "euclidean")},
        permutation=np.array([2, 0, 3, 1]),
    )
    return results.to_dataset(
        distances,
        TRANSFORMS,
        names=["a", "b", "c", "d"],
        labels=[1, 2, 3, 4],
        attributes={"model": "resnet8", "seed": 7},
    )


def test_a_result_file_comes_back_as_it_was(dataset, tmp_path):
    path = tmp_path / "invariance" / "resnet8.nc"
    results.write(dataset, path)
    found = results.read(path)
    assert found.identical(dataset)
    assert [each.name for each in path.parent.iterdir()] == ["resnet8.nc"]
    assert found.attrs["model"] == "resnet8" and found.attrs["seed"] == 7
    assert "jax" in json.loads(found.attrs["versions"])


def test_cells_are_labelled(dataset):
    assert dict(dataset.sizes) == {"transform": 13, "magnitude": 10, "image": 4}
    cell = dataset.sel(transform="scale_zoom_in", magnitude=9, image="c")
    assert float(cell.magnitude_value) == 3.5 and int(cell.label) == 3
    baseline, transformed = float(cell.baseline_cosine), float(cell.transformed_cosine)
    assert float(cell.relative_invariance_cosine) == pytest.approx(
        (baseline - transformed) / baseline, rel=1e-5
    )
    assert dataset.relative_invariance_cosine.dtype == np.float32


def test_an_unreadable_file_is_named(tmp_path):
    path = tmp_path / "broken.nc"
    path.write_text("no netcdf")
    with pytest.raises(UserError, match=r"broken\.nc is not a readable result file"):
        results.read(path)


def test_fingerprint_depends_on_values_and_names():
    variables = {"params": {"w": jnp.ones(3)}}
    same = {"params": {"w": jnp.ones(3)}}
    assert results.fingerprint(variables) == results.fingerprint(same)
    others = [
        {"params": {"w": jnp.ones(3).at[0].set(2)}},
        {"params": {"v": jnp.ones(3)}},
        {"params": {"w": jnp.ones((3, 1))}},
    ]
    assert len({results.fingerprint(each) for each in [variables, *others]}) == 4


ROW = AccuracyRow(model="resnet8", augmentation="none", seed=0, top1=0.95, steps=600, seconds=12.5)


def test_the_accuracy_table_replaces_rows_of_the_same_model(tmp_path):
    path = tmp_path / "accuracy.csv"
    other = AccuracyRow(
        model="vit(x=1, y=2)", augmentation="none", seed=0, top1=0.1, steps=0, seconds=0
    )
    accuracy_table.update(path, AccuracyRow(**(ROW.__dict__ | {"top1": 0.5})))
    accuracy_table.update(path, other)
    accuracy_table.update(path, ROW)
    assert accuracy_table.read(path) == [ROW, other]
    assert path.read_text().splitlines()[0] == "model,augmentation,seed,top1,steps,seconds"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,top1\nx,1\n", "has the columns"),
        ("model,augmentation,seed,top1,steps,seconds\nx,none,0,high,1,1\n", "line 2: .*high"),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, message):
    path = tmp_path / "accuracy.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        accuracy_table.read(path)
