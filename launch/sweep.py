#!/usr/bin/env python3
"""Runs a sweep: every config with every override and seed, here or as a SLURM array.

    launch/sweep.py configs/sweeps/digits.py --root=workdirs/digits --jobs=2

Started again it skips what is finished and goes on with the rest. Runs that failed are reported
and wait for --retry. When all are finished, ROOT/report.html compares them. With --fused, runs that
can share a program and its input are trained by one process. `make install` first, and use that
environment's Python.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import queue
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from invariance_jax import progress, signals
from invariance_jax.commands import sweep as sweeps
from invariance_jax.commands.sweep import Run
from invariance_jax.config import SweepConfig
from invariance_jax.errors import UserError

_FAILED, _USER_ERROR = 1, 2
_SIGNALED = 128
# What a run exits with that was asked to stop; nothing is wrong with it.
_STOPPED = tuple(_SIGNALED + number for number in signals.NUMBERS)
_GPUS = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 2.0
_LOG = "sweep.log"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Args:
        argv: The sweep file and flags.

    Returns:
        The flags; a mistake ends the program with code 2.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sweep", help="the sweep's file, with its argument if it takes one: FILE[:ARGUMENT]")
    add("--root", type=pathlib.Path, required=True, help="folder of all runs")
    add(
        "--override",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of every run, as data.data_dir=DIR; may be repeated",
    )
    add("--jobs", type=int, default=1, help="runs at once on this machine (default: 1)")
    add("--gpus_per_job", type=int, default=0, help="GPUs of each job (default: all it sees)")
    add("--fused", action="store_true", help="train runs that can share a program as one process")
    add("--retry", action="store_true", help="run again what failed")
    add("--no_report", action="store_true", help="make no page when all are finished")
    add("--status", action="store_true", help="print the table and run nothing")
    add("--dry_run", action="store_true", help="print the commands and run nothing")
    add("--slurm", metavar="FLAGS", help="submit a SLURM array: flags of launch/slurm.sh")
    add("--run", metavar="N", help="run only the N-th; `array` for that of a SLURM array")
    values = parser.parse_args(argv)
    gpus = os.environ.get(_GPUS)
    if gpus is not None and len(_words(gpus)) < values.jobs * values.gpus_per_job:
        parser.error(
            f"--jobs={values.jobs} by --gpus_per_job={values.gpus_per_job} are more GPUs than "
            f"{_GPUS}={gpus} lists"
        )
    for name, low in (("jobs", 1), ("gpus_per_job", 0)):
        if getattr(values, name) < low:
            parser.error(f"--{name} is {getattr(values, name)}; expected at least {low}")
    return values


def loaded(values: argparse.Namespace) -> SweepConfig:
    """Reads the sweep, with what the command line overrides.

    Args:
        values: The flags.

    Returns:
        The sweep.

    Raises:
        UserError: It cannot be read, or an override is none.
    """
    sweep = sweeps.load(values.sweep)
    for each in values.override:
        if "=" not in each:
            raise UserError(f"--override is {each!r}; expected FIELD=VALUE")
    overrides = (*sweep.overrides, *map(shlex.quote, values.override))
    return sweep.with_values(overrides=overrides)


def program(command: Sequence[str]) -> list[str]:
    """The whole command line of one of the package's commands."""
    return [sys.executable, "-m", "invariance_jax", *command]


def table(runs: Sequence[Run]) -> str:
    """Shows every run: state, steps, time left, and why it failed.

    Args:
        runs: The runs.

    Returns:
        The table, one line a run, and a line that counts them.
    """
    width = max(len(run.name) for run in runs)
    lines, counts = [], dict.fromkeys(("finished", "begun", "waiting", "failed"), 0)
    for number, run in enumerate(runs):
        state = run.state()
        counts[state] += 1
        steps, seconds = run.progress()
        left = seconds / steps * (run.steps - steps) if steps and state == "begun" else None
        words = [f"{number:3d}", f"{run.name:{width}s}", f"{state:8s}", f"{steps:>7d}/{run.steps}"]
        if left is not None:
            words.append(f"{left / 60:.0f} min left")
        lines.append("  ".join([*words, run.failure()]).rstrip())
    total = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return "\n".join([*lines, f"{len(runs)} runs: {total}"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run, or runs that are trained together.

    Attributes:
        runs: The runs.
        training: The command that trains them together; empty for a run alone.
        log: Where the output goes.
    """

    runs: tuple[Run, ...]
    training: tuple[str, ...]
    log: pathlib.Path

    def commands(self) -> list[list[str]]:
        """What is still to be run, in order; each is what follows `python -m invariance_jax`."""
        if not self.training:
            return self.runs[0].commands()
        left = (run for run in self.runs if "--retry" in self.training or not run.failure())
        return [] if all(run.is_trained() for run in left) else [list(self.training)]

    def afterwards(self) -> list["Job"]:
        """Runs that were trained together are evaluated each by itself, but those that failed."""
        runs = [run for run in self.runs if self.training and not run.failure()]
        return [alone(run) for run in runs]

    def mark_failed(self, reason: str) -> None:
        """Notes that a command failed; of runs that are trained together one may have said why.

        Args:
            reason: Why.
        """
        for run in self.runs:
            if not (self.training and (run.is_trained() or run.failure())):
                run.mark_failed(reason)


def alone(run: Run) -> Job:
    """The job of one run."""
    return Job(runs=(run,), training=(), log=run.workdir / _LOG)


def jobs_of(runs: Sequence[Run], values: argparse.Namespace) -> list[Job]:
    """Divides a sweep into what is run as one.

    Args:
        runs: All its runs.
        values: The flags.

    Returns:
        A job for each run; with --fused for each group of runs that can share a program, and for
        each of the others, of which is said why they cannot.
    """
    if not values.fused:
        return [alone(run) for run in runs]
    groups, others = sweeps.grouped(runs)
    for name, reason in others.items():
        print(f"{name} is trained alone: {reason}", file=sys.stderr)
    words = ("ablate", f"--config={values.sweep}", f"--root={values.root}")
    more = ("--retry",) if values.retry else ()
    if values.override:
        more += (f"--config.overrides={loaded(values).overrides!r}",)
    fused = [
        Job(
            runs=tuple(group),
            training=(*words, f"--group={number}", *more),
            log=values.root / f"group{number}.log",
        )
        for number, group in enumerate(groups)
    ]
    return fused + [alone(run) for run in runs if run.name in others]


@dataclasses.dataclass
class Queue:
    """Runs several jobs at once, each with its share of the GPUs.

    Attributes:
        jobs: How many at once.
        gpus_per_job: GPUs of each; 0 to leave that alone.
    """

    jobs: int
    gpus_per_job: int

    def __post_init__(self) -> None:
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.jobs):
            self._slots.put(slot)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        # Nobody writes to it: a run sees that its other end is closed when this program is gone, by
        # SIGKILL too, and takes that for SIGTERM.
        self._pipe, _ = os.pipe()
        self.received: int | None = None

    def stop(self, number: int, _: object = None) -> None:
        """Asks every run to save and stop, and starts no other.

        Args:
            number: The signal that the runs get.
        """
        with self._lock:
            self.received = number
            for process in self._running:
                process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    def execute(self, job: Job) -> list[Job]:
        """Runs what is left of a job; notes what fails.

        Args:
            job: The job.

        Returns:
            What is to be run then: of runs that were trained together, each by itself.
        """
        if self.received is not None:
            return []
        slot = self._slots.get()
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            if not job.training:
                job.runs[0].clear_failure()
            for command in job.commands():
                code = self._one(program(command), job.log, slot)
                if self.received is not None or code in _STOPPED:
                    return []
                if code:
                    job.mark_failed(f"{command[0]} ended with code {code}: {_last_line(job.log)}")
                    break
        finally:
            self._slots.put(slot)
        return job.afterwards()

    def _one(self, words: Sequence[str], log: pathlib.Path, slot: int) -> int:
        environment = dict(os.environ)
        environment[signals.LAUNCHER] = f"{self._pipe}:{os.fstat(self._pipe).st_ino}"
        if self.gpus_per_job:
            first, behind = (self.gpus_per_job * n for n in (slot, slot + 1))
            # Numbers or UUIDs of those that were given to this shell; the others are not its own.
            given = os.environ.get(_GPUS)
            ids = _words(given) if given is not None else [str(n) for n in range(behind)]
            environment[_GPUS] = ",".join(ids[first:behind])
        with log.open("ab") as file:
            # Under the lock: a signal reaches every run that has begun.
            with self._lock:
                if self.received is not None:
                    return _SIGNALED + self.received
                file.write(f"$ {shlex.join(words)}\n".encode())
                file.flush()
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=(self._pipe,),
                    # Ctrl-C comes to this program, which passes it on.
                    start_new_session=True,
                )
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        return code if code >= 0 else _SIGNALED - code


def _words(listed: str) -> list[str]:
    return [word.strip() for word in listed.split(",") if word.strip()]


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def run_here(runs: Sequence[Run], left: Sequence[Job], values: argparse.Namespace) -> int:
    """Runs a sweep on this machine.

    Args:
        runs: All its runs.
        left: What is to be run.
        values: The flags.

    Returns:
        0 if all are finished, 1 if some failed, 128 + s after signal s.
    """
    chosen = [run for run in runs if run.state() in _wanted(values)]
    jobs = Queue(values.jobs, values.gpus_per_job)
    for number in signals.NUMBERS:
        if signal.getsignal(number) == signal.SIG_IGN:  # as under `nohup`
            continue
        # The handler takes a lock that the main thread never holds.
        signal.signal(
            number, lambda got, _: threading.Thread(target=jobs.stop, args=(got,)).start()
        )
    taken = sum(run.progress()[0] for run in chosen)
    with (
        concurrent.futures.ThreadPoolExecutor(values.jobs) as pool,
        progress.bar(
            total=sum(run.steps for run in chosen),
            initial=taken,
            description=f"{len(chosen)} of {len(runs)} runs",
            unit="steps",
        ) as bar,
    ):
        waiting = {pool.submit(jobs.execute, job) for job in left}
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, timeout=_POLL_SECONDS)
            for each in done:
                waiting |= {pool.submit(jobs.execute, job) for job in each.result()}
            now = sum(run.progress()[0] for run in chosen)
            bar.update(max(now - taken, 0))
            taken = max(now, taken)
    print(table(runs))
    if jobs.received is not None:
        return _SIGNALED + jobs.received
    failed = [run for run in runs if run.state() == "failed"]
    for run in failed:
        print(f"{run.name} failed, see {run.workdir / _LOG}: {run.failure()}", file=sys.stderr)
    if failed:
        print("launch/sweep.py: run again what failed by --retry", file=sys.stderr)
        return _FAILED
    if runs[0].evaluate and not values.no_report:
        return subprocess.run(program(report_command(runs, values.root)), check=False).returncode
    return 0


def _wanted(values: argparse.Namespace) -> tuple[str, ...]:
    return ("waiting", "begun", "failed") if values.retry else ("waiting", "begun")


def _is_left(job: Job, values: argparse.Namespace) -> bool:
    return any(run.state() in _wanted(values) for run in job.runs)


def report_command(runs: Sequence[Run], root: pathlib.Path) -> list[str]:
    """The command that compares all runs.

    Args:
        runs: The runs.
        root: Where the page goes.

    Returns:
        What follows `python -m invariance_jax`.
    """
    return ["report", *(str(run.workdir) for run in runs), f"--output={root}"]


def everything(job: Job) -> Iterator[list[str]]:
    """The commands of a job and of what follows, each made when those before it are done."""
    yield from job.commands()
    for each in job.afterwards():
        yield from (command for command in each.commands() if command[0] != "train")


def run_one(jobs: Sequence[Job], number: str) -> int:
    """Runs one job in the foreground, as every process of a SLURM task does.

    Args:
        jobs: All jobs.
        number: Which, or "array" for that of the SLURM array.

    Returns:
        The first code that is not 0.

    Raises:
        UserError: There is no such job.
    """
    text = os.environ.get("SLURM_ARRAY_TASK_ID", "") if number == "array" else number
    if not text.isdecimal() or int(text) >= len(jobs):
        raise UserError(f"--run is {text!r}; expected a whole number, 0 to {len(jobs) - 1}")
    failed = 0
    for command in everything(jobs[int(text)]):
        process = subprocess.Popen(program(command))
        # SLURM signals every process; this one must outlive the one that saves.
        signal.signal(signal.SIGTERM, lambda got, _, process=process: process.send_signal(got))
        code = process.wait()
        if code not in (0, _FAILED) or (code and command[0] != "ablate"):
            return code if code > 0 else _SIGNALED - code
        # Of runs that are trained together the others are evaluated.
        failed = failed or code
    return failed


def slurm_command(jobs: Sequence[Job], values: argparse.Namespace) -> list[str]:
    """The command that submits what is left as one SLURM array.

    Args:
        jobs: All jobs.
        values: The flags.

    Returns:
        A call of launch/slurm.sh.
    """
    numbers = [str(n) for n, job in enumerate(jobs) if _is_left(job, values)]
    fused = ["--fused", *(["--retry"] if values.retry else [])] if values.fused else []
    script = pathlib.Path(__file__).resolve()
    return [
        str(script.with_name("slurm.sh")),
        *shlex.split(values.slurm),
        f"--array={','.join(numbers)}%{values.jobs}",
        *(["--dry_run"] if values.dry_run else []),
        *("--", sys.executable, str(script), values.sweep, f"--root={values.root}"),
        *(f"--override={each}" for each in values.override),
        *(*fused, "--run=array"),
    ]


def main(argv: Sequence[str]) -> int:
    """Runs a sweep.

    Args:
        argv: The command line.

    Returns:
        The exit code.
    """
    values = parse(argv)
    try:
        runs = sweeps.expand(loaded(values), values.root)
        jobs = jobs_of(runs, values)
        if values.run is not None:
            return run_one(jobs, values.run)
        left = [job for job in jobs if _is_left(job, values)]
    except UserError as error:
        print(f"launch/sweep.py: {error}", file=sys.stderr)
        return _USER_ERROR
    if values.status:
        print(table(runs))
        return 0
    if values.slurm is not None:
        if not left:
            print(table(runs))
            return 0
        return subprocess.run(slurm_command(jobs, values), check=False).returncode
    if values.dry_run:
        for job in left:
            for command in everything(job):
                print(shlex.join(program(command)))
        print(shlex.join(program(report_command(runs, values.root))))
        return 0
    return run_here(runs, left, values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
