"""Result files side by side, with numbers that can be written by hand."""

import csv

import numpy as np
import pytest
import xarray as xr

from invariance_jax.__main__ import main
from invariance_jax.report import comparison, load
from invariance_jax.transforms import TRANSFORMS

TRANSLATE_X = list(TRANSFORMS).index("translate_x")
LEVEL = [0.6] * 13


def edit(path, change):
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        data = opened.load()
    change(data).to_netcdf(path, engine="h5netcdf")
    return path


def with_hits(path):
    """Adds flips and hits: of 40 images as many as the magnitude flip, and the rest are right."""

    def change(data):
        flips = np.broadcast_to(np.arange(10)[:, None] > np.arange(40)[None, :], (13, 10, 40))
        data["flip"] = (load.DIMENSIONS, flips)
        data["correct"] = (load.DIMENSIONS, ~flips)
        return data

    return edit(path, change)


@pytest.fixture
def three(folder):
    """An untrained network, itself trained, and another model."""
    level = list(LEVEL)
    level[TRANSLATE_X] = 0.9
    return [
        folder.add("resnet8", "none", steps=0, level=0.25, noise=0.0),
        with_hits(folder.add("resnet8", "none", level=level, noise=0.0)),
        folder.add("vit_mu8", "none", level=0.5, noise=0.0),
    ]


def test_numbers_by_hand(three, tmp_path):
    output = tmp_path / "table.csv"
    assert main(["compare", *map(str, three), f"--output={output}"]) == 0
    with output.open(newline="") as file:
        rows = {(row["quantity"], row["transform"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4 * 14

    def numbers(*at):
        return [float(x) if x else None for x in list(rows[at].values())[2:]]

    assert list(rows["invariance", "rotate"])[2:] == [
        "resnet8, untrained, seed 0",
        "resnet8, none, seed 0",
        "vit_mu8, none, seed 0",
    ]
    assert numbers("invariance", "translate_x") == pytest.approx([0.25, 0.9, 0.5])
    assert numbers("invariance", "rotate") == pytest.approx([0.25, 0.6, 0.5])
    mean = (12 * 0.6 + 0.9) / 13
    assert numbers("invariance", "mean of all") == pytest.approx([0.25, mean, 0.5], abs=1e-6)
    # The other model's untrained self is not among the files.
    assert numbers("invariance_gap", "translate_x") == [None, pytest.approx(0.65), None]
    # 3 to 7 of 40 images flip: 5 on average.
    assert numbers("flip_rate", "rotate") == [None, pytest.approx(5 / 40), None]
    assert numbers("accuracy", "rotate") == [None, pytest.approx(35 / 40), None]


def test_the_table_for_people(three, capsys):
    assert main(["compare", *map(str, three)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "[1] resnet8, untrained, seed 0",
        "[2] resnet8, none, seed 0",
        "[3] vit_mu8, none, seed 0",
    ]
    split = [line.split() for line in lines]
    assert ["translate_x", "0.250", "0.900", "0.500"] in split
    assert ["translate_x", "-", "0.650", "-"] in split
    assert ["rotate", "-", "0.125", "-"] in split
    assert max(map(len, lines)) <= 100


def test_medians_are_over_images_and_the_mean_over_magnitudes(folder):
    path = folder.add("resnet8", "none", level=0.5, noise=0.0)

    def change(data):
        values = data["relative_invariance_euclidean"].values
        values[:, 3:8] = np.arange(5)[None, :, None] / 10  # 0 to 0.4, mean 0.2
        values[:, 3:8, :19] = -9  # fewer than half of the images
        return data

    run = load.read_run(edit(path, change))
    found = comparison.compare([run], measure="euclidean")
    np.testing.assert_allclose(found.quantities["invariance"], 0.2, atol=1e-6)
    assert set(found.quantities) == {"invariance"}


def test_the_distance_can_be_chosen(folder, tmp_path):
    path, output = folder.add("resnet8", "none", level=0.5, noise=0.0), tmp_path / "table.csv"
    assert main(["compare", str(path), "--distance=euclidean", f"--output={output}"]) == 0
    assert "invariance,rotate,0.250000\n" in output.read_text()  # half of the cosine's here


def _other_permutation(data):
    return data.assign_coords(permutation=("image", np.roll(np.arange(40), 2)))


def _other_magnitudes(data):
    return data.assign_coords(magnitude_value=data["magnitude_value"] * 2)


def _other_images(data):
    return data.assign_coords(image=[f"photo{i}" for i in range(40)])


def _other_split(data):
    return data.assign_attrs(split="validation")


def _other_translation(data):
    return data.assign_attrs(translation="cyclic")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_other_permutation, "permutation"),
        (_other_magnitudes, "magnitude_value"),
        (_other_images, "image"),
        (_other_split, "split"),
        (_other_translation, "translation"),
    ],
)
def test_results_of_another_measurement_are_refused(folder, capsys, change, name):
    first = folder.add("resnet8", "none")
    second = edit(folder.add("resnet8", "translate"), change)
    assert main(["compare", str(first), str(second)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"invariance-jax: {first} and {second} differ in {name}; expected")
    assert error.count("\n") == 1


def test_mistakes_are_named(folder, capsys, tmp_path):
    path = folder.add("resnet8", "none")
    for arguments, message in (
        ([], "no result file given"),
        ([tmp_path / "absent.nc"], "absent.nc is not a readable result file"),
        ([path, path], "both hold resnet8, none, seed 0; expected each network once"),
        ([path, "--distance=manhattan"], "distance"),
    ):
        assert main(["compare", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_help(capsys):
    assert main(["compare", "--help"]) == 0
    assert "usage: invariance-jax compare" in capsys.readouterr().out
