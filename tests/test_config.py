"""Configs: every mistake is named before any work."""

import dataclasses
import json

import ml_collections
import pytest

from invariance_jax import spec
from invariance_jax.config import (
    ExperimentConfig,
    QuickstartConfig,
    check,
    differences,
)
from invariance_jax.configs import digits, quickstart
from invariance_jax.errors import UserError, lookup


def test_a_config_survives_json():
    config = check(ExperimentConfig, digits.get_config("vit_mu8,translate(t=0.1)"))
    assert config.augment.name == "translate(t=0.1)" and config.model.name == "vit_mu8"
    assert check(ExperimentConfig, json.loads(config.to_json())) == config


def test_quickstart_config_has_its_grid():
    config = check(QuickstartConfig, quickstart.get_config())
    assert config.models == ("resnet8", "vit_mu8") and config.seeds == (0,)
    assert config.augmentations == ("none", "translate", "random_resized_crop")


def _broken(change):
    values = digits.get_config().to_dict()
    change(values)
    return ml_collections.ConfigDict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["train"].update(stepz=1),
            r"config\.train\.stepz: unknown field 'stepz'; did you mean 'steps'\? one of: ",
        ),
        (
            lambda c: c["train"].pop("steps"),
            r"config\.train\.steps is missing; config\.train needs",
        ),
        (
            lambda c: c["train"].update(steps="many"),
            r"config\.train\.steps is 'many' \(str\); expected int",
        ),
        (lambda c: c["train"].update(steps=True), r"config\.train\.steps is True \(bool\)"),
        (lambda c: c["train"].update(steps=0), r"config\.train\.steps is 0; expected at least 1"),
        (
            lambda c: c["train"].update(label_smoothing=1.5),
            r"config\.train\.label_smoothing is 1\.5; expected 0 to 1",
        ),
        (
            lambda c: c["eval"].update(domain="normalised"),
            r"config\.eval\.domain: unknown domain 'normalised'; did you mean 'normalized'\? "
            r"one of: pixel, normalized",
        ),
        (
            lambda c: c.update(model="resnet8"),
            r"config\.model is 'resnet8' \(str\); expected a group",
        ),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        check(ExperimentConfig, _broken(change))


def test_whole_numbers_serve_as_floats():
    config = check(ExperimentConfig, _broken(lambda c: c["optimizer"].update(weight_decay=0)))
    assert type(config.optimizer.weight_decay) is float


def test_tuples_are_checked_item_by_item():
    values = quickstart.get_config()
    values.unlock()
    values.seeds = (0, "one")
    with pytest.raises(UserError, match=r"config\.seeds\[1\] is 'one' \(str\); expected int"):
        check(QuickstartConfig, values)


def test_differences_name_the_field_and_both_values():
    ours = check(ExperimentConfig, digits.get_config())
    theirs = dataclasses.replace(ours, train=dataclasses.replace(ours.train, steps=7))
    assert differences(ours, theirs) == {"train.steps": (ours.train.steps, 7)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", ("none", {})),
        ("translate(t=0.1)", ("translate", {"t": 0.1})),
        (
            "resnet18(stem='cifar', stem_stride=2)",
            ("resnet18", {"stem": "cifar", "stem_stride": 2}),
        ),
        ("crop(scale=(0.5, 1))", ("crop", {"scale": (0.5, 1)})),
    ],
)
def test_spec_reads_names_with_options(text, expected):
    assert spec.parse(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "f(1)", "f(x=open('y'))", "f(**{})", "f.g", "f(x=)"])
def test_spec_refuses_anything_else(text):
    with pytest.raises(UserError, match="cannot read"):
        spec.parse(text)


def test_lookup_suggests_the_nearest_name():
    assert lookup({"translate": 1}, "translate", "augmentation") == 1
    with pytest.raises(UserError, match=r"did you mean 'translate'\? one of: translate, flip"):
        lookup({"translate": 1, "flip": 2}, "transalte", "augmentation")
