"""`python -m invariance_jax COMMAND --config=... --workdir=...`."""

import errno
import importlib
import logging
import signal
import sys
from collections.abc import Sequence

from invariance_jax import __version__, host_memory, signals
from invariance_jax.errors import RunError, UserError, lookup

_USAGE = """\
Where does invariance come from: architecture, data or augmentation?

usage: invariance-jax COMMAND [--flag=value ...]

  quickstart   train, evaluate and report on embedded data, in a few minutes
  prepare      prepare ImageNet or another data set, once, with TensorFlow
  plan         estimate memory, speed and communication on TPUs that are not here
  train        train one config, or go on with it
  ablate       train the runs of a sweep that can share one program and one input
  evaluate     measure accuracy and invariance of a trained run
  search       find what varies within each class, as a model sees it
  factors      rank what a search found; alignment with invariance, WordNet, foreground
  compare      table several result files beside each other
  report       draw one page from the results of any number of runs
  export       write a run's weights as a safetensors file with torch's names

`invariance-jax COMMAND --help` explains each, `invariance-jax --version` says which this is.
"""

_COMMANDS = (
    *("quickstart", "prepare", "plan", "train", "ablate", "evaluate", "search"),
    *("factors", "compare", "report", "export"),
)
# Only training saves when SIGTERM comes to one of several processes; the others simply end.
_TRAINING = ("train", "ablate", "quickstart")
# A wrong flag, field or path; the same as a shell's own usage errors.
_USER_ERROR = 2
_FAILED = 1
# A full disk or quota is nothing to trace back, and neither is a folder that cannot be written.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
)


def main(argv: Sequence[str], *, keep_compiled: bool = False) -> int:
    """Runs one command.

    Args:
        argv: The command's name and its flags.
        keep_compiled: Whether compiled programs are kept in the user's cache folder.

    Returns:
        The exit code: 0, 1 for a run that failed, 2 for a mistake of the user's, 130 after
        Ctrl-C, 143 after SIGTERM, 129 when the terminal was closed.
    """
    if not argv or argv[0] in ("-h", "--help", "-help", "help"):
        print(_USAGE, end="")
        return 0 if argv else _USER_ERROR
    if argv[0] == "--version":
        print(f"invariance-jax {__version__}")
        return 0
    try:
        _run(argv, keep_compiled)
        return 0
    except UserError as error:
        full = getattr(error, "errno", None) in _NO_ROOM
        code, message = _FAILED if full else _USER_ERROR, str(error)
    except RunError as error:
        code, message = _FAILED, str(error)
    except OSError as error:
        if error.errno in _NO_ROOM:
            code, message = _FAILED, f"{error}; the same command goes on"
        elif error.errno in _NO_PLACE:
            code, message = _USER_ERROR, str(error)
        else:
            raise
    except KeyboardInterrupt as error:
        # Python's own has no text and no number.
        code = 128 + getattr(error, "number", signal.SIGINT)
        message = str(error) or signals.INTERRUPTED
        print(file=sys.stderr)  # after the terminal's ^C
    print(f"invariance-jax: {message}", file=sys.stderr)
    return code


def _run(argv: Sequence[str], keep_compiled: bool) -> None:
    name = lookup({name: name for name in _COMMANDS}, argv[0], "command")
    # Heavy imports after the cheap answers, and only those that the command needs.
    from invariance_jax import compilation_cache, distributed
    from invariance_jax.commands import parsing

    command = importlib.import_module(f"invariance_jax.commands.{name}")
    if keep_compiled:
        compilation_cache.enable()
    # Orbax narrates each save, and a failed one by pages of traceback; the one line of our
    # CheckpointError says the same.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        distributed.initialize(agrees_on_sigterm=name in _TRAINING)
        command.run(list(argv[1:]))
    except parsing.HelpRequested as text:
        print(text)


def console() -> None:
    """Entry point of the `invariance-jax` console script."""
    host_memory.keep()
    signals.install()
    signals.end_with_launcher()
    from invariance_jax import distributed

    distributed.run_to_the_end(lambda: main(sys.argv[1:], keep_compiled=True))


if __name__ == "__main__":
    console()
