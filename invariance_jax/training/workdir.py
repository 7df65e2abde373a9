"""A run's folder: whose it is, whether it is finished, and what was trained in it."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from invariance_jax import distributed, files
from invariance_jax.config import TRAINING_FIELDS, ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.fields import check, differences
from invariance_jax.training import checkpoints

_CONFIG = "config.json"


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config: ExperimentConfig) -> Iterator[None]:
    """Marks a workdir as this config's, or checks that it is; every process must enter.

    Args:
        workdir: The run's folder; made if absent.
        config: The run's config.

    Yields:
        Nothing; while the block runs, no other run trains there.

    Raises:
        UserError: The workdir belongs to another config; every field that differs is named with
            both values. Or another run is training there, or the processes do not see the same
            folder.
    """
    with distributed.held(workdir, "training"):
        with distributed.together():
            if distributed.is_lead():
                if (workdir / _CONFIG).exists():
                    _check_same(workdir, config)
                files.write_text(workdir / _CONFIG, config.to_json() + "\n")
        with distributed.together():
            if not (workdir / _CONFIG).exists():
                raise UserError(
                    f"workdir {workdir} is not the folder that process 0 sees; expected a file "
                    "system that all hosts share, because each writes its part of a checkpoint"
                )
            _check_same(workdir, config)
        yield


def _check_same(workdir: pathlib.Path, config: ExperimentConfig) -> None:
    """Refuses a config that would go on with another one's run."""
    listed = "; ".join(
        f"config.{path} is {there!r} there and {here!r} here"
        for path, (there, here) in differences(read_config(workdir), config).items()
        if path in TRAINING_FIELDS
    )
    if listed:
        raise UserError(
            f"workdir {workdir} belongs to another config: {listed}. "
            "Choose another --workdir, or give the same config to go on with this run"
        )


def read_config(workdir: pathlib.Path) -> ExperimentConfig:
    """Reads the config of a run.

    Args:
        workdir: The run's folder.

    Returns:
        Its config.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    path = workdir / _CONFIG
    if not path.is_file():
        raise UserError(f"workdir {workdir} holds no run: {path} does not exist; train first")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, or of UTF-8
        raise UserError(f"{path} is not JSON: {error}") from error
    return check(ExperimentConfig, values, str(path))


def is_finished(workdir: pathlib.Path, config: ExperimentConfig) -> bool:
    """Whether a run has been trained to its end.

    Args:
        workdir: The run's folder, there or not.
        config: The run's config.

    Returns:
        Whether its last complete checkpoint is that of the last step.

    Raises:
        UserError: The folder belongs to another config.
    """
    if not (workdir / _CONFIG).exists():
        return False
    _check_same(workdir, config)
    return max(checkpoints.steps(workdir), default=0) == config.train.steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """What was trained in a workdir.

    Attributes:
        config: The run's config.
        variables: What it is judged by, as numpy arrays for `model.apply`: the moving average
            where there is one, else the parameters and batch statistics.
        step: Steps taken.
        seconds: Time of training and validation up to there.
        num_classes: Length of the logits.
    """

    config: ExperimentConfig
    variables: dict[str, Any]
    step: int
    seconds: float
    num_classes: int


def load_run(
    workdir: pathlib.Path,
    *,
    best: bool = False,
    announce: Callable[[str], object] = distributed.say,
) -> LoadedRun:
    """Reads a trained network: its config and a checkpoint, nothing else.

    Args:
        workdir: The run's folder.
        best: Whether to take the checkpoint with the best validation instead of the newest.
        announce: Is told of checkpoints that cannot be read.

    Returns:
        The network.

    Raises:
        UserError: The folder holds no run or no checkpoint, or not the best one.
        CheckpointError: There are checkpoints, and none of them can be read.
    """
    config = read_config(workdir)
    found = checkpoints.restore_variables(workdir, best=best, announce=announce)
    if found is None:
        raise UserError(f"workdir {workdir} holds no checkpoint yet; train it first")
    step, variables, progress = found
    (classes,) = variables["params"]["head"]["bias"].shape
    return LoadedRun(
        config=config,
        variables=variables,
        step=step,
        seconds=progress.seconds,
        num_classes=classes,
    )
