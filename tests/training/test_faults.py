"""What goes wrong on real machines: they are taken away, killed, fill up, lose data."""

import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from tiny_runs import tiny

from invariance_jax.__main__ import main
from invariance_jax.commands import train
from invariance_jax.training import checkpoints, experiment, loop, metrics, workdir
from invariance_jax.training.checkpoints import CheckpointError, CheckpointWriter, Progress

CONFIG = tiny()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, for a test to damage."""
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder)
    return folder


def train_by_command(workdir, monkeypatch):
    """Trains by the command's own entry point; its exit code."""
    monkeypatch.setattr(
        train,
        "run",
        lambda argv: loop.train(experiment.make(CONFIG), workdir, announce=lambda _: None),
    )
    return main(["train"])


def silent(text):
    raise AssertionError(text)


def test_sigterm_saves_the_step_and_ends_with_143(goes_on, tmp_path, monkeypatch, capsys):
    # The signal comes while step 1 is logged; the checkpoint after that would be step 2's.
    before = signal.getsignal(signal.SIGTERM)
    write = metrics.MetricWriter.write

    def write_and_be_preempted(self, step, values):
        write(self, step, values)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricWriter, "write", write_and_be_preempted)
        assert train_by_command(tmp_path, patch) == 143
    assert "stopped by SIGTERM after step 3, which is saved" in capsys.readouterr().err
    assert checkpoints.steps(tmp_path) == [2, 3]
    assert signal.getsignal(signal.SIGTERM) is before
    assert "going on from the checkpoint of step 3" in goes_on(tmp_path)[0]


def test_a_stopped_run_does_not_claim_a_save_that_failed(tmp_path, monkeypatch, capsys):
    def fail(self):
        raise CheckpointError("full")

    monkeypatch.setattr(loop, "must_stop", lambda asked, step: step == 1)
    monkeypatch.setattr(CheckpointWriter, "wait", fail)
    assert train_by_command(tmp_path, monkeypatch) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "invariance-jax: full"


def test_a_kill_in_the_middle_of_a_write_leaves_the_older_checkpoint(goes_on, tmp_path):
    # Orbax writes into a folder of another name and renames it: the process dies before that,
    # after two more steps were logged.
    script = textwrap.dedent(
        """
        import json, os, pathlib, signal, sys
        from invariance_jax.config import ExperimentConfig
        from invariance_jax.fields import check
        from invariance_jax.training import checkpoints, experiment, loop
        save = checkpoints.CheckpointWriter.save
        def save_and_die(self, step, *args, **options):
            if step == 4:
                from orbax.checkpoint._src.path import atomicity
                async def die(self):
                    os.kill(os.getpid(), signal.SIGKILL)
                atomicity.AtomicRenameTemporaryPath.finalize = die
            save(self, step, *args, **options)
            self.wait()
        checkpoints.CheckpointWriter.save = save_and_die
        config = check(ExperimentConfig, json.loads(sys.argv[2]))
        loop.train(experiment.make(config), pathlib.Path(sys.argv[1]))
        """
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), CONFIG.to_json()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["2", "4.orbax-checkpoint-tmp"]  # it did die in the middle
    assert checkpoints.steps(tmp_path) == [2]
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert "going on from the checkpoint of step 2" in goes_on(tmp_path)[0]


def truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(folder):
    for path in folder.rglob("state/**/d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


DAMAGES = {
    "truncated": truncate,
    "one bit flipped": flip_a_bit,
    "progress is no JSON": lambda folder: (folder / "progress" / "metadata").write_text("{"),
    "manifest is garbage": lambda folder: (folder / "state" / "manifest.ocdbt").write_bytes(
        b"garbage" * 20
    ),
    "metadata is garbage": lambda folder: (folder / "state" / "_METADATA").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_older_one(damage, goes_on, copied, capfd):
    DAMAGES[damage](copied / "checkpoints" / "4")
    said = []
    # Reading alone moves nothing.
    assert workdir.load_run(copied, announce=said.append).step == 2
    assert checkpoints.steps(copied) == [2, 4]
    (line,) = said
    assert "checkpoints/4 cannot be read: " in line and "\n" not in line
    assert line.endswith("; fell back to the checkpoint of step 2")

    said = goes_on(copied)
    assert said[0].startswith(str(copied / "checkpoints" / "4"))
    assert "fell back to the checkpoint of step 2" in said[0]
    assert "going on from the checkpoint of step 2" in said[1] and len(said) == 2
    assert checkpoints.steps(copied) == [2, 4]  # the fourth is whole again
    assert (copied / "checkpoints_unreadable" / "4").is_dir()
    assert workdir.load_run(copied, announce=silent).step == 4
    # Nothing else is said, by whatever library.
    lines = [line for line in capfd.readouterr().err.splitlines() if "steps/s" not in line]
    assert not [line for line in lines if line.strip() and "4 steps [" not in line]


def test_without_any_readable_checkpoint_nothing_is_begun_anew(copied, monkeypatch, capsys):
    for step in (2, 4):
        truncate(copied / "checkpoints" / str(step))
    assert train_by_command(copied, monkeypatch) == 1
    message = capsys.readouterr().err
    assert "steps [2, 4] can be read" in message and message.count("\n") == 1
    assert checkpoints.steps(copied) == [2, 4]


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, Progress()),
        ([1, 2], Progress()),
        ({"step": 4}, Progress()),
        ({"progress": "three"}, Progress()),
        ({"progress": {"seconds": 3, "best_step": None}}, Progress(seconds=3)),
        ({"progress": {"seconds": "3", "best_step": 2, "new": 5}}, Progress(best_step=2)),
    ],
)
def test_the_progress_of_other_versions_is_read_as_far_as_it_is_known(saved, expected):
    assert Progress.from_saved(saved) == expected
    whole = Progress(seconds=1.5, best_step=2, best_top1=0.5, top1=0.25, top5=0.75)
    assert Progress.from_saved({"progress": dataclasses.asdict(whole)}) == whole


def test_a_checkpoint_of_another_version_is_gone_on_from(goes_on, copied):
    shutil.rmtree(copied / "checkpoints" / "4")
    path = copied / "checkpoints" / "2" / "progress" / "metadata"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "progress": {**saved["progress"], "new": [1]}}))
    assert "going on from the checkpoint of step 2" in goes_on(copied)[0]


@pytest.mark.parametrize("name", ["run[1]*?", "back\\slash"])
def test_a_workdir_whose_name_is_a_pattern(name, finished, tmp_path):
    trained, _ = finished
    run = tmp_path / name
    run.mkdir()
    (run / "config.json").write_text(CONFIG.to_json())
    with CheckpointWriter(run, keep=1) as writer:
        writer.save(4, trained.state, Progress(seconds=2.0), CONFIG.to_dict())
    found = workdir.load_run(run, announce=silent)
    assert (found.step, found.seconds, found.num_classes) == (4, 2.0, 10)
    jax.tree.map(np.testing.assert_array_equal, found.variables, jax.device_get(trained.state.ema))
    state, _ = checkpoints.restore_state(run, experiment.make(CONFIG).abstract_state, silent)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(state), jax.device_get(trained.state)
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_one_line(number, monkeypatch, capsys):
    def run(argv):
        raise OSError(number, os.strerror(number), "metrics.jsonl")

    monkeypatch.setattr(train, "run", run)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line and "metrics.jsonl" in line


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / ("long" * 64), tmp_path / "file", tmp_path / "file" / "run"):
        assert train_by_command(folder, monkeypatch) == 2
        message = capsys.readouterr().err
        assert message.startswith("invariance-jax: ") and message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch):
    def run(argv):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(OSError, match="broken"):
        main(["train"])


@pytest.fixture
def largest_file():
    """Sets how large a file may grow: real writes fail beyond, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_named_and_the_older_checkpoint_is_whole(
    goes_on, tmp_path, monkeypatch, largest_file, capfd
):
    save = CheckpointWriter.save

    def save_on_a_full_disk(self, step, *args, **options):
        if step == 4:
            self.wait()
            largest_file(10_000)
        save(self, step, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save_on_a_full_disk)
        assert train_by_command(tmp_path, patch) == 1
    largest_file(-1)
    errors = capfd.readouterr().err
    (line,) = [line for line in errors.splitlines() if line.startswith("invariance-jax: ")]
    assert "a checkpoint could not be saved" in line and "File too large" in line
    assert "that of step 2 is whole" in line and "Traceback" not in errors
    assert checkpoints.steps(tmp_path) == [2]
    goes_on(tmp_path)


def test_metrics_that_a_full_disk_refuses_are_written_when_there_is_room(tmp_path, largest_file):
    said = []
    writer = metrics.MetricWriter(tmp_path, 0, said.append)
    whole = {"loss": 0.5, "top1": None}
    writer.write(1, whole)
    (events,) = (tmp_path / "tensorboard").iterdir()
    before = (tmp_path / "metrics.jsonl").read_bytes(), events.read_bytes()
    largest_file(len(before[0]) + 7)  # a part of the next line fits
    for step in (2, 3):
        writer.write(step, whole)
        assert (tmp_path / "metrics.jsonl").read_bytes() == before[0]
        assert events.read_bytes() == before[1]
    assert len(said) == 2 and all("File too large" in each for each in said)  # once for each file
    largest_file(-1)
    writer.write(4, whole)
    rows = metrics.read_metrics(tmp_path)
    assert rows == [{"step": step, **whole} for step in (1, 2, 3, 4)]
    assert [step for step, tags in scalars(events) if tags == {"loss": 0.5}] == [1, 2, 3, 4]


def scalars(path):
    """The steps and values in a file of TensorBoard events, checksums verified by its reader."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    content, found = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        data = content[12 : 12 + length]
        for part, checksum in (
            (content[:8], content[8:12]),
            (data, content[12 + length : 16 + length]),
        ):
            value = crc32c(part)
            masked = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert int.from_bytes(checksum, "little") == masked
        event = Event.FromString(data)
        found.append((event.step, {each.tag: each.simple_value for each in event.summary.value}))
        content = content[16 + length :]
    return found


def test_a_resumed_run_takes_back_what_it_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "loss": 1.0 / step}) + "\n")
            if step == 1:
                file.write('[1]\n{"no": "step"}\n')
    with path.open("ab") as file:
        file.write(b'{"step": 4, "lo\xff')  # a process was killed here
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [1, 2, 3]
    metrics.MetricWriter(tmp_path, 2).write(3, {"loss": 0.25})
    expected = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]
    assert metrics.read_metrics(tmp_path) == expected
    assert path.read_text().count('{"no": "step"}') == 1  # what it does not know it leaves
