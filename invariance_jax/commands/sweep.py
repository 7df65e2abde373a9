"""A sweep is many runs of `train` and `evaluate`: which there are, and how far each is."""

import dataclasses
import itertools
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from invariance_jax.commands import parsing
from invariance_jax.commands.evaluate import file_name, result_name
from invariance_jax.config import (
    AugmentConfig,
    ExperimentConfig,
    OptimizerConfig,
    SweepConfig,
    TrainConfig,
)
from invariance_jax.errors import UserError
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.fields import fields, flatten
from invariance_jax.training import metrics
from invariance_jax.training import workdir as workdirs

State = Literal["waiting", "begun", "failed", "finished"]

_FAILED = "failed.txt"
# Tables should stay readable.
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
        if not self.is_trained():
            todo.append(["train", *self.flags, f"--workdir={self.workdir}"])
        for kind in self.evaluate:
            trained = kind == "trained"
            steps, flags = (self.steps, []) if trained else (0, ["--untrained"])
            name = result_name(self.config, steps)
            wanted = [each.name for each in make_measurements(self.config, trained=trained)]
            if not all((self.workdir / each / f"{name}.nc").exists() for each in wanted):
                todo.append(["evaluate", f"--workdir={self.workdir}", *flags])
        return todo

    @property
    def steps(self) -> int:
        """Steps of training in all."""
        return self.config.train.steps

    def progress(self) -> tuple[int, float]:
        """Steps taken as far as the run has told, and the seconds that they took."""
        rows = metrics.read_metrics(self.workdir)
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

    def is_trained(self) -> bool:
        """Whether the run has been trained to its end."""
        return workdirs.is_finished(self.workdir, self.config)


class Groups(NamedTuple):
    """The runs of a sweep that are trained together.

    Attributes:
        groups: Runs that share a program, at least two each.
        alone: Names of the others, and why they share none.
    """

    groups: list[list[Run]]
    alone: dict[str, str]


def grouped(runs: Sequence[Run]) -> Groups:
    """Finds the runs that can share a program, whatever has been trained of them.

    Args:
        runs: All runs of a sweep.

    Returns:
        The groups.
    """
    # JAX's parts of training, which a sweep of runs alone needs none of.
    from invariance_jax.training import ablation

    if len(runs) == 1:
        return Groups([], {runs[0].name: "it is the only run"})
    found = ablation.groups([run.config for run in runs])
    largest = max(found, key=len)
    alone = {}
    for (number,) in (each for each in found if len(each) == 1):
        other = next((each for each in largest if each != number), (number + 1) % len(runs))
        alone[runs[number].name] = ablation.difference(runs[number].config, runs[other].config)
    return Groups([[runs[n] for n in each] for each in found if len(each) > 1], alone)


def group(runs: Sequence[Run], number: int) -> list[Run]:
    """Finds one of the groups of runs that can share a program.

    Args:
        runs: All runs of a sweep.
        number: Which, from 0.

    Returns:
        Its runs.

    Raises:
        UserError: There are not so many; if there is none, the message says why.
    """
    found, alone = grouped(runs)
    if number < len(found):
        return found[number]
    if found:
        many = f"{len(found)} group{'s' * (len(found) > 1)}"
        raise UserError(f"--group is {number}; expected less: the sweep has {many} of runs")
    name, reason = next(iter(alone.items()))
    raise UserError(f"no two runs of the sweep can share a program; {name}: {reason}")


def load(path: str) -> SweepConfig:
    """Reads a sweep.

    Args:
        path: The file, with its argument if it takes one: `configs/sweeps/NAME.py:ARGUMENT`.

    Returns:
        The sweep.

    Raises:
        UserError: It cannot be read, or a field is wrong.
    """
    return parsing.load_config(path, SweepConfig)


def expand(sweep: SweepConfig, root: pathlib.Path) -> list[Run]:
    """Spells out all runs; every config is read and checked.

    Args:
        sweep: The sweep.
        root: The folder of all runs.

    Returns:
        One run for each config, variant and point of the axes, in this order, the last axis
        fastest. The untrained network is measured by the first of those that share it.

    Raises:
        UserError: A config or an override is wrong, or two runs are the same.
    """
    if not sweep.configs:
        raise UserError("sweep.configs is empty; expected at least one config file")
    # Mappings have lost their order: axes come as the fields do, the seed last.
    known = [path for path, _ in fields(ExperimentConfig) if path != "seed"]
    ranks = {path: rank for rank, path in enumerate([*known, "seed"])}
    given = sorted(flatten(sweep.axes).items(), key=lambda axis: ranks.get(axis[0], 0))
    axes = {path: _values(path, each) for path, each in given}
    runs: dict[str, Run] = {}
    for config in sweep.configs:
        base = parsing.load_config(config)
        shared = [word for each in sweep.overrides for word in shlex.split(each)]
        for variant in sweep.variants or ("",):
            for point in itertools.product(*axes.values()):
                pairs = list(zip(axes, point, strict=True))
                overrides = [*shlex.split(variant), *(f"{path}={value}" for path, value in pairs)]
                told = [*shlex.split(variant), *(_short(path, value) for path, value in pairs)]
                run = _make_run(sweep, root, config, base, (*shared, *overrides), told)
                if run.name in runs:
                    raise UserError(f"sweep: two runs are called {run.name!r}; expected each once")
                runs[run.name] = run
    return _measured_once(list(runs.values()))


def _values(path: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, tuple | list) or not values:
        raise UserError(f"sweep.axes.{path} is {values!r}; expected a tuple of at least one value")
    return tuple(values)


def _make_run(
    sweep: SweepConfig,
    root: pathlib.Path,
    file: str,
    base: ExperimentConfig,
    overrides: Sequence[str],
    told: Sequence[str],
) -> Run:
    path, _, argument = file.partition(":")
    name = file_name(pathlib.Path(path).stem, argument, *told, longest=_LONGEST_NAME)
    try:
        config = parsing.overridden(base, [tuple(each.split("=", 1)) for each in overrides])
    except UserError as error:
        raise UserError(f"run {name}: {error}") from error
    flags = (f"--config={file}", *(f"--config.{each}" for each in overrides))
    return Run(name=name, flags=flags, evaluate=sweep.evaluate, workdir=root / name, config=config)


def _measured_once(runs: list[Run]) -> list[Run]:
    """Of runs that begin with the same network, the first alone measures it untrained."""
    known: set[str] = set()
    found = []
    for run in runs:
        network = run.config.with_values(
            train=TrainConfig().to_dict(),
            augment=AugmentConfig().to_dict(),
            optimizer=OptimizerConfig().to_dict(),
            data={"fraction": 1.0, "subset_seed": 0, "skip_bad_images": False},
        ).to_json()
        evaluate = tuple(each for each in run.evaluate if each == "trained" or network not in known)
        known.add(network)
        found.append(dataclasses.replace(run, evaluate=evaluate))
    return found


def _short(path: str, value: Any) -> str:
    """A point of an axis in few words: the field's name goes without saying where it is one."""
    field = path.rpartition(".")[2]
    return f"{value}" if field == "name" else f"{field}{value}"
