"""Configs: every mistake is named before any work, and old ones are read."""

import json
import pathlib

import ml_collections
import pytest

from invariance_jax import spec
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
from invariance_jax.fields import check, describe, differences, fields, flatten

FIELDS = dict(fields(ExperimentConfig))


def test_a_config_survives_json():
    config = check(ExperimentConfig, digits.get_config("vit_mu8,translate(t=0.1)"))
    assert config.augment.name == "translate(t=0.1)" and config.model.name == "vit_mu8"
    assert check(ExperimentConfig, json.loads(config.to_json())) == config


def test_what_a_file_does_not_say_has_its_default():
    config = check(ExperimentConfig, {"train": {"steps": 7}})
    assert config == ExperimentConfig().with_values(train={"steps": 7})
    assert config.train.batch_size == FIELDS["train.batch_size"].default


def test_the_quickstart_is_a_sweep():
    config = check(SweepConfig, quickstart.get_config())
    assert flatten(config.axes) == {
        "model.name": ("resnet8", "vit_mu8"),
        "seed": (0,),
        "augment.name": ("none", "translate", "random_resized_crop"),
    }


def _broken(change):
    values = ExperimentConfig().to_dict()
    change(values)
    return ml_collections.ConfigDict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["train"].update(stepz=1),
            r"^config\.train\.stepz: unknown field 'stepz'; did you mean 'steps'\? one of: ",
        ),
        (
            lambda c: c.update(trian=1),
            r"^config\.trian: unknown field 'trian'; did you mean 'train'",
        ),
        (
            lambda c: c["train"].update(steps="many"),
            r"^config\.train\.steps is 'many' \(str\); expected a whole number$",
        ),
        (lambda c: c["train"].update(steps=True), r"^config\.train\.steps is True \(bool\)"),
        (
            lambda c: c["train"].update(steps=0),
            r"^config\.train\.steps is 0 \(int\); expected at least 1$",
        ),
        (lambda c: c["train"].update(steps=1.5), r"^config\.train\.steps is 1\.5 \(float\)"),
        (
            lambda c: c["train"].update(label_smoothing=1.5),
            r"^config\.train\.label_smoothing is 1\.5 \(float\); expected at most 1$",
        ),
        (
            lambda c: c["eval"].update(domain="normalised"),
            r"^config\.eval\.domain: unknown domain 'normalised'; did you mean 'normalized'\? "
            r"one of: pixel, normalized$",
        ),
        (
            lambda c: c.update(model="resnet8"),
            r"^config\.model is 'resnet8' \(str\); expected a group of fields$",
        ),
        (
            lambda c: c["augment"].update(policies=("rand_augment", 1)),
            r"^config\.augment\.policies\[1\] is 1 \(int\); expected a text$",
        ),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        check(ExperimentConfig, _broken(change))


def test_plain_numbers_are_taken():
    config = check(ExperimentConfig, _broken(lambda c: c["optimizer"].update(weight_decay=0)))
    assert type(config.optimizer.weight_decay) is float
    config = check(ExperimentConfig, _broken(lambda c: c["train"].update(steps=1e4)))
    assert config.train.steps == 10_000 and type(config.train.steps) is int


ODD = (-1, 0, 1e30, float("nan"), float("inf"), "", None, 10**400, (), {"x": 1}, [None], b"x")


@pytest.mark.parametrize("path", FIELDS)
def test_any_value_of_any_field_is_taken_or_refused_in_one_line(path):
    base = ExperimentConfig()
    *sections, name = path.split(".")
    for value in ODD:
        values = {name: value}
        for section in reversed(sections):
            values = {section: values}
        for attempt in (
            lambda values=values: check(ExperimentConfig, values),
            lambda value=value: parsing.overridden(base, [(path, str(value))]),
        ):
            try:
                config = attempt()
            except UserError as error:
                assert f"config.{path}" in str(error) and "\n" not in str(error)
            else:
                assert isinstance(config, ExperimentConfig)
                json.loads(config.to_json(), parse_constant=pytest.fail)


def test_every_field_says_what_it_means_and_changes():
    shown = describe(ExperimentConfig)
    for path, field in FIELDS.items():
        assert f"--config.{path}={field.default!r}: {field.description.split()[0]}" in shown
    # By hand: what a run can change when it goes on, and what only training knows.
    execution = {path for path in FIELDS if path not in TRAINING_FIELDS}
    assert {"data.workers", "mesh.data", "model.remat", "eval.split", "eval.seed"} <= execution
    assert not {"train.steps", "data.validation_split", "data.image_size", "seed"} & execution
    assert {"train.steps", "augment.name", "data.fraction", "model.name"} <= TRAINED_FIELDS
    assert not {"data.name", "data.image_size", "model.dtype", "eval.seed"} & TRAINED_FIELDS


def test_a_result_depends_on_its_own_fields():
    config = ExperimentConfig()
    names = {each: set(identity(config, each)) for each in ("invariance", "test_time", "another")}
    every = {"config.model.dtype", "config.data.name", "config.data.classes"}
    assert all(every <= each for each in names.values())
    assert "config.eval.domain" in names["invariance"] - names["test_time"]
    assert "config.eval.test_time" in names["test_time"] - names["invariance"]
    assert "config.data.validation_split" in names["test_time"] - names["invariance"]
    assert "config.eval.split" in names["invariance"] & names["another"] - names["test_time"]
    assert not any("config.eval.memory" in each for each in names.values())


# What version 0.1 wrote for config.eval of a run, and for the identity of a result.
OLD = {
    "seed": 3,
    "model": {"name": "resnet8", "dtype": "float32", "bn_group": 4, "weights": "", "remat": False},
    "train": {"accumulate": 2, "ema": 0.5, "steps": 9},
    "optimizer": {"clip_norm": 1.0},
    "eval": {
        "batch_size": 8,
        "grid_batch_size": 40,
        "translation": "cyclic",
        "lie": ["rotate", "translate_x(edge='cyclic')"],
        "features": ["stage1_block1"],
    },
}


def test_a_config_of_version_0_1_is_read():
    config = check(ExperimentConfig, OLD)
    assert config.model.ghost_batch_size == 4 and config.optimizer.grad_clip_norm == 1.0
    assert (config.train.grad_accum_steps, config.train.ema_decay) == (2, 0.5)
    assert config.eval.per_device_batch_size == 40 and config.eval.padding_mode == "wrap"
    assert config.eval.local_equivariance == ("rotate", "translate_x(padding_mode='wrap')")
    assert config.eval.features == ("stage1_block1",)
    assert config.eval.measurements == ("accuracy", "invariance")  # a newer field


def test_a_whole_workdir_of_version_0_1_is_read(golden_dir):
    stored = json.loads((golden_dir / "version_0_1" / "workdir" / "config.json").read_text())
    config = check(ExperimentConfig, stored)
    again = check(ExperimentConfig, json.loads(config.to_json()))
    assert config == again and config.data.name == stored["data"]["name"]


def test_an_identity_of_version_0_1_is_recognised():
    config = check(ExperimentConfig, OLD)
    ours = identity(config, "invariance")
    theirs = {
        f"config.eval.{name}": OLD["eval"][name] for name in ("translation", "features", "lie")
    } | {"parameters_sha256": "a", "config.model.name": "resnet8"}
    assert differing({**ours, "parameters_sha256": "a"}, theirs) == []
    assert differing({**ours, "parameters_sha256": "b"}, theirs) == ["parameters_sha256"]
    other = identity(config.with_values(eval={"padding_mode": "context"}), "invariance")
    assert differing(other, theirs) == ["config.eval.padding_mode"]
    assert "grid" in differing({**ours, "grid": {}}, theirs)


def test_differences_name_the_field_and_both_values():
    ours = check(ExperimentConfig, digits.get_config())
    theirs = ours.with_values(train={"steps": 7})
    assert differences(ours, theirs) == {"train.steps": (ours.train.steps, 7)}


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("train.steps=1e4", 10_000),
        ("train.steps=100.0", 100),
        ("model.remat=yes", True),
        ("model.remat=False", False),
        ("eval.features=stage1_block1", ("stage1_block1",)),
        ("eval.features=('a', 'b')", ("a", "b")),
        ("data.classes=(3, 'n01440764')", (3, "n01440764")),
        ("model.name=resnet18(stem='cifar')", "resnet18(stem='cifar')"),
        ("optimizer.learning_rate=1", 1.0),
    ],
)
def test_flags_are_read_as_people_type_them(flag, expected):
    config = parsing.overridden(ExperimentConfig(), [tuple(flag.split("=", 1))])
    assert flatten(config.to_dict())[flag.split("=")[0]] == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"--config: unknown file 'mine\.py'; "),
        ("x = 1", r"--config=mine\.py: AttributeError: .*get_config"),
        ("def get_config():\n    return {}['x']", r"--config=mine\.py: KeyError: 'x'"),
        ("def get_config(:", r"--config=mine\.py: SyntaxError"),
        ("def get_config():\n    return 5", r"config is 5 \(int\); expected a group of fields"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source:
        pathlib.Path("mine.py").write_text(source)
    with pytest.raises(UserError, match=message):
        parsing.load_config("mine.py")


def test_installed_configs_are_found_by_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parsing.load_config("configs/digits.py:vit_mu8,flip")
    assert (config.model.name, config.augment.name) == ("vit_mu8", "flip")


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
