"""`config.model.weights`: runs that start from a file, and files that do not fit."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from invariance_jax import models
from invariance_jax.__main__ import main
from invariance_jax.commands import evaluate
from invariance_jax.config import ExperimentConfig
from invariance_jax.configs import digits
from invariance_jax.evaluation import results
from invariance_jax.evaluation.evaluate import read_table
from invariance_jax.fields import check
from invariance_jax.training import experiment

DIGITS = f"--config={pathlib.Path(__file__).parents[2] / 'configs' / 'digits.py'}"
SMALL = [
    "--config.data.train_split=train[:20]",
    "--config.data.validation_split=validation[:10]",
    "--config.data.image_size=8",
    "--config.data.resize_size=8",
    "--config.train.steps=1",
    "--config.train.batch_size=8",
    "--config.optimizer.warmup_steps=0",
    "--config.optimizer.learning_rate=0.0",
    "--config.eval.split=validation[:6]",
    "--config.eval.per_device_batch_size=8",
    "--config.mesh.data=1",
]


def config_of(model, weights, **data):
    values = digits.get_config(model)
    values.model.weights = str(weights)
    values.mesh = {"data": 1}
    values.data.update({"image_size": 8, "resize_size": 8, **data})
    return check(ExperimentConfig, values)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A ViT for 8-pixel digits, not the one that seed 0 draws."""
    values = config_of("vit_mu8", "").with_values(seed=7)
    variables = experiment.make(values).init_state().variables
    path = tmp_path_factory.mktemp("weights") / "seven.safetensors"
    safetensors.numpy.save_file(models.export_weights("vit_mu8", variables), path)
    return path


def test_a_run_starts_from_the_file(file):
    state = experiment.make(config_of("vit_mu8", file)).init_state()
    exported = models.export_weights("vit_mu8", jax.device_get(state.variables))
    for key, value in safetensors.numpy.load_file(file).items():
        np.testing.assert_array_equal(exported[key], value, err_msg=key)
    drawn = experiment.make(config_of("vit_mu8", "")).init_state()
    assert np.abs(drawn.params["head"]["kernel"] - state.params["head"]["kernel"]).max() > 1e-3


def test_what_is_taken_of_a_file_is_said_by_fields(file, tmp_path):
    arrays = safetensors.numpy.load_file(file)
    both = {f"{name}.{key}": factor * value for name, factor in (("model", 1), ("model_ema", 2))
            for key, value in arrays.items()}  # fmt: skip
    path = tmp_path / "both.safetensors"
    safetensors.numpy.save_file(both, path)
    config = config_of("vit_mu8", path, image_size=16, resize_size=16)
    config = config.with_values(model={"which_weights": "ema", "resample_pos_embed": True})
    for variables in (evaluate.initial(config).variables, experiment.make(config).load_weights()):
        params = variables["params"]
        np.testing.assert_array_equal(params["cls_token"], 2 * arrays["cls_token"])
        assert params["pos_embed"].shape == (1, 1 + 2 * 2, 64)  # was 1 + 1 * 1
    assert config.training_label(0) == "weights both.safetensors (ema)"


def test_a_run_is_validated_as_its_config_normalises():
    built = experiment.make(config_of("vit_mu8", "", mean=(0.5,) * 3, std=(0.25,) * 3))
    model = built.as_model(built.init_state().variables)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    inputs = jnp.asarray((images - 0.5) / 0.25)
    expected = built.model.apply(model.variables, inputs, train=False)
    np.testing.assert_allclose(model(images), expected[1]["embedding"], rtol=1e-4, atol=1e-5)
    assert (model.image_size, model.preprocessing.std) == (8, (0.25,) * 3)


def test_training_and_evaluation_from_weights(file, tmp_path, capsys):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    workdir = tmp_path / "run"
    half = [f"--config.data.{name}=(0.5, 0.5, 0.5)" for name in ("mean", "std")]
    flags = [f"--workdir={workdir}", f"--config.model.weights={moved}", *SMALL, *half]
    assert main(["train", f"{DIGITS}:vit_mu8,flip", *flags]) == 0
    assert main(["evaluate", f"--workdir={workdir}", "--untrained"]) == 0
    # A run that has a checkpoint needs the file no longer.
    moved.unlink()
    assert main(["train", f"{DIGITS}:vit_mu8,flip", *flags]) == 0
    assert main(["evaluate", f"--workdir={workdir}"]) == 0
    rows = read_table(workdir / "accuracy.csv")
    assert [row["augmentation"] for row in rows] == ["weights moved.safetensors", "flip"]
    # With a learning rate of 0 the trained model is the file's.
    before, after = (
        results.read(workdir / "invariance" / f"vit_mu8_{name}_seed0.nc")
        for name in ("weights_moved_safetensors", "flip")
    )
    assert before.attrs["parameters_sha256"] == after.attrs["parameters_sha256"]
    assert before.attrs["augmentation"] == "weights moved.safetensors"
    # Both take images as timm's networks want them, as does a model in a notebook.
    for distance in ("transformed_cosine", "baseline_cosine"):
        np.testing.assert_allclose(before[distance], after[distance], rtol=1e-5, atol=1e-6)
    model = models.load_model("vit_mu8", file, image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    _, features = model.apply(model.variables, jnp.asarray(2 * images - 1))
    np.testing.assert_allclose(model(images), features["embedding"], rtol=1e-5, atol=1e-6)
    assert tuple(json.loads(after.attrs["config"])["data"]["mean"]) == (0.5, 0.5, 0.5)


def test_policies_and_mixing_train(tmp_path):
    policies = "('random_transform(name=\\'rotate\\')', 'random_erasing')"
    flags = [f"--config.augment.policies={policies}", "--config.augment.mixing=('mixup',)"]
    assert main(["train", f"{DIGITS}:vit_mu8,none", f"--workdir={tmp_path}", *SMALL, *flags]) == 0
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 0
    (row,) = read_table(tmp_path / "accuracy.csv")
    assert row["augmentation"] == "none + random_transform(name='rotate') + random_erasing + mixup"


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("vit_mu8", ["--config.model.weights=none.npz"], "weights 'none.npz': no such file"),
        ("vit_mu8", ["--config.model.weights=none.h5"], "this is Keras's form"),
        ("resnet8", [], "weights do not fit model 'resnet8'"),
        (
            "vit_mu8",
            ["--config.data.image_size=16", "--config.data.resize_size=16"],
            "resample_pos_embed",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    file, model, flags, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    start = [f"{DIGITS}:{model},flip", "--workdir=x", *SMALL, f"--config.model.weights={file}"]
    assert main(["train", *start, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("invariance-jax: config.model.weights") and message in error
    assert error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_weights_are_measured_without_a_run(file, tmp_path, capsys):
    flags = [f"{DIGITS}:vit_mu8", f"--workdir={tmp_path}", *SMALL]
    layers = "--config.eval.features=('block1',)"
    assert main(["evaluate", *flags, f"--config.model.weights={file}", layers]) == 0
    shown = capsys.readouterr()
    (row,) = read_table(tmp_path / "accuracy.csv")
    assert (row["augmentation"], row["steps"]) == ("weights seven.safetensors", "0")
    path = tmp_path / "invariance" / "vit_mu8_weights_seven_safetensors_seed0.nc"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    found = results.read(path)
    expected = experiment.make(config_of("vit_mu8", file)).init_state().variables
    assert found.attrs["parameters_sha256"] == results.fingerprint(expected)
    assert results.read(path, "features").feature.values.tolist() == ["embedding", "block1"]
    assert results.summary(found) in shown.out
    bar = "vit_mu8_weights_seven_safetensors_seed0 validation[:6]: invariance: 100% 6/6 images"
    assert bar in shown.err
    assert ": compiling:" in shown.err  # before the bar that counts images
    # What is shown of the images as they are, is their accuracy.
    untouched = found.sel(transform="rotate", magnitude=0)
    assert not untouched.flip.any()
    np.testing.assert_array_equal(untouched.correct, found.prediction.values == found.label.values)

    # Percentiles by class are added to the finished file without another measurement.
    classes = "--config.eval.per_class=True"
    assert main(["evaluate", *flags, f"--config.model.weights={file}", layers, classes]) == 0
    assert "images" not in capsys.readouterr().err
    assert results.read(path).identical(found)
    by_class = results.read(path, "classes")
    assert by_class.images.sum() == 6 and set(results.groups(path)) == {"classes", "features"}

    # A report tells it from an untrained network.
    assert main(["report", str(tmp_path), f"--output={tmp_path / 'page'}"]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "weights seven.safetensors" in page and "untrained vit_mu8" not in page


def test_there_must_be_something_to_measure(tmp_path, capsys):
    assert main(["evaluate", f"{DIGITS}:vit_mu8", f"--workdir={tmp_path}", *SMALL]) == 2
    assert "config.model.weights is empty, so that there is nothing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_not_measured(file, tmp_path, capsys):
    flags = [f"{DIGITS}:resnet8", f"--workdir={tmp_path}", f"--config.model.weights={file}"]
    assert main(["evaluate", *flags, *SMALL]) == 2
    error = capsys.readouterr().err
    assert "config.model.weights: weights do not fit model 'resnet8'" in error
    assert error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_images_are_prepared_as_a_file_beside_the_weights_says(file, tmp_path, capsys):
    hub = tmp_path / "hub"
    hub.mkdir()
    weights = hub / "model.safetensors"
    weights.write_bytes(file.read_bytes())
    wanted = {"input_size": [3, 8, 8], "crop_pct": 0.8, "interpolation": "bicubic"}
    colours = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (hub / "config.json").write_text(json.dumps({"pretrained_cfg": wanted | colours}))
    config = pathlib.Path(DIGITS.removeprefix("--config=")).with_name("evaluate.py")
    sizes = [each for each in SMALL if "_size=8" not in each or "batch" in each]
    flags = [f"--config={config}:vit_mu8,{weights}", "--config.data.name=digits", *sizes]
    one = ["--config.eval.measurements=('invariance',)", "--config.eval.local_equivariance=()"]
    flags += [*one, "--config.eval.test_time=()"]
    assert main(["evaluate", *flags, f"--workdir={tmp_path / 'a'}"]) == 0
    said = (
        "shorter side to 10 pixels, bicubic, centre of 8, mean 0.5 0.5 0.5, standard deviation "
        "0.5 0.5 0.5 (config.json beside the weights)"
    )
    assert f"images: {said}" in capsys.readouterr().out
    name = "invariance/vit_mu8_weights_model_safetensors_seed0.nc"
    found = results.read(tmp_path / "a" / name)
    assert found.attrs["preprocessing"] == said
    stored = json.loads(found.attrs["config"])["data"]
    assert (stored["interpolation"], stored["resize_size"]) == ("bicubic", 10)

    # A flag knows better, and is said to.
    flags += ["--config.data.interpolation=bilinear", f"--workdir={tmp_path / 'b'}"]
    assert main(["evaluate", *flags]) == 0
    assert "beside the weights; interpolation as given)" in capsys.readouterr().out
    other = results.read(tmp_path / "b" / name)
    assert np.abs(other.transformed_cosine - found.transformed_cosine).max() > 1e-4

    assert main(["report", str(tmp_path / "a"), f"--output={tmp_path / 'page'}"]) == 0
    assert said in (tmp_path / "page" / "report.html").read_text()
