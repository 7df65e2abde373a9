"""Several processes as one run: who they are, and how they begin and end together.

The engine is `jax.distributed`. Whoever starts the processes says so in the environment
(`launch/` does); without it nothing waits for anything, so that a laptop's run never hangs.
"""

import os
from collections.abc import Mapping

import jax

from invariance_jax.errors import UserError

COORDINATOR = "INVARIANCE_JAX_COORDINATOR"
NUM_PROCESSES = "INVARIANCE_JAX_NUM_PROCESSES"
PROCESS_ID = "INVARIANCE_JAX_PROCESS_ID"
DISTRIBUTED = "INVARIANCE_JAX_DISTRIBUTED"

# A process that is silent for so long is dead, and the others stop: a run must not stand for
# minutes on machines that cost money. JAX's own default is 100.
_HEARTBEAT_TIMEOUT_SECONDS = 30


def initialize(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of this run, if the environment names any.

    Reads INVARIANCE_JAX_COORDINATOR (`host:port` of process 0), INVARIANCE_JAX_NUM_PROCESSES and
    INVARIANCE_JAX_PROCESS_ID; or INVARIANCE_JAX_DISTRIBUTED=auto, which leaves all three to JAX's
    detection of SLURM, Open MPI, TPU pods and Kubernetes. Must come before any use of a device.
    To call it again does nothing.

    Args:
        environment: The environment variables.

    Raises:
        UserError: A variable is missing or cannot be read.
    """
    if jax.distributed.is_initialized():
        return
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    automatic = environment.get(DISTRIBUTED, "")
    if automatic not in ("", "auto"):
        raise UserError(f"{DISTRIBUTED} is {automatic!r}; expected 'auto', or leave it unset")
    given = [name for name in names if environment.get(name)]
    if given and automatic:
        raise UserError(f"{DISTRIBUTED} and {given[0]} are both set; expected one of the two ways")
    if automatic:
        _connect()
    elif given:
        missing = [name for name in names if name not in given]
        if missing:
            raise UserError(
                f"{missing[0]} is not set, but {given[0]} is; expected all of {', '.join(names)}"
            )
        count = _number(environment, NUM_PROCESSES, 1, None)
        _connect(
            coordinator_address=_address(environment[COORDINATOR]),
            num_processes=count,
            process_id=_number(environment, PROCESS_ID, 0, count - 1),
        )


def _connect(**options: str | int) -> None:
    # With all options given nothing is left to detect; a SLURM shell must not interfere.
    detection = {"cluster_detection_method": "deactivate"} if options else {}
    jax.distributed.initialize(
        heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS, **options, **detection
    )


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"{COORDINATOR} is {text!r}; expected HOST:PORT")
    return text


def _number(environment: Mapping[str, str], name: str, low: int, high: int | None) -> int:
    text = environment[name]
    if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise UserError(f"{name} is {text!r}; expected a whole number, {expected}")
    return int(text)


def is_lead() -> bool:
    """Whether this process writes what is written once: files, messages."""
    return jax.process_index() == 0
