"""SIGTERM, Ctrl-C, a closed terminal: the first ends a command in order, a second one at once."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType

INTERRUPTED = "interrupted; the same command goes on"
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The end of a pipe, as `NUMBER:INODE`, whose other end is closed when the launcher is gone.
LAUNCHER = "INVARIANCE_JAX_LAUNCHER"
# The terminal, a launcher and a scheduler may each pass on the same request.
_ONE_REQUEST_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end.

    Attributes:
        number: The signal.
    """

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class Signals:
    """What is installed for these signals.

    Attributes:
        came: The signal that came; None so far. It is kept beside the exception: one that is
            raised while Python frees an object or calls back from C is lost.
        deferred: Whether a loop asks for `came` after every step and ends of itself.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self.deferred = False
        self._when = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Takes a signal."""
        now = time.monotonic()
        if number == self.came and now - self._when < _ONE_REQUEST_SECONDS:
            return
        if self.came is not None:
            os._exit(128 + number)
        self.came, self._when = number, now
        if not self.deferred:
            raise Interrupted(INTERRUPTED, number)


def install() -> Signals:
    """Lets the first signal raise `Interrupted`, and a second one end the process at once.

    Returns:
        What is installed, until the process ends.
    """
    signals = Signals()
    for number in NUMBERS:
        # `nohup` asks to ignore a closed terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signals)
    return signals


def end_with_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Lets the end of a launcher that could tell nobody, as by SIGKILL, come as SIGTERM.

    Args:
        environment: The environment variables; launchers set INVARIANCE_JAX_LAUNCHER.
    """
    pipe, _, inode = environment.get(LAUNCHER, "").partition(":")
    with contextlib.suppress(ValueError, OSError):  # the command stands behind one that closed it
        if os.fstat(int(pipe)).st_ino == int(inode):
            threading.Thread(target=_end_with, args=(int(pipe),), daemon=True).start()


def _end_with(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[Signals]:
    """Lets a loop decide where the first signal ends it.

    Yields:
        What tells whether a signal came, also before the block.
    """
    before = {number: signal.getsignal(number) for number in NUMBERS}
    installed = before[signal.SIGTERM]
    signals = installed if isinstance(installed, Signals) else install()
    signals.deferred = True
    try:
        yield signals
    finally:
        signals.deferred = False
        for number, handler in before.items():
            signal.signal(number, handler)
