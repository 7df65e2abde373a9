"""Metrics as JSON lines and as TensorBoard events."""

import json
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

import tensorboardX

from invariance_jax import distributed, files

_LINES = "metrics.jsonl"


class MetricWriter:
    """Writes the metrics of one run to `WORKDIR/metrics.jsonl` and `WORKDIR/tensorboard/`.

    A resumed run takes back the lines of steps that it is about to repeat, so each step stands
    in the file once. Of several processes only the first writes.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int) -> None:
        """Opens the files.

        Args:
            workdir: The run's folder.
            start_step: Steps already taken.
        """
        self._open = distributed.is_lead()
        if not self._open:
            return
        path = workdir / _LINES
        kept = [row for row in read_metrics(workdir) if row["step"] <= start_step]
        files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._lines: TextIO = path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start_step + 1
        )

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open:
            self._lines.close()
            self._events.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one line.

        Args:
            step: Steps taken.
            values: The metrics by name; None, `null` in the file, for what is not known here.
        """
        if not self._open:
            return
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(name, value, step)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float | None]]:
    """Reads the metrics of a run.

    Args:
        workdir: The run's folder.

    Returns:
        One dict a line, each with `step`; empty if there are none. A last line that a killed
        process left unfinished is passed over.
    """
    path = workdir / _LINES
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise
    return rows
