"""Reading results: what belongs together, what is refused and in which words."""

import numpy as np
import pytest
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.report import load
from invariance_jax.report.rows import Row, training_rank


def test_reads_everything_sorted_by_architecture_then_training(study):
    results = load.read([study.path])
    rows = [
        Row(model, training)
        for model in ("resnet8", "vit_mu8")
        for training in ("untrained", "none", "translate")
    ]
    assert [run.row for run in results.runs] == rows
    assert [entry.row for entry in results.accuracy] == rows
    assert [entry.top1 for entry in results.accuracy] == [0.1, 0.8, 0.9, 0.1, 0.7, 0.85]
    assert [run.steps for run in results.runs] == [0, 500, 500] * 2


def test_unknown_trainings_come_last_and_options_keep_the_place_of_the_name():
    names = ["mixup", "translate(t=0.1)", "none", "untrained", "translate"]
    ranked = sorted(names, key=lambda name: (training_rank(name), name))
    assert ranked == ["untrained", "none", "translate", "translate(t=0.1)", "mixup"]


def test_the_augmentation_of_an_untrained_network_means_nothing(folder):
    folder.add("resnet8", "none", steps=0)
    folder.add("resnet8", "translate", steps=0)
    (run,) = load.read([folder.path]).runs
    assert run.row == Row("resnet8", "untrained")


def test_a_network_in_two_folders_counts_once(study):
    once, twice = load.read([study.path]), load.read([study.path, study.path])
    assert len(twice.runs) == len(once.runs) == 6
    assert twice.accuracy == once.accuracy


def test_either_kind_of_result_is_enough(folder):
    folder.add_accuracy(("resnet8", "none", 0, 0.5, 10, 1.0))
    results = load.read([folder.path])
    assert len(results.accuracy) == 1
    assert results.runs == ()


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no folder given"):
        load.read([])
    with pytest.raises(UserError, match="absent is not a folder"):
        load.read([tmp_path / "absent"])
    with pytest.raises(UserError, match=r"holds no results; expected accuracy.csv or invariance"):
        load.read([tmp_path])


def test_an_accuracy_table_without_rows_is_no_result(folder):
    folder.add_accuracy()
    with pytest.raises(UserError, match="no rows"):
        load.read([folder.path])


@pytest.mark.parametrize("top1", [-0.1, 1.5, 93.0, "nan"])
def test_accuracy_must_be_a_fraction(folder, top1):
    folder.add_accuracy(("resnet8", "none", 0, top1, 10, 1.0))
    with pytest.raises(UserError, match=r"top1 is .*; expected a fraction"):
        load.read([folder.path])


def test_accuracies_that_disagree_are_refused(folder):
    folder.add_accuracy(("resnet8", "none", 0, 0.5, 10, 1.0), ("resnet8", "none", 0, 0.6, 20, 1.0))
    with pytest.raises(UserError, match=r"resnet8, none, seed 0 has top1 0.6 after 20 steps"):
        load.read([folder.path])


def test_two_networks_under_one_name_are_refused(folder):
    folder.add("resnet8", "none", steps=500)
    folder.add("resnet8", "none", steps=900)
    with pytest.raises(UserError, match=r"0\.nc and .*1\.nc both hold resnet8, none, seed 0"):
        load.read([folder.path])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop_vars("relative_invariance_euclidean"), "variable 'relative_invariance_e"),
        (lambda d: d.drop_vars("magnitude_value"), "coordinate 'magnitude_value'"),
        (lambda d: d.drop_attrs().assign_attrs(model="a"), "attribute 'augmentation'"),
        (lambda d: d.transpose("image", ...), "has dimensions"),
        (lambda d: d.isel(transform=slice(12)), "holds the transforms shear_x"),
        (lambda d: d.isel(magnitude=slice(9)), "holds 9 magnitudes and 40 images"),
        (lambda d: d.isel(image=slice(0)), "holds 10 magnitudes and 0 images"),
        (lambda d: d.where(d["magnitude"] < 9), "not finite; did training diverge"),
    ],
)
def test_files_with_another_layout_are_refused(folder, change, words):
    path = folder.add("resnet8", "none")
    with xr.open_dataset(path, engine="h5netcdf") as file:
        data = file.load()
    change(data).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(UserError, match=words):
        load.read([folder.path])


def test_a_file_that_is_no_netcdf_is_named(folder):
    path = folder.add("resnet8", "none")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"0\.nc"):
        load.read([folder.path])


@pytest.mark.parametrize("attribute", ["dataset", "split", "domain"])
def test_networks_measured_on_different_data_are_refused(folder, attribute):
    folder.add("resnet8", "none")
    folder.add("vit_mu8", "none", **{attribute: "other"})
    with pytest.raises(UserError, match=f"{attribute} 'other'"):
        load.read([folder.path])


def test_networks_measured_on_different_images_are_refused(folder):
    folder.add("resnet8", "none", images=40)
    folder.add("vit_mu8", "none", images=30)
    with pytest.raises(UserError, match=r"30 images and .* 40"):
        load.read([folder.path])


def test_values_are_those_of_the_file(folder):
    path = folder.add("resnet8", "none")
    (run,) = load.read([folder.path]).runs
    with xr.open_dataset(path, engine="h5netcdf") as file:
        expected = file["relative_invariance_cosine"].values
    np.testing.assert_array_equal(run.data["relative_invariance_cosine"].values, expected)
