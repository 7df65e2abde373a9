"""Accuracy taken apart, with numbers that can be written by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from invariance_jax.__main__ import main
from invariance_jax.errors import UserError
from invariance_jax.report import class_section, load, robustness

IMAGES = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 21)]
# Ten images of class 3, ten of class 5.
LABELS = np.repeat([3, 5], 10)


@pytest.fixture
def add(folder):
    """Adds a network by what it guesses of each image."""

    def of(training, predicted, *, seed=0, model="resnet8"):
        path = folder.add_accuracy(model, training, 0.5, seed=seed)
        data = xr.load_dataset(path, engine="h5netcdf")
        correct = ("image", (np.array(predicted) == LABELS).astype(np.int8))
        coordinates = {"image": IMAGES, "label": ("image", LABELS)}
        changed = xr.Dataset(
            {
                "correct_top1": correct,
                "correct_top5": correct,
                "predicted": ("image", np.array(predicted, np.int32)),
            },
            coordinates,
            data.attrs,
        )
        changed.to_netcdf(path, engine="h5netcdf")
        return folder

    return of


def guesses(three, five):
    """So many of the first images of each class are right, the others are taken for class 7."""
    return [3] * three + [7] * (10 - three) + [5] * five + [7] * (10 - five)


def entries(folder):
    return load.read([folder.path]).accuracy


def test_error_ratios_by_hand(add, tmp_path):
    folder = add("none", guesses(6, 8))  # wrong: 6 to 9, 18 and 19; 6 of 20
    table = pd.DataFrame(
        {
            "file_name": [*IMAGES[:15], "absent.JPEG"],
            "class": 3,
            "one_word": "pose",
            "pose": [0] * 6 + [1] * 4 + [0] * 6,  # all four wrong
            "texture": [1] * 2 + [0] * 6 + [1] * 2 + [0] * 6,  # two of four
            "style": [0] * 15 + [1],  # of an image that was not measured
        }
    )
    path = tmp_path / "factors.jsonl"
    table.to_json(path, orient="records", lines=True)
    found = robustness.by_factor(entries(folder), robustness.read_factors(path)).droplevel(0)
    # 15 images are annotated, four of them wrong.
    assert list(found.index) == ["pose", "texture", robustness.WORST]
    assert found["images"].to_list() == [4, 4, 4]
    assert found["top1"].to_list() == [0, 0.5, 0]
    assert found["error_ratio"].to_list() == pytest.approx([15 / 4, 15 / 8, 15 / 4])
    low, high = found["low"].to_numpy(), found["high"].to_numpy()
    assert (low < found["error_ratio"]).all() and (found["error_ratio"] < high).all()
    assert low[2] >= low[0] and high[2] >= high[0]
    # CSV says the same, and an image may be written without its ending.
    table["image"] = [name.removesuffix(".JPEG") for name in table.pop("file_name")]
    table.to_csv(tmp_path / "factors.csv", index=False)
    again = robustness.by_factor(entries(folder), robustness.read_factors(tmp_path / "factors.csv"))
    pd.testing.assert_frame_equal(again.droplevel(0), found)


def test_intervals_are_over_images(add):
    """The bootstrap, in a plain loop."""
    folder = add("none", guesses(6, 8))
    names = [name.split(".")[0] for name in IMAGES]
    factors = pd.DataFrame({"pose": np.arange(20) % 2 == 0}, index=names)
    found = robustness.by_factor(entries(folder), factors).droplevel(0).loc["pose"]
    wrong = np.array(guesses(6, 8)) != LABELS
    rng, ratios = np.random.default_rng(0), []
    for counts in rng.multinomial(20, np.full(20, 1 / 20), 200):
        chosen = np.repeat(np.arange(20), counts)
        active = chosen[chosen % 2 == 0]
        ratios.append(wrong[active].mean() / wrong[chosen].mean())
    assert found["error_ratio"] == pytest.approx(wrong[::2].mean() / wrong.mean())
    assert found[["low", "high"]].to_list() == pytest.approx(
        np.nanpercentile(ratios, [2.5, 97.5]).tolist()
    )


def test_a_network_without_errors_has_no_ratio(add):
    folder = add("none", guesses(10, 10))
    factors = pd.DataFrame({"pose": [True] * 3}, index=[x.split(".")[0] for x in IMAGES[:3]])
    found = robustness.by_factor(entries(folder), factors)
    assert found["top1"].to_list() == [1, 1] and found["error_ratio"].isna().all()
    assert "-" in robustness.factors_text(found)


def test_any_right_class_counts(add, tmp_path):
    folder = add("none", guesses(6, 8))
    # The classes by place: 7 is right as well for image 7; none for the first image.
    real = [
        [],
        *([3] for _ in range(5)),
        [3, 7],
        *([3] for _ in range(3)),
        *([5] for _ in range(10)),
    ]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(real))
    (line,) = robustness.real_accuracy(entries(folder), robustness.read_real(path)).to_dict(
        "records"
    )
    assert line["images"] == 19
    assert line["top1"] == pytest.approx(13 / 19) and line["real"] == pytest.approx(14 / 19)
    assert 0.5 < line["low"] < 14 / 19 < line["high"] < 1
    by_name = tmp_path / "by_name.json"
    by_name.write_text(json.dumps(dict(zip(IMAGES, real, strict=True))))
    again = robustness.real_accuracy(entries(folder), robustness.read_real(by_name))
    assert again.to_dict("records") == [line]


def test_class_effects_by_hand(add):
    standard, narrow = "random_resized_crop_flip", "random_resized_crop_flip(scale=(0.5, 1.0))"
    add(standard, guesses(4, 8))
    add(standard, [3] * 6 + [5] * 3 + [7] + [5] * 8 + [7] * 2, seed=1)
    add(narrow, guesses(9, 6))
    folder = add("none", guesses(5, 7))
    add(standard, guesses(1, 1), model="vit_mu8")  # has nothing to be compared with
    found = robustness.class_effects(entries(folder)).droplevel(0)
    assert list(found.index) == [3, 5]
    assert found["images"].to_list() == [10, 10]
    assert found["top1"].to_list() == pytest.approx([0.5, 0.8])
    assert found["effect"].to_list() == pytest.approx([0.4, -0.1])
    assert found["best"].to_list() == ["random_resized_crop_flip(scale=(0.5, 1.0))", "none"]
    # Of class 3 the standard runs take 3 of 20 for class 5 (the best none), and 7 for class 7 (the
    # best 1 of 10).
    assert found["confused_with"].to_list() == ["7", ""]
    assert found["shift"].to_list() == pytest.approx([0.25, 0])
    # Class 5, by halves of five: none has 4 and 3 right, which the first half prefers; narrow 3
    # and 3, so that the second half takes the first of two; standard 4 and 4. Each chooses for the
    # other.
    assert found["unbiased"][5] == pytest.approx(((3 - 4) / 5 + (4 - 4) / 5) / 2)
    text = robustness.class_effects_text(robustness.class_effects(entries(folder)))
    assert "resnet8, random_resized_crop_flip        2  +15.0" in text and "+40.0" in text
    assert robustness.has_class_effects(entries(folder))
    first, *_ = class_section.blocks(load.read([folder.path]))
    assert first.title == "What standard augmentation costs single classes"
    means, every = first.tables.values()
    assert means.columns["mean"] == ["+15.0"] and every.columns["best gains"] == ["+40.0", "-10.0"]


def test_other_augmentations_are_needed(add):
    add("random_resized_crop_flip", guesses(4, 8))
    folder = add("none", guesses(5, 7), model="vit_mu8")
    assert not robustness.has_class_effects(entries(folder))
    assert list(class_section.blocks(load.read([folder.path]))) == []


def test_the_command(add, tmp_path, capsys):
    folder = add("none", guesses(6, 8))
    (tmp_path / "real.json").write_text(json.dumps([[3]] * 10 + [[5]] * 10))
    table = tmp_path / "table.csv"
    words = ["compare", str(folder.path)]
    assert main([*words, f"--real={tmp_path / 'real.json'}", f"--output={table}"]) == 0
    assert "resnet8, none, seed 0      20     70.0  70.0 (" in capsys.readouterr().out
    assert table.read_text().startswith(
        'network,images,top1,real,low,high\n"resnet8, none, seed 0"'
    )
    (tmp_path / "factors.csv").write_text(f"file_name,pose\n{IMAGES[6]},1\n{IMAGES[0]},0\n")
    assert main([*words, f"--factors={tmp_path / 'factors.csv'}"]) == 0
    assert "1      0.0  2.00 (1.00 to 2.00)\n" in capsys.readouterr().out

    (tmp_path / "no.csv").write_text("file_name,word\na,b\n")
    (tmp_path / "twice.csv").write_text("image,pose\na.png,1\na.jpg,0\n")
    (tmp_path / "foreign.csv").write_text("image,pose\na.png,1\n")
    (tmp_path / "no.json").write_text('{"a": 3}')
    (tmp_path / "foreign.json").write_text('{"a": [3]}')
    for flags, message in (
        (["--factors=no.csv"], "no.csv has the columns file_name, word; expected one of file_name"),
        (["--factors=twice.csv"], "twice.csv names a twice"),
        (["--factors=foreign.csv"], "none of the 20 images measured (ILSVRC2012_val_00000001,"),
        (["--factors=absent.csv"], "absent.csv is no table of factors"),
        (["--real=no.json"], "no.json is not a list of classes for every image"),
        (["--real=foreign.json"], "has a class among the 1 annotated ones"),
        (["--class_effects"], "no two of the networks differ in the augmentation alone"),
        (["--class_effects", "--leaderboard"], "--class_effects and --leaderboard are both given"),
    ):
        flags = [each.replace("=", f"={tmp_path}/") for each in flags]
        assert main([*words, *flags]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_results_without_labels_are_refused(folder):
    folder.add_accuracy("resnet8", "none", 0.5)
    with pytest.raises(UserError, match="no result tells which images"):
        robustness.class_effects(entries(folder))
