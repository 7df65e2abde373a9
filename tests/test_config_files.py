"""Every file in configs/ builds and takes one step."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from invariance_jax.commands import sweep
from invariance_jax.config import ExperimentConfig, SweepConfig
from invariance_jax.errors import UserError
from invariance_jax.fields import check
from invariance_jax.training import experiment, loop
from invariance_jax.training.optimizer import make_schedule

NAMES = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py")
    if path.stem != "__init__"
)


def module(name):
    return importlib.import_module(f"invariance_jax.configs.{name}")


def take_one_step(values):
    """The loss of the first step, on one device, of images and a batch that compile in seconds."""
    small = {"image_size": 16, "resize_size": 16}
    config = check(ExperimentConfig, values).with_values(
        data=small, train={"batch_size": 8}, mesh={"data": 1}
    )
    built = experiment.make(config)
    state, metrics = built.init_state(), loop.no_metrics(built)
    before = jax.device_get(state.params)
    state, metrics = loop.compile_step(built)(state, metrics, next(loop.training_input(built, 0)))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, jax.device_get(state.params))
    assert max(jax.tree.leaves(moved)) > 0 and int(state.step) == 1
    return float(jax.device_get(metrics).compute()["loss"])


def trace_a_step(values):
    """Builds everything at its own size; nothing is computed."""
    values.mesh = {"data": 1}
    built = experiment.make(check(ExperimentConfig, values))
    side, count = built.config.data.canvas_size, built.config.train.batch_size
    shapes = {"canvas": (count, side, side, 3)}
    shapes |= dict.fromkeys(("height", "width", "label", "index"), (count,))
    batch = {
        field: jax.ShapeDtypeStruct(shape, np.uint8 if field == "canvas" else np.int32)
        for field, shape in shapes.items()
    }
    metrics = jax.eval_shape(lambda: loop.no_metrics(built))
    state, _ = jax.eval_shape(loop.compile_step(built), built.abstract_state, metrics, batch)
    assert jax.tree.structure(state) == jax.tree.structure(built.abstract_state)


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_holds_the_command(name):
    assert "invariance-jax " in module(name).__doc__


@pytest.mark.parametrize("argument", ["resnet8,random_resized_crop", "vit_mu8,translate(t=0.1)"])
def test_digits(argument):
    values = module("digits").get_config(argument)
    trace_a_step(module("digits").get_config(argument))
    values.optimizer.warmup_steps = 1
    loss = take_one_step(values)
    assert abs(loss - np.log(10)) < 1  # an untrained network guesses among ten


def test_quickstart_spells_out_its_grid(tmp_path):
    runs = sweep.expand(check(SweepConfig, module("quickstart").get_config()), tmp_path)
    spelled = [each.config for each in runs]
    assert len({(each.model.name, each.augment.name, each.seed) for each in spelled}) == 6
    # Of runs that begin with the same network one alone measures it untrained.
    assert sum("untrained" in each.evaluate for each in runs) == 2
    for each in spelled:
        experiment.make(each.with_values(mesh={"data": 1}))


@pytest.mark.real_data
def test_imagenet64_resnet18(real_data):
    values = module("imagenet64_resnet18").get_config()
    values.data.data_dir = str(real_data / "tfds")
    trace_a_step(values)
    values.model.name = "resnet8"
    values.optimizer.warmup_steps = 1
    assert abs(take_one_step(values) - np.log(1000)) < 1


RECIPES = {
    "imagenet_base": "resnet8",
    "imagenet_resnet18_original": "resnet8",
    "imagenet_resnet50_strong": "resnet8",
    "imagenet_vit_s16": "vit_mu8",
}


def on_digits(name):
    """A recipe with the images of the embedded digits, as many classes, and a canvas of 32."""
    values = module(name).get_config()
    size = values.data.get("image_size", 224)
    values.data = module("digits").get_config().data
    values.data.image_size = values.data.resize_size = size
    return values


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_at_their_size_and_their_step_can_be_traced(name):
    trace_a_step(on_digits(name))


@pytest.mark.parametrize(
    ("name", "model"), [each for each in RECIPES.items() if each[0] != "imagenet_base"]
)
def test_recipes_take_a_step_with_a_small_network(name, model):
    values = on_digits(name)
    values.model.name = model
    values.model.ghost_batch_size = min(values.model.get("ghost_batch_size", 0), 4)
    values.optimizer.warmup_steps = 1
    loss = take_one_step(values)
    # Guessing among ten; each class alone is a coin's toss.
    guessing = np.log(2) if "binary" in values.train.get("loss", "") else np.log(10)
    assert abs(loss - guessing) < 1


def test_the_originals_recipe_is_the_papers():
    values = module("imagenet_resnet18_original").get_config("translate")
    assert values.augment.name == "translate"
    # 150 epochs of 1,281,167 images by 256, the rate divided by ten every 30 epochs.
    assert values.train.steps == 750_684
    schedule = make_schedule(check(ExperimentConfig, values).optimizer, values.train.steps)
    rates = [float(schedule(epoch * 5004.56 + 10)) for epoch in (0, 29, 30, 60, 90, 120, 149)]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6], rtol=1e-4)
    assert values.optimizer.weight_decay == 1e-3 and values.optimizer.weight_decay_on == "all"


def test_evaluate_names_a_model_and_its_weights():
    values = module("evaluate").get_config("vit_mu8,some/vit.npz")
    # ImageNet itself is not here: digits take its place.
    values.data = {"name": "digits", "image_size": 8, "resize_size": 8, "canvas_size": 32}
    config = check(ExperimentConfig, values).with_values(mesh={"data": 1})
    assert (config.model.name, config.model.weights) == ("vit_mu8", "some/vit.npz")
    message = r"config\.model\.weights: weights 'some/vit\.npz': no such"
    with pytest.raises(UserError, match=message):
        experiment.make(config).init_state()
    values.model.weights = ""
    assert abs(take_one_step(values) - np.log(10)) < 1


def test_evaluate_measures_all_crops_if_asked():
    get_config = module("evaluate").get_config
    assert get_config("resnet50,some.npz").eval.test_time == ("none",)
    crops = get_config("resnet50,some.npz,crops").eval.test_time
    assert crops[:2] == ("none", "random_resized_crop")
    assert crops[2:] == tuple(f"scaled_center_crop(k={k})" for k in range(15))
    for wrong in ("resnet50,some.npz,corps", "resnet50,some.npz,crops,more"):
        with pytest.raises(UserError, match=f"is '{wrong}'; expected MODEL,WEIGHTS or"):
            get_config(wrong)


def test_every_config_is_tested_here():
    assert sorted([*RECIPES, "digits", "evaluate", "imagenet64_resnet18", "quickstart"]) == NAMES
