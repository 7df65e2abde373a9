"""Evaluations that are killed, and evaluations by two processes, give what one process gives."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from .one_process import IMAGES, SHARD

SCRIPT = pathlib.Path(__file__).parent / "one_process.py"
# Bounds of what takes seconds, on a machine that does other work too.
PATIENCE_SECONDS = 150


def start(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(start(folder / "parts", folder / "found.npz"))
    return dict(np.load(folder / "found.npz"))


def assert_identical(path, expected):
    found = dict(np.load(path))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name


def wait_for(process, path):
    """Waits until a file is there, and fails if the process ends before."""
    for _ in range(10 * PATIENCE_SECONDS):
        if path.exists():
            return
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(process.communicate()[0][-3000:])
    raise AssertionError(f"{path} did not come")


def test_a_killed_evaluation_goes_on_and_finds_the_same_bytes(uninterrupted, tmp_path):
    parts, output = tmp_path / "parts", tmp_path / "found.npz"
    # It reads the last of seven shards in vain, some batches ahead of the one it works on.
    killed = start(parts, output, "--hang")
    wait_for(killed, parts / "grid_00002.npz")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE_SECONDS)
    assert not output.exists() and not (parts / "grid_00006.npz").exists()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.np?")}
    left = IMAGES - SHARD * len(list(parts.glob("grid_*.npz")))

    text = finish(start(parts, output))
    after = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.np?")}
    assert before.items() < after.items()  # nothing that was finished is done again
    assert f"test grid: 100% {left}/{left} images" in text
    assert_identical(output, uninterrupted)


def test_two_processes_find_what_one_finds(uninterrupted, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [
        start(tmp_path / "parts", tmp_path / "found.npz", f"--process={i}", f"--port={port}")
        for i in range(2)
    ]
    texts = [finish(each) for each in both]
    # Four of seven shards for the first, so that three are the second's, which shows no bar.
    assert "test features: 100% 16/16 images" in texts[0]
    assert "test grid: 100% 16/16 images" in texts[0]
    assert_identical(tmp_path / "found.npz", uninterrupted)
