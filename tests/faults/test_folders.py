"""Folders: names that are patterns, URLs, files in their place, read-only ones, and two at once."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_runs import tiny

from invariance_jax import files, models
from invariance_jax.__main__ import main
from invariance_jax.commands import train
from invariance_jax.errors import UserError
from invariance_jax.training import checkpoints, experiment, workdir
from invariance_jax.training.checkpoints import CheckpointWriter, Progress

CONFIG = tiny()
DIGITS = f"--config={pathlib.Path(__file__).parents[2] / 'configs' / 'digits.py'}"


def silent(text):
    raise AssertionError(text)


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


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path, train_by_command, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / ("long" * 64), tmp_path / "file", tmp_path / "file" / "run"):
        assert train_by_command(folder) == 2
        message = capsys.readouterr().err
        assert message.startswith("invariance-jax: ") and message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch):
    def run(argv):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(OSError, match="broken"):
        main(["train"])


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run", "hdfs://node/run", "gs:/a"])
@pytest.mark.parametrize(
    "words",
    [
        ("train", DIGITS, "--workdir"),
        ("evaluate", "--workdir"),
        ("evaluate", DIGITS, "--untrained", "--workdir"),
        ("export", "--output=w.safetensors", "--workdir"),
        ("export", "--workdir=run", "--output"),
        ("quickstart", "--workdir"),
        ("report", ".", "--output"),
        ("compare", "a.nc", "--output"),
    ],
    ids=" ".join,
)
def test_a_bucket_is_refused_before_anything_is_made(words, url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words[:-1], f"{words[-1]}={url}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{words[-1]} is {url!r}, a URL; expected a path on this machine's" in line
    assert list(tmp_path.iterdir()) == []


def test_paths_as_people_type_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert files.local_path("~/runs", "--workdir") == pathlib.Path("/home/somebody/runs")
    assert files.local_path("a:b/c", "--workdir") == pathlib.Path("a:b/c")
    on_a_bucket = CONFIG.with_values(data={"name": "folder", "data_dir": "s3://photos"})
    with pytest.raises(UserError, match="'s3://photos', a URL; expected a path"):
        _ = experiment.make(on_a_bucket).train_source
    with pytest.raises(UserError, match=r"'gs://bucket/w\.npz', a URL; expected a path"):
        models.load_model("resnet8", "gs://bucket/w.npz")


def test_a_folder_is_held_by_one_process_which_is_named(tmp_path):
    folder = tmp_path / "run"
    with files.in_use(folder, "training"):
        holder = json.loads((folder / "training.lock").read_text())
        message = f"in use for training by process {os.getpid()} on {holder['host']} since 20"
        with pytest.raises(UserError, match=message), files.in_use(folder, "training"):
            pass
        with files.in_use(folder, "evaluation"):  # other work
            assert len(list(folder.iterdir())) == 2
    assert list(folder.iterdir()) == []
    with files.in_use(folder, "training"):
        pass


def test_a_holder_that_was_killed_is_known_to_be_gone(tmp_path, capsys):
    script = (
        "import os, pathlib, signal, sys\n"
        "from invariance_jax import files\n"
        "with files.in_use(pathlib.Path(sys.argv[1]), 'training'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "training.lock").exists()
    with files.in_use(tmp_path, "training"):
        assert json.loads((tmp_path / "training.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def on_another_machine(lock, **changes):
    holder = {"host": "node7", "pid": 1, "process": ["boot", "9"], "since": "2026-01-02 03:04:05"}
    lock.write_text(json.dumps(holder | changes))


@pytest.mark.parametrize("holder", [{}, {"process": [None, None]}, {"pid": None}])
def test_elsewhere_a_silent_holder_is_gone_after_a_minute(holder, tmp_path, monkeypatch, capsys):
    lock, now = tmp_path / "training.lock", [0.0]
    on_another_machine(lock, **holder)
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(files.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with files.in_use(tmp_path, "training"):
        assert 60 < now[0] < 62
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "waiting to see if process" in line and "on node7 since 2026-01-02 03:04:05 lives" in line
    )


def test_elsewhere_a_holder_that_writes_is_alive(tmp_path, monkeypatch):
    lock = tmp_path / "training.lock"
    on_another_machine(lock)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: on_another_machine(lock, beats=1))
    before = lock.read_bytes()
    with (
        pytest.raises(UserError, match="by process 1 on node7 since 2026-01-02 03:04:05; wait"),
        files.in_use(tmp_path, "training"),
    ):
        pass
    assert json.loads(lock.read_bytes()) == {**json.loads(before), "beats": 1}


def test_a_holder_says_again_and_again_that_it_lives(tmp_path):
    class Done:
        """Two rounds, without any time passing."""

        def __init__(self):
            self.rounds, self.seen = iter([False, False, True]), []

        def wait(self, seconds):
            self.seen.append(path.read_bytes())
            return next(self.rounds)

    path, done = tmp_path / "lock", Done()
    path.touch()
    with path.open("r+b") as file:
        files._beat(file.fileno(), {"pid": 5}, done)
    assert [each and json.loads(each) for each in done.seen] == [
        b"",
        {"pid": 5, "beats": 1},
        {"pid": 5, "beats": 2},
    ]


def test_who_comes_second_to_a_stale_file_leaves_it_to_the_first(tmp_path):
    lock = tmp_path / "training.lock"
    on_another_machine(lock, pid=2)  # was taken over while we looked
    files._take_away(lock, b"what was there before")
    assert json.loads(lock.read_text())["pid"] == 2 and list(tmp_path.iterdir()) == [lock]
    files._take_away(lock, lock.read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_twice_is_refused_and_changes_nothing(copied, train_by_command, capsys):
    before = sorted(copied.rglob("*"))
    with files.in_use(copied, "training"), files.in_use(copied, "evaluation"):
        assert train_by_command(copied) == 2
        assert "is in use for training by process" in capsys.readouterr().err
        assert main(["evaluate", f"--workdir={copied}"]) == 2
        assert "is in use for evaluation by process" in capsys.readouterr().err
    assert sorted(copied.rglob("*")) == before
