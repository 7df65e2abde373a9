"""Packed results give the report that the results themselves give."""

import json

import numpy as np
import pytest
import xarray as xr

from invariance_jax.__main__ import main
from invariance_jax.commands import report as command
from invariance_jax.evaluation import results
from invariance_jax.evaluation.grid import FEATURES_GROUP
from invariance_jax.factors.per_class import LIST
from invariance_jax.report import classes, frames, intervals, load, pack, page

QUARTER = {"data": {"fraction": 0.25}}
STEP = 0.02


def _add_local(folder, name, attrs, errors):
    data = xr.Dataset(
        {
            "local_equivariance_error": (
                ("output", "generator", "image"),
                np.multiply.outer(np.array(errors, np.float32), np.ones(5, np.float32)),
            )
        },
        {
            "output": ["logits", "embedding"],
            "generator": ["translate_x", "rotate"],
            "image": [f"image{i}" for i in range(5)],
        },
        attrs,
    )
    path = folder.path / "local_equivariance" / name
    path.parent.mkdir(exist_ok=True)
    data.to_netcdf(path, engine="h5netcdf")


@pytest.fixture
def measured(folder):
    """Two seeds and less data, with labels, layers, local equivariance and learned widths."""
    rng = np.random.default_rng(0)
    runs = (("none", 0, {}), ("none", 1, {}), ("translate", 0, {}), ("none", 0, QUARTER))
    for name, seed, changes in runs:
        path = folder.add("resnet8", name, seed=seed, level=rng.uniform(0.1, 0.9, 13), **changes)
        data = xr.load_dataset(path, engine="h5netcdf")
        hits = rng.random(data["relative_invariance_cosine"].shape) < 0.5
        data["correct"] = (data["relative_invariance_cosine"].dims, hits)
        data["relative_invariance_cosine"][0, 9, 0] = -7.0
        data.to_netcdf(path, engine="h5netcdf")
        layers = xr.concat([data["relative_invariance_cosine"] - 0.1], "feature")
        layers = layers.assign_coords(feature=["stage1_block1"])
        group = xr.Dataset({"relative_invariance_cosine": layers.drop_vars(["unit"])})
        group.to_netcdf(path, mode="a", group=FEATURES_GROUP, engine="h5netcdf")
        _add_local(folder, path.name, data.attrs, [[1, 2], [3 + seed, 4]])
        path = folder.add_accuracy("resnet8", name, rng.uniform(0.2, 0.8), seed=seed, **changes)
        data = xr.load_dataset(path, engine="h5netcdf")
        data["predicted"] = ("image", rng.integers(0, 1000, 20, np.int32))
        data.assign_coords(label=("image", np.arange(20) % 2)).to_netcdf(path, engine="h5netcdf")
    (folder.path / LIST).write_text("class,class_name,row\n0,ant,rotate 9\n1,bee,\n")
    lines = [{"step": 5, "loss": 1.0, "width/rotate": 20.5}, {"step": 9, "loss": 0.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder.path / "metrics.jsonl").write_text(text)
    return folder


@pytest.fixture
def packed(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "save", lambda each, to: None)
    target = tmp_path / "packed"
    image = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    monkeypatch.setattr(command.examples, "prepared", lambda each, config: image)
    assert main(["report", str(measured.path), f"--output={tmp_path}", f"--pack={target}"]) == 0
    monkeypatch.setattr(command.examples, "prepared", None)
    return target


def test_results_are_the_same_within_a_step(measured, packed):
    ours, theirs = load.read([measured.path]), load.read([packed])
    assert [run.title for run in theirs.runs] == [run.title for run in ours.runs]
    for one, other in zip(ours.runs, theirs.runs, strict=True):
        expected = one.data["relative_invariance_cosine"].values
        found = other.data["relative_invariance_cosine"].values
        np.testing.assert_allclose(found, expected.clip(-1.02), atol=STEP / 2 + 1e-6)
        np.testing.assert_array_equal(other.data["correct"], one.data["correct"])
        np.testing.assert_allclose(other.by_feature, one.by_feature, atol=1e-6)
        assert list(other.by_feature["feature"].values) == ["stage1_block1"]
        assert other.network.fields == one.network.fields and other.config == one.config
        assert other.config.data.data_dir == ""
        assert other.network.parameters == one.network.parameters
        assert set(one.measured) == set(other.measured)
        for name, value in one.measured.items():
            assert other.measured[name] == value, name
    for one, other in zip(ours.accuracy, theirs.accuracy, strict=True):
        assert (other.top1, other.top5, other.seconds) == (one.top1, one.top5, one.seconds)
        np.testing.assert_array_equal(other.correct, one.correct)
        np.testing.assert_array_equal(other.predicted, one.predicted)
        np.testing.assert_array_equal(other.correct["label"], one.correct["label"])
    locals_ = [frames.local_equivariance(each.local) for each in (ours, theirs)]
    assert locals_[0].equals(locals_[1])
    rotate = locals_[0].query("generator == 'translate x' and training == 'none'")
    assert rotate["error"].tolist() == [3.5] and rotate["standard_error"].tolist() == [0.5]


def test_a_page_of_packed_results_shows_what_the_first_did(packed, tmp_path, monkeypatch):
    told = {}

    def write(results, output, **options):
        told.update(options, results=results)
        return output

    monkeypatch.setattr(command.page, "write", write)
    assert main(["report", str(packed), f"--output={tmp_path / 'again'}"]) == 0
    # The folder is that of all four networks.
    assert list(told["widths"].values()) == [[{"step": 5, "width/rotate": 20.5}]] * 4
    found = told["results"]
    drawn = intervals.invariance(found.runs), intervals.accuracy(found.accuracy)
    names = [picture.name for picture in page.pictures(found, *drawn, told["widths"])]
    assert {"sources", "by_depth", "local_equivariance", "under_transforms", "widths"} <= set(names)
    assert told["notes"] == [] and told["example"].shape == (13, 10, 8, 8, 3)
    image = np.random.default_rng(1).random((8, 8, 3))
    np.testing.assert_allclose(told["example"][4, 0], image, atol=1 / 255)
    done = classes.rows_of(told["results"].runs[0].row)
    assert done[0] == ("ant", ("rotate 9",)) and done[1].rows == ()


def test_packing_again_gives_the_same_bytes(packed, tmp_path):
    for place in (tmp_path / "once", packed):
        assert main(["report", str(packed), f"--output={tmp_path}", f"--pack={place}"]) == 0
    first, second = (
        {path.relative_to(each): path.read_bytes() for path in each.rglob("*") if path.is_file()}
        for each in (tmp_path / "once", packed)
    )
    assert first == second and len(first) == 1 + 2 * 4


def test_packed_and_other_results_stand_together(packed, other_folder):
    other_folder.add("vit_mu8", "none")
    found = load.read([packed, other_folder.path])
    assert {run.row.model for run in found.runs} == {"resnet8", "vit_mu8"}


def test_damaged_packed_results_are_named(packed, other_folder):
    other_folder.add("resnet8", "none")
    content = (packed / "results.nc").read_bytes()
    (packed / "results.nc").write_bytes(content[: len(content) // 2])
    found = load.read([packed, other_folder.path])
    assert len(found.runs) == 1 and str(packed / "results.nc") in found.problems[0]


def test_searches_are_packed_without_the_place_of_their_images(folder, tmp_path, monkeypatch):
    path = folder.add("resnet8", "none", data={"data_dir": "/nowhere/images"})
    data = xr.load_dataset(path, engine="h5netcdf")
    search = folder.path / "similarity_search" / "a.nc"
    change = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    values = xr.Dataset({"change": (("pair", "row"), change)})
    results.write(values.assign_attrs(data.attrs), search, {"more": values})
    found = load.read([folder.path])
    assert found.searches == (search,)
    for _ in range(2):  # again: of what is there already
        pack.write(found, tmp_path / "packed")
        packed = tmp_path / "packed" / "similarity_search" / "a.nc"
        assert b"/nowhere" not in packed.read_bytes()
        assert results.read(packed).equals(values) and results.read(packed, "more").equals(values)
        assert results.read(packed).attrs["model"] == "resnet8"
