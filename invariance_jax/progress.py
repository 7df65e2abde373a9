"""Progress bars with rate and time left, as whole lines where the output is a file."""

import contextlib
import sys
from typing import Any, TextIO

from tqdm import tqdm

from invariance_jax import distributed

# In a log file a line every so often says as much as a moving bar.
_LOG_INTERVAL_SECONDS = 10.0


class _Lines:
    """A stream that turns a bar's redrawing into lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n")
        with contextlib.suppress(BrokenPipeError):  # nobody reads any more; the work goes on
            if text.strip():
                self._stream.write(text + "\n")

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()


def bar(
    *, total: int, description: str, unit: str, initial: int = 0, shown: bool = True
) -> "tqdm[Any]":
    """Opens a progress bar on the standard error.

    Args:
        total: How many units there are in all.
        description: What is being done.
        unit: What is counted.
        initial: How many units an earlier run already did.
        shown: Whether it is shown at all.

    Returns:
        A tqdm bar; use it as a context manager and call `update`. Of several processes only the
        first shows it.
    """
    options: dict[str, Any] = {"total": total, "desc": description, "unit": f" {unit}"}
    options |= {"initial": initial, "dynamic_ncols": True}
    options["disable"] = not (shown and distributed.is_lead())
    if sys.stderr.isatty():
        return tqdm(file=sys.stderr, **options)
    return tqdm(
        file=_Lines(sys.stderr),
        mininterval=_LOG_INTERVAL_SECONDS,
        ascii=True,
        bar_format="{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt}{unit} "
        "[{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        **options,
    )
