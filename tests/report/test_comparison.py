"""Networks side by side, with numbers that can be written by hand."""

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


def test_numbers_by_hand(three):
    found = comparison.compare(load.read_files(three).runs)
    assert found.shape == (4 * 14, 3)
    assert list(found.columns) == [
        "resnet8, untrained, seed 0",
        "resnet8, none, seed 0",
        "vit_mu8, none, seed 0",
    ]

    def numbers(*at):
        return found.loc[at].to_list()

    nan = pytest.approx(np.nan, nan_ok=True)
    assert numbers("invariance", "translate_x") == pytest.approx([0.25, 0.9, 0.5])
    assert numbers("invariance", "rotate") == pytest.approx([0.25, 0.6, 0.5])
    mean = (12 * 0.6 + 0.9) / 13
    assert numbers("invariance", "mean of all") == pytest.approx([0.25, mean, 0.5], abs=1e-6)
    # The other model's untrained self is not among the files.
    assert numbers("invariance_gap", "translate_x") == [nan, pytest.approx(0.65), nan]
    assert numbers("invariance_gap", "mean of all") == [nan, pytest.approx(mean - 0.25), nan]
    # 3 to 7 of 40 images flip: 5 on average.
    assert numbers("flip_rate", "rotate") == [nan, pytest.approx(5 / 40), nan]
    assert numbers("accuracy", "rotate") == [nan, pytest.approx(35 / 40), nan]


def test_leaderboard(three, tmp_path, capsys):
    found = load.read_files(three).runs
    table = comparison.leaderboard(found)
    names = ["resnet8, none, seed 0", "vit_mu8, none, seed 0", "resnet8, untrained, seed 0"]
    assert list(table.index) == names
    # Without noise every image says the same.
    for name, level in zip(names[1:], (0.5, 0.25), strict=True):
        assert table.loc[name, "rotate"].to_list() == pytest.approx([level] * 3)
    mean = (12 * 0.6 + 0.9) / 13
    assert table.loc[names[0], "all transforms"].to_list() == pytest.approx([mean] * 3, abs=1e-6)
    assert table.loc[names[0], "translate"].to_list() == pytest.approx([0.75] * 3, abs=1e-6)
    accuracy = table["accuracy"].to_numpy()
    np.testing.assert_array_equal(accuracy, [[1.0] * 3, [np.nan] * 3, [np.nan] * 3])

    output = tmp_path / "table.csv"
    words = ["compare", "--leaderboard", *map(str, three)]
    assert main([*words, "--sort=rotate", f"--output={output}"]) == 0
    assert "1. resnet8, none, seed 0" in capsys.readouterr().out
    header, first, *_ = output.read_text().split("\n")
    assert header.startswith("network,translate,translate low,translate high,scale,")
    assert first.startswith('"resnet8, none, seed 0",0.750000,0.750000,0.750000,0.600000')
    assert main([*words, "--sort=rotat"]) == 2
    assert "did you mean 'rotate'?" in capsys.readouterr().err


def test_intervals_of_a_leaderboard_are_over_images(folder):
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.2, 40)

    def spread(data):
        shape = (13, 10, 40)
        data["relative_invariance_cosine"] = (load.DIMENSIONS, np.broadcast_to(values, shape))
        right = np.zeros(shape, bool)
        right[list(TRANSFORMS).index("rotate"), 0] = np.arange(40) % 4 < 3  # three of four
        data["correct"] = (load.DIMENSIONS, right)
        return data

    path = edit(folder.add("resnet8", "none", level=0.5, noise=0.0), spread)
    (run,) = load.read_files([path]).runs
    table = comparison.leaderboard([run], draws=400)
    value, low, high = table.iloc[0]["rotate"]
    assert value == pytest.approx(np.median(values), abs=1e-6)
    samples = np.random.default_rng(0)
    medians = [np.median(values[samples.integers(0, 40, 40)]) for _ in range(400)]
    assert (low, high) == pytest.approx(np.quantile(medians, (0.025, 0.975)), abs=1e-6)
    right, low, high = table.iloc[0]["accuracy"]
    assert right == 0.75 and 0.55 < low < 0.7 < 0.8 < high < 0.95


def test_the_gap_is_of_one_seed(folder):
    files = [
        folder.add("resnet8", "none", seed=seed, steps=steps, level=level)
        for seed, steps, level in ((0, 0, 0.1), (1, 0, 0.3), (0, 500, 0.5), (1, 500, 0.6))
    ]
    found = comparison.compare(load.read_files(files).runs)
    expected = [np.nan, np.nan, 0.4, 0.3]
    np.testing.assert_allclose(found.loc["invariance_gap", "rotate"], expected, atol=1e-6)


def test_texts(three):
    found = comparison.compare(load.read_files(three).runs)
    lines = comparison.to_text(found).splitlines()
    assert lines[:3] == [
        "[1] resnet8, untrained, seed 0",
        "[2] resnet8, none, seed 0",
        "[3] vit_mu8, none, seed 0",
    ]
    split = [line.split() for line in lines]
    assert ["translate_x", "0.250", "0.900", "0.500"] in split
    assert ["translate_x", "-", "0.650", "-"] in split
    assert ["rotate", "-", "0.125", "-"] in split
    assert ["mean", "of", "all", "-", "0.373", "-"] in split
    assert max(map(len, lines)) <= 100
    header, *_ = rows = comparison.to_csv(found).splitlines()
    names = [f'"{name}"' for name in found.columns]
    assert header == ",".join(["quantity", "transform", *names])
    assert "invariance_gap,translate_x,,0.650000," in rows
    assert "invariance,mean of all,0.250000,0.623077,0.500000" in rows
    assert len(rows) == 1 + 4 * 14


def test_medians_are_over_images_and_the_mean_over_magnitudes(folder):
    path = folder.add("resnet8", "none", level=0.5, noise=0.0)

    def change(data):
        values = data["relative_invariance_euclidean"].values
        values[:, 3:8] = np.arange(5)[None, :, None] / 10  # 0 to 0.4, mean 0.2
        values[:, 3:8, :19] = -9  # fewer than half of the images
        return data

    (run,) = load.read_files([edit(path, change)]).runs
    found = comparison.compare([run], measure="euclidean")
    np.testing.assert_allclose(found, 0.2, atol=1e-6)
    # What no network has is not there.
    assert set(found.index.get_level_values("quantity")) == {"invariance"}
