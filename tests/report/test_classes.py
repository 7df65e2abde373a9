"""Class by class: accuracy against the standard run, and the transfer of invariance."""

import csv

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from invariance_jax.__main__ import main
from invariance_jax.commands import report as command
from invariance_jax.errors import UserError
from invariance_jax.report import class_section, classes, load, page, vega
from invariance_jax.report.rows import standard_of
from invariance_jax.transforms import TRANSFORMS

PER_CLASS = "named(rows='rotate 9', share=0.5)"
LABELS = np.repeat(np.arange(4), 5)
LIST = """\
class,class_name,row,probability
0,"ant",rotate 9,1
0,"ant",invert 3,1
1,"bee, wild",rotate 9,1
2,"cat",,
3,"dog",,
"""


def with_labels(path, **variables):
    """Gives a result file labels, and other values."""
    with xr.open_dataset(path, engine="h5netcdf") as file:
        data = file.load()
    labels = np.resize(np.repeat(np.arange(4), data.sizes["image"] // 4), data.sizes["image"])
    data = data.assign_coords(label=("image", labels.astype(np.int32)))
    for name, values in variables.items():
        data[name] = (data[name].dims, values.astype(data[name].dtype))
    data.to_netcdf(path, engine="h5netcdf")


def hits_of(*shares):
    """Of the five images of each class the first are right."""
    return np.concatenate([np.arange(5) < 5 * share for share in shares])


STANDARD = {0: hits_of(0.4, 0.6, 0.8, 0.2), 1: hits_of(0.4, 0.8, 0.8, 0.2)}
OURS = {0: hits_of(1.0, 0.8, 0.6, 0.2), 1: hits_of(0.8, 0.8, 0.8, 0.0)}


@pytest.fixture
def folder(folder):
    for hits, augment in ((STANDARD, {}), (OURS, {"augment": {"per_class": PER_CLASS}})):
        for seed, each in hits.items():
            path = folder.add_accuracy("resnet8", "none", 0.5, seed=seed)
            path.unlink()  # the augmentation's name is set below, with what follows it
            changes = {"augment": {"name": "none", **augment.get("augment", {})}}
            path = folder.add_accuracy("resnet8", "none", 0.5, seed=seed, **changes)
            with_labels(path, correct_top1=each, correct_top5=np.ones(20))
    (folder.path / "per_class.csv").write_text(LIST)
    return folder


def gains(transform=None, augmented=0.0, other=0.0):
    """Relative invariance of 40 images in classes of ten: that of `none` and a gain."""
    values = np.full((len(TRANSFORMS), 10, 40), 0.3)
    values += 0.01 * (np.arange(40) % 10 - 4.5)  # images of a class differ, with this median: 0
    if transform:
        values[list(TRANSFORMS).index(transform), 3:8, :20] += augmented
        values[list(TRANSFORMS).index(transform), 3:8, 20:] += other
    return values


def add_invariances(folder, values, **changes):
    path = folder.add("resnet8", "none", **changes)
    with_labels(path, relative_invariance_cosine=values)


def test_differences_are_those_of_a_plain_loop(folder):
    (found,) = classes.differences(load.read([folder.path]))
    assert found.seeds == (2, 2) and found.row.label.startswith("resnet8, none + named")
    assert found.standard.training == "none"
    expected = []
    for label in range(4):
        of = label == LABELS
        ours, theirs = ((hits[0][of] * 1.0 + hits[1][of]) / 2 for hits in (OURS, STANDARD))
        difference = ours - theirs
        half = 1.96 * difference.std(ddof=1) / np.sqrt(5)
        mean = difference.mean()
        expected.append([ours.mean(), theirs.mean(), mean, mean - half, mean + half])
    columns = ["top1", "standard_top1", "difference", "low", "high"]
    np.testing.assert_allclose(found.classes[columns], expected, atol=1e-12)
    assert found.classes["augmented"].tolist() == [True, True, False, False]
    assert found.classes["rows"].tolist() == ["rotate 9, invert 3", "rotate 9", "", ""]
    assert found.classes["class_name"].tolist() == ["ant", "bee, wild", "cat", "dog"]
    differences = np.array(expected)[:, 2]
    np.testing.assert_allclose(differences, [0.5, 0.1, -0.1, -0.1])
    assert found.macro["augmented"].mean == pytest.approx(0.3)
    assert found.macro["other"].mean == pytest.approx(-0.1)
    macro = found.macro["all"]
    assert macro.mean == pytest.approx(0.1) and macro.low < 0.1 < macro.high <= 0.5
    assert found.macro["augmented"][1:] == pytest.approx((0.1, 0.5))  # of two classes
    # Of the seeds: 0.15 and 0.05.
    assert found.standard_error == pytest.approx(np.std([0.15, 0.05], ddof=1) / np.sqrt(2))


def test_what_is_said_follows_the_numbers(folder):
    (found,) = classes.differences(load.read([folder.path]))
    said = classes.sentence(found)
    assert "changes by +10.0 (-10.0 to +35.0) points" in said and "NO clear difference" in said
    assert "one standard error over seeds is 5.0" in said
    table = classes.summary(found)
    assert table.columns["number"] == ["2", "2", "4"]
    assert table.columns["difference, points"][0] == "+30.0 (+10.0 to +50.0)"
    assert table.columns["clearly higher"] == ["1", "0", "1"]
    assert classes.extremes(found).columns["class"] == ["ant", "bee, wild", "cat", "dog"]
    assert classes.extremes(found).columns["operations"][0] == "rotate 9 and 1 more"
    better = found._replace(macro=found.macro | {"all": classes.Share(0.1, 0.02, 0.2)})
    assert "a clear difference" in classes.sentence(better)


def test_transfer_is_the_gain_of_the_others_over_that_of_augmented_classes(folder):
    for seed, (augmented, other) in enumerate(((0.4, 0.1), (0.2, 0.05))):
        add_invariances(folder, gains(), seed=seed)
        changes = {"augment": {"name": "none", "per_class": PER_CLASS}}
        add_invariances(folder, gains("rotate", augmented, other), seed=seed, **changes)
    (found,) = classes.transfers(load.read([folder.path]))
    assert found.classes == (2, 2) and found.baseline.training == "none" and found.seeds == (2, 2)
    rotate = found.gains.loc["rotate"]
    for name, value in (("augmented", 0.3), ("other", 0.075), ("transfer", 0.25)):
        assert rotate[name] == pytest.approx(value, abs=1e-6)
    # All classes of a kind are alike here, so that there is nothing to draw.
    assert rotate[["low", "high"]].tolist() == pytest.approx([0.25, 0.25], abs=1e-6)
    others = found.gains.drop("rotate")
    assert others["transfer"].isna().all() and (others["augmented"].abs() < 1e-6).all()
    assert "rotate 0.25 (0.25 to 0.25)." in classes.transfer_sentence(found)
    nothing = found._replace(gains=others)
    assert "transfer is not judged" in classes.transfer_sentence(nothing)
    cells = classes.transfer_table(found).rows[list(TRANSFORMS).index("rotate")]
    assert cells[::3] == ("rotate", "+0.25 (+0.25 to +0.25)")
    assert cells[1] == "+0.30 (+0.30 to +0.30)"


def test_intervals_of_transfer_draw_classes():
    generator = np.random.default_rng(0)
    augmented = generator.normal(0.4, 0.1, (30, 2)) * [1, 0]
    other = generator.normal(0.1, 0.1, (50, 2))
    found = classes._transfer(augmented, other, seed=1)
    ratio = other[:, 0].mean() / augmented[:, 0].mean()
    assert found["transfer"][0] == pytest.approx(ratio) and np.isnan(found["transfer"][1])
    # By the delta method.
    error = np.hypot(
        other[:, 0].std() / np.sqrt(50) / augmented[:, 0].mean(),
        ratio * augmented[:, 0].std() / np.sqrt(30) / augmented[:, 0].mean(),
    )
    assert found["low"][0] == pytest.approx(ratio - 1.96 * error, abs=0.02)
    assert found["high"][0] == pytest.approx(ratio + 1.96 * error, abs=0.02)
    assert found["augmented_high"][0] > found["augmented"][0] > found["augmented_low"][0]


def test_standard_runs_differ_in_the_operations_of_classes_alone(folder):
    flips = {"augment": {"name": "flip", "per_class": PER_CLASS}}
    faster = {"augment": {"name": "none", "per_class": PER_CLASS}}
    faster["optimizer"] = {"learning_rate": 0.5}
    for changes in (flips, faster):
        with_labels(folder.add_accuracy("resnet8", "none", 0.5, **changes))
    rows = {each.row for each in load.read([folder.path]).accuracy}
    assert len(rows) == 4
    found = standard_of(rows)
    assert [row.augmentation for row in found] == [("none", "named(rows='rotate 9', share=0.5)")]
    assert [row.augmentation for row in found.values()] == [("none",)]


def test_the_command_prints_and_writes_it(folder, capsys, tmp_path):
    output = tmp_path / "classes.csv"
    assert main(["compare", "--by_class", str(folder.path), f"--output={output}"]) == 0
    shown = capsys.readouterr().out
    assert "NO clear difference" in shown and "rotate 9 and 1 more" in shown
    with output.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [x["class_name"] for x in lines] == ["ant", "bee, wild", "cat", "dog"]
    assert [float(x["difference"]) for x in lines] == pytest.approx([0.5, 0.1, -0.1, -0.1])
    (folder.path / "per_class.csv").write_text("class,row\n0,rotate 9\n")
    assert main(["compare", "--by_class", str(folder.path)]) == 2
    said = capsys.readouterr().err
    assert "per_class.csv does not list the operations of each class" in said
    assert said.count("\n") == 1


def test_without_a_standard_run_there_is_nothing_to_compare(other_folder, capsys):
    changes = {"augment": {"name": "none", "per_class": PER_CLASS}}
    with_labels(other_folder.add_accuracy("resnet8", "none", 0.5, **changes))
    assert main(["compare", "--by_class", str(other_folder.path)]) == 2
    assert "no two of the networks differ in config.augment.per_class" in capsys.readouterr().err


def test_the_section_is_on_the_page(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command.examples, "prepared", lambda each, config: None)
    saved = []
    monkeypatch.setattr(page, "save", lambda picture, folder: saved.append(picture.name))
    add_invariances(folder, gains())
    changes = {"augment": {"name": "none", "per_class": PER_CLASS}}
    add_invariances(folder, gains("rotate", 0.4, 0.1), **changes)
    found = load.read([folder.path])
    first, second = class_section.blocks(found)
    drawn = first.pictures[0].frame
    assert drawn["difference"].tolist() == pytest.approx([50, 10, -10, -10])
    assert drawn["place"].tolist() == [0, 1, 2, 3] and drawn["class"][0] == "ant"
    gained = second.pictures[0].frame.set_index(["transform", "which"])
    assert gained.loc[("rotate", "other"), "transfer"] == pytest.approx(0.25)
    assert gained.loc[("rotate", "augmented"), "gain"] == pytest.approx(0.4)
    for picture in (first.pictures[0], second.pictures[0]):
        for layout in ("page", "phone", "paper"):
            chart = picture.draw(picture.frame, layout)
            assert vega.save(chart, picture.frame, "svg").startswith(b"<svg")
    assert main(["report", str(folder.path), f"--output={tmp_path}"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Class by class</h2>" in text and "Transfer of invariance" in text
    assert {first.pictures[0].name, second.pictures[0].name} <= set(saved)
    assert f'id="{first.pictures[0].name}"' in text and "rotate 0.25 (0.25 to 0.25)" in text
    (folder.path / "per_class.csv").unlink()
    assert main(["report", str(folder.path), f"--output={tmp_path}"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "Class by class" not in text and "nothing on single classes" in text
    with pytest.raises(UserError, match=r"per_class\.csv does not list"):
        classes.transfers(found)


def test_where_all_images_of_a_class_changed_alike_there_is_no_interval(folder):
    for path in sorted(folder.path.glob("accuracy/*.nc"))[-2:]:
        with_labels(path, correct_top1=hits_of(1.0, 0.8, 0.6, 0.2))
    for path in sorted(folder.path.glob("accuracy/*.nc"))[:2]:
        with_labels(path, correct_top1=hits_of(0.0, 0.8, 0.6, 0.0))
    (found,) = classes.differences(load.read([folder.path]))
    assert np.isnan(found.classes["low"]).tolist() == [True, False, False, False]
    assert (
        found.classes["high"][1] == 0 and classes.summary(found).columns["clearly higher"][0] == "0"
    )


def test_a_class_of_one_image_has_no_interval():
    found = classes._share(np.array([]))
    assert np.isnan(found.mean) and classes.points(found) == "-"
    frame = pd.DataFrame({"difference": [0.5], "low": [np.nan], "high": [np.nan]})
    assert classes._interval(*frame.iloc[0], 1) == "+0.5"
