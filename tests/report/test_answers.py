"""Numbers and sentences follow the data: the opposite data give the opposite sentence."""

import numpy as np
import pytest

from invariance_jax.report import answers, load
from invariance_jax.transforms import TRANSFORMS


def levels(**values):
    """0.5 for every transform but those named."""
    return [values.get(name, 0.5) for name in TRANSFORMS]


def read(folder):
    return load.read([folder.path])


def compared(folder):
    found = answers.effects(read(folder).runs)
    return [(each.part, each.changed.label, each.reference.label) for each in found]


def test_effects_compare_rows_that_differ_in_one_part(folder):
    folder.add("resnet8", "none", steps=0, level=levels(rotate=0.1, solarize=0.7))
    folder.add("resnet8", "none", level=levels(rotate=0.36, solarize=0.57))
    folder.add("resnet8", "translate", level=levels(rotate=0.36, solarize=0.57))
    folder.add("vit_mu8", "translate", level=levels(rotate=0.1, solarize=0.57))
    assert compared(folder) == [
        ("architecture", "resnet8, translate", "vit_mu8, translate"),
        ("training", "resnet8, none", "resnet8, untrained"),
        ("augmentation", "resnet8, translate", "resnet8, none"),
    ]
    found = answers.effects(read(folder).runs)
    training = found[1]
    # +.26 for rotate and -.13 for solarize, of 13 transforms.
    assert training.change == pytest.approx(0.01, abs=3e-3)
    assert training.size == pytest.approx(0.03, abs=3e-3)
    assert found[0].raised == 1
    assert list(answers.part_sizes(found)) == ["training", "architecture", "augmentation"]


QUARTER = {"data": {"fraction": 0.25}}
OTHER_RATE = {"optimizer": {"learning_rate": 0.5}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (QUARTER, ("data", "none, 25% of data", "none")),
        ({"data": {"fraction": 0.25, "subset_seed": 3}}, ("data", "none, 25% of data", "none")),
        ({"data": {"train_split": "validation"}}, ("data", "none, validation", "none, train")),
        (OTHER_RATE, ("recipe", "none, lr 0.5", "none, lr 0.1")),
        ({"train": {"steps": 900}}, ("recipe", "none, 500 of 900 steps", "none, 500 steps")),
    ],
)
def test_data_and_recipe_are_parts_of_their_own(folder, changes, expected):
    folder.add("resnet8", "none", level=0.6)
    folder.add("resnet8", "none", level=0.4, **changes)
    part, *names = expected
    labels = {f"resnet8, {name}" for name in names}
    ((found, changed, reference),) = compared(folder)
    assert found == part and {changed, reference} == labels
    if part == "data":  # all of the data is what the rest is compared with
        assert (changed, reference) == tuple(f"resnet8, {name}" for name in names)
        (effect,) = answers.effects(read(folder).runs)
        assert effect.change == pytest.approx(-0.2, abs=3e-3)


def test_classes_trained_on_are_data(folder):
    said = {"measurement": '{"config.data.classes": [1, 2]}'}
    folder.add("resnet8", "none", data={"classes": (1, 2)}, attrs=said)
    folder.add("resnet8", "none", data={"classes": (1, 2, 3)}, attrs=said)
    ((part, *_),) = compared(folder)
    assert part == "data"


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": "translate", **QUARTER},
        {"augmentation": "translate", **OTHER_RATE},
        {"model": "vit_mu8", "augmentation": "translate"},
        {"model": "vit_mu8", **OTHER_RATE},
        {"model": "vit_mu8", **QUARTER},
        {**QUARTER, **OTHER_RATE},
        {"augmentation": "weights a.npz", "steps": 0},
    ],
)
def test_rows_that_differ_in_two_parts_are_not_compared(folder, changes):
    changes = {"model": "resnet8", "augmentation": "none", **changes}
    folder.add("resnet8", "none")
    folder.add(changes.pop("model"), changes.pop("augmentation"), **changes)
    assert compared(folder) == []
    sentence = answers.source_statement(read(folder).runs)
    assert "cannot be told apart" in sentence


def test_two_draws_of_a_share_are_not_compared(folder):
    for seed in (0, 1):
        folder.add("resnet8", "none", data={"fraction": 0.5, "subset_seed": seed})
    assert compared(folder) == []


def test_imported_weights_are_a_training_and_no_augmentation(folder):
    folder.add("resnet8", "none", steps=0, level=0.2)
    folder.add("resnet8", "none", level=0.5)
    folder.add("resnet8", "weights a/model.npz", steps=0, level=0.7)
    folder.add("resnet8", "weights b/model.npz", steps=0, level=0.8)
    folder.add("vit_mu8", "weights c/model.npz", steps=0, level=0.8)
    assert compared(folder) == [
        ("training", "resnet8, none", "resnet8, untrained"),
        ("training", "resnet8, weights a/model.npz", "resnet8, untrained"),
        ("training", "resnet8, weights b/model.npz", "resnet8, untrained"),
    ]
    _, _, sentence, *_ = answers.small_translation_statements(read(folder).runs)
    assert sentence.startswith("resnet8 with weights a/model.npz is more invariant")


def test_an_untrained_network_of_another_size_is_no_reference(folder):
    folder.add("resnet8", "none", steps=0, data={"image_size": 32})
    folder.add("resnet8", "none")
    assert compared(folder) == []


def _small(folder, untrained, trained, **options):
    for seed, (before, after) in enumerate(zip(untrained, trained, strict=True)):
        folder.add("resnet8", "none", steps=0, seed=seed, level=before, **options)
        folder.add("resnet8", "none", seed=seed, level=after, **options)
    return read(folder)


def test_more_invariant_is_said_with_numbers(folder):
    count, sentence = answers.small_translation_statements(_small(folder, [0.3], [0.7]).runs)
    assert count.startswith("1 of 1 trained models is more invariant to small translations (25 and")
    assert sentence.startswith("resnet8 trained without augmentation is more invariant")
    assert "0.70 against 0.30 (+0.40; the higher of the two on 100% of 40 images)" in sentence


def test_less_invariant_is_said_plainly(folder):
    results = _small(folder, [0.7], [0.3])
    count, sentence = answers.small_translation_statements(results.runs)
    assert count.startswith("0 of 1 trained models are more invariant")
    assert "is NOT more but less invariant to small translations" in sentence
    assert "0.30 against 0.70 (-0.40; the higher of the two on 0% of 40 images)" in sentence
    assert count.endswith(" NOT (or not clearly) more invariant: resnet8, none.")


def test_a_difference_that_few_images_share_is_not_clear(folder):
    results = _small(folder, [0.5], [0.5])
    run = results.runs[1].data["relative_invariance_cosine"]
    other = results.runs[0].data["relative_invariance_cosine"].values
    sign = np.where(np.arange(40) % 2, 1, -1).astype(np.float32)
    run[...] = other + 0.02 * sign + np.float32(0.001)
    (comparison,) = answers.small_translations(results.runs)
    assert comparison.share == 0.5
    assert comparison.verdict == 0
    assert "is NOT clearly more invariant" in comparison.sentence


def test_a_difference_within_the_noise_of_seeds_is_not_clear(folder):
    runs = _small(folder, [0.1, 0.7], [0.2, 0.8], noise=0.01).runs
    (comparison,) = answers.small_translations(runs)
    assert comparison.trained - comparison.untrained == pytest.approx(0.1, abs=5e-3)
    assert comparison.standard_error == pytest.approx(np.hypot(0.3, 0.3), abs=5e-3)
    assert comparison.share == 1
    assert comparison.verdict == 0
    assert "±0.42" in comparison.sentence


def test_what_else_tells_a_row_apart_is_in_its_sentence(folder):
    folder.add("resnet8", "none", steps=0)
    folder.add("resnet8", "none", **QUARTER)
    folder.add("resnet8", "none")
    _, whole, quarter = answers.small_translation_statements(read(folder).runs)
    assert whole.startswith("resnet8 trained without augmentation is")
    assert quarter.startswith("resnet8 trained without augmentation, 25% of data is")


def test_a_model_without_its_untrained_twin_is_not_judged(folder):
    folder.add("resnet8", "none")
    (sentence,) = answers.small_translation_statements(read(folder).runs)
    assert "resnet8: trained and untrained are not both measured" in sentence


def _sources(folder, *, untrained, none, translate, other):
    folder.add("resnet8", "none", steps=0, level=untrained)
    folder.add("resnet8", "none", level=none)
    folder.add("resnet8", "translate", level=translate)
    folder.add("vit_mu8", "none", level=other)
    return answers.source_statement(read(folder).runs)


@pytest.mark.parametrize(
    ("values", "winner"),
    [
        ({"untrained": 0.1, "none": 0.6, "translate": 0.7, "other": 0.65}, "training"),
        ({"untrained": 0.5, "none": 0.6, "translate": 0.9, "other": 0.65}, "augmentation"),
        ({"untrained": 0.5, "none": 0.6, "translate": 0.7, "other": 0.1}, "architecture"),
    ],
)
def test_the_part_that_moves_most_is_named(folder, values, winner):
    first = _sources(folder, **values)
    assert first.startswith(f"In these models, {winner} moves invariance most.")


def test_sizes_are_given(folder):
    first = _sources(folder, untrained=0.7, none=0.3, translate=0.4, other=0.5)
    assert first.endswith(": training 0.40, architecture 0.20, augmentation 0.10.")


def test_the_effect_of_data_is_said(folder):
    folder.add("resnet8", "none", level=0.6)
    folder.add("resnet8", "none", level=0.4, **QUARTER)
    first = answers.source_statement(read(folder).runs)
    assert first.startswith("Only data can be judged from these models.")
    assert first.endswith(": data 0.20.")


def test_equal_parts_are_called_equal(folder):
    first = _sources(folder, untrained=0.4, none=0.6, translate=0.805, other=0.6)
    assert "augmentation and training move invariance about equally" in first


def test_parts_that_were_not_measured_are_not_judged(folder):
    folder.add("resnet8", "none", steps=0, level=0.2)
    folder.add("resnet8", "none", level=0.6)
    assert answers.source_statement(read(folder).runs).startswith("Only training can be judged")


def test_what_results_lack_is_listed_with_its_command(study, folder):
    lacking = dict(answers.missing(load.read([study.path]), (), widths=True))
    assert "untrained networks" not in lacking and "learned augmentation" not in lacking
    assert {"more images against fewer", "several seeds", "factors of variation"} <= set(lacking)
    folder.add("resnet8", "none")
    folder.add("resnet8", "none", seed=1, **QUARTER)
    folder.add("resnet8", "none", seed=2, **QUARTER)
    lacking = dict(answers.missing(read(folder), ["some"], widths=False))
    missing = {"untrained networks", "accuracy", "learned augmentation", "augmentation by class"}
    assert set(lacking) == missing
    assert lacking["untrained networks"].endswith("--untrained")


def test_scope_counts_models_seeds_and_images(study, folder):
    text = answers.scope_statement(load.read([study.path]))
    assert text.startswith("6 models, 1 seed each, measured on 40 images of digits (test).")
    assert "spread over seeds is unknown" in text
    text = answers.scope_statement(_small(folder, [0.1, 0.2], [0.5, 0.6]))
    assert text == "2 models, 2 seeds each, measured on 40 images of digits (test)."


def test_scope_names_the_commits(folder):
    for seed, commit in enumerate(("b", "a", "b")):
        versions = f'{{"commit": "{commit}", "jax": "1.2.3"}}'
        folder.add("resnet8", "none", seed=seed, attrs={"versions": versions})
    folder.add("resnet8", "none", seed=3)  # of an earlier version, or installed
    text = answers.scope_statement(read(folder))
    assert text.endswith("measured on 40 images of digits (test), with commits a, b.")
