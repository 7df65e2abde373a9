"""A full disk: observing never stops training, and the rest ends in one line with code 1."""

import errno
import os
import resource

import pytest

from invariance_jax.__main__ import main
from invariance_jax.commands import train
from invariance_jax.training import checkpoints, metrics
from invariance_jax.training.checkpoints import CheckpointWriter


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_one_line(number, monkeypatch, capsys):
    def run(argv):
        raise OSError(number, os.strerror(number), "metrics.jsonl")

    monkeypatch.setattr(train, "run", run)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line and "metrics.jsonl" in line


@pytest.fixture
def largest_file():
    """Sets how large a file may grow: real writes fail beyond, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_named_and_the_older_checkpoint_is_whole(
    goes_on, tmp_path, monkeypatch, train_by_command, largest_file, capfd
):
    save = CheckpointWriter.save

    def save_on_a_full_disk(self, step, *args, **options):
        if step == 4:
            self.wait()
            largest_file(10_000)
        save(self, step, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save_on_a_full_disk)
        assert train_by_command(tmp_path) == 1
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
