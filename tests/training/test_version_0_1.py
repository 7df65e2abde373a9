"""Runs of version 0.1 are read and gone on from."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from invariance_jax.__main__ import main
from invariance_jax.evaluation import results
from invariance_jax.evaluation.evaluate import read_table
from invariance_jax.training import workdir as workdirs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def old(golden_dir, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(golden_dir / "version_0_1" / "workdir", folder)
    return folder


def test_its_network_is_read(old):
    found = workdirs.load_run(old, announce=pytest.fail)
    assert (found.step, found.num_classes) == (2, 10) and found.seconds > 0
    # Two small steps from weights that were a pattern: -0.15, -0.1, ... 0.15, again and again.
    bias = found.variables["params"]["head"]["bias"]
    np.testing.assert_allclose(bias, np.arange(10) % 7 / 20 - 0.15, atol=1e-3)
    measured = results.read(next((old / "invariance").glob("*.nc")))
    assert results.fingerprint(found.variables) == measured.attrs["parameters_sha256"]


def test_it_is_finished_and_can_be_measured_and_exported(old, tmp_path, capsys):
    stored = json.loads((old / "config.json").read_text())
    config = workdirs.read_config(old)
    assert workdirs.is_finished(old, config) and config.train.steps == stored["train"]["steps"]
    flags = ["--config.eval.per_device_batch_size=8", "--config.mesh.data=1"]
    assert main(["evaluate", f"--workdir={old}", *flags]) == 0
    shown = capsys.readouterr()
    # Its invariance is there; its accuracy image by image is what version 0.1 did not keep.
    assert "accuracy: 100% 10/10 images" in shown.err and "invariance:" not in shown.err
    (row,) = read_table(old / "accuracy.csv")
    assert row["dataset"] == "digits" and row["images"] == "10"
    assert main(["export", f"--workdir={old}", f"--output={tmp_path / 'w.safetensors'}"]) == 0
