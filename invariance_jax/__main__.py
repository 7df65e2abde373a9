"""`python -m invariance_jax COMMAND --config=... --workdir=...`."""

import logging
import sys
from collections.abc import Sequence

from invariance_jax.errors import UserError, lookup

_USAGE = """\
Where does invariance come from: architecture, data or augmentation?

usage: invariance-jax COMMAND [--flag=value ...]

  quickstart   train, evaluate and report on embedded data, in a few minutes
  prepare      prepare ImageNet or another data set, once, with TensorFlow
  train        train one config, or go on with it
  evaluate     measure accuracy and invariance of a trained run
  compare      table several result files beside each other
  report       draw one page from the results of any number of runs

`invariance-jax COMMAND --help` explains each.
"""

# A wrong flag, field or path; the same as a shell's own usage errors.
_USER_ERROR = 2
_FAILED = 1
_INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
        argv: The command's name and its flags.

    Returns:
        The exit code: 0, 1 for a run that failed, 2 for a mistake of the user's, 130 after
        Ctrl-C.
    """
    if not argv or argv[0] in ("-h", "--help", "-help", "help"):
        print(_USAGE, end="")
        return 0 if argv else _USER_ERROR
    # Heavy imports after the cheap answers.
    from invariance_jax import distributed
    from invariance_jax.commands import (
        compare,
        evaluate,
        parsing,
        prepare,
        quickstart,
        report,
        train,
    )
    from invariance_jax.training.loop import NonFiniteLossError

    commands = {
        "quickstart": quickstart.run,
        "prepare": prepare.run,
        "train": train.run,
        "evaluate": evaluate.run,
        "compare": compare.run,
        "report": report.run,
    }
    # Orbax narrates each save at the level of warnings and below; errors still show.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        run = lookup(commands, argv[0], "command")
        distributed.initialize()
        run(list(argv[1:]))
    except parsing.HelpRequested as text:
        print(text)
    except UserError as error:
        print(f"invariance-jax: {error}", file=sys.stderr)
        return _USER_ERROR
    except NonFiniteLossError as error:
        print(f"invariance-jax: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("\ninvariance-jax: interrupted; the same command goes on", file=sys.stderr)
        return _INTERRUPTED
    return 0


def console() -> None:
    """Entry point of the `invariance-jax` console script."""
    from invariance_jax import distributed

    distributed.run_to_the_end(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    console()
