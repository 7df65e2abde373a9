#!/usr/bin/env python3
"""Starts one command as several processes on this machine, joined by `jax.distributed`.

    launch/local.py -n 2 --devices=4 -- invariance-jax train --config=... --workdir=...

Every process gets its own simulated CPU devices: what runs here runs on as many hosts. Each line
of output begins with the number of its process. If one process fails, the others are stopped and
the launcher exits with the code of the first that failed. SIGTERM and SIGINT are passed on; the
processes save and end too when the terminal is closed or the launcher is killed.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

# The shell's convention: a process ended by signal s has the code 128 + s.
_SIGNALED = 128
# A mistake of the user's, which starting again does not mend.
_USER_ERROR = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says.

    Attributes:
        processes: How many processes.
        devices: CPU devices of each.
        log_dir: Folder for one log file a process; None for none.
        restarts: How often to start again after a failure or a preemption.
        grace: Seconds that a process has to end after SIGTERM, before SIGKILL.
        dry_run: Print the commands and start nothing.
        command: What each process runs.
    """

    processes: int
    devices: int
    log_dir: pathlib.Path | None
    restarts: int
    grace: float
    dry_run: bool
    command: list[str]


def parse(argv: Sequence[str]) -> Options:
    """Reads the command line.

    Args:
        argv: The launcher's flags, `--`, and the command.

    Returns:
        What it says; a mistake ends the launcher with code 2.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-n", "--processes", type=int, required=True, help="how many processes")
    add("--devices", type=int, default=1, help="CPU devices of each process (default: 1)")
    add("--log_dir", type=pathlib.Path, help="also write each process's output to a file here")
    add("--restarts", type=int, default=0, help="start again so often after a failure (default: 0)")
    add("--grace", type=float, default=60, help="seconds from SIGTERM to SIGKILL (default: 60)")
    add("--dry_run", action="store_true", help="print the commands and start nothing")
    add("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what each process runs")
    values = vars(parser.parse_args(argv))
    for name, low in (("processes", 1), ("devices", 1), ("restarts", 0), ("grace", 0)):
        if values[name] < low:
            parser.error(f"--{name} is {values[name]}; expected at least {low}")
    if values["command"][:1] == ["--"]:
        del values["command"][0]
    if not values["command"]:
        parser.error("no command; expected one after --")
    if shutil.which(values["command"][0]) is None:
        parser.error(f"command {values['command'][0]!r} is not there")
    return Options(**values)


def environment(options: Options, process: int, port: int | str) -> dict[str, str]:
    """What one process finds in its environment beside what is there already.

    Args:
        options: The command line.
        process: The number of the process.
        port: Where process 0 listens.

    Returns:
        Names and values.
    """
    return {
        "INVARIANCE_JAX_COORDINATOR": f"localhost:{port}",
        "INVARIANCE_JAX_NUM_PROCESSES": str(options.processes),
        "INVARIANCE_JAX_PROCESS_ID": str(process),
        "JAX_NUM_CPU_DEVICES": str(options.devices),
        "JAX_PLATFORMS": "cpu",
        # Lines appear when they are written, not when the process ends.
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """Asks the system for a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Group:
    """The processes of one attempt."""

    def __init__(self, options: Options) -> None:
        """Starts them.

        Args:
            options: The command line.
        """
        self._grace = options.grace
        self.told_to_stop = False
        self._ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        port = free_port()
        # Nobody writes to it: the processes see that its other end is closed when this one is gone,
        # by SIGKILL too, and take that for SIGTERM.
        pipe, self._open_while_we_live = os.pipe()
        lifeline = {"INVARIANCE_JAX_LAUNCHER": f"{pipe}:{os.fstat(pipe).st_ino}"}
        for number in range(options.processes):
            process = subprocess.Popen(
                options.command,
                env={**os.environ, **environment(options, number, port), **lifeline},
                pass_fds=(pipe,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A group of its own: what it started itself can be ended with it.
                start_new_session=True,
            )
            self._processes.append(process)
            reader = threading.Thread(target=_pass_on, args=(process, number, options.log_dir))
            watcher = threading.Thread(target=self._watch, args=(number, process))
            self._readers.append(reader)
            reader.start()
            watcher.start()
        os.close(pipe)

    def _watch(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        # Workers that a killed process left behind would hold its output open.
        _kill_group(process)
        self._ended.put((number, code))

    def send(self, signal_number: int) -> None:
        """Passes a signal on; after the grace period SIGKILL follows.

        Args:
            signal_number: Which.
        """
        self.told_to_stop = True
        # Of a closed terminal JAX knows nothing.
        if signal_number == signal.SIGHUP:
            signal_number = signal.SIGTERM
        for process in self._processes:
            process.send_signal(signal_number)
        timer = threading.Timer(self._grace, self._kill)
        timer.daemon = True
        timer.start()

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                _kill_group(process)

    def _next(self) -> tuple[int, int]:
        # A signal that comes just before the wait does not end it: Python acts on it after.
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ended.get(timeout=1)

    def wait(self) -> int:
        """Waits for all; if one fails, stops the others.

        Returns:
            The exit code of the first that failed, as a shell would give it; 0 if none did.
        """
        first = 0
        for remaining in reversed(range(len(self._processes))):
            number, code = self._next()
            if code and not first:
                first = code if code > 0 else _SIGNALED - code
                stop = remaining and not self.told_to_stop
                others = "; stopping the others" if stop else ""
                _say(f"process {number} ended with code {first}{others}")
                if stop:
                    self.send(signal.SIGTERM)
        for reader in self._readers:
            reader.join()
        os.close(self._open_while_we_live)
        return first


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pass_on(process: "subprocess.Popen[bytes]", number: int, log_dir: pathlib.Path | None) -> None:
    """Passes on one process's output, line by line, until it ends."""
    with _log_file(log_dir, number) as log:
        for line in process.stdout or ():
            sys.stdout.buffer.write(b"[%d] %s" % (number, line))
            sys.stdout.buffer.flush()
            if log:
                log.write(line)
                log.flush()


@contextlib.contextmanager
def _log_file(log_dir: pathlib.Path | None, number: int) -> Iterator[BinaryIO | None]:
    if log_dir is None:
        yield None
        return
    log_dir.mkdir(parents=True, exist_ok=True)
    with (log_dir / f"process_{number}.log").open("ab") as file:
        yield file


def _say(text: str) -> None:
    print(f"launch/local.py: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Runs the launcher.

    Args:
        argv: The command line.

    Returns:
        0, or the code of the first process that failed; 128 + s after signal s.
    """
    options = parse(argv)
    if options.dry_run:
        for number in range(options.processes):
            variables = environment(options, number, "PORT").items()
            words = [f"{name}={value}" for name, value in variables]
            print(shlex.join([*words, *options.command]))
        return 0
    received: list[int] = []
    groups: list[Group] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        for group in groups[-1:]:
            group.send(number)

    # Before the first process starts: a signal must never find the launcher unprepared.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under `nohup`
            signal.signal(number, forward)
    for attempt in range(options.restarts + 1):
        groups.append(Group(options))
        if received and not groups[-1].told_to_stop:
            groups[-1].send(received[0])
        code = groups[-1].wait()
        if received and code:
            return _SIGNALED + received[0]
        if code in (0, _USER_ERROR):
            return code
        if attempt < options.restarts:
            _say(f"starting again ({attempt + 1} of {options.restarts})")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
