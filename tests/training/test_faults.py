"""What goes wrong on real machines: they are taken away, killed, fill up, lose data."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from tiny_runs import tiny

from invariance_jax import experiment
from invariance_jax.__main__ import main
from invariance_jax.commands import train
from invariance_jax.training import loop, preemption, writers
from invariance_jax.training.checkpoints import CheckpointError, Checkpoints

CONFIG = tiny("vit_mu8", ema=0.5)


def run_in_a_process(workdir, *, prepare="", steps=4):
    """Trains in another process after `prepare`, by the command's own entry point."""
    script = textwrap.dedent(
        """
        import json, os, pathlib, signal, sys
        import jax
        from invariance_jax import __main__, experiment
        from invariance_jax.commands import train
        from invariance_jax.config import ExperimentConfig, check
        from invariance_jax.training import checkpoints, loop, writers
        workdir, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
        built = experiment.make(check(ExperimentConfig, config))
        train.run = lambda argv: loop.train(built, workdir)
        """
    )
    script += textwrap.dedent(prepare) + "\nsys.exit(__main__.main(['train']))\n"
    config = tiny("vit_mu8", ema=0.5, steps=steps)
    return subprocess.run(
        [sys.executable, "-c", script, str(workdir), config.to_json()],
        capture_output=True,
        text=True,
        timeout=300,
    )


def steps_of(workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.steps()


def state_of(workdir, config=CONFIG):
    with Checkpoints(workdir) as checkpoints:
        state, progress = loop.restore_state(experiment.make(config), checkpoints)
    return jax.device_get(state), progress


def losses(workdir):
    return [row["loss"] for row in writers.read_metrics(workdir)]


def goes_on_as_if_nothing_had_been(workdir, finished):
    said = []
    trained = loop.train(experiment.make(CONFIG), workdir, announce=said.append)
    uninterrupted, expected = finished
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(trained.state),
        jax.device_get(uninterrupted.state),
    )
    assert losses(workdir) == losses(expected)
    return said


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("finished")
    return loop.train(experiment.make(CONFIG), workdir, announce=lambda _: None), workdir


def test_sigterm_saves_the_step_and_ends_with_143(finished, tmp_path):
    # The signal comes while step 3 is logged: between two checkpoints, before the fourth step.
    stopped = run_in_a_process(
        tmp_path,
        prepare="""
        write = writers.MetricWriter.write
        def write_and_be_preempted(self, step, values):
            write(self, step, values)
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        writers.MetricWriter.write = write_and_be_preempted
        built.config.train.__dict__["checkpoint_every"] = 100
        """,
    )
    assert stopped.returncode == 143 == preemption.EXIT_CODE, stopped.stderr
    assert "stopped by SIGTERM after step 2, which is saved" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert steps_of(tmp_path) == [2]
    said = goes_on_as_if_nothing_had_been(tmp_path, finished)
    assert "going on from the checkpoint of step 2" in said[0]


def test_a_preempted_run_does_not_claim_a_save_that_failed(tmp_path, monkeypatch):
    def fail(self):
        raise CheckpointError("full")

    monkeypatch.setattr(preemption.Preemption, "reached", lambda self, step: step == 1)
    monkeypatch.setattr(Checkpoints, "wait", fail)
    with pytest.raises(CheckpointError, match="full"):
        loop.train(experiment.make(CONFIG), tmp_path, announce=lambda _: None)


def test_the_previous_signal_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.Preemption() as notice:
        assert not notice.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.reached(2) and notice.reached(3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_kill_in_the_middle_of_a_write_leaves_the_older_checkpoint(finished, tmp_path):
    # Orbax writes into a folder of another name and renames it: the process dies before that.
    killed = run_in_a_process(
        tmp_path,
        prepare="""
        save = checkpoints.Checkpoints.save
        def save_and_die(self, step, *args, **options):
            if step == 4:
                from orbax.checkpoint._src.path import atomicity
                async def die(self):
                    os.kill(os.getpid(), signal.SIGKILL)
                atomicity.AtomicRenameTemporaryPath.finalize = die
            save(self, step, *args, **options)
            self.wait()
        checkpoints.Checkpoints.save = save_and_die
        """,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["2", "4.orbax-checkpoint-tmp"]  # it did die in the middle
    assert steps_of(tmp_path) == [2]
    said = goes_on_as_if_nothing_had_been(tmp_path, finished)
    assert "going on from the checkpoint of step 2" in said[0]


@pytest.mark.parametrize("damage", ["truncate", "empty"])
def test_a_corrupted_checkpoint_falls_back_to_the_older_one(damage, finished, tmp_path):
    loop.train(experiment.make(CONFIG), tmp_path, announce=lambda _: None)
    assert steps_of(tmp_path) == [2, 4]
    for path in (tmp_path / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")

    said = goes_on_as_if_nothing_had_been(tmp_path, finished)
    assert "checkpoints/4 cannot be read: " in said[0]
    assert "fell back to the checkpoint of step 2" in said[1]
    assert "going on from the checkpoint of step 2" in said[2]
    assert steps_of(tmp_path) == [2, 4]  # the fourth is whole again
    assert (tmp_path / "checkpoints_unreadable" / "4").is_dir()
    assert int(state_of(tmp_path)[0].step) == 4


def test_reading_alone_moves_nothing(finished, tmp_path):
    loop.train(experiment.make(CONFIG), tmp_path, announce=lambda _: None)
    (tmp_path / "checkpoints" / "4" / "progress" / "metadata").write_text("{")
    state, _ = state_of(tmp_path)
    assert int(state.step) == 2
    assert steps_of(tmp_path) == [2, 4]


def test_without_any_readable_checkpoint_nothing_is_begun_anew(tmp_path):
    loop.train(experiment.make(CONFIG), tmp_path, announce=lambda _: None)
    for step in (2, 4):
        (tmp_path / "checkpoints" / str(step) / "progress" / "metadata").write_text("{")
    with pytest.raises(CheckpointError, match=r"steps \[2, 4\] can be read"):
        loop.train(experiment.make(CONFIG), tmp_path, announce=lambda _: None)
    assert steps_of(tmp_path) == [2, 4]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_one_line(number, monkeypatch, capsys):
    def run(argv):
        raise OSError(number, os.strerror(number), "metrics.jsonl")

    monkeypatch.setattr(train, "run", run)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line and "metrics.jsonl" in line


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch):
    def run(argv):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(OSError, match="broken"):
        main(["train"])


def test_a_disk_that_takes_no_more_is_named_and_the_older_checkpoint_is_whole(finished, tmp_path):
    # From the second save on, no file can grow beyond 10,000 bytes: real writes fail.
    broken = run_in_a_process(
        tmp_path,
        prepare="""
        import resource
        save = checkpoints.Checkpoints.save
        def save_on_a_full_disk(self, step, *args, **options):
            if step == 4:
                self.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
            save(self, step, *args, **options)
        checkpoints.Checkpoints.save = save_on_a_full_disk
        """,
    )
    assert broken.returncode == 1, broken.stderr
    (line,) = [line for line in broken.stderr.splitlines() if line.startswith("invariance-jax: ")]
    assert "a checkpoint could not be saved" in line and "File too large" in line
    assert "that of step 2 is whole" in line
    assert steps_of(tmp_path) == [2]
    goes_on_as_if_nothing_had_been(tmp_path, finished)
