"""A sweep is many runs of `train` and `evaluate`: which there are, and how far each is."""

import dataclasses
import pathlib
import re
import shlex
import zlib
from collections.abc import Sequence
from typing import Literal

from invariance_jax.commands import parsing
from invariance_jax.config import ExperimentConfig, SweepConfig, from_config_dict
from invariance_jax.errors import UserError
from invariance_jax.evaluation import accuracy_table
from invariance_jax.training import workdir as workdirs
from invariance_jax.training import writers

State = Literal["waiting", "begun", "failed", "finished"]

_FAILED = "failed.txt"
# File systems allow 255 bytes; tables should stay readable.
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: Its name, made of what tells it from the others; it does not change when runs are
            added to the sweep.
        flags: The flags of `train`, without `--workdir`.
        evaluate: What is measured after training: "trained", "untrained".
        workdir: Its folder.
        config: What the flags say.
    """

    name: str
    flags: tuple[str, ...]
    evaluate: tuple[str, ...]
    workdir: pathlib.Path
    config: ExperimentConfig

    def commands(self) -> list[list[str]]:
        """What is still to be run, in order; each is what follows `python -m invariance_jax`."""
        todo = []
        if not workdirs.is_finished(self.workdir, self.config):
            todo.append(["train", *self.flags, f"--workdir={self.workdir}"])
        rows = accuracy_table.read(self.workdir / "accuracy.csv")
        for kind in self.evaluate:
            steps, flags = (0, ["--untrained"]) if kind == "untrained" else (self.steps, [])
            if not any(row.steps == steps for row in rows):
                todo.append(["evaluate", f"--workdir={self.workdir}", *flags])
        return todo

    @property
    def steps(self) -> int:
        """Steps of training in all."""
        return self.config.train.steps

    def progress(self) -> tuple[int, float]:
        """Steps taken as far as the run has told, and the seconds that they took."""
        rows = writers.read_metrics(self.workdir)
        return (int(rows[-1]["step"]), float(rows[-1]["seconds"])) if rows else (0, 0.0)

    def state(self) -> State:
        """How far the run is."""
        if not self.commands():
            return "finished"
        if (self.workdir / _FAILED).exists():
            return "failed"
        return "begun" if self.workdir.exists() else "waiting"

    def mark_failed(self, reason: str) -> None:
        """Notes that the run failed.

        Args:
            reason: Why, for the table.
        """
        self.workdir.mkdir(parents=True, exist_ok=True)
        (self.workdir / _FAILED).write_text(reason + "\n", encoding="utf-8")

    def failure(self) -> str:
        """Why the run failed; empty if it did not."""
        path = self.workdir / _FAILED
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def clear_failure(self) -> None:
        """Forgets that the run failed."""
        (self.workdir / _FAILED).unlink(missing_ok=True)


def load(path: str) -> SweepConfig:
    """Reads a sweep.

    Args:
        path: The file, with its argument if it takes one: `configs/sweeps/NAME.py:ARGUMENT`.

    Returns:
        The sweep.

    Raises:
        UserError: It cannot be read, or a field is wrong.
    """
    values, _ = parsing.parse([f"--config={path}"], usage="", define=lambda values: None, config="")
    return from_config_dict(SweepConfig, values.config, "sweep")


def expand(sweep: SweepConfig, root: pathlib.Path) -> list[Run]:
    """Spells out all runs; every config is read and checked.

    Args:
        sweep: The sweep.
        root: The folder of all runs.

    Returns:
        One run for each config, override and seed, in this order.

    Raises:
        UserError: A config or an override is wrong, or two runs are the same.
    """
    runs: dict[str, Run] = {}
    for config in sweep.configs:
        for override in sweep.overrides or ("",):
            for seed in sweep.seeds:
                run = _make_run(sweep, root, config, shlex.split(override), seed)
                if run.name in runs:
                    raise UserError(f"sweep: two runs are called {run.name!r}; expected each once")
                runs[run.name] = run
    return list(runs.values())


def _make_run(
    sweep: SweepConfig, root: pathlib.Path, config: str, override: Sequence[str], seed: int
) -> Run:
    path, _, argument = config.partition(":")
    name = _name([pathlib.Path(path).stem, argument, *override], f"seed{seed}")
    flags = (f"--config={config}", *(f"--config.{each}" for each in override))
    flags = (*flags, f"--config.seed={seed}")
    try:
        values, _ = parsing.parse(flags, usage="", define=lambda values: None, config="")
        checked = from_config_dict(ExperimentConfig, values.config)
    except UserError as error:
        raise UserError(f"run {name}: {error}") from error
    return Run(
        name=name,
        flags=flags,
        evaluate=sweep.evaluate,
        workdir=root / name,
        config=checked,
    )


def _name(words: Sequence[str], seed: str) -> str:
    """A folder name; a long one is cut, and a checksum tells it from others with this beginning."""
    name = "_".join(re.sub(r"\W+", "_", word).strip("_") for word in words if word)
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}_{zlib.crc32(name.encode()):08x}"
    return f"{name}_{seed}"
