"""Reading results: what belongs together, what is refused and in which words."""

import numpy as np
import pytest
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.report import load, summaries


def edit(path, change):
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        data = opened.load()
    change(data).to_netcdf(path, engine="h5netcdf")
    return path


def labels(entries):
    return [entry.row.label for entry in entries]


def test_reads_everything_sorted_by_architecture_then_training(study):
    results = load.read([study.path])
    rows = [
        f"{model}, {training}"
        for model in ("resnet8", "vit_mu8")
        for training in ("untrained", "none", "translate")
    ]
    assert labels(results.runs) == labels(results.accuracy) == rows
    assert [entry.top1 for entry in results.accuracy] == [0.1, 0.8, 0.9, 0.1, 0.7, 0.8]
    assert [entry.top5 for entry in results.accuracy] == [0.5, 1, 1] * 2
    assert [entry.seconds for entry in results.accuracy] == [0, 10, 10] * 2
    assert [run.steps for run in results.runs] == [0, 500, 500] * 2
    assert results.problems == ()


def test_values_are_those_of_the_file(folder):
    path = folder.add("resnet8", "none")
    (run,) = load.read([folder.path]).runs
    with xr.open_dataset(path, engine="h5netcdf") as file:
        expected = file["relative_invariance_cosine"].values
    np.testing.assert_array_equal(run.data["relative_invariance_cosine"].values, expected)
    assert "baseline_cosine" not in run.data


def test_a_network_in_two_folders_counts_once(folder, other_folder):
    for each in (folder, other_folder):
        each.add("resnet8", "none")
        each.add_accuracy("resnet8", "none", 0.8)
        # Before training it does not matter what would have trained it.
        each.add("resnet8", each.path.name, steps=0)
    once, twice = load.read([folder.path]), load.read([folder.path, other_folder.path])
    assert labels(twice.runs) == labels(once.runs) == ["resnet8, untrained", "resnet8, none"]
    assert labels(twice.accuracy) == ["resnet8, none"]


def test_seeds_are_one_row(folder):
    for seed in (1, 0):
        folder.add("resnet8", "none", seed=seed)
    folder.add("resnet8", "none", optimizer={"learning_rate": 0.5})
    runs = load.read([folder.path]).runs
    assert [run.title for run in runs] == [
        "resnet8, none, lr 0.1, seed 0",
        "resnet8, none, lr 0.1, seed 1",
        "resnet8, none, lr 0.5, seed 0",
    ]


def test_either_kind_of_result_is_enough(folder):
    folder.add_accuracy("resnet8", "none", 0.5)
    results = load.read([folder.path])
    assert len(results.accuracy) == 1
    assert results.runs == ()


def test_missing_and_empty_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="no folder given"):
        load.read([])
    with pytest.raises(UserError, match="absent is not a folder"):
        load.read([tmp_path / "absent"])
    with pytest.raises(UserError, match=r"holds no results; expected invariance/\*\.nc, accuracy"):
        load.read([tmp_path])
    folder.add_table()
    with pytest.raises(UserError, match=r"results holds no results; .* a row in accuracy\.csv"):
        load.read([folder.path])


def test_a_run_without_results_is_named_and_the_others_are_shown(folder, tmp_path):
    """As in a sweep that has not ended."""
    (tmp_path / "running").mkdir()
    folder.add("resnet8", "none")
    results = load.read([folder.path, tmp_path / "running"])
    assert len(results.runs) == 1
    (problem,) = results.problems
    assert problem.startswith(f"{tmp_path / 'running'} holds no results; expected invariance/*.nc")


def test_two_networks_under_one_config_are_refused(folder, other_folder):
    first = folder.add("resnet8", "none")
    second = other_folder.add("resnet8", "none", attrs={"parameters_sha256": "5"})
    folders = [folder.path, other_folder.path]
    with pytest.raises(UserError) as caught:
        load.read(folders)
    assert str(caught.value).startswith(
        f"{first} and {second} both hold resnet8, none, seed 0, with different parameters; expected"
    )
    # An accuracy is of the same network too.
    second.unlink()
    second = other_folder.add_accuracy("resnet8", "none", 0.5, attrs={"parameters_sha256": "5"})
    with pytest.raises(UserError, match=f"{first} and {second} both hold resnet8, none, seed 0"):
        load.read(folders)


def test_accuracies_that_disagree_are_refused(folder, other_folder):
    first = folder.add_accuracy("resnet8", "none", 0.5)
    second = other_folder.add_accuracy("resnet8", "none", 0.6)
    with pytest.raises(UserError, match=rf"{first} and {second} both hold .* top1 0\.5 and 0\.6"):
        load.read([folder.path, other_folder.path])


def test_imported_weights_of_one_name_are_two_rows(folder, other_folder):
    for each, path in ((folder, "a1/model.npz"), (other_folder, "a3/model.npz")):
        each.add("resnet8", f"weights {path}", steps=0)
        each.add_accuracy("resnet8", f"weights {path}", 0.5, steps=0)
    results = load.read([folder.path, other_folder.path])
    expected = ["resnet8, weights a1/model.npz", "resnet8, weights a3/model.npz"]
    assert labels(results.runs) == labels(results.accuracy) == expected


OTHERS = {
    "dataset": ({"attrs": {"dataset": "other"}}, "dataset ('digits' and 'other')"),
    "split": ({"attrs": {"split": "other"}}, "split ('test' and 'other')"),
    "domain": ({"attrs": {"domain": "normalized"}}, "domain ('pixel' and 'normalized')"),
    "padding_mode": ({"attrs": {"padding_mode": "wrap"}}, "padding_mode ('constant' and 'wrap')"),
    "classes": ({"data": {"classes": (1, 2)}}, "classes (() and (1, 2))"),
    "label_feature": (
        {"data": {"label_feature": "fine"}},
        "label_feature ('label' and 'fine')",
    ),
    "images": ({"images": 30}, "image (40 and 30), permutation (40 and 30)"),
}


@pytest.mark.parametrize(("change", "words"), OTHERS.values(), ids=OTHERS)
def test_networks_measured_otherwise_are_refused(folder, change, words):
    first = folder.add("resnet8", "none")
    second = folder.add("vit_mu8", "none", **change)
    with pytest.raises(UserError) as caught:
        load.read([folder.path])
    assert str(caught.value).startswith(f"{first} and {second} differ in {words}; expected")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "permutation",
            lambda d: d.assign_coords(permutation=("image", np.roll(d.permutation, 1))),
        ),
        ("magnitude_value", lambda d: d.assign_coords(magnitude_value=d["magnitude_value"] * 2)),
        ("image", lambda d: d.assign_coords(image=[f"photo{i}" for i in range(40)])),
    ],
)
def test_other_images_and_grids_are_refused(folder, name, change):
    first = folder.add("resnet8", "none")
    second = edit(folder.add("vit_mu8", "none"), change)
    for read in (lambda: load.read([folder.path]), lambda: load.read_files([first, second])):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"{first} and {second} differ in {name}; expected")


def test_what_was_measured_counts_and_not_what_was_trained_on(folder):
    said = {"measurement": '{"config.data.classes": [1, 2], "config.data.label_feature": "label"}'}
    folder.add("resnet8", "none", data={"classes": (1, 2)})
    folder.add("resnet8", "none", data={"classes": (1, 2, 3)}, attrs=said)
    assert labels(load.read([folder.path]).runs) == [
        "resnet8, none",  # of all classes that there are
        "resnet8, none, classes 1, 2",
    ]


def test_accuracies_of_other_images_are_refused(folder):
    first = folder.add_accuracy("resnet8", "none", 0.5)
    second = folder.add_accuracy("resnet8", "flip", 0.5, attrs={"split": "test"})
    with pytest.raises(UserError) as caught:
        load.read([folder.path])
    assert f"{first} and {second} differ in split ('validation' and 'test')" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop_vars("relative_invariance_euclidean"), "lacks 'relative_invariance_euc"),
        (lambda d: d.drop_vars("magnitude_value"), "lacks 'magnitude_value'; expected a file of"),
        (lambda d: d.drop_vars("permutation"), "lacks 'permutation'"),
        (lambda d: d.drop_attrs().assign_attrs(model="a"), "lacks 'augmentation'"),
        (lambda d: d.assign_attrs(config="{"), "Expecting property name"),
        (lambda d: d.assign_attrs(config='{"train": {"steps": "x"}}'), "config.train.steps is 'x'"),
        (lambda d: d.assign_attrs(steps="many"), "invalid literal for int"),
        (lambda d: d.transpose("image", ...), "40 images x 13 transforms x 10 magnitudes"),
        (lambda d: d.isel(transform=slice(12)), "the transforms shear_x"),
        (lambda d: d.isel(magnitude=slice(9)), "holds 13 transforms x 9 magnitudes x 40 images"),
        (lambda d: d.isel(image=slice(0)), "holds 13 transforms x 10 magnitudes x 0 images"),
        (lambda d: d.where(d["magnitude"] < 9), "not finite; did training diverge"),
    ],
)
def test_files_with_another_layout_are_refused(folder, change, words):
    path = edit(folder.add("resnet8", "none"), change)
    with pytest.raises(UserError) as caught:
        load.read([folder.path])
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_a_damaged_file_is_named_and_the_rest_is_read(folder):
    folder.add("resnet8", "none")
    whole = folder.add("resnet8", "translate").read_bytes()
    damaged = folder.add("resnet8", "flip")
    damaged.write_bytes(whole[: len(whole) // 2])
    nothing = folder.add_accuracy("resnet8", "none", 0.5)
    nothing.write_bytes(b"nothing of the kind")
    table = folder.add_table(("resnet8", "none", 0, 0.5, 500, 1.0))
    table.write_bytes(b"model\xbe\n")
    results = load.read([folder.path])
    assert labels(results.runs) == ["resnet8, none", "resnet8, translate"]
    assert len(results.problems) == 3
    for path, problem in zip((damaged, nothing, table), results.problems, strict=True):
        assert str(path) in problem


def test_nothing_but_damaged_files_is_an_error(folder):
    path = folder.add("resnet8", "none")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=str(path)):
        load.read([folder.path])
    with pytest.raises(UserError, match=str(path)):
        load.read_files([path])


@pytest.mark.parametrize("top1", [-0.1, 1.5, 93.0, "nan", "", "much"])
def test_accuracy_must_be_a_fraction(folder, top1):
    path = folder.add_table(("resnet8", "none", 0, top1, 10, 1.0))
    with pytest.raises(UserError, match=rf"{path}.*{top1}"):
        load.read([folder.path])


def test_a_table_needs_its_columns(folder):
    path = folder.add_table()
    path.write_text("model,seed\nresnet8,0\n")
    with pytest.raises(UserError, match=rf"{path}: .*augmentation"):
        load.read([folder.path])


def test_a_line_of_a_table_is_of_the_network_beside_it(folder):
    recipes = {"none": 0.1, "translate": 0.2}
    for augmentation, rate in recipes.items():
        folder.add("resnet8", augmentation, optimizer={"learning_rate": rate})
    folder.add("resnet8", "none", steps=0)
    folder.add_table(
        ("resnet8", "translate", 0, 0.75, 500, 2.0),
        ("resnet8", "none", 0, 0.5, 500, 1.0),
        ("resnet8", "none", 0, 0.1, 0, 0.0),
    )
    results = load.read([folder.path])
    assert (
        labels(results.accuracy)
        == labels(results.runs)
        == [
            "resnet8, untrained",
            "resnet8, none, lr 0.1",
            "resnet8, translate, lr 0.2",
        ]
    )
    assert [entry.top1 for entry in results.accuracy] == [0.1, 0.5, 0.75]
    assert all(np.isnan(entry.top5) for entry in results.accuracy)


def test_a_table_alone_says_model_training_and_steps(folder):
    folder.add_table(
        ("resnet8", "none", 0, 0.5, 500, 1.0),
        ("resnet8", "none", 0, 0.6, 900, 1.0),
        ("resnet8", "none + mixup(alpha=0.2)", 0, 0.6, 500, 1.0),
        ("resnet8", "weights a.npz", 0, 0.7, 0, 0.0),
        ("resnet8", "untrained", 0, 0.1, 0, 0.0),
    )
    assert labels(load.read([folder.path]).accuracy) == [
        "resnet8, untrained",
        "resnet8, none + mixup, 500 steps",
        "resnet8, none, 500 steps",
        "resnet8, none, 900 steps",
        "resnet8, weights a.npz",
    ]


def test_a_table_beside_result_files_adds_what_they_lack(folder):
    folder.add_accuracy("resnet8", "none", 0.5)
    folder.add_table(("resnet8", "none", 0, 0.9, 500, 1.0), ("resnet8", "none", 1, 0.6, 500, 1.0))
    results = load.read([folder.path])
    assert sorted(entry.top1 for entry in results.accuracy) == [0.5, 0.6]


@pytest.mark.parametrize(
    ("old", "new"), [("zero", "constant"), ("cyclic", "wrap"), ("context", "context")]
)
def test_padding_modes_of_the_first_version_are_read(folder, old, new):
    folder.add("vit_mu8", "none", attrs={"padding_mode": new})
    path = edit(
        folder.add("resnet8", "none"),
        lambda d: d.drop_attrs().assign_attrs(
            {k: v for k, v in d.attrs.items() if k != "padding_mode"} | {"translation": old}
        ),
    )
    assert load.read_run(path).measured["padding_mode"] == new
    assert len(load.read([folder.path]).runs) == 2


def test_results_of_the_first_version_are_read(golden_dir):
    results = load.read([golden_dir / "version_0_1"])
    expected = ["vit_mu8, untrained", "vit_mu8, random_resized_crop_flip"]
    assert labels(results.runs) == labels(results.accuracy) == expected
    assert [run.steps for run in results.runs] == [0, 60]
    assert [entry.top1 for entry in results.accuracy] == [0.097493, 0.144847]
    assert results.runs[1].config.optimizer.learning_rate == 0.005
    assert results.runs[1].measured["padding_mode"] == "constant"
    assert results.accuracy[1].measured["split"] == "validation"
    rotate = summaries.invariance(results.runs)["mean"].sel(transform="rotate")
    np.testing.assert_allclose(rotate, [0.291227, 0.216782], atol=1e-6)


def test_files_are_read_in_their_order_and_folders_whole(folder, other_folder):
    files = [folder.add("vit_mu8", "none"), other_folder.add("resnet8", "none")]
    for given in (files, [folder.path, other_folder.path], [str(files[0]), other_folder.path]):
        assert labels(load.read_files(given).runs) == ["vit_mu8, none", "resnet8, none"]
    with pytest.raises(UserError, match=r"0\.nc is given twice"):
        load.read_files([folder.path, files[0]])
