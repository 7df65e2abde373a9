"""Result files and the accuracy table."""

import errno
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.evaluation import accuracy_table, measures, percentiles, results, summary
from invariance_jax.evaluation.accuracy_table import AccuracyRow
from invariance_jax.evaluation.invariance import Measured
from invariance_jax.transforms import TRANSFORMS

SHAPE = (13, 10, 4)


def distances(generator, names):
    return {
        name: {kind: generator.random(SHAPE, np.float32) for kind in measures.DISTANCES}
        for name in names
    }


def make_measured(names=("embedding",)):
    generator = np.random.default_rng(0)
    return Measured(
        transformed=distances(generator, names),
        baseline=distances(generator, names),
        alignment={name: generator.random(SHAPE, np.float32) for name in names},
        flip=generator.random(SHAPE) < 0.5,
        correct=generator.random(SHAPE) < 0.5,
        prediction=np.array([1, 1, 3, 9], np.int32),
        label=np.array([1, 1, 3, 4], np.int32),
        names=("a", "b", "c", "d"),
        permutation=np.array([2, 0, 3, 1]),
    )


@pytest.fixture
def dataset():
    return results.to_dataset(
        make_measured(), TRANSFORMS, attributes={"model": "resnet8", "seed": 7}
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


def test_groups_stand_in_the_same_file(tmp_path):
    measured = make_measured(("embedding", "stage1_block1"))
    dataset = results.to_dataset(measured, TRANSFORMS, attributes={})
    features = results.to_features(measured, TRANSFORMS)
    classes = percentiles.by_class(dataset, [f"class {i}" for i in range(10)])
    path = tmp_path / "two.nc"
    groups = {results.FEATURES_GROUP: features, results.CLASSES_GROUP: classes}
    results.write(dataset, path, groups)
    assert results.read(path).identical(dataset)
    assert set(results.groups(path)) == {"features", "classes"}
    found = results.read(path, results.FEATURES_GROUP)
    assert found.identical(features)
    assert found.transformed_cosine.dims == ("feature", "transform", "magnitude", "image")
    np.testing.assert_array_equal(
        found.transformed_cosine.sel(feature="stage1_block1"),
        measured.transformed["stage1_block1"]["cosine"],
    )
    np.testing.assert_array_equal(
        found.relative_invariance_cosine.sel(feature="embedding"),
        dataset.relative_invariance_cosine,
    )
    results.write(dataset, path)
    with pytest.raises(UserError, match=r"two\.nc is not a result file with features"):
        results.read(path, results.FEATURES_GROUP)


def test_percentiles_are_exact(dataset):
    found = percentiles.over_images(dataset)
    assert found.baseline_cosine.dims == ("percentile", "transform", "magnitude")
    assert found.percentile.values.tolist() == list(range(101))
    values = np.sort(dataset.baseline_cosine.values, axis=-1)
    for percentile, expected in (
        (0, values[..., 0]),
        (50, (values[..., 1] + values[..., 2]) / 2),
        (25, 0.25 * values[..., 0] + 0.75 * values[..., 1]),
        (100, values[..., 3]),
    ):
        np.testing.assert_allclose(
            found.baseline_cosine.sel(percentile=percentile), expected, rtol=1e-6
        )


def test_percentiles_by_class(dataset):
    found = percentiles.by_class(dataset, [f"class {i}" for i in range(10)])
    assert found["class"].values.tolist() == [1, 3, 4]
    assert found.class_name.values.tolist() == ["class 1", "class 3", "class 4"]
    assert found.images.values.tolist() == [2, 1, 1]
    first = found.sel({"class": 1})
    np.testing.assert_allclose(
        first.transformed_euclidean.sel(percentile=50),
        dataset.transformed_euclidean.values[..., :2].mean(-1),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(first.flip, dataset.flip.values[..., :2].mean(-1))
    np.testing.assert_array_equal(found.sel({"class": 4}).correct, dataset.correct.values[..., 3])


def test_the_summary_has_a_line_for_each_transform(dataset):
    lines = summary.table(dataset).splitlines()
    assert len(lines) == 2 + 13
    row = dataset.sel(transform="rotate")
    medians = np.median(row.relative_invariance_cosine.values, axis=-1)
    name, *numbers = lines[2 + list(TRANSFORMS).index("rotate")].split()
    expected = [f"{medians[m]:z.2f}" for m in (1, 3, 5, 7, 9)] + [f"{medians[3:8].mean():z.2f}"]
    expected += [f"{row[share].values[3:8].mean():.1%}" for share in ("flip", "correct")]
    assert (name, numbers) == ("rotate", expected)


def test_a_failed_write_leaves_what_was_there(dataset, tmp_path, monkeypatch):
    path = tmp_path / "full.nc"
    results.write(dataset, path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*full\.nc: No space left on device; make"):
        results.write(dataset, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["full.nc"]


def test_a_real_limit_of_file_size_is_one_line(tmp_path):
    # The kernel refuses to let files grow beyond 100 kB, as a full disk would.
    script = (
        "import pathlib, resource, sys, numpy, xarray\n"
        "from invariance_jax.errors import UserError\n"
        "from invariance_jax.evaluation import results\n"
        "dataset = xarray.Dataset({'a': ('x', numpy.arange(10**5))})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    results.write(dataset, pathlib.Path(sys.argv[1]) / 'full.nc', {'group': dataset})\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "    sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "full.nc: File too large; make room" in done.stdout and done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


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
