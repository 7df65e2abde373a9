"""Several processes as one run: who they are, and how they begin and end together.

The engine is `jax.distributed`. Whoever starts the processes says so in the environment
(`launch/` does); without it nothing waits for anything, so that a laptop's run never hangs.
"""

import contextlib
import os
import pathlib
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from invariance_jax import files
from invariance_jax.errors import UserError

COORDINATOR = "INVARIANCE_JAX_COORDINATOR"
NUM_PROCESSES = "INVARIANCE_JAX_NUM_PROCESSES"
PROCESS_ID = "INVARIANCE_JAX_PROCESS_ID"
DISTRIBUTED = "INVARIANCE_JAX_DISTRIBUTED"

# A process that is silent for so long is dead, and the others stop: a run must not stand for
# minutes on machines that cost money. JAX's own default is 100.
_HEARTBEAT_TIMEOUT_SECONDS = 30
# How long one process waits for the others at its end. All failed of the same mistake, or one
# failed alone, and then the others never come.
_LEAVE_SECONDS, _LEAVE_FAILED_SECONDS = 3600, 10

_TEXT_BYTES = 1000
_FAILED = 1


def initialize(
    environment: Mapping[str, str] = os.environ, *, agrees_on_sigterm: bool = True
) -> None:
    """Joins the other processes of this run, if the environment names any.

    Reads INVARIANCE_JAX_COORDINATOR (`host:port` of process 0), INVARIANCE_JAX_NUM_PROCESSES and
    INVARIANCE_JAX_PROCESS_ID; or INVARIANCE_JAX_DISTRIBUTED=auto, which leaves all three to JAX's
    detection of SLURM, Open MPI, TPU pods and Kubernetes. Must come before any use of a device.
    To call it again does nothing.

    Args:
        environment: The environment variables.
        agrees_on_sigterm: Whether the program asks JAX after every step if SIGTERM came to any
            process. JAX then takes the signal; for a program that never asks it would be lost.

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
    if not automatic and not given:
        return
    jax.config.update("jax_enable_preemption_service", agrees_on_sigterm)
    # To gRPC, which connects them, an empty value means none: by a proxy for web pages processes
    # would look for each other for minutes.
    os.environ["grpc_proxy"] = ""  # noqa: SIM112
    if automatic:
        _connect_automatically()
    else:
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


def _connect_automatically() -> None:
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS)
    except ValueError as error:
        raise UserError(
            f"{DISTRIBUTED} is 'auto', but JAX finds no SLURM, Open MPI, TPU pod or Kubernetes "
            f"here ({error}); unset it to run one process, or set {COORDINATOR}, "
            f"{NUM_PROCESSES} and {PROCESS_ID}"
        ) from error


def _connect(**options: str | int) -> None:
    # Nothing is left to detect; a shell inside SLURM must not interfere.
    jax.distributed.initialize(
        heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS,
        cluster_detection_method="deactivate",
        **options,
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
    """Whether this process writes what is written once: files, messages, progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def say(text: str) -> None:
    """Prints a message once, not once a process.

    Args:
        text: The message.
    """
    if is_lead():
        print(text, flush=True)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Makes a mistake that one process finds, as a folder that one host lacks, end all of them.

    Every process must come here, and none computes anything with the others inside.

    Yields:
        Nothing; the block is run, and then the processes compare.

    Raises:
        UserError: The block raised it, here or in another process, which is then named.
    """
    error = None
    try:
        yield
    except UserError as found:
        error = found
    messages = _gather(str(error or ""))
    if error:
        raise error
    for process, message in enumerate(messages):
        if message:
            raise UserError(f"process {process}: {message}")


@contextlib.contextmanager
def held(folder: pathlib.Path, work: str) -> Iterator[None]:
    """Keeps every other run from the same work in a folder; every process of this one must enter.

    Args:
        folder: The folder; made if absent.
        work: What is done there, in one word.

    Yields:
        Nothing; the first process holds the folder while the block runs.

    Raises:
        UserError: As `files.in_use`, in all processes.
    """
    with contextlib.ExitStack() as stack:
        with together():
            if is_lead():
                stack.enter_context(files.in_use(folder, work))
        yield


def _gather(text: str) -> list[str]:
    """Every process's text, in their order; long ones are cut."""
    if jax.process_count() == 1:
        return [text]
    data = np.zeros(_TEXT_BYTES, np.uint8)
    encoded = np.frombuffer(text.encode()[:_TEXT_BYTES], np.uint8)
    data[: len(encoded)] = encoded
    rows = multihost_utils.process_allgather(data)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]


def device_map(mesh: Mesh) -> str:
    """Describes who computes; every process must ask.

    Args:
        mesh: The devices in use.

    Returns:
        One line about the whole and one for each process: its host and its own devices.
    """
    hosts = _gather(socket.gethostname())
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    lines = [f"{_counted(len(hosts), 'process')}, {_counted(mesh.size, 'device')}, mesh {axes}"]
    for process, host in enumerate(hosts):
        local = [each for each in mesh.devices.flat if each.process_index == process]
        kinds = sorted({each.device_kind for each in local})
        ids = ",".join(str(each.id) for each in local)
        lines.append(f"  process {process} on {host}: {len(local)} x {'/'.join(kinds)} ({ids})")
    return "\n".join(lines)


def _counted(count: int, word: str) -> str:
    plural = "es" if word.endswith("s") else "s"
    return f"{count} {word}{'' if count == 1 else plural}"


def run_to_the_end(main: Callable[[], int]) -> NoReturn:
    """Runs a program and ends the process; in several processes, together with the others.

    A process that fails alone does not wait for the others: it is gone in seconds, and they, who
    would wait for it, notice.

    Args:
        main: The program; it returns the exit code.
    """
    try:
        code = main()
    except BaseException:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        print(
            f"invariance-jax: process {jax.process_index()} of {jax.process_count()} stops; if "
            "another stopped before it, that one's output says why. Started again, the run goes "
            "on from its last checkpoint",
            file=sys.stderr,
        )
        code = _FAILED
    if jax.distributed.is_initialized():
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """Waits for the others; without them, ends the process at once."""
    sys.stdout.flush()
    sys.stderr.flush()
    from orbax.checkpoint import multihost

    seconds = _LEAVE_FAILED_SECONDS if code else _LEAVE_SECONDS
    try:
        multihost.get_barrier_sync_fn()(key="invariance_jax_leave", timeout_ms=1000 * seconds)
    except Exception:
        # JAX would now wait for minutes for processes that are gone or that know nothing of this.
        os._exit(code or _FAILED)
    jax.distributed.shutdown()
