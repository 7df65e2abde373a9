"""Result files, what is read from them, and the table of accuracies."""

import errno
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import invariance_jax
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.evaluation.evaluate import read_table, record
from invariance_jax.evaluation.measurement import Images, Matrix
from invariance_jax.transforms import TRANSFORMS

from .conftest import grid

IMAGES, POINTS = 4, 118


@pytest.fixture(scope="module")
def datasets():
    """What the grid makes of random distances of two features."""
    generator = np.random.default_rng(0)

    def draw(*shape):
        return generator.random(shape, np.float32)

    measurement = grid(features=("layer",), equivariance=True, per_class=True)
    found = {
        "transformed": draw(IMAGES, POINTS, 2, 2),
        "baseline": draw(IMAGES, POINTS, 2, 2),
        "baseline_unchanged": draw(IMAGES, 2, 2),
        "flip": draw(IMAGES, POINTS) < 0.5,
        "correct": draw(IMAGES, POINTS) < 0.5,
        "correct_unchanged": draw(IMAGES) < 0.5,
        "prediction": np.array([1, 1, 3, 9], np.int32),
    }
    for name in ("embedding", "layer"):
        matrix = draw(POINTS, IMAGES, 5)
        found[f"difference_{name}"] = Matrix([matrix], [np.arange(IMAGES)])
    images = Images(["a", "b", "c", "d"], np.array([1, 1, 3, 4]), [f"class {i}" for i in range(10)])
    return measurement.datasets(found, images)


@pytest.fixture
def dataset(datasets):
    return datasets[""].assign_attrs(model="resnet8", seed=7, versions=results.versions())


def test_a_result_file_comes_back_as_it_was(datasets, dataset, tmp_path):
    path = tmp_path / "invariance" / "resnet8.nc"
    groups = {name: each for name, each in datasets.items() if name}
    results.write(dataset, path, groups)
    found = results.read(path)
    assert found.identical(dataset) and invariance_jax.read(path).identical(dataset)
    assert [each.name for each in path.parent.iterdir()] == ["resnet8.nc"]
    assert found.attrs["model"] == "resnet8" and found.attrs["seed"] == 7
    assert "jax" in json.loads(found.attrs["versions"])
    assert set(results.groups(path)) == set(groups) == {"features", "classes"}
    for name, each in groups.items():
        assert results.read(path, name).identical(each)
    results.write(dataset, path)
    with pytest.raises(UserError, match=r"resnet8\.nc is not a result file with features"):
        results.read(path, "features")


def test_points_are_labelled(datasets, dataset):
    assert dict(dataset.sizes) == {"transform": 13, "magnitude": 10, "image": 4}
    point = dataset.sel(transform="scale_zoom_in", magnitude=9, image="c")
    assert float(point.magnitude_value) == 3.5 and int(point.label) == 3
    baseline, transformed = float(point.baseline_cosine), float(point.transformed_cosine)
    assert float(point.relative_invariance_cosine) == pytest.approx(
        (baseline - transformed) / baseline, rel=1e-5
    )
    assert dataset.relative_invariance_cosine.dtype == np.float32
    features = datasets["features"]
    assert features.transformed_cosine.dims == ("feature", "transform", "magnitude", "image")
    for name in ("relative_invariance_cosine", "equivariance_alignment", "baseline_euclidean"):
        np.testing.assert_array_equal(features[name].sel(feature="embedding"), dataset[name])
        assert not np.array_equal(features[name].sel(feature="layer"), dataset[name])


def test_percentiles_are_exact(dataset):
    found = results.percentiles(dataset)
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
    found = results.percentiles_by_class(dataset, [f"class {i}" for i in range(10)])
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
    lines = results.summary(dataset).splitlines()
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


def test_results_of_version_0_1_are_read(golden_dir):
    path = golden_dir / "version_0_1" / "workdir" / "invariance" / "resnet8_flip_seed0.nc"
    found = results.read(path)
    assert dict(found.sizes) == {"transform": 13, "magnitude": 10, "image": 6}
    assert tuple(found["transform"].values) == tuple(TRANSFORMS)
    identity = json.loads(found.attrs["measurement"])
    ours = {name: identity[name] for name in ("parameters_sha256", "config.model.name", "grid")}
    # The same measurement, said in the words of this version, is not done again.
    ours |= {"config.eval.padding_mode": "constant", "config.data.name": "digits"}
    assert results.holds(path, ours, overwrite=False)
    with pytest.raises(UserError, match=r"\(its config\.eval\.padding_mode differ\)"):
        results.holds(path, ours | {"config.eval.padding_mode": "wrap"}, overwrite=False)


def accuracy_of(top1, **attributes):
    hits = np.arange(4) < 4 * top1
    given = {
        "model": "resnet8",
        "augmentation": "none",
        "seed": 0,
        "steps": 600,
        "seconds": 12.54,
        "dataset": "digits",
        "split": "validation",
        "parameters_sha256": "0123456789abcdef",
    }
    data = {"correct_top1": ("image", hits), "correct_top5": ("image", np.ones(4, bool))}
    return xr.Dataset(data, attrs=given | attributes)


def test_the_table_of_accuracies_replaces_rows_of_the_same_network(tmp_path):
    path = tmp_path / "accuracy.csv"
    record(path, accuracy_of(0.5))
    record(path, accuracy_of(0.25, model="vit(x=1, y=2)", steps=0))
    record(path, accuracy_of(0.75))
    record(path, accuracy_of(1.0, dataset="other"))  # the same network on other data
    rows = read_table(path)
    assert [(row["model"], row["top1"], row["dataset"]) for row in rows] == [
        ("vit(x=1, y=2)", "0.250000", "digits"),
        ("resnet8", "0.750000", "digits"),
        ("resnet8", "1.000000", "other"),
    ]
    assert path.read_text().splitlines()[0] == (
        "model,augmentation,seed,top1,steps,seconds,top5,images,dataset,split,weights"
    )
    assert rows[1] | {"top1": ""} == {
        "model": "resnet8",
        "augmentation": "none",
        "seed": "0",
        "top1": "",
        "steps": "600",
        "seconds": "12.5",
        "top5": "1.000000",
        "images": "4",
        "dataset": "digits",
        "split": "validation",
        "weights": "0123456789ab",
    }


def test_rows_of_version_0_1_stay_until_their_network_is_measured_again(tmp_path):
    path = tmp_path / "accuracy.csv"
    path.write_text(
        "model,augmentation,seed,top1,steps,seconds\n"
        "resnet8,none,0,0.100000,600,1.0\nresnet8,flip,0,0.200000,600,1.0\n"
    )
    record(path, accuracy_of(0.5))
    found = [(row["augmentation"], row["top1"], row["dataset"]) for row in read_table(path)]
    assert found == [("flip", "0.200000", ""), ("none", "0.500000", "digits")]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00rubbish", b"x,y\n1,2\n"])
def test_what_is_no_table_has_no_rows(tmp_path, content):
    path = tmp_path / "accuracy.csv"
    if content is not None:
        path.write_bytes(content)
    assert read_table(path) == []
    record(path, accuracy_of(0.5))
    assert len(read_table(path)) == 1


def test_a_checkout_says_its_commit(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    git("tag", "v1")  # no name that may move
    (tmp_path / "inner").mkdir()
    assert results.commit_of(tmp_path / "inner") == ""  # a folder in it is not it
    commit = results.commit_of(tmp_path)
    assert len(commit) >= 7 and git("rev-parse", "HEAD").startswith(commit)
    results.commit_of.cache_clear()
    (tmp_path / "file").write_text("two")
    assert results.commit_of(tmp_path) == f"{commit}-dirty"
    results.commit_of.cache_clear()
    (tmp_path / ".git" / "HEAD").write_text("damaged")
    assert results.commit_of(tmp_path) == ""
