"""A workdir belongs to one config: it is marked when a run starts and checked ever after."""

import json
import pathlib

import orbax.checkpoint as ocp

from invariance_jax import distributed, files
from invariance_jax.config import TRAINING_FIELDS, ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.fields import check, differences

_CONFIG = "config.json"


def claim(workdir: pathlib.Path, config: ExperimentConfig) -> None:
    """Marks a workdir as this config's, or checks that it is; every process must call it.

    Args:
        workdir: The run's folder; made if absent.
        config: The run's config.

    Raises:
        UserError: The workdir belongs to another config; every field that differs is named with
            both values. Or the processes do not see the same folder.
    """
    with distributed.together():
        if distributed.is_lead():
            if (workdir / _CONFIG).exists():
                _check_same(workdir, config)
            files.write_text(workdir / _CONFIG, config.to_json() + "\n")
    with distributed.together():
        if not (workdir / _CONFIG).exists():
            raise UserError(
                f"workdir {workdir} is not the folder that process 0 sees; expected a file system "
                "that all hosts share, because each writes its part of a checkpoint"
            )
        _check_same(workdir, config)


def _check_same(workdir: pathlib.Path, config: ExperimentConfig) -> None:
    """Refuses a config that would go on with another one's run."""
    stored = read_config(workdir)
    different = {
        path: values
        for path, values in differences(stored, config).items()
        if path in TRAINING_FIELDS
    }
    if different:
        listed = "; ".join(
            f"config.{path} is {there!r} there and {here!r} here"
            for path, (there, here) in different.items()
        )
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
    except json.JSONDecodeError as error:
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
    folder = workdir / "checkpoints"
    steps = ocp.utils.checkpoint_steps(folder) if folder.exists() else []
    return max(steps, default=0) == config.train.steps
