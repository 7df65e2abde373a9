"""The best checkpoint stays, the moving average is judged, and weights leave as safetensors."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors
from tiny_runs import tiny, with_

from invariance_jax import experiment, models
from invariance_jax.__main__ import main
from invariance_jax.evaluation import accuracy_table, results
from invariance_jax.evaluation.accuracy import Accuracy
from invariance_jax.training import loop
from invariance_jax.training.checkpoints import Checkpoints
from invariance_jax.training.loop import Progress

# Step 2 is the best of six; of the equally good ones the first.
TOP1 = {1: 0.3, 2: 0.6, 3: 0.1, 4: 0.6, 5: 0.2, 6: 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six steps, each validated with an accuracy from the table; two checkpoints stay."""
    workdir = tmp_path_factory.mktemp("best") / "run"
    config = tiny(
        "vit_mu8", steps=6, evaluate_every=1, checkpoint_every=1, keep_checkpoints=2, ema=0.5
    )
    judged = []

    def make_validate(built):
        def validate(variables):
            judged.append(jax.device_get(variables))
            return Accuracy(top1=TOP1[len(judged)], top5=0.9, images=10)

        return validate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_validate", make_validate)
        trained = loop.train(experiment.make(config), workdir, announce=lambda _: None)
    return config, workdir, trained, judged


def test_the_best_stays_beside_the_latest(run):
    _, workdir, trained, _ = run
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == [2, 5, 6]
    assert (trained.top1, trained.top5) == (0.5, 0.9)


def test_the_best_can_be_asked_for(run):
    config, workdir, _, judged = run
    built = experiment.make(config)
    with Checkpoints(workdir) as checkpoints:
        newest, progress = loop.restore_state(built, checkpoints)
        best, _ = loop.restore_state(built, checkpoints, best=True)
    assert (int(newest.step), int(best.step)) == (6, 2)
    assert (progress.best_step, progress.best_top1, progress.top1) == (2, 0.6, 0.5)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(best.ema), judged[1])


def test_the_average_is_what_is_validated(run):
    _, _, trained, judged = run
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained.state.ema), judged[-1])
    distance = jax.tree.map(
        lambda e, v: float(abs(e - v).max()), judged[-1], jax.device_get(trained.state.variables)
    )
    assert max(jax.tree.leaves(distance)) > 1e-5


def test_a_better_validation_between_two_checkpoints_is_saved(tmp_path):
    config = tiny("vit_mu8", steps=3, evaluate_every=1, checkpoint_every=3)
    top1 = iter((0.5, 0.4, 0.3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "make_validate", lambda _: lambda _: Accuracy(top1=next(top1), top5=1, images=1)
        )
        loop.train(experiment.make(config), tmp_path, announce=lambda _: None)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 3]


def test_progress_counts_the_first_of_equals():
    progress = Progress().validated(1, Accuracy(top1=0.0, top5=0.1, images=1))
    assert (progress.best_step, progress.best_top1) == (1, 0.0)
    later = progress.validated(2, Accuracy(top1=0.0, top5=0.2, images=1))
    assert (later.best_step, later.top5) == (1, 0.2)


def test_a_checkpoint_says_what_was_trained(run):
    config, workdir, _, _ = run
    stored = json.loads((workdir / "checkpoints" / "6" / "progress" / "metadata").read_text())
    assert stored["config"] == json.loads(config.to_json()) and stored["step"] == 6


@pytest.mark.parametrize(("checkpoint", "step"), [("newest", 6), ("best", 2)])
def test_export_writes_the_average_in_torchs_names(checkpoint, step, run, tmp_path, capsys):
    _, workdir, _, judged = run
    path = tmp_path / "weights.safetensors"
    flags = [f"--workdir={workdir}", f"--output={path}", f"--checkpoint={checkpoint}"]
    assert main(["export", *flags]) == 0
    assert f"vit_mu8 after {step} steps" in capsys.readouterr().out
    arrays = models.load_weights(path)
    assert arrays["blocks.0.attn.qkv.weight"].shape == (192, 64)
    variables = models.import_weights("vit_mu8", arrays)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(variables), judged[step - 1])
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["step"] == str(step)
        assert json.loads(file.metadata()["config"])["model"]["name"] == "vit_mu8"


@pytest.mark.parametrize(("checkpoint", "step"), [("newest", 6), ("best", 2)])
def test_evaluate_measures_the_one_that_is_asked_for(checkpoint, step, run, tmp_path):
    _, workdir, _, judged = run
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    assert main(["evaluate", f"--workdir={copy}", f"--checkpoint={checkpoint}"]) == 0
    (row,) = accuracy_table.read(copy / "accuracy.csv")
    (file,) = copy.glob("invariance/*.nc")
    assert row.steps == step
    assert results.read(file).attrs["parameters_sha256"] == results.fingerprint(judged[step - 1])


def test_an_export_can_be_started_from(run, tmp_path):
    config, workdir, trained, _ = run
    path = tmp_path / "weights.safetensors"
    assert main(["export", f"--workdir={workdir}", f"--output={path}"]) == 0
    started = experiment.make(with_(config, model={"weights": str(path)})).init_state()
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(started.params),
        jax.device_get(trained.state.ema["params"]),
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
