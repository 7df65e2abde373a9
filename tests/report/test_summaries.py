"""Tables against numbers worked out by hand."""

import math

import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.report import load, summaries
from invariance_jax.transforms import TRANSFORMS

NAMES = tuple(TRANSFORMS)


def _levels(**values):
    """0.5 for every transform but those named."""
    return np.asarray([values.get(name, 0.5) for name in NAMES])


def test_medians_and_quartiles_are_those_of_the_images(folder):
    folder.add("resnet8", "none", level=0.5, images=5, noise=0.0)
    (run,) = load.read([folder.path]).runs
    values = run.data["relative_invariance_cosine"]
    values[4, 2] = [0.9, -0.3, 0.1, 0.4, 0.2]
    table = summaries.quantiles([run])
    here = table.isel(run=0).sel(transform="rotate").isel(magnitude=2)
    np.testing.assert_allclose(here.values, [0.1, 0.2, 0.4], atol=1e-7)
    elsewhere = table.isel(run=0).sel(transform="solarize").isel(magnitude=2)
    np.testing.assert_allclose(elsewhere.values, 0.5, atol=1e-7)


def test_invariance_is_the_mean_over_magnitudes_3_to_7(folder):
    folder.add("resnet8", "none", images=3, noise=0.0)
    (run,) = load.read([folder.path]).runs
    by_magnitude = np.asarray([1, 0.9, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1, -5, -9], np.float32)
    run.data["relative_invariance_cosine"][6] = by_magnitude[:, None]
    table = summaries.invariance([run])
    assert table["mean"].sel(transform="scale_zoom_in").item() == pytest.approx(0.3)
    assert table["mean"].sel(transform="scale_zoom_out").item() == pytest.approx(0.5)
    euclidean = summaries.invariance([run], measure="euclidean")
    assert euclidean["mean"].sel(transform="scale_zoom_in").item() == pytest.approx(0.25)


def test_seeds_are_averaged_with_their_standard_error(folder):
    for seed, level in enumerate((0.2, 0.3, 0.7)):
        folder.add("resnet8", "none", seed=seed, level=level)
    folder.add("vit_mu8", "none", level=0.6)
    table = summaries.invariance(load.read([folder.path]).runs)
    assert table["row"].values.tolist() == ["resnet8, none", "vit_mu8, none"]
    assert table["seeds"].values.tolist() == [3, 1]
    np.testing.assert_allclose(table["mean"].values[:, 0], [0.4, 0.6], atol=1e-3)
    # Sample variance (.04 + .01 + .09) / 2 = .07, over three seeds.
    assert table["standard_error"].values[0, 0] == pytest.approx(math.sqrt(0.07 / 3), abs=1e-3)
    assert np.isnan(table["standard_error"].values[1]).all()


def test_gap_is_trained_minus_untrained_of_the_same_architecture(folder):
    folder.add("resnet8", "none", steps=0, level=_levels(rotate=0.1))
    folder.add("resnet8", "none", level=_levels(rotate=0.4, solarize=0.2))
    folder.add("vit_mu8", "none", steps=0, level=0.9)
    folder.add("vit_mu8", "none", level=0.8)
    folder.add("lone", "none", level=0.3)
    gap = summaries.invariance_gap(load.read([folder.path]).runs)
    assert gap["row"].values.tolist() == ["resnet8, none", "vit_mu8, none"]
    resnet, vit = gap["mean"].values
    expected = np.zeros(13)
    expected[NAMES.index("rotate")] = 0.3
    expected[NAMES.index("solarize")] = -0.3
    np.testing.assert_allclose(resnet, expected, atol=3e-3)
    np.testing.assert_allclose(vit, -0.1, atol=3e-3)


def test_gap_adds_standard_errors_in_squares(folder):
    for seed, (before, after) in enumerate(((0.1, 0.5), (0.3, 0.9))):
        folder.add("resnet8", "none", seed=seed, steps=0, level=before)
        folder.add("resnet8", "none", seed=seed, level=after)
    gap = summaries.invariance_gap(load.read([folder.path]).runs)
    np.testing.assert_allclose(gap["mean"].values, 0.5, atol=3e-3)
    np.testing.assert_allclose(gap["standard_error"].values, math.hypot(0.1, 0.2), atol=3e-3)


def test_groups_average_their_transforms(folder):
    level = _levels(translate_x=0.2, translate_y=0.4, scale_zoom_out=0.9, posterize=0.8)
    folder.add("resnet8", "none", level=level)
    table = summaries.grouped_invariance(load.read([folder.path]).runs)
    assert table["group"].values.tolist() == ["translate", "scale", "rotate", "shear", "appearance"]
    np.testing.assert_allclose(table["mean"].values[0], [0.3, 0.7, 0.5, 0.5, 0.55], atol=3e-3)


def test_groups_hold_every_transform_once():
    grouped = [name for names in summaries.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(NAMES)
    appearance = {name for name, row in TRANSFORMS.items() if row.family == "appearance"}
    assert set(summaries.GROUPS["appearance"]) == appearance


def test_small_translations_use_two_magnitudes_of_both_directions(folder):
    folder.add("resnet8", "none", images=3, noise=0.0, level=0.0)
    (run,) = load.read([folder.path]).runs
    values = run.data["relative_invariance_cosine"]
    values.loc[{"transform": "translate_x", "magnitude": [1, 2]}] = [[0.8, 0, 0.4], [0.4, 0, 0.4]]
    values.loc[{"transform": "translate_y", "magnitude": [1, 2]}] = [[0.8, 0, 0.4], [0.0, 0, 0.4]]
    by_image = summaries.small_translation_by_image([run])
    np.testing.assert_allclose(by_image.values, [[0.5, 0.0, 0.4]], atol=1e-7)


def test_accuracy_is_averaged_over_seeds(folder):
    folder.add_accuracy("resnet8", "none", 0.8, top5=0.9)
    folder.add_accuracy("resnet8", "none", 0.9, seed=1, attrs={"seconds": 20.0})
    folder.add_accuracy("resnet8", "none", 0.1, steps=0)
    table = summaries.accuracy(load.read([folder.path]).accuracy)
    assert table["row"].values.tolist() == ["resnet8, untrained", "resnet8, none"]
    np.testing.assert_allclose(table["mean"].values, [0.1, 0.85])
    np.testing.assert_allclose(table["standard_error"].values, [np.nan, 0.05])
    np.testing.assert_allclose(table["top5"].values, [1.0, 0.95])
    np.testing.assert_allclose(table["seconds"].values, [0, 15])
    np.testing.assert_allclose(table["steps"].values, [0, 500])


def test_no_results_are_named():
    with pytest.raises(UserError, match="no invariance results"):
        summaries.invariance([])
    with pytest.raises(UserError, match="no accuracy results"):
        summaries.accuracy([])
