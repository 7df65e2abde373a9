"""The five claims: each is confirmed, refuted and left open by results that say so."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from invariance_jax.report import claims, intervals, load
from invariance_jax.transforms import TRANSFORMS


def ask(folder=None, factors=()):
    invariance = accuracy = None
    if folder:
        found = load.read([folder.path])
        for each in found.accuracy:
            hits = np.arange(20) < round(20 * each.top1)
            object.__setattr__(each, "correct", xr.DataArray(hits, dims="image"))
        invariance = intervals.invariance(found.runs) if found.runs else None
        accuracy = intervals.accuracy(found.accuracy) if found.accuracy else None
    return {each.number: each for each in claims.claims(invariance, accuracy, dict(factors))}


def test_nothing_is_judged_of_nothing():
    found = ask()
    assert list(found) == [1, 2, 3, 4, 5]
    for each in found.values():
        assert each.verdict == "not judged" and not each.parts and each.needs and each.test


@pytest.mark.parametrize(("translate", "verdict"), [(0.95, "yes"), (0.2, "no"), (0.6, "unclear")])
def test_translation_is_judged_where_augmentation_gains(folder, translate, verdict):
    folder.add_accuracy("resnet8", "none", 0.1)
    folder.add_accuracy("resnet8", "translate", translate)
    folder.add_accuracy("resnet8", "random_resized_crop_flip", 1.0)
    # Where it gains nothing there is nothing to recapture.
    folder.add_accuracy("vit_mu8", "none", 0.5)
    folder.add_accuracy("vit_mu8", "translate", 0.9)
    folder.add_accuracy("vit_mu8", "random_resized_crop_flip", 0.5)
    claim = ask(folder)[1]
    (part,) = claim.parts
    assert (part.of, part.verdict, claim.verdict) == ("resnet8, all images", verdict, verdict)
    assert part.numbers.startswith(f"{(translate - 0.1) / 0.9:.0%} (")


def add(folder, model, *, untrained, none, translate=None):
    folder.add(model, "none", steps=0, level=untrained, noise=0.01)
    folder.add(model, "none", level=none, noise=0.01)
    if translate is not None:
        folder.add(model, "translate", level=translate, noise=0.01)


def test_architectures_are_alike_where_training_moves_more(folder):
    scale = np.array([name.startswith("scale") for name in TRANSFORMS])
    add(folder, "resnet8", untrained=0.2, none=0.6)
    add(folder, "vit_mu8", untrained=0.2, none=np.where(scale, 0.1, 0.65))
    claim = ask(folder)[2]
    found = {part.of: part for part in claim.parts}
    assert found["translate, resnet8 and vit_mu8"].verdict == "yes"
    assert found["scale, resnet8 and vit_mu8"].verdict == "no"
    # Between them 0.5; trained, one gained 0.4 and the other lost 0.1.
    assert "0.50, change by training 0.25;" in found["scale, resnet8 and vit_mu8"].numbers
    assert claim.verdict == "mixed"


def test_data_is_the_main_source_where_it_moves_most(folder, other_folder):
    add(folder, "resnet8", untrained=0.1, none=0.7, translate=0.75)
    claim = ask(folder)[3]
    (part,) = claim.parts
    assert part.of == "data against augmentation" and claim.verdict == "yes"
    assert "0.60, augmentation 0.05; difference +0.55 (" in part.numbers
    add(other_folder, "resnet8", untrained=0.6, none=0.7, translate=0.2)
    assert ask(other_folder)[3].verdict == "no"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.6, 0.8, "yes"), (0.4, 0.6, "unclear"), (0.1, 0.3, "no")]
)
def test_factors_are_judged_against_chance(low, high, verdict):
    share = {"share": (low + high) / 2, "low": low, "high": high}
    found = {
        "a network": {
            "alignment": SimpleNamespace(**share, chance=0.5),
            "appearance": SimpleNamespace(**share, base_rate=0.5, top=5),
            "specificity": (0.1, -0.1, 0.3),
        }
    }
    asked = ask(factors=found)
    assert asked[4].verdict == verdict and asked[4].parts[0].of == "a network"
    appearance, specific = asked[5].parts
    assert appearance.verdict == verdict and appearance.of == "appearance, a network"
    assert specific.verdict == "unclear" and "+0.10 (-0.10 to +0.30)" in specific.numbers
    assert asked[5].verdict == "unclear"
    found["a network"]["specificity"] = (np.nan, np.nan, np.nan)
    assert "too few" in ask(factors=found)[5].parts[1].numbers
