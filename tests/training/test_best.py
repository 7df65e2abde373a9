"""The best checkpoint stays, the moving average is judged, and weights leave as safetensors."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors
from tiny_runs import tiny, with_

from invariance_jax import models
from invariance_jax.__main__ import main
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.training import checkpoints, experiment, loop, workdir
from invariance_jax.training.checkpoints import Progress
from invariance_jax.training.loop import Validation

# Step 2 is the best of six; of the equally good ones the first.
TOP1 = {1: 0.3, 2: 0.6, 3: 0.1, 4: 0.6, 5: 0.2, 6: 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six steps, each validated with an accuracy from the table; two checkpoints stay."""
    folder = tmp_path_factory.mktemp("best") / "run"
    config = tiny(steps=6, evaluate_every=1, checkpoint_every=1, keep_checkpoints=2)
    judged = []

    def make_validate(built):
        def validate(networks):
            judged.extend(map(jax.device_get, networks))
            return [Validation(top1=TOP1[len(judged)], top5=0.9, images=10, loss=1.0)]

        return validate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_validate", make_validate)
        trained = loop.train(experiment.make(config), folder, announce=lambda _: None)
    return config, folder, trained, judged


def test_the_best_stays_beside_the_latest(run):
    _, folder, trained, _ = run
    assert checkpoints.steps(folder) == [2, 5, 6]
    assert (trained.top1, trained.top5) == (0.5, 0.9)


def test_the_best_can_be_asked_for(run):
    config, folder, trained, judged = run
    newest, best = (workdir.load_run(folder, best=each) for each in (False, True))
    assert (newest.step, best.step) == (6, 2)
    for found, step in ((newest, 6), (best, 2)):
        assert found.config == config and found.num_classes == 10
        jax.tree.map(np.testing.assert_array_equal, found.variables, judged[step - 1])
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.variables))
    assert newest.seconds == trained.seconds > best.seconds > 0
    built = experiment.make(config)
    _, progress = checkpoints.restore_state(folder, built.abstract_state, print)
    assert (progress.best_step, progress.best_top1, progress.top1) == (2, 0.6, 0.5)


@pytest.mark.parametrize("damage", ["deleted", "damaged"])
def test_a_best_checkpoint_that_cannot_be_read_is_no_other(damage, run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run[1], copy)
    if damage == "deleted":
        shutil.rmtree(copy / "checkpoints" / "2")
    else:
        (copy / "checkpoints" / "2" / "state" / "manifest.ocdbt").write_bytes(b"garbage" * 20)
    flags = [f"--workdir={copy}", f"--output={tmp_path / 'w.safetensors'}", "--checkpoint=best"]
    assert main(["export", *flags]) == 2
    message = capsys.readouterr().err
    assert "the checkpoint of step 2, the best in validation, cannot be read: " in message
    assert "--checkpoint=newest" in message and message.count("\n") == 1
    assert workdir.load_run(copy).step == 6


def test_the_average_is_what_is_validated(run):
    _, _, trained, judged = run
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained.state.ema), judged[-1])
    distance = jax.tree.map(
        lambda e, v: float(abs(e - v).max()), judged[-1], jax.device_get(trained.state.variables)
    )
    assert max(jax.tree.leaves(distance)) > 1e-5


def test_without_average_parameters_and_statistics_are_read(run, tmp_path):
    plain = with_(run[0], train={"ema_decay": 0.0})
    (tmp_path / "config.json").write_text(plain.to_json())
    state = experiment.make(plain).init_state()
    with checkpoints.CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(1, state, Progress(), plain.to_dict())
    found = workdir.load_run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.variables, jax.device_get(state.variables))
    assert found.step == 1 and set(found.variables) == {"params", "batch_stats"}


def test_a_better_validation_between_two_checkpoints_is_saved(tmp_path):
    config = tiny(steps=3, evaluate_every=1, checkpoint_every=3)
    top1 = iter((0.5, 0.4, 0.3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "make_validate", lambda _: lambda _: [Validation(next(top1), 1, 1, loss=1.0)]
        )
        loop.train(experiment.make(config), tmp_path, announce=lambda _: None)
    assert checkpoints.steps(tmp_path) == [1, 3]


def test_progress_counts_the_first_of_equals():
    progress = Progress().validated(1, 0.0, 0.1)
    assert (progress.best_step, progress.best_top1) == (1, 0.0)
    later = progress.validated(2, 0.0, 0.2)
    assert (later.best_step, later.top5) == (1, 0.2)


def test_a_checkpoint_says_what_was_trained(run):
    config, folder, _, _ = run
    stored = json.loads((folder / "checkpoints" / "6" / "progress" / "metadata").read_text())
    assert stored["config"] == json.loads(config.to_json()) and stored["step"] == 6


@pytest.mark.parametrize(("checkpoint", "step"), [("newest", 6), ("best", 2)])
def test_export_writes_the_average_in_torchs_names(checkpoint, step, run, tmp_path, capsys):
    _, folder, _, judged = run
    # Somewhere without the images.
    copy, path = tmp_path / "copy", tmp_path / "weights.safetensors"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["data"] |= {"name": "imagenet2012", "data_dir": str(tmp_path / "nowhere")}
    (copy / "config.json").write_text(json.dumps(config))
    flags = [f"--workdir={copy}", f"--output={path}", f"--checkpoint={checkpoint}"]
    assert main(["export", *flags]) == 0
    assert f"resnet8 after {step} steps" in capsys.readouterr().out
    arrays = models.load_weights(path)
    assert arrays["layer1.0.conv1.weight"].shape == (16, 16, 3, 3)
    variables = models.import_weights("resnet8", arrays)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(variables), judged[step - 1])
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["step"] == str(step) and metadata["format"] == "pt"
    assert json.loads(metadata["config"])["model"]["name"] == "resnet8"
    assert metadata["parameters_sha256"] == results.fingerprint(judged[step - 1])


@pytest.mark.parametrize(("checkpoint", "step"), [("newest", 6), ("best", 2)])
def test_evaluate_measures_the_one_that_is_asked_for(checkpoint, step, run, tmp_path):
    _, folder, _, judged = run
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    flags = [f"--checkpoint={checkpoint}", "--config.eval.measurements=accuracy"]
    assert main(["evaluate", f"--workdir={copy}", *flags]) == 0
    (file,) = copy.glob("accuracy/*.nc")
    attributes = results.read(file).attrs
    assert attributes["steps"] == step
    assert attributes["parameters_sha256"] == results.fingerprint(judged[step - 1])


def test_an_export_can_be_started_from(run, tmp_path):
    config, folder, trained, _ = run
    path = tmp_path / "weights.safetensors"
    assert main(["export", f"--workdir={folder}", f"--output={path}"]) == 0
    started = experiment.make(with_(config, model={"weights": str(path)})).init_state()
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(started.variables),
        jax.device_get(trained.state.ema),
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output=w.safetensors"], "--workdir is missing"),
        (["--workdir=RUN"], "--output is missing"),
        (["--workdir=RUN", "--output=w.npz"], "expected a name that ends in .safetensors"),
        (
            ["--workdir=RUN", "--output=w.safetensors", "--checkpoint=bset"],
            "--checkpoint=bset: value should be one of <newest|best>",
        ),
        (["--workdir=nowhere", "--output=w.safetensors"], "nowhere holds no run"),
    ],
)
def test_mistakes_of_export_are_named(flags, message, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *(flag.replace("RUN", str(run[1])) for flag in flags)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_is_named(tmp_path):
    (tmp_path / "config.json").write_text(tiny().to_json())
    with pytest.raises(UserError, match="holds no checkpoint yet; train it first"):
        workdir.load_run(tmp_path)
