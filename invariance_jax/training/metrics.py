"""The metrics of a run on disk: JSON lines, and events for TensorBoard."""

import json
import os
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Mapping

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from invariance_jax import distributed

METRICS_FILE = "metrics.jsonl"
Row = dict[str, float | None]


class MetricWriter:
    """Writes the metrics of one run to `WORKDIR/metrics.jsonl` and `WORKDIR/tensorboard/`.

    A resumed run takes back the lines of steps that it is about to repeat, so each step stands
    in the file once. Of several processes only the first writes.
    """

    def __init__(
        self, workdir: pathlib.Path, start_step: int, announce: Callable[[str], object] = print
    ) -> None:
        """Begins where the run goes on.

        Args:
            workdir: The run's folder.
            start_step: Steps already taken.
            announce: Is told, once for each file, that the disk takes no more.
        """
        self._lead = distributed.is_lead()
        if not self._lead:
            return
        _take_back(workdir / METRICS_FILE, start_step)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}"
        self._lines = _Appended(workdir / METRICS_FILE, announce)
        self._events = _Appended(workdir / "tensorboard" / name, announce)
        # TensorBoard forgets what an earlier part of the run wrote from this step on.
        start = SessionLog(status=SessionLog.START)
        self._events.append(
            _record(Event(wall_time=now, file_version="brain.Event:2"))
            + _record(Event(wall_time=now, step=start_step + 1, session_log=start))
        )

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one line.

        Args:
            step: Steps taken.
            values: The metrics by name; None, `null` in the file, for what is not known here.
        """
        if not self._lead:
            return
        self._lines.append(json.dumps({"step": step, **values}).encode() + b"\n")
        known = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if value is not None
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=known))
        self._events.append(_record(event))


class _Appended:
    """A file that grows by whole blocks; what a full disk refuses is kept for the next time.

    A run must not stop for want of a line about it.
    """

    def __init__(self, path: pathlib.Path, announce: Callable[[str], object]) -> None:
        self._path, self._announce = path, announce
        self._waiting = b""
        self._told = False

    def append(self, block: bytes) -> None:
        self._waiting += block
        try:
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                whole = file.tell()
                try:
                    rest = self._waiting
                    while rest:  # a disk that is nearly full takes a part
                        rest = rest[file.write(rest) :]
                except OSError:
                    file.truncate(whole)
                    raise
            self._waiting = b""
        except OSError as error:
            if not self._told:
                self._announce(f"{error}; training goes on, and writes it when there is room")
            self._told = True


def _record(event: Event) -> bytes:
    """An event as a TFRecord: length, its checksum, data, its checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(each)) for each in (length, data))
    return length + next(checksums) + data + next(checksums)


def _row(line: bytes) -> Row | None:
    """A line's metrics; None for a line that a killed process left unfinished, or a damaged one."""
    try:
        row = json.loads(line)
    except ValueError:  # of JSON, or of UTF-8
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def _take_back(path: pathlib.Path, last_step: int) -> None:
    """Cuts a file of lines after the last one that is not of a later step."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    end = kept = 0
    for line in lines:
        end += len(line)
        row = _row(line)
        if row is not None and row["step"] > last_step:
            break
        if row is not None:
            kept = end
    if lines:
        os.truncate(path, kept)


def read_metrics(workdir: pathlib.Path) -> list[Row]:
    """Reads the metrics of a run.

    Args:
        workdir: The run's folder.

    Returns:
        One dict a line, each with `step`; empty if there are none. Unfinished and damaged lines
        are passed over.
    """
    path = workdir / METRICS_FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in map(_row, lines) if row is not None]
