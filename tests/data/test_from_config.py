"""The data that a config asks for."""

import io
import json

import jax
import ml_collections
import pytest
from PIL import Image

from invariance_jax import data
from invariance_jax.commands import parsing
from invariance_jax.config import ExperimentConfig
from invariance_jax.configs import digits
from invariance_jax.data import DataError
from invariance_jax.errors import UserError
from invariance_jax.fields import check
from invariance_jax.training import experiment, loop


def config_with(**fields) -> ExperimentConfig:
    values = digits.get_config().to_dict()
    values["data"] |= fields
    values["mesh"] = {"data": 1}
    return check(ExperimentConfig, ml_collections.ConfigDict(values))


def test_classes_hold_for_every_split_and_the_share_for_training():
    built = experiment.make(config_with(classes=(3, "7"), fraction=0.1, subset_seed=5))
    whole = experiment.make(config_with())
    config, all_of_it = built.config.data, whole.config.data
    for source, everything in (
        (built.validation_source, whole.validation_source),
        [data.from_config(each, "train[:50]", "eval.split") for each in (config, all_of_it)],
    ):
        labels = everything.labels()
        assert len(source) == sum(label in (3, 7) for label in labels.tolist())
        assert set(source.labels().tolist()) == {3, 7}
    labels = whole.train_source.labels().tolist()
    expected = {label: round(0.1 * labels.count(label)) for label in (3, 7)}
    found = built.train_source.labels().tolist()
    assert {label: found.count(label) for label in set(found)} == expected
    assert built.train_source.num_classes == 10
    other = experiment.make(config_with(classes=(3, "7"), fraction=0.1, subset_seed=6))
    ours, theirs = (
        {each.train_source[i]["name"] for i in range(len(found))} for each in (built, other)
    )
    assert ours != theirs


def test_classes_survive_json_and_flags():
    config = config_with(classes=(3, "7"))
    assert check(ExperimentConfig, json.loads(config.to_json())) == config
    flags = ["--config.data.classes=(3, '7')", "--config.data.fraction=0.5"]
    parsed = parsing.parse(flags, usage="", config=config_with()).config
    assert parsed.data.classes == (3, "7") and parsed.data.fraction == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"classes": ("ten",)},
            r"^config.data.classes with config.data.train_split 'train': unknown class 'ten'",
        ),
        (
            {"classes": (1.5,)},
            r"config.data.classes\[0\] is 1.5 \(float\); expected a whole number",
        ),
        ({"classes": (True,)}, r"config.data.classes\[0\] is True \(bool\)"),
        ({"classes": "seven"}, r"config.data.classes is 'seven' \(str\); expected a tuple"),
        ({"fraction": 0.0}, r"^config.data.fraction is 0.0 \(float\); expected more than 0"),
        ({"fraction": 1.1}, r"config.data.fraction is 1.1 \(float\); expected at most 1"),
        ({"subset_seed": -1}, r"config.data.subset_seed is -1"),
        (
            {"skip_bad_images": 1},
            r"config.data.skip_bad_images is 1 \(int\); expected True or",
        ),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        experiment.make(config_with(**fields)).check()


def jpeg(color) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("skip", [True, False])
def test_bad_images_in_training(tmp_path, dataset_writer, skip):
    files = [jpeg((200, 0, 0)), b"rubbish", jpeg((0, 0, 200))]
    dataset_writer(tmp_path, splits={"train": [3]}, images=files)
    config = config_with(
        name="tiny",
        data_dir=str(tmp_path),
        train_split="train",
        validation_split="train",
        skip_bad_images=skip,
    )
    config = config.with_values(train={"batch_size": 6}, eval={"split": "train"})
    said = []
    batches = loop.training_input(experiment.make(config), 0, said.append)
    if skip:
        index = jax.device_get(next(batches)["index"]).tolist()
        assert sorted(index) == [0, 0, 2, 2, 2, 2]  # two epochs; image 2 twice for image 1
        assert said == [
            "skipped image 'tiny-train-1': cannot decode 7 bytes: no image format known; "
            "bad images so far: 1"
        ]
    else:
        with pytest.raises(DataError, match="'tiny-train-1' of tiny train, number 1: cannot"):
            next(batches)
        assert said == []
