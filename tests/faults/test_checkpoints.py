"""Damaged checkpoints, and those of other versions: what is whole is gone on from."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import tensorstore

from invariance_jax.training import checkpoints, workdir
from invariance_jax.training.checkpoints import Progress


def silent(text):
    raise AssertionError(text)


def truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(folder):
    for path in folder.rglob("state/**/d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


def change_one_weight(folder):
    """Data that decode well, and are not what was saved: zstd's frames have no checksum."""
    spec = {
        "driver": "zarr",
        "kvstore": {
            "driver": "ocdbt",
            "base": f"file://{folder}/state/",
            "path": "ema.params.head.kernel/",
        },
    }
    weight = tensorstore.open(spec).result()[0, 0]
    weight.write(np.nextafter(weight.read().result(), np.float32(np.inf))).result()


DAMAGES = {
    "truncated": truncate,
    "one bit flipped": flip_a_bit,
    "one weight changed": change_one_weight,
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
    errors = capfd.readouterr().err
    assert "compiling]" in errors  # why the bar stands still
    lines = [line for line in errors.splitlines() if "steps/s" not in line]
    assert not [line for line in lines if line.strip() and "4 steps [" not in line]


def test_without_any_readable_checkpoint_nothing_is_begun_anew(copied, train_by_command, capsys):
    for step in (2, 4):
        truncate(copied / "checkpoints" / str(step))
    assert train_by_command(copied) == 1
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
