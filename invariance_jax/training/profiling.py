"""A trace of some steps for TensorBoard or Perfetto."""

import pathlib
import re
from types import TracebackType
from typing import Any

import jax

from invariance_jax.errors import UserError

_FOLDER = "profile"


def parse_range(text: str) -> tuple[int, int] | None:
    """Reads `START:STOP`.

    Args:
        text: Two steps, or nothing.

    Returns:
        The first step that is traced and the first that is not; None for no text.

    Raises:
        UserError: The text has another form, or the range is empty.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 1 <= int(found[1]) < int(found[2]):
        raise UserError(
            f"--profile is {text!r}; expected START:STOP, the first step that is traced (at least "
            "1) and the first that is not: 10:15"
        )
    return int(found[1]), int(found[2])


class Profile:
    """Traces the steps of one range into `WORKDIR/profile`; a context manager."""

    def __init__(self, workdir: pathlib.Path, steps: tuple[int, int] | None) -> None:
        """Makes the trace of a run.

        Args:
            workdir: The run's folder.
            steps: The first step that is traced and the first that is not; None for no trace.
        """
        self._folder = workdir / _FOLDER
        self._start, self._stop = steps or (0, 0)
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def before(self, step: int, pending: Any) -> None:
        """Starts or ends the trace where the range does.

        Args:
            step: The step that is about to be queued.
            pending: What the step before returned. It is waited for where the trace starts and
                ends, so that the trace holds the range's steps and no others.
        """
        if self._start <= step < self._stop and not self._running:
            jax.block_until_ready(pending)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step >= self._stop and self._running:
            jax.block_until_ready(pending)
            self._end()

    def _end(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
