"""Sentences follow the data: the opposite data give the opposite sentence."""

import numpy as np
import pytest

from invariance_jax.report import load, small_translations, statements


def _small(folder, untrained, trained, **options):
    for seed, (before, after) in enumerate(zip(untrained, trained, strict=True)):
        folder.add("resnet8", "none", steps=0, seed=seed, level=before, **options)
        folder.add("resnet8", "none", seed=seed, level=after, **options)
    return load.read([folder.path])


def test_more_invariant_is_said_with_numbers(folder):
    count, sentence = small_translations.sentences(_small(folder, [0.3], [0.7]))
    assert count.startswith("1 of 1 trained models is more invariant to small translations (25 and")
    assert sentence.startswith("resnet8 trained without augmentation is more invariant")
    assert "0.70 against 0.30 (+0.40; the higher of the two on 100% of 40 images)" in sentence


def test_less_invariant_is_said_plainly(folder):
    results = _small(folder, [0.7], [0.3])
    count, sentence = small_translations.sentences(results)
    assert count.startswith("0 of 1 trained models are more invariant")
    assert "is NOT more but less invariant to small translations" in sentence
    assert "0.30 against 0.70 (-0.40; the higher of the two on 0% of 40 images)" in sentence
    assert "NOT (or not clearly) more invariant: resnet8, none." in statements.answer(results)


def test_a_difference_that_few_images_share_is_not_clear(folder):
    results = _small(folder, [0.5], [0.5])
    run = results.runs[1].data["relative_invariance_cosine"]
    other = results.runs[0].data["relative_invariance_cosine"].values
    sign = np.where(np.arange(40) % 2, 1, -1).astype(np.float32)
    run[...] = other + 0.02 * sign + np.float32(0.001)
    (comparison,) = small_translations.compare(results)
    assert comparison.share == 0.5
    assert comparison.verdict == 0
    assert "is NOT clearly more invariant" in comparison.sentence


def test_a_difference_within_the_noise_of_seeds_is_not_clear(folder):
    (comparison,) = small_translations.compare(_small(folder, [0.1, 0.7], [0.2, 0.8], noise=0.01))
    assert comparison.difference == pytest.approx(0.1, abs=5e-3)
    assert comparison.standard_error == pytest.approx(np.hypot(0.3, 0.3), abs=5e-3)
    assert comparison.share == 1
    assert comparison.verdict == 0
    assert "±0.42" in comparison.sentence


def test_a_model_without_its_untrained_twin_is_not_judged(folder):
    folder.add("resnet8", "none")
    (sentence,) = small_translations.sentences(load.read([folder.path]))
    assert "resnet8: trained and untrained are not both measured" in sentence


def _sources(folder, *, untrained, none, translate, other):
    folder.add("resnet8", "none", steps=0, level=untrained)
    folder.add("resnet8", "none", level=none)
    folder.add("resnet8", "translate", level=translate)
    folder.add("vit_mu8", "none", level=other)
    return statements.source_statements(load.read([folder.path]))


@pytest.mark.parametrize(
    ("levels", "winner"),
    [
        ({"untrained": 0.1, "none": 0.6, "translate": 0.7, "other": 0.65}, "training data"),
        ({"untrained": 0.5, "none": 0.6, "translate": 0.9, "other": 0.65}, "augmentation"),
        ({"untrained": 0.5, "none": 0.6, "translate": 0.7, "other": 0.1}, "architecture"),
    ],
)
def test_the_part_that_moves_most_is_named(folder, levels, winner):
    first, *_ = _sources(folder, **levels)
    assert first.startswith(f"In these models, {winner} moves invariance most.")


def test_sizes_and_signs_are_given(folder):
    first, architecture, data, augmentation = _sources(
        folder, untrained=0.7, none=0.3, translate=0.4, other=0.5
    )
    assert "training data 0.40 (mean change -0.40); architecture 0.20; augmentation 0.10" in first
    assert "resnet8 against vit_mu8, none, -0.20." in architecture
    assert "resnet8, none against untrained, -0.40." in data
    assert "resnet8, translate against none, +0.10." in augmentation


def test_equal_parts_are_called_equal(folder):
    first, *_ = _sources(folder, untrained=0.4, none=0.6, translate=0.805, other=0.6)
    assert "augmentation and training data move invariance about equally" in first


def test_parts_that_were_not_measured_are_not_judged(folder):
    folder.add("resnet8", "none", steps=0, level=0.2)
    folder.add("resnet8", "none", level=0.6)
    first, architecture, _, augmentation = statements.source_statements(load.read([folder.path]))
    assert first.startswith("Only training data can be judged")
    assert architecture == (
        "Architecture: not judged; it takes two architectures with the same training."
    )
    assert "not judged" in augmentation


def test_one_model_alone_has_no_source(folder):
    folder.add("resnet8", "none")
    (sentence,) = statements.source_statements(load.read([folder.path]))
    assert "cannot be told apart" in sentence


def test_accuracy_says_what_translation_recaptures(folder):
    folder.add_accuracy(
        ("resnet8", "none", 0, 0.80, 10, 1.0),
        ("resnet8", "translate", 0, 0.86, 10, 1.0),
        ("resnet8", "random_resized_crop", 0, 0.88, 10, 1.0),
        ("vit_mu8", "none", 0, 0.80, 10, 1.0),
        ("vit_mu8", "translate", 0, 0.79, 10, 1.0),
        ("vit_mu8", "random_resized_crop", 0, 0.78, 10, 1.0),
    )
    resnet, vit = statements.accuracy_statements(load.read([folder.path]))
    assert "translate +6.0, random_resized_crop +8.0" in resnet
    assert "Translation alone gives 75% of the gain" in resnet
    assert "translate -1.0, random_resized_crop -2.0" in vit
    assert "of the gain" not in vit


def test_scope_counts_models_seeds_and_images(study, folder):
    text = statements.scope_statement(load.read([study.path]))
    assert text.startswith("6 models, 1 seed each, measured on 40 images of digits (test).")
    assert "spread over seeds is unknown" in text
    text = statements.scope_statement(_small(folder, [0.1, 0.2], [0.5, 0.6]))
    assert text == "2 models, 2 seeds each, measured on 40 images of digits (test)."
