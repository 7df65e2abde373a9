"""What the tests of faults share."""

import shutil

import pytest
from tiny_runs import tiny

from invariance_jax.__main__ import main
from invariance_jax.commands import train
from invariance_jax.training import experiment, loop


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, for a test to damage."""
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder)
    return folder


@pytest.fixture
def train_by_command(monkeypatch):
    """Trains the tiny run in a workdir by the command's own entry point; gives its exit code."""

    def train_in(workdir):
        monkeypatch.setattr(
            train,
            "run",
            lambda argv: loop.train(experiment.make(tiny()), workdir, announce=lambda _: None),
        )
        return main(["train"])

    return train_in
