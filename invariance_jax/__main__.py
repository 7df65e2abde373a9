"""`python -m invariance_jax COMMAND --config=... --workdir=...`."""

import errno
import importlib
import logging
import sys
from collections.abc import Sequence

from invariance_jax.errors import UserError, unknown_name

_USAGE = """\
Where does invariance come from: architecture, data or augmentation?

usage: invariance-jax COMMAND [--flag=value ...]

  quickstart   train, evaluate and report on embedded data, in a few minutes
  prepare      prepare ImageNet or another data set, once, with TensorFlow
  train        train one config, or go on with it
  evaluate     measure accuracy and invariance of a trained run
  compare      table several result files beside each other
  report       draw one page from the results of any number of runs
  export       write a run's weights as a safetensors file with torch's names

`invariance-jax COMMAND --help` explains each.
"""

_COMMANDS = ("quickstart", "prepare", "train", "evaluate", "compare", "report", "export")

# A wrong flag, field or path; the same as a shell's own usage errors.
_USER_ERROR = 2
_FAILED = 1
_INTERRUPTED = 130
# A full disk or quota is nothing to trace back.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def main(argv: Sequence[str], *, keep_compiled: bool = False) -> int:
    """Runs one command.

    Args:
        argv: The command's name and its flags.
        keep_compiled: Whether compiled programs are kept in the user's cache folder.

    Returns:
        The exit code: 0, 1 for a run that failed, 2 for a mistake of the user's, 130 after
        Ctrl-C, 143 for a run that SIGTERM stopped and that can go on.
    """
    if not argv or argv[0] in ("-h", "--help", "-help", "help"):
        print(_USAGE, end="")
        return 0 if argv else _USER_ERROR
    # Heavy imports after the cheap answers.
    from invariance_jax import compilation_cache, distributed
    from invariance_jax.commands import parsing
    from invariance_jax.training import preemption
    from invariance_jax.training.checkpoints import CheckpointError
    from invariance_jax.training.loop import NonFiniteLossError

    if keep_compiled:
        compilation_cache.enable()
    # Orbax narrates each save, and a failed one by pages of traceback; the one line of our
    # CheckpointError says the same.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        name = argv[0]
        if name not in _COMMANDS:
            raise unknown_name("command", name, _COMMANDS)
        # Only training saves when SIGTERM comes; the other commands simply end.
        distributed.initialize(agrees_on_sigterm=name in ("train", "quickstart"))
        # Each alone: only some draw figures, say.
        importlib.import_module(f"invariance_jax.commands.{name}").run(list(argv[1:]))
    except parsing.HelpRequested as text:
        print(text)
    except UserError as error:
        print(f"invariance-jax: {error}", file=sys.stderr)
        return _USER_ERROR
    except preemption.PreemptedError as error:
        print(f"invariance-jax: {error}", file=sys.stderr)
        return preemption.EXIT_CODE
    except (NonFiniteLossError, CheckpointError) as error:
        print(f"invariance-jax: {error}", file=sys.stderr)
        return _FAILED
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        print(f"invariance-jax: {error}; the same command goes on", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("\ninvariance-jax: interrupted; the same command goes on", file=sys.stderr)
        return _INTERRUPTED
    return 0


def console() -> None:
    """Entry point of the `invariance-jax` console script."""
    from invariance_jax import distributed

    distributed.run_to_the_end(lambda: main(sys.argv[1:], keep_compiled=True))


if __name__ == "__main__":
    console()
