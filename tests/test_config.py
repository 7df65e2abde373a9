"""Configs: every mistake is named before any work, and what earlier versions stored is read."""

import json
import math

import pytest

from invariance_jax import fields, spec
from invariance_jax.commands import parsing
from invariance_jax.config import (
    TRAINED_FIELDS,
    TRAINING_FIELDS,
    ExperimentConfig,
    SweepConfig,
    differing,
    identity,
)
from invariance_jax.configs import digits, quickstart
from invariance_jax.errors import UserError, lookup
from invariance_jax.fields import check, differences

DEFAULT = ExperimentConfig()
PATHS = [path for path, _ in fields.fields(ExperimentConfig)]


def nested(path, value):
    """The value at its place."""
    *sections, name = path.split(".")
    values = {name: value}
    for section in reversed(sections):
        values = {section: values}
    return values


def value_at(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


def test_a_config_survives_json():
    config = check(ExperimentConfig, digits.get_config("vit_mu8,translate(t=0.1)"))
    assert config.augment.name == "translate(t=0.1)" and config.model.name == "vit_mu8"
    assert config.train.log_every == 100  # the file does not say it
    assert check(ExperimentConfig, json.loads(config.to_json())) == config


def test_a_sweep_has_its_axes():
    sweep = check(SweepConfig, quickstart.get_config())
    assert sweep.configs == ("configs/digits.py",) and sweep.evaluate == ("trained", "untrained")
    assert sweep.axes["model"]["name"] == ("resnet8", "vit_mu8")


def test_a_config_of_the_first_version_is_read():
    stored = {
        "model": {"name": "resnet18", "bn_group": 4},
        "optimizer": {"clip_norm": 1},
        "train": {"accumulate": 2, "ema": 0.5, "steps": 7},
        "eval": {
            "batch_size": 8,
            "grid_batch_size": 16,
            "lie": ["rotate", "translate_x(edge='cyclic')"],
            "translation": "zero",
        },
    }
    config = check(ExperimentConfig, stored)
    assert (config.model.ghost_batch_size, config.optimizer.grad_clip_norm) == (4, 1.0)
    assert (config.train.grad_accum_steps, config.train.ema_decay) == (2, 0.5)
    assert config.eval.per_device_batch_size == 16 and config.eval.padding_mode == "constant"
    assert config.eval.local_equivariance == ("rotate", "translate_x(padding_mode='wrap')")
    assert config.train.steps == 7 and config.train.batch_size == DEFAULT.train.batch_size
    # A result of then is that of now.
    flat = {f"config.{path}": value for path, value in fields.flatten(stored).items()}
    assert differing(identity(config, "invariance"), flat) == []
    assert differing(identity(config.with_values(eval={"seed": 1}), "invariance"), flat) == [
        "config.eval.seed"
    ]


def test_flags_of_the_first_version_are_read_and_said(capsys):
    overrides = [("train.ema", "0.25"), ("eval.batch_size", "8"), ("train.steps", "1e3")]
    config = parsing.overridden(DEFAULT, overrides)
    assert (config.train.ema_decay, config.train.steps) == (0.25, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "invariance-jax: config.train.ema is now config.train.ema_decay",
        "invariance-jax: config.eval.batch_size has no meaning any more",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"train": {"stepz": 1}},
            r"config\.train\.stepz: unknown field 'stepz'; did you mean 'steps'\? one of: ",
        ),
        ({"train": {"steps": "many"}}, r"config\.train\.steps is 'many' \(str\); expected a whole"),
        ({"train": {"steps": True}}, r"config\.train\.steps is True \(bool\); expected a whole"),
        ({"train": {"steps": 1.5}}, r"config\.train\.steps is 1\.5 \(float\); expected a whole"),
        ({"train": {"steps": 0}}, r"config\.train\.steps is 0 \(int\); expected at least 1"),
        ({"seed": 2**31}, r"config\.seed is 2147483648 \(int\); expected at most 2147483647"),
        (
            {"train": {"label_smoothing": 1.5}},
            r"config\.train\.label_smoothing is 1\.5 \(float\); expected at most 1",
        ),
        ({"train": {"ema_decay": math.nan}}, r"train\.ema_decay is nan \(float\); expected a fin"),
        (
            {"eval": {"domain": "normalised"}},
            r"config\.eval\.domain: unknown domain 'normalised'; did you mean 'normalized'\? "
            r"one of: pixel, normalized",
        ),
        ({"model": "resnet8"}, r"config\.model is 'resnet8' \(str\); expected a group of fields"),
        ({"augment": {"mixing": (1,)}}, r"config\.augment\.mixing\[0\] is 1 \(int\); expected a t"),
        (None, r"config is None \(NoneType\); expected a group of fields"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(UserError, match=message):
        check(ExperimentConfig, values)


ODD = (-1, 0, 1, 1e30, math.nan, math.inf, "", None, 10**400, -(10**400), (), ((),), {}, [object()])


def test_no_value_of_any_field_is_anything_but_taken_or_refused():
    taken = set()
    for path in PATHS:
        for value in ODD:
            try:
                config = check(ExperimentConfig, nested(path, value))
            except UserError as error:
                assert f"config.{path}" in str(error) and "\n" not in str(error)
            else:
                assert value_at(config, path) == value
                taken.add(path)
            try:
                parsing.overridden(DEFAULT, [(path, str(value))])
            except UserError as error:
                assert "\n" not in str(error)
    assert taken >= {path for path in PATHS if type(value_at(DEFAULT, path)) in (int, float, tuple)}


def test_whole_numbers_serve_as_floats_and_whole_floats_as_counts():
    config = check(ExperimentConfig, {"optimizer": {"weight_decay": 0}, "train": {"steps": 1e4}})
    assert type(config.optimizer.weight_decay) is float
    assert type(config.train.steps) is int and config.train.steps == 10_000


def test_values_are_replaced_and_checked():
    config = DEFAULT.with_values(seed=3, train={"steps": 7})
    assert (config.seed, config.train.steps) == (3, 7)
    assert config.train.batch_size == DEFAULT.train.batch_size
    assert differences(DEFAULT, config) == {
        "seed": (DEFAULT.seed, 3),
        "train.steps": (DEFAULT.train.steps, 7),
    }
    with pytest.raises(UserError, match=r"config\.train\.steps is 0"):
        DEFAULT.with_values(train={"steps": 0})


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("train.steps", "600", 600),
        ("train.steps", "1e4", 10_000),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("model.name", "resnet18(stem='cifar')", "resnet18(stem='cifar')"),
        ("model.weights", "1", "1"),
        ("model.remat", "yes", True),
        ("eval.features", "stage1_block1", ("stage1_block1",)),
        ("eval.features", "('a', 'b')", ("a", "b")),
        ("data.classes", "(3, 'cat')", (3, "cat")),
    ],
)
def test_values_are_read_as_people_type_them(path, text, expected):
    found = value_at(parsing.overridden(DEFAULT, [(path, text)]), path)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train.stepz", r"--config\.train\.stepz: unknown field 'stepz'; did you mean 'steps'"),
        ("train", r"--config\.train is a group of fields: batch_size, .*--config\.train\.batch_s"),
        ("seed.x", r"--config\.seed\.x: config\.seed is one value, without fields"),
        ("", r"--config\.: unknown field ''"),
    ],
)
def test_paths_that_lead_nowhere_are_named(path, message):
    with pytest.raises(UserError, match=message):
        parsing.overridden(DEFAULT, [(path, "1")])


def test_every_field_says_what_it_means_and_what_it_changes():
    lines = fields.describe(ExperimentConfig).splitlines()
    assert len(lines) == len(PATHS) > 50
    for path, line in zip(PATHS, lines, strict=True):
        start, meaning = line.split(": ", 1)
        assert start.startswith(f"  --config.{path}=") and len(meaning) > 10
    assert {"train.steps", "data.name", "model.name", "seed"} <= TRAINING_FIELDS
    assert not TRAINING_FIELDS & {"eval.split", "mesh.data", "train.log_every", "data.data_dir"}
    # The images are what is measured, too.
    assert "train.steps" in TRAINED_FIELDS and "data.name" not in TRAINED_FIELDS


def test_what_a_result_depends_on():
    grid, crops, other = (
        {each.removeprefix("config.") for each in identity(DEFAULT, name)}
        for name in ("invariance", "test_time", "something else")
    )
    assert {"eval.split", "eval.padding_mode", "data.image_size", "eval.seed"} <= grid
    assert "eval.padding_mode" not in crops and "data.validation_split" in crops
    assert {"eval.split", "data.image_size"} <= other and "eval.padding_mode" not in other
    for found in (grid, crops, other):
        assert not found & {"train.steps", "eval.memory", "eval.shard_size", "mesh.data"}


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
