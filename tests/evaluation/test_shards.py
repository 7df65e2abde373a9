"""Shards are whole or absent, and belong to one measurement."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.evaluation.shards import Shards

OURS = {"parameters_sha256": "ab", "config.eval.seed": 0, "grid": {"rotate": [0.0, 36.0]}}


@pytest.fixture
def shards(tmp_path):
    found = Shards(tmp_path / "name.parts")
    found.claim(OURS, overwrite=False)
    return found


def test_shards_come_back(shards):
    shards.save("grid", 1, {"a": np.arange(3, dtype=np.float32), "names": np.array(["x", "yz"])})
    assert shards.missing("grid", 3) == [0, 2] and shards.missing("features", 2) == [0, 1]
    found = shards.load("grid", 1)
    np.testing.assert_array_equal(found["a"], np.arange(3, dtype=np.float32))
    assert found["names"].tolist() == ["x", "yz"]
    shards.save_matrix("difference", 2, np.eye(3))
    np.testing.assert_array_equal(shards.open_matrix("difference", 2), np.eye(3))
    assert shards.missing("grid", 3) == [0, 2]
    shards.claim(OURS, overwrite=False)  # the same measurement goes on
    assert shards.missing("grid", 3) == [0, 2]
    shards.remove()
    assert not shards.folder.exists()
    shards.remove()


def test_another_measurement_is_refused_and_named(shards):
    shards.save("grid", 0, {"a": np.zeros(1)})
    theirs = OURS | {"config.eval.seed": 1, "grid": {"rotate": [0.0, 30.0]}}
    with pytest.raises(UserError, match=r"\(its config\.eval\.seed, grid differ\)"):
        shards.claim(theirs, overwrite=False)
    assert shards.missing("grid", 1) == []
    shards.claim(theirs, overwrite=True)
    assert shards.missing("grid", 1) == [0]


def test_a_folder_without_identity_is_nobodys(shards):
    # As after a kill in the middle of claiming.
    (shards.folder / "identity.json").unlink()
    shards.claim(OURS | {"config.eval.seed": 1}, overwrite=False)


def test_a_full_disk_leaves_nothing_half_written(shards, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = (
        r"cannot write .*grid_00000\.npz: No space left on device; make room and give the same"
    )
    with pytest.raises(UserError, match=message):
        shards.save("grid", 0, {"a": np.zeros(1000)})
    with pytest.raises(UserError, match=r"difference_00000\.npy"):
        shards.save_matrix("difference", 0, np.zeros(1000))
    assert [each.name for each in shards.folder.iterdir()] == ["identity.json"]


def test_a_real_limit_of_file_size_does_the_same(shards):
    # The kernel refuses to let files grow beyond 100 kB, as a full disk would.
    script = (
        "import pathlib, resource, sys, numpy\n"
        "from invariance_jax.errors import UserError\n"
        "from invariance_jax.evaluation.shards import Shards\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    Shards(pathlib.Path(sys.argv[1])).save('grid', 0, {'a': numpy.zeros(10**6)})\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "    sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(shards.folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "File too large; make room" in done.stdout and done.stdout.count("\n") == 1
    assert [each.name for each in shards.folder.iterdir()] == ["identity.json"]
