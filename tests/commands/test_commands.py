"""The command line as people use it: results where they belong, mistakes in one line."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import xarray as xr

from invariance_jax.__main__ import main
from invariance_jax.evaluation import results
from invariance_jax.evaluation.evaluate import read_table
from invariance_jax.evaluation.shards import Shards
from invariance_jax.report import load

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"
# Four steps of eight small images: what is tested here is the wiring.
SMALL = [
    "--config.data.train_split=train[:20]",
    "--config.data.validation_split=validation[:10]",
    "--config.data.image_size=8",
    "--config.data.resize_size=8",
    "--config.train.steps=4",
    "--config.train.batch_size=8",
    "--config.train.checkpoint_every=2",
    "--config.optimizer.warmup_steps=1",
    "--config.eval.split=validation[:6]",
    "--config.eval.per_device_batch_size=8",
    "--config.mesh.data=1",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A trained and evaluated run."""
    folder = tmp_path_factory.mktemp("runs") / "flip"
    assert main(["train", f"{DIGITS}:resnet8,flip", f"--workdir={folder}", *SMALL]) == 0
    assert main(["evaluate", f"--workdir={folder}"]) == 0
    assert main(["evaluate", f"--workdir={folder}", "--untrained"]) == 0
    return folder


def test_train_evaluate_and_report_meet_in_the_workdir(workdir, tmp_path):
    trained, untrained = read_table(workdir / "accuracy.csv")
    assert (trained["model"], trained["augmentation"], trained["steps"]) == ("resnet8", "flip", "4")
    assert (untrained["augmentation"], untrained["steps"]) == ("untrained", "0")
    # The table says of which data it is.
    assert (trained["dataset"], trained["split"]) == ("digits", "validation[:10]")
    correct = results.read(workdir / "accuracy" / "resnet8_flip_seed0.nc").correct_top1
    assert float(trained["top1"]) == pytest.approx(float(correct.mean()), abs=1e-6)
    found = results.read(workdir / "invariance" / "resnet8_flip_seed0.nc")
    assert dict(found.sizes) == {"transform": 13, "magnitude": 10, "image": 6}
    assert found.attrs["domain"] == "pixel"
    assert found.attrs["steps"] == 4 and found.attrs["augmentation"] == "flip"
    other = results.read(workdir / "invariance" / "resnet8_untrained_seed0.nc")
    assert other.attrs["parameters_sha256"] != found.attrs["parameters_sha256"]

    assert main(["report", str(workdir), f"--output={tmp_path / 'page'}"]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "resnet8" in page and "flip" in page and found.attrs["parameters_sha256"][:8] in page


def test_train_again_goes_on_and_finds_nothing_to_do(workdir, capsys):
    assert main(["train", f"{DIGITS}:resnet8,flip", f"--workdir={workdir}", *SMALL]) == 0
    assert "going on from the checkpoint of step 4" in capsys.readouterr().out


def test_evaluate_does_not_overwrite_another_measurement(workdir, capsys):
    path = workdir / "invariance" / "resnet8_flip_seed0.nc"
    before = path.read_bytes()
    flags = ["evaluate", f"--workdir={workdir}", "--config.eval.seed=5"]
    assert main(flags) == 2
    assert "config.eval.seed" in capsys.readouterr().err and path.read_bytes() == before
    assert main(["evaluate", f"--workdir={workdir}", "--config.eval.domain=normalized"]) == 2
    assert "config.eval.domain" in capsys.readouterr().err and path.read_bytes() == before
    assert main(["evaluate", f"--workdir={workdir}"]) == 0  # the same one is simply kept
    assert path.read_bytes() == before
    try:
        assert main([*flags, "--config.eval.domain=normalized", "--overwrite"]) == 0
        attributes = results.read(path).attrs
        assert json.loads(attributes["config"])["eval"]["seed"] == 5
        assert attributes["domain"] == "normalized"
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tarin"], "unknown command 'tarin'; did you mean 'train'"),
        (["train"], "--config is missing"),
        (["train", DIGITS], "--workdir is missing"),
        (["train", "--config=none.py", "--workdir=x"], "--config: unknown file 'none.py'"),
        (
            ["train", "--config=config/digits.py", "--config.seed=1", "--workdir=x"],
            "did you mean 'configs/digits.py'?",
        ),
        (["train", DIGITS, "--workdir=x", "--wrokdir=y"], "wrokdir"),
        (["train", DIGITS, "--workdir=x", "extra"], "unexpected argument 'extra'"),
        (
            ["train", DIGITS, "--workdir=x", "--config.train.stepz=4"],
            "--config.train.stepz: unknown field 'stepz'; did you mean 'steps'? one of: ",
        ),
        (
            ["train", DIGITS, "--workdir=x", "--config.train.steps=many"],
            "config.train.steps is 'many' (str); expected a whole number",
        ),
        (
            ["train", DIGITS, "--workdir=x", "--steps=4"],
            "Unknown command line flag 'steps'; did you mean --config.train.steps?",
        ),
        (
            ["train", DIGITS, "--workdir=x", "--config.train=4"],
            "--config.train is a group of fields: batch_size, steps",
        ),
        (["train", DIGITS, "--workdir=x", "--config.seed"], "--config.seed has no value"),
        (["train", "--config.seed=1", "--workdir=x"], "--config.seed needs --config=FILE"),
        (
            ["train", DIGITS, "--workdir=x", "--config.augment.name=transalte"],
            "config.augment.name: unknown augmentation 'transalte'; did you mean 'translate'?",
        ),
        (
            ["train", DIGITS, "--workdir=x", "--config.data.name=imagenet2012"],
            "config.data.data_dir is empty",
        ),
        (
            [
                *("train", DIGITS, "--workdir=x", "--config.data.name=imagenet2012"),
                f"--config.data.data_dir={ROOT}",
            ],
            "config.data.name 'imagenet2012' is not prepared in config.data.data_dir",
        ),
        (
            ["train", DIGITS, "--workdir=x", "--config.train.batch_size=12"],
            "config.train.batch_size is 12; expected a multiple of 8",
        ),
        (["evaluate"], "--workdir is missing"),
        (["evaluate", DIGITS, "--untrained"], "--workdir is missing"),
        (
            [
                "evaluate",
                DIGITS,
                "--untrained",
                "--workdir=x",
                "--config.eval.split=validation[:1]",
            ],
            "'validation[:1]', which holds 1 images; expected at least 2",
        ),
        (
            [
                "evaluate",
                DIGITS,
                "--untrained",
                "--workdir=x",
                "--config.eval.split=validation[:0]",
            ],
            "config.eval.split: split 'validation[:0]' holds no image",
        ),
        (
            ["evaluate", DIGITS, "--untrained", "--workdir=x", "--config.eval.pooling=max"],
            "config.eval.pooling: unknown pooling 'max'; one of: mean, none",
        ),
        (
            ["evaluate", DIGITS, "--untrained", "--workdir=x", "--config.eval.shard_size=0"],
            "config.eval.shard_size is 0 (int); expected at least 1",
        ),
        (["evaluate", "--workdir=nowhere"], "nowhere holds no run"),
        (["report"], "no folder given"),
        (["report", "nowhere"], "report's argument is 'nowhere'; expected a folder that exists"),
        (["quickstart", "--config.axis.seed=(0,)"], "unknown field 'axis'; did you mean 'axes'"),
        (["quickstart", "--config.axes.model.name=('resnet9',)"], "unknown model 'resnet9'"),
        (["quickstart", "--config.axes.modle.name=('a',)"], "did you mean 'model'"),
        (
            [
                "evaluate",
                DIGITS,
                "--untrained",
                "--workdir=x",
                "--config.eval.measurements=acuracy",
            ],
            "config.eval.measurements[0]: unknown measurement 'acuracy'; did you mean 'accuracy'?",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_mistakes_end_with_code_2_and_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("invariance-jax: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_evaluate_leaves_results_of_another_split_elsewhere(workdir, tmp_path):
    flags = [f"--workdir={workdir}", "--config.eval.split=train[:6]", f"--output={tmp_path}"]
    measured = "--config.eval.measurements=('invariance',)"
    before = {path: path.read_bytes() for path in workdir.rglob("*.nc")}
    assert main(["evaluate", *flags, measured]) == 0
    (found,) = tmp_path.glob("invariance/*.nc")
    with xr.open_dataset(found, engine="h5netcdf") as data:
        assert data.attrs["split"] == "train[:6]" and data.sizes["image"] == 6
    assert {path: path.read_bytes() for path in workdir.rglob("*.nc")} == before


def test_a_run_that_is_measured_on_other_classes_stays_what_it_was_trained_as(workdir, tmp_path):
    flags = [f"--workdir={workdir}", "--config.data.classes=(0,1,2)", f"--output={tmp_path}"]
    flags += ["--config.eval.split=validation[:40]", "--config.eval.measurements=('invariance',)"]
    assert main(["evaluate", *flags]) == 0
    ours, theirs = (load.read([each]).runs for each in (tmp_path, workdir))
    trained = next(run for run in theirs if run.steps)
    (run,) = ours
    assert run.network.fields == trained.network.fields and "data.classes" in run.network.fields
    assert run.network.fields["data.classes"] == ()
    assert tuple(run.measured["classes"]) == (0, 1, 2)
    # Both measure one network.
    assert run.network.parameters == trained.network.parameters


def test_evaluate_refuses_to_change_what_was_trained(workdir, capsys):
    assert main(["evaluate", f"--workdir={workdir}", "--config.model.name=vit_mu8"]) == 2
    error = capsys.readouterr().err
    assert "config.model.name is 'vit_mu8'" in error and "trained with 'resnet8'" in error


def test_evaluate_keeps_an_unfinished_measurement(workdir, capsys):
    path = workdir / "invariance" / "resnet8_flip_seed0.nc"
    parts = path.with_suffix(".parts")
    before = path.read_bytes()
    path.unlink()
    try:
        parts.mkdir()
        (parts / "identity.json").write_text(json.dumps({"parameters_sha256": "another"}))
        (parts / "00000.npz").write_bytes(b"hours of work")
        assert main(["evaluate", f"--workdir={workdir}"]) == 2
        error = capsys.readouterr().err
        assert f"{parts} holds the unfinished evaluation of another measurement" in error
        assert "parameters_sha256" in error and error.count("\n") == 1
        assert (parts / "00000.npz").read_bytes() == b"hours of work"
    finally:
        shutil.rmtree(parts)
        path.write_bytes(before)


def test_evaluate_killed_goes_on_and_writes_the_same_numbers(workdir, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        shutil.copytree(workdir / "checkpoints", folder / "checkpoints")
        shutil.copy(workdir / "config.json", folder)
    # The last of three shards is never written: the process kills itself instead.
    script = (
        "import os, signal, sys\n"
        "from invariance_jax.__main__ import main\n"
        "from invariance_jax.evaluation.shards import Shards\n"
        "save = Shards.save\n"
        "def save_or_die(self, shard, arrays, matrices):\n"
        "    if 'invariance' in str(self.folder) and shard == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(self, shard, arrays, matrices)\n"
        "Shards.save = save_or_die\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["evaluate", f"--workdir={killed}", "--config.eval.shard_size=2"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == -signal.SIGKILL
    path = pathlib.Path("invariance") / "resnet8_flip_seed0.nc"
    shards = sorted((killed / path).with_suffix(".parts").glob("*.npz"))
    assert [each.name for each in shards] == ["00000.npz", "00001.npz"]
    assert not (killed / path).exists()

    saved = []
    save = Shards.save

    def watched(self, shard, arrays, matrices):
        saved.append((self.folder.parent.name, shard))
        save(self, shard, arrays, matrices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "save", watched)
        assert main(arguments) == 0
        assert saved == [("invariance", 2)]  # what was finished is not done again
        assert main([arguments[0], f"--workdir={whole}", *arguments[2:]]) == 0
    found, expected = (results.read(each / path) for each in (killed, whole))
    assert set(found.variables) == set(expected.variables)
    for name in expected.variables:
        assert found[name].values.tobytes() == expected[name].values.tobytes(), name


def test_evaluate_without_checkpoint_says_so(workdir, tmp_path, capsys):
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert "holds no checkpoint yet" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["quickstart", "train", "evaluate", "report"])
def test_help_shows_usage_and_flags(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: invariance-jax {command}" in shown and "Flags:" in shown
    assert main(["--help"]) == 0
    assert f"\n  {command} " in capsys.readouterr().out


def test_a_whole_quickstart_imports_neither_tensorflow_nor_torch(tmp_path):
    arguments = [
        "quickstart",
        f"--workdir={tmp_path}",
        "--config.axes.model.name=('vit_mu8',)",
        "--config.axes.augment.name=('none', 'translate')",
        f"--config.overrides={tuple(flag.removeprefix('--config.') for flag in SMALL)!r}",
    ]
    script = (
        "import sys\n"
        "from invariance_jax.__main__ import main\n"
        f"code = main({arguments!r})\n"
        "found = [name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'torch')]\n"
        "sys.exit(code or (f'imported: {found[:5]}' if found else 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:invariance_jax", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    # The untrained network, which both runs begin with, is measured once.
    names = [
        [row["augmentation"] for row in read_table(tmp_path / "runs" / run / "accuracy.csv")]
        for run in ("digits_vit_mu8_none_seed0", "digits_vit_mu8_translate_seed0")
    ]
    assert names == [["untrained", "none"], ["translate"]]
    assert len(list(tmp_path.glob("runs/*/invariance/*.nc"))) == 3
