"""Every file in configs/ builds and takes one step."""

import importlib
import pathlib
import re

import jax
import numpy as np
import pytest

from invariance_jax.commands import evaluate, sweep
from invariance_jax.config import ExperimentConfig, SweepConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.fields import check
from invariance_jax.training import experiment, loop, program
from invariance_jax.training.optimizer import make_schedule

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
NAMES = sorted(
    ".".join(path.relative_to(CONFIGS).with_suffix("").parts)
    for path in CONFIGS.rglob("*.py")
    if path.stem != "__init__" and path.parent.name != "sweeps"
)


def module(name):
    return importlib.import_module(f"invariance_jax.configs.{name}")


def take_one_step(config):
    """The loss of the first step, on one device and a batch that a laptop can bear."""
    config = config.with_values(train={"batch_size": 8}, mesh={"data": 1})
    built = experiment.make(config)
    state, metrics = built.init_state(), program.no_metrics(built)
    before = jax.device_get(state.params)
    state, metrics = program.compile_step(built)(
        state, metrics, next(loop.training_input(built, 0))
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, jax.device_get(state.params))
    assert max(jax.tree.leaves(moved)) > 0 and int(state.step) == 1
    return float(jax.device_get(metrics).compute()["loss"])


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_holds_the_command(name):
    assert any(each in module(name).__doc__ for each in ("invariance-jax ", "launch/sweep.py "))


@pytest.mark.parametrize("argument", ["resnet8,random_resized_crop", "vit_mu8,translate(t=0.1)"])
def test_digits(argument):
    loss = take_one_step(check(ExperimentConfig, module("digits").get_config(argument)))
    assert abs(loss - np.log(10)) < 1  # an untrained network guesses among ten


def test_quickstart_spells_out_its_grid(tmp_path):
    runs = sweep.expand(check(SweepConfig, module("quickstart").get_config()), tmp_path)
    spelled = [run.config for run in runs]
    assert len({(each.model.name, each.augment.name, each.seed) for each in spelled}) == 6
    for each in spelled:
        experiment.make(each.with_values(mesh={"data": 1})).check()
    # Two networks are measured untrained, each once.
    assert [run.evaluate.count("untrained") for run in runs] == [1, 0, 0, 1, 0, 0]


@pytest.mark.real_data
def test_imagenet64_resnet18(real_data):
    values = module("imagenet64_resnet18").get_config()
    values.data.data_dir = str(real_data / "tfds")
    loss = take_one_step(check(ExperimentConfig, values))
    assert abs(loss - np.log(1000)) < 1


RECIPES = {
    "imagenet_base": "resnet8",
    "paper.recipe": "resnet8",
    "imagenet_resnet50_strong": "resnet8",
    "imagenet_vit_s16": "vit_mu8",
}


def on_digits(name):
    """A recipe with the images of the embedded digits, as many classes, and a canvas of 32."""
    values = module(name).get_config()
    size = check(ExperimentConfig, values).data.image_size
    values.data = module("digits").get_config().data
    values.data.image_size = values.data.resize_size = size
    values.eval.split = "validation"
    return values


def trace_the_step(config):
    """Shapes of the state after a step."""
    built = experiment.make(config)
    side, count = config.data.canvas_size, config.train.batch_size
    shapes = {"canvas": (count, side, side, 3)}
    shapes |= dict.fromkeys(("height", "width", "label", "index"), (count,))
    batch = {
        field: jax.ShapeDtypeStruct(shape, np.uint8 if field == "canvas" else np.int32)
        for field, shape in shapes.items()
    }
    metrics = jax.eval_shape(lambda: program.no_metrics(built))
    state, _ = jax.eval_shape(program.compile_step(built), built.abstract_state, metrics, batch)
    assert jax.tree.structure(state) == jax.tree.structure(built.abstract_state)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_at_their_size_and_their_step_can_be_traced(name):
    trace_the_step(check(ExperimentConfig, on_digits(name)).with_values(mesh={"data": 1}))


@pytest.mark.parametrize(
    ("name", "model"), [each for each in RECIPES.items() if each[0] != "imagenet_base"]
)
def test_recipes_take_a_step_with_a_small_network(name, model):
    values = on_digits(name)
    values.data.image_size = values.data.resize_size = 16
    values.model.name = model
    values.optimizer.warmup_steps = 1
    config = check(ExperimentConfig, values)
    ghosts = min(config.model.ghost_batch_size, 4)
    loss = take_one_step(config.with_values(model={"ghost_batch_size": ghosts}))
    # Guessing among ten; each class alone is a coin's toss.
    guessing = np.log(2) if "binary" in config.train.loss else np.log(10)
    assert abs(loss - guessing) < 1


def test_the_originals_recipe_is_the_papers():
    values = module("paper.recipe").get_config("resnet18,translate")
    assert values.augment.name == "translate"
    # 150 epochs of 1,281,167 images by 256, the rate divided by ten every 30 epochs.
    assert values.train.steps == 750_684
    schedule = make_schedule(check(ExperimentConfig, values).optimizer, values.train.steps)
    rates = [float(schedule(epoch * 5004.56 + 10)) for epoch in (0, 29, 30, 60, 90, 120, 149)]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6], rtol=1e-4)
    assert values.optimizer.weight_decay == 1e-3 and values.optimizer.weight_decay_on == "all"
    assert values.model.ghost_batch_size == 64 and values.eval.split == "train[:9600]"


def test_evaluate_names_a_model_and_its_weights():
    values = module("evaluate").get_config("vit_mu8,some/vit.npz")
    # ImageNet itself is not here: digits take its place.
    values.data.update({"name": "digits", "image_size": 8, "resize_size": 8, "canvas_size": 32})
    values.eval.split = "validation"
    config = check(ExperimentConfig, values)
    assert (config.model.name, config.model.weights) == ("vit_mu8", "some/vit.npz")
    model = "vit_mu8(reg_tokens=4, qk_norm=True)"
    other = module("evaluate").get_config(f"{model},some.pth").model
    assert (other.name, other.weights) == (model, "some.pth")
    with pytest.raises(UserError, match=r"weights 'some/vit\.npz': no such"):
        evaluate.initial(config)
    without_weights = config.with_values(model={"weights": ""})
    assert abs(take_one_step(without_weights) - np.log(10)) < 1


def test_similarity_search_names_a_model_and_its_weights():
    values = module("similarity_search").get_config("resnet18,some.safetensors")
    config = check(ExperimentConfig, values)
    assert (config.model.name, config.model.weights) == ("resnet18", "some.safetensors")
    assert (config.search.split, config.search.rows) == ("train", ("all",))


def test_evaluate_measures_all_crops_if_asked():
    get_config = module("evaluate").get_config
    assert get_config("resnet50,some.npz").eval.test_time == ("none",)
    crops = get_config("resnet50,some.npz,crops").eval.test_time
    assert crops[:2] == ("none", "random_resized_crop")
    assert crops[2:] == tuple(f"scaled_center_crop(k={k})" for k in range(15))
    for wrong in ("resnet50,some.npz,corps", "resnet50,some.npz,crops,more"):
        with pytest.raises(UserError, match=f"is '{wrong}'; expected MODEL,WEIGHTS or"):
            get_config(wrong)


SWEEPS = {
    "augmentation": 45,
    "scale_distribution": 30,
    "translation_size": 15,
    "modified_resnet": 24,
    "augerino": 24,
    "test_time_scale": 15,
    "per_class": 33,
}
_DIGITS = dict.fromkeys(("image_size", "resize_size", "canvas_size"), 16)
_DIGITS |= {"name": "digits", "classes": (), "validation_split": "validation"}


def small(config):
    """The same experiment on a few pixels and a batch of eight."""
    small = {"batch_size": 8, "grad_accum_steps": 1}
    ghosts = min(config.model.ghost_batch_size, 4)
    return config.with_values(
        data=_DIGITS, train=small, mesh={"data": 1}, model={"ghost_batch_size": ghosts}
    )


@pytest.mark.parametrize("name", SWEEPS)
def test_the_papers_sweeps_build_every_run_at_both_sizes(name, tmp_path):
    at_224 = sweep.expand(check(SweepConfig, module(f"paper.{name}").get_config()), tmp_path)
    values = module("imagenet64.sweep").get_config(name)
    at_64 = sweep.expand(check(SweepConfig, values), tmp_path)
    assert len(at_224) == SWEEPS[name] and 3 * len(at_64) == 2 * len(at_224)
    augments = set()
    for run in (*at_224, *at_64):
        config = run.config.with_values(mesh={"data": 1})
        make_measurements(config)
        built = experiment.make(config)
        assert built.augmentation.augmentation.size in (224, 64)
        augments.add(config.augment)
    # What happens to an image can be traced at once; of networks there are few.
    image = jax.ShapeDtypeStruct((16, 16, 3), np.uint8)
    for augment in augments:
        built = experiment.make(small(at_224[0].config).with_values(augment=augment.to_dict()))
        found = jax.eval_shape(built.augmentation, jax.random.key(0), image, np.int32(16), 16)
        assert found.shape == (16, 16, 3)
    for model in {run.config.model.name for run in at_64}:
        trace_the_step(small(at_64[0].config).with_values(model={"name": model}))


@pytest.mark.parametrize("learned", module("paper.augerino").LEARNED)
def test_every_learned_augmentation_of_the_paper_can_be_traced(learned):
    config = check(ExperimentConfig, module("paper.recipe").get_config("resnet8,none"))
    trace_the_step(small(config.with_values(augment={"learned": learned})))


def test_a_learned_augmentation_takes_a_step():
    config = check(ExperimentConfig, module("imagenet64.recipe").get_config("resnet18,none"))
    learned = {"learned": module("paper.augerino").LEARNED[0]}
    loss = take_one_step(small(config.with_values(augment=learned, model={"name": "resnet8"})))
    # The regulariser takes a tenth of the widths' norm away.
    assert abs(loss - (np.log(10) - 0.1 * np.sqrt(1.2**2 + 1.2**2 + 2.52**2))) < 1


@pytest.mark.parametrize("name", ["resnet18", "vit_b16"])
def test_recipes_of_64_pixels_are_of_the_networks_that_suit_them(name):
    values = module("imagenet64.recipe").get_config(f"{name},translate")
    assert values.augment.name == "translate" and values.data.image_size == 64
    expected = {"resnet18": "resnet18(stem='cifar', stem_stride=2)", "vit_b16": "vit_mu8"}
    assert values.model.name == expected[name]
    pooled = module("imagenet64.recipe").at_64_pixels("modified_resnet18(stage4_pool=False)")
    assert pooled == "modified_resnet18(stem='cifar', stem_stride=2, stage4_pool=False)"


def test_evaluations_of_the_paper_are_on_training_images():
    plain = module("paper.invariance").get_config("resnet50,some.npz")
    assert (plain.eval.split, plain.model.weights) == ("train[:9600]", "some.npz")
    on_validation = module("paper.equivariance").get_config("resnet50,some.npz,validation")
    assert on_validation.eval.split == "validation[:9600]" and on_validation.eval.equivariance
    for values in (plain, on_validation):
        names = [each.name for each in make_measurements(check(ExperimentConfig, values))]
        assert "invariance" in names and "test_time" not in names
    with pytest.raises(UserError, match=r"'resnet50,some\.npz,tets'; expected MODEL,WEIGHTS or"):
        module("paper.invariance").get_config("resnet50,some.npz,tets")
    with pytest.raises(UserError, match="'augmentatoin'; expected one of: augmentation, "):
        module("imagenet64.sweep").get_config("augmentatoin")


def test_the_study_builds_every_run(tmp_path):
    get_config = module("study.sweep").get_config
    runs = sweep.expand(check(SweepConfig, get_config()), tmp_path)
    assert len(runs) == 108
    assert sum("untrained" in run.evaluate for run in runs) == 6
    half = sweep.expand(check(SweepConfig, get_config("half_of_classes")), tmp_path)
    assert {len(run.config.data.classes) for run in half} == {10} and len(half) == 12
    recipes = {
        run.config.with_values(augment={"name": "none"}).to_json()
        for run in runs
        if run.config.seed == 0 and run.config.data.fraction == 1 and not run.config.augment.learned
    }
    assert len(recipes) == 2  # but for what is compared, one recipe for each network
    for model in module("study.recipe").MODELS:
        one = check(ExperimentConfig, module("study.recipe").get_config(f"{model},translate"))
        assert one.augment.name == "translate" and len(set(one.data.classes)) == 20
        take_one_step(small(one))
        only = sweep.expand(check(SweepConfig, get_config(f"ablation,{model}")), tmp_path)
        assert [run.name for run in only] == [run.name for run in runs if model in run.name]
        of_search = check(SweepConfig, get_config(f"per_class,{model},a/b.nc"))
        augments = {run.config.augment.per_class for run in sweep.expand(of_search, tmp_path)}
        assert augments == {"searched(file='a/b.nc')", "searched(file='a/b.nc', share=0.5)"}
    for wrong in ("ablations", "ablation,resnet18", "per_class,vit_mu8"):
        with pytest.raises(UserError, match=f"is '{wrong}'; expected ablation"):
            get_config(wrong)


def test_every_config_is_tested_here():
    tested = [*RECIPES, "digits", "evaluate", "imagenet64_resnet18", "quickstart"]
    tested += ["similarity_search"]
    tested += [f"paper.{name}" for name in (*SWEEPS, "invariance", "equivariance")]
    tested += ["study.recipe", "study.sweep"]
    assert sorted([*tested, "imagenet64.recipe", "imagenet64.sweep"]) == NAMES


def test_the_readme_has_a_command_of_every_file():
    # benchmarks/config_commands.py finds commands alike, and runs them.
    text = (CONFIGS / "paper" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"`(?:launch/|invariance-jax )[^`]*?(configs/[\w/]+\.py)[^`]*`", text)
    assert all((CONFIGS.parent / path).is_file() for path in found)
    paper = {f"configs/paper/{name}.py" for name in (*SWEEPS, "invariance", "equivariance")}
    assert set(found) == paper | {"configs/imagenet64/sweep.py", "configs/similarity_search.py"}
    for name in SWEEPS:
        assert f"`launch/sweep.py configs/imagenet64/sweep.py:{name}" in text
