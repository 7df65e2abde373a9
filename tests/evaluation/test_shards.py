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
POSITIONS = [np.array([4, 0]), np.array([2, 1, 3])]
ARRAYS = {
    "positions": POSITIONS[1],
    "a": np.arange(3, dtype=np.float32),
    "names": np.array(["x", "yz", ""]),
    "difference": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
}


@pytest.fixture
def shards(tmp_path):
    found = Shards(tmp_path / "name.parts", OURS)
    found.claim(overwrite=False)
    return found


@pytest.fixture
def one(shards):
    """The second of two shards is there."""
    shards.save(1, ARRAYS, {"difference"})
    assert shards.missing(POSITIONS) == [0]
    return shards


def test_shards_come_back(one):
    found = one.load(1)
    assert found.keys() == ARRAYS.keys()
    for name in ("positions", "a", "names"):
        np.testing.assert_array_equal(found[name], ARRAYS[name], strict=True)
    # A matrix is read row by row, from its own file.
    assert isinstance(found["difference"], np.memmap)
    for row in range(2):
        np.testing.assert_array_equal(found["difference"][row], ARRAYS["difference"][:, row])
    assert sorted(each.name for each in one.folder.iterdir()) == [
        "00001.npz",
        "00001_difference.npy",
        "identity.json",
    ]
    one.claim(overwrite=False)  # the same measurement goes on
    again = Shards(one.folder, dict(OURS))
    again.claim(overwrite=True)
    assert again.missing(POSITIONS) == [0]
    one.remove()
    assert not one.folder.exists()
    one.remove()


def test_another_measurement_is_refused_and_named(one):
    theirs = OURS | {"config.eval.seed": 1, "grid": {"rotate": [0.0, 30.0]}}
    other = Shards(one.folder, theirs)
    with pytest.raises(UserError, match=r"\(its config\.eval\.seed, grid differ\)"):
        other.claim(overwrite=False)
    assert one.missing(POSITIONS) == [0]
    other.claim(overwrite=True)
    assert other.missing(POSITIONS) == [0, 1]
    assert [each.name for each in one.folder.iterdir()] == ["identity.json"]


def test_a_folder_without_identity_is_nobodys_and_its_shards_are_not_believed(one):
    # As after a removal that was cut short, or a kill in the middle of claiming.
    (one.folder / "identity.json").unlink()
    other = Shards(one.folder, OURS | {"config.eval.seed": 1})
    other.claim(overwrite=False)
    assert other.missing(POSITIONS) == [0, 1]
    with pytest.raises(UserError, match=r"\(its config\.eval\.seed differ\)"):
        one.claim(overwrite=False)


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"parameters_sha256": "ab"}'])
def test_a_damaged_identity_is_another_one(one, text):
    (one.folder / "identity.json").write_text(text)
    with pytest.raises(UserError, match="holds the unfinished evaluation of another measurement"):
        one.claim(overwrite=False)
    one.claim(overwrite=True)
    assert one.missing(POSITIONS) == [0, 1]


def test_shards_of_other_images_are_missing(one):
    for other in (np.array([2, 1]), np.array([1, 2, 3]), np.array([2, 1, 4])):
        assert one.missing([POSITIONS[0], other]) == [0, 1]


def damaged(path, change):
    content = path.read_bytes()
    path.unlink()
    change(path, content)


def flip(position):
    def change(path, content):
        found = bytearray(content)
        found[position] ^= 0xFF
        path.write_bytes(found)

    return change


DAMAGES = {
    "absent": lambda path, content: None,
    "empty": lambda path, content: path.write_bytes(b""),
    "half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "a byte short": lambda path, content: path.write_bytes(content[:-1]),
    "no numpy file": lambda path, content: path.write_bytes(b"PK\x03\x04" + content[:50]),
    "text": lambda path, content: path.write_text("shard"),
    "folder": lambda path, content: path.mkdir(),
}


@pytest.mark.parametrize("name", ["00001.npz", "00001_difference.npy"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_missing(one, name, damage):
    damaged(one.folder / name, DAMAGES[damage])
    assert one.missing(POSITIONS) == [0, 1]


def test_any_damaged_byte_is_seen_or_does_not_matter(one):
    path = one.folder / "00001.npz"
    content = path.read_bytes()
    expected, missing = one.load(1), 0
    for position in range(0, len(content), 3):
        damaged(path, flip(position))
        if one.missing(POSITIONS) == [0, 1]:
            missing += 1
        else:  # the time of day at which it was written, say
            for name, value in one.load(1).items():
                np.testing.assert_array_equal(value, expected[name], err_msg=f"{name} {position}")
        path.write_bytes(content)
    assert missing > len(content) / 3 / 2


def test_an_array_in_place_of_a_shard_is_missing(one):
    with (one.folder / "00001.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert one.missing(POSITIONS) == [0, 1]


def test_a_folder_in_the_place_of_a_shard_is_named(one):
    (one.folder / "00000.npz").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*00000\.npz: Is a directory"):
        one.save(0, {"positions": POSITIONS[0]})


def test_a_full_disk_leaves_nothing_half_written(shards, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = r"cannot write .*00000\.npz: No space left on device; make room and give the same"
    with pytest.raises(UserError, match=message):
        shards.save(0, {"positions": np.zeros(1000)})
    with pytest.raises(UserError, match=r"00000_difference\.npy"):
        shards.save(0, {"difference": np.zeros((1000, 1, 1))}, {"difference"})
    assert [each.name for each in shards.folder.iterdir()] == ["identity.json"]


def test_a_real_limit_of_file_size_does_the_same(shards):
    # The kernel refuses to let files grow beyond 100 kB, as a full disk would.
    script = (
        "import pathlib, resource, sys, numpy\n"
        "from invariance_jax.errors import UserError\n"
        "from invariance_jax.evaluation.shards import Shards\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    Shards(pathlib.Path(sys.argv[1]), {}).save(0, {'a': numpy.zeros(10**6)})\n"
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
