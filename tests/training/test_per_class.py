"""Operations of each class inside the training step, and around it: files, resume, mistakes."""

import csv

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from tiny_runs import stopped_after, take_steps, tiny

from invariance_jax.__main__ import main
from invariance_jax.augment.mixing import mix
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.factors.rows import Row, coordinates
from invariance_jax.training import experiment, loop, metrics, program
from invariance_jax.training.step import example_keys, make_train_step

ROWS = ("shear_x 5", "color 4", "rotate 9", "invert 3")
DIGITS = tuple(map(str, range(10)))


def write_search(path, names=DIGITS, classes=range(10)):
    """A search of 20 pairs a class: class 3 has no boost, others of some rows."""
    labels = np.repeat(list(classes), 20)
    change = np.random.default_rng(0).normal(0.05, 0.2, (len(labels), len(ROWS)))
    change[labels == 3] = -0.1
    found = xr.Dataset(
        {
            "change": (("pair", "row"), change),
            "similarity": ("pair", np.full(len(labels), 0.5)),
        },
        {
            "label": ("pair", labels.astype(np.int32)),
            "class_name": ("pair", np.asarray(names)[labels]),
            **coordinates([Row.parse(each) for each in ROWS]),
        },
    )
    results.write(found, path)
    return path


class MeanColour(nn.Module):
    """Nearly no network: what an image gets is seen in the loss, and little is compiled."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        z = images.mean((1, 2)) + images[:, 2, 3]
        return nn.Dense(self.num_classes, name="head")(z), {"embedding": z}


@pytest.fixture(scope="module", autouse=True)
def no_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "_make_model", lambda config, classes: MeanColour(classes))
        yield


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return write_search(tmp_path_factory.mktemp("search") / "found.nc")


def config_of(search, options="", **sections):
    chosen = f"searched(file='{search}', probability=0.9{options})"
    return tiny().with_values(augment={"name": "flip", "per_class": chosen}, **sections)


@pytest.fixture(scope="module")
def finished(search, tmp_path_factory):
    """An uninterrupted run, what it said, and its folder."""
    folder, said = tmp_path_factory.mktemp("per_class") / "run", []
    config = config_of(search)
    return config, loop.train(experiment.make(config), folder, announce=said.append), folder, said


def first_step(config, augmentation=None, canvas=None):
    """The state after a step of the config, or of another augmentation and canvases."""
    built = experiment.make(config)
    batch = next(loop.training_input(built, 0))
    if canvas is not None:
        batch = {**batch, "canvas": canvas}
    step = make_train_step(
        built.model,
        augmentation or built.whole_augmentation.on_batch,
        lambda key, images, target: mix(images, target, jnp.float32(0.7)),
        built.optimizer,
        built.schedule,
        jax.random.key(config.seed),
        normalize=lambda images: images,
        loss=built.loss,
        grad_accum_steps=config.train.grad_accum_steps,
        ema_decay=config.train.ema_decay,
    )
    state, found = jax.jit(step)(built.init_state(), program.no_metrics(built), batch)
    return built, batch, jax.device_get(state), found.compute()["loss"]


def test_the_step_looks_rows_up_by_label_before_mixing_smoothing_and_accumulation(search):
    config = config_of(search, train={"label_smoothing": 0.1, "grad_accum_steps": 2})
    built, batch, state, loss = first_step(config)
    keys = example_keys(jax.random.key(config.seed), 0, batch["index"])
    shown = (keys, batch["canvas"], batch["height"], batch["width"], batch["label"])
    # One image at a time is what tests/factors looks at.
    augmented = jax.jit(jax.vmap(built.whole_augmentation))
    images = augmented(*shown)
    _, _, expected, expected_loss = first_step(config, lambda key, image, *_: image, images)
    assert loss == pytest.approx(float(expected_loss), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, expected)
    # The labels matter: with those of the next images the loss is another.
    others = augmented(*shown[:4], jnp.roll(batch["label"], 1))
    assert (np.abs(images - others).max((1, 2, 3)) > 0.05).sum() > 2


def test_before_and_instead(search):
    built = experiment.make(config_of(search, ", when='before'"))
    before, batch = built.whole_augmentation, next(loop.training_input(built, 0))
    keys = example_keys(jax.random.key(0), 0, batch["index"])
    shown = (keys, batch["canvas"], batch["height"], batch["width"], batch["label"])
    found, expected = jax.jit(before.on_batch)(*shown), jax.jit(jax.vmap(before))(*shown)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert before.square.name == "none" and before.square.size == 8
    assert before.augmentation.augmentation.name == "flip"
    instead = experiment.make(config_of(search, ", when='instead'")).whole_augmentation
    assert instead.square is None and instead.augmentation.augmentation.name == "none"
    after = experiment.make(config_of(search)).whole_augmentation
    assert after.square is None and after.augmentation == before.augmentation


def test_it_says_and_lists_what_classes_kept(finished):
    config, _, folder, said = finished
    built = experiment.make(config)
    (line,) = [each for each in said if "per-class" in each]
    assert "per-class augmentation of 9 of 10 classes; " in line and "so many: 0: 1, " in line
    with (folder / "per_class.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {x["class_name"] for x in lines} == set(DIGITS)
    kept = {int(x["class"]): [] for x in lines}
    for x in lines:
        if x["row"]:
            kept[int(x["class"])].append(x["row"])
    assert kept == {n: [x.row.label for x in each] for n, each in built.rows_by_class.items()}
    assert not kept[3]
    assert built.config.augment.label.endswith(" + searched(file='found.nc', probability=0.9)")


def test_sharded_equals_one_device(finished):
    config, _, folder, _ = finished
    expected = [row["loss"] for row in metrics.read_metrics(folder)]
    _, losses = take_steps(config.with_values(mesh={"data": 8}), 4)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one_and_another_search_is_refused(
    finished, tmp_path
):
    config, uninterrupted, _, _ = finished
    search = write_search(tmp_path / "found.nc")
    config = config_of(search)
    with stopped_after(3):
        loop.train(experiment.make(config), tmp_path / "run", announce=lambda _: None)
    write_search(search, classes=range(9))
    with pytest.raises(UserError, match=r"per_class chooses other rows than .*per_class\.csv"):
        loop.train(experiment.make(config), tmp_path / "run")
    write_search(search)
    resumed = loop.train(experiment.make(config), tmp_path / "run", announce=lambda _: None)
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(resumed.state),
        jax.device_get(uninterrupted.state),
    )


MISTAKES = {
    "other classes": ("is a search of other classes: its class 0 is 'null', here '0'", {}),
    "nothing left": ("none of 10 classes keeps a row", {"options": ", least_proportion=1.0"}),
    "no class in common": (
        "none of 1 classes keeps a row",
        {"data": {"classes": (3,)}},
    ),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_mistakes_are_one_line_before_any_work(which, search, tmp_path, capsys):
    message, changes = MISTAKES[which]
    if which == "other classes":
        search = write_search(tmp_path / "other.nc", names=("null", *DIGITS[1:]))
    config = config_of(search, **changes)
    file = tmp_path / "config.py"
    file.write_text(f"def get_config():\n    return {config.to_dict()!r}\n")
    workdir = tmp_path / "run"
    assert main(["train", f"--config={file}", f"--workdir={workdir}"]) == 2
    said = capsys.readouterr().err
    assert "config.augment.per_class: " in said and message in said and said.count("\n") == 1
    assert not workdir.exists()


def test_evaluation_knows_no_classes(search):
    config = config_of(search)
    evaluated = {"measurements": ("averaged_accuracy",)}
    with pytest.raises(UserError, match=r"config\.augment\.per_class is .*not known in evaluation"):
        make_measurements(config.with_values(eval=evaluated))
    named = {"measurements": ("averaged_accuracy(augmentation='flip')",)}
    assert make_measurements(config.with_values(eval=named))[0].described == "flip"
    with pytest.raises(UserError, match=r"test_time\[0\]: unknown augmentation 'named'"):
        make_measurements(config.with_values(eval={"test_time": ("named",)}))
