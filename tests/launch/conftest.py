"""Stand-ins for the programs of a cluster, which are not here."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


@pytest.fixture
def stand_in(tmp_path):
    """Puts shell scripts into the PATH under the names of programs."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    make.environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return make


@pytest.fixture
def run_script():
    """Runs a script of launch/ to its end."""

    def run(name, *arguments, env=None):
        return subprocess.run(
            [str(LAUNCH / name), *map(str, arguments)],
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
        )

    return run


@pytest.fixture
def bare_environ(tmp_path):
    """An environment with a shell and Python, and without any cluster's programs."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "env", "sed", "seq"):
        (folder / name).symlink_to(shutil.which(name))
    # By a script: a link would lose the packages of the environment.
    python = folder / "python3"
    python.write_text(f'#!{shutil.which("sh")}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return {**os.environ, "PATH": str(folder)}
