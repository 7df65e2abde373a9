"""Tables for charts, and the intervals in them."""

import numpy as np
import pytest
import xarray as xr

from invariance_jax.evaluation.grid import FEATURES_GROUP
from invariance_jax.report import frames, intervals, load, summaries

QUARTER = {"data": {"fraction": 0.25}}


def read(folder):
    return load.read([folder.path])


def test_cells_are_the_quantiles_over_images(study):
    runs = load.read([study.path]).runs
    found = frames.cells(runs)
    assert len(found) == 6 * 13 * 10
    line = found[(found["row"] == "vit_mu8, translate") & (found["transform"] == "scale zoom in")]
    (run,) = [run for run in runs if run.row.label == "vit_mu8, translate"]
    values = run.data["relative_invariance_cosine"].sel(transform="scale_zoom_in").values
    expected = np.quantile(values.astype(float), frames.LEVELS, axis=1).T
    np.testing.assert_allclose(line[list(frames.QUANTILES)], expected)
    grid = run.data["magnitude_value"].sel(transform="scale_zoom_in").values
    np.testing.assert_allclose(line["value"], grid)
    assert line["augmentation"].unique().tolist() == ["translate"]
    assert line["unit"].nunique() == 1 and line["magnitude"].tolist() == list(range(10))


def test_seeds_are_averaged_and_less_data_is_a_detail(folder):
    for seed, level in ((0, 0.4), (1, 0.6)):
        folder.add("resnet8", "none", seed=seed, level=level, noise=0.0)
    folder.add("resnet8", "none", level=0.2, noise=0.0, **QUARTER)
    table = frames.invariance(read(folder).runs)
    rotate = table[table["transform"] == "rotate"].set_index("training")
    assert rotate.loc["none", "value"] == pytest.approx(0.5)
    assert rotate.loc["none", "standard_error"] == pytest.approx(0.1)
    assert rotate.loc["none", "seeds"] == 2
    quarter = rotate.loc["none, 25% of data"]
    assert (quarter["augmentation"], quarter["details"]) == ("none", "25% of data")
    assert np.isnan(quarter["standard_error"])


def test_each_source_goes_up_or_down_or_is_unclear(folder):
    up, down = (np.full(13, 0.5) for _ in range(2))
    up[4], down[4] = 0.9, 0.2  # rotate
    folder.add("resnet8", "none", steps=0, level=0.5)
    folder.add("resnet8", "none", level=up)
    folder.add("resnet8", "translate", level=down)
    folder.add("resnet8", "none", level=down, **QUARTER)
    parts = frames.by_part(intervals.invariance(read(folder).runs))
    rotate = parts[parts["transform"] == "rotate"].set_index("part")
    assert rotate["verdict"].to_dict() == {"training": "up", "augmentation": "down", "data": "up"}
    # More images against fewer.
    assert rotate.loc["data", "change"] == pytest.approx(0.7)
    # Of both amounts of images, 0.4 and -0.3.
    assert rotate.loc["training", "change"] == pytest.approx(0.05, abs=0.02)
    assert rotate["comparisons"].to_dict() == {"training": 2, "augmentation": 1, "data": 1}
    others = parts[~parts["transform"].isin(["rotate", frames.ALL])]
    assert set(others["verdict"]) == {"unclear"} and abs(others["change"]).max() < 1e-6
    together = parts[parts["transform"] == frames.ALL].set_index("part")["change"]
    assert together["training"] == pytest.approx(0.05 / 13, abs=2e-3)


def test_architectures_are_named(study):
    parts = frames.by_part(intervals.invariance(load.read([study.path]).runs))
    of_models = parts[parts["part"] == "architecture"]
    assert set(of_models["source"]) == {"architecture: resnet8 against vit_mu8"}
    assert of_models["comparisons"].unique().tolist() == [3]
    assert of_models["change"].tolist() == pytest.approx([-0.02] * 14, abs=2e-3)


def test_noise_of_seeds_widens_intervals(folder, other_folder):
    for into, levels in ((folder, (0.4, 0.6)), (other_folder, (0.5, 0.5))):
        for seed, level in enumerate(levels):
            into.add("resnet8", "none", seed=seed, level=level, noise=0.0)
            into.add("resnet8", "none", seed=seed, steps=0, level=0.5, noise=0.0)
    noisy, quiet = (
        frames.by_part(intervals.invariance(read(each).runs)) for each in (folder, other_folder)
    )
    width = noisy["high"] - noisy["low"]
    # Variances 0.02 and 0, pooled; of two seeds each: 2 x 1.96 standard errors of the difference.
    expected = 2 * 1.96 * np.sqrt(2 * 0.01 / 2)
    assert width.iloc[:13].mean() == pytest.approx(expected, rel=0.1)
    assert (quiet["high"] - quiet["low"]).max() == pytest.approx(0, abs=1e-9)


def _accuracies(folder, **top1):
    for name, share in top1.items():
        folder.add_accuracy("resnet8", name, share)
    entries = read(folder).accuracy
    for each in entries:
        # Labels tell that images are known one by one.
        hits = np.arange(20) < 20 * each.top1
        object.__setattr__(each, "correct", xr.DataArray(hits, dims="image"))
    return entries


def test_gains_are_paired_by_image(folder):
    entries = _accuracies(folder, none=0.5, translate=0.75, random_resized_crop=1.0)
    table = frames.ablation(intervals.accuracy(entries)).set_index("training")
    assert table.loc["translate", "gain"] == pytest.approx(0.25)
    assert table.loc["translate", "share"] == pytest.approx(0.5)
    assert (
        table.loc["random_resized_crop", ["share", "share_low", "share_high"]].tolist() == [1] * 3
    )
    low, high = table.loc["translate", ["gain_low", "gain_high"]]
    # Ten of twenty images are wrong without, five with: the difference is of five images.
    assert 0 < low < 0.25 < high < 0.5
    assert table.loc["none", ["low", "high"]].tolist() == pytest.approx([0.3, 0.7], abs=0.06)
    assert np.isnan(table.loc["none", ["gain", "share"]].tolist()).all()


def test_without_a_clear_gain_there_is_no_share(folder):
    entries = _accuracies(folder, none=0.75, translate=0.5, random_resized_crop=0.75)
    table = frames.ablation(intervals.accuracy(entries))
    assert table["share"].isna().all() and table["gain"].notna().sum() == 2


def test_accuracy_and_invariance_are_joined_by_row(study):
    results = load.read([study.path])
    drawn = intervals.accuracy(results.accuracy), intervals.invariance(results.runs)
    both = frames.accuracy_and_invariance(*drawn).set_index("row")
    means = summaries.invariance(results.runs)["mean"].mean("transform")
    for label, line in both.iterrows():
        assert line["invariance"] == pytest.approx(float(means.sel(row=label)))
        assert line["low"] <= line["invariance"] <= line["high"]
    assert both.loc["resnet8, translate", "top1"] == pytest.approx(0.9)
    assert len(both) == 6


def test_depth_ends_at_the_embedding(folder):
    for seed, shift in ((0, 0.1), (1, 0.3)):
        path = folder.add("resnet8", "none", seed=seed, level=0.5, noise=0.0)
        data = xr.load_dataset(path, engine="h5netcdf")["relative_invariance_cosine"]
        # The evaluation writes the embedding first.
        layers = xr.concat([data, data + shift, data - 0.2], "feature")
        layers = layers.assign_coords(feature=["embedding", "b", "a"])
        group = xr.Dataset({"relative_invariance_cosine": layers.drop_vars(["unit"])})
        group.to_netcdf(path, mode="a", group=FEATURES_GROUP, engine="h5netcdf")
    found = frames.by_depth(read(folder).runs)
    assert found["feature"].tolist() == ["b", "a", "embedding"]
    assert found["depth"].tolist() == [0, 1, 2]
    assert found["invariance"].tolist() == pytest.approx([0.7, 0.3, 0.5])


def test_accuracy_under_transforms_is_where_predictions_are_known(folder):
    path = folder.add("resnet8", "none", images=4)
    assert frames.under_transforms(read(folder).runs).empty
    data = xr.load_dataset(path, engine="h5netcdf")
    hits = np.zeros((13, 10, 4), np.int8)
    hits[2, 3] = [1, 1, 1, 0]
    names = ("transform", "magnitude", "image")
    data = data.assign(correct=(names, hits))
    data.to_netcdf(path, engine="h5netcdf")
    found = frames.under_transforms(read(folder).runs)
    assert len(found) == 130
    there = found[(found["transform"] == "translate x") & (found["magnitude"] == 3)].iloc[0]
    assert there["top1"] == 0.75
    assert found["top1"].sum() == 0.75
