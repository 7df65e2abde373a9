"""SIGTERM, by which schedulers say that the machine will be taken away soon."""

import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM


class PreemptedError(RuntimeError):
    """The run was asked to stop; everything up to its last step is saved."""


class Preemption:
    """Asks after every step whether to save and stop; a context manager.

    One process alone listens to the signal itself. Several must stop after the same step: JAX's
    coordination service listens in each of them, passes the notice on and agrees on a step.
    """

    def __init__(self) -> None:
        self._noticed = False
        self._previous: Any = None

    def __enter__(self) -> "Preemption":
        # In several processes the signal belongs to JAX's coordination service.
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def reached(self, step: int) -> bool:
        """Whether the run is to stop after this step; the same answer in all processes.

        Args:
            step: Steps taken. Call it after every step.

        Returns:
            True once all processes have taken the step at which they stop.
        """
        return self._noticed or multihost_utils.reached_preemption_sync_point(step)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
