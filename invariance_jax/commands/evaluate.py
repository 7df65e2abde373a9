"""`evaluate`: accuracy and invariance of a run, as a table row and a result file."""

import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from absl import flags

from invariance_jax import data, devices, experiment, progress
from invariance_jax.commands import parsing
from invariance_jax.config import ExperimentConfig, differences, from_config_dict
from invariance_jax.errors import UserError
from invariance_jax.evaluation import accuracy_table, grid, results
from invariance_jax.evaluation.accuracy_table import AccuracyRow
from invariance_jax.experiment import Experiment
from invariance_jax.training import loop, workdir
from invariance_jax.training.checkpoints import Checkpoints
from invariance_jax.transforms import TRANSFORMS

_USAGE = """\
usage: invariance-jax evaluate --workdir=DIR [--untrained] [--config.eval.FIELD=VALUE ...]

Measures top-1 accuracy and relative invariance over 13 transforms x 10 magnitudes of the newest
checkpoint in DIR, and writes DIR/accuracy.csv and DIR/invariance/NAME.nc.

With --untrained the same network is measured as it was before its first step: what the
architecture alone brings.
"""

# Fields that say where and how to evaluate, not what was trained.
_MAY_CHANGE = ("eval.", "data.data_dir", "data.workers", "mesh.", "data.validation_split")


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("workdir", None, "a trained run's folder", flag_values=values)
        flags.DEFINE_bool("untrained", False, "measure before the first step", flag_values=values)
        flags.DEFINE_bool(
            "overwrite", False, "replace a result file of other weights", flag_values=values
        )

    folder = _workdir_of(argv)
    stored = workdir.read_config(folder) if folder else None
    values, _ = parsing.parse(
        argv,
        usage=_USAGE,
        define=define,
        config=json.loads(stored.to_json()) if stored else None,
    )
    parsing.required(values, "workdir", "DIR")
    config = from_config_dict(ExperimentConfig, values.config)
    for path, (there, here) in differences(stored, config).items():
        if not path.startswith(_MAY_CHANGE):
            raise UserError(
                f"--config.{path} is {here!r}, but {folder} was trained with {there!r}; "
                f"evaluate can change only config.eval.*, config.mesh.*, config.data.data_dir, "
                "config.data.validation_split and config.data.workers"
            )
    built = experiment.make(config)
    if values.untrained:
        variables, steps, seconds = built.init_state().variables, 0, 0.0
    else:
        with Checkpoints(folder) as checkpoints:
            restored = loop.restore_state(built, checkpoints)
        if restored is None:
            raise UserError(
                f"workdir {folder} holds no checkpoint yet; train it first, "
                "or give --untrained to measure the network before training"
            )
        state, done = restored
        variables, steps, seconds = state.evaluated_variables, int(state.step), done.seconds
    row = evaluate(
        built, variables, folder, steps=steps, seconds=seconds, overwrite=values.overwrite
    )
    print(f"{folder}: {row.model}, {steps} steps, validation top-1 {row.top1:.2%}")


def _workdir_of(argv: Sequence[str]) -> pathlib.Path | None:
    """The workdir, needed before the flags can be parsed: it holds the fields they override."""
    if any(word in ("--help", "-help", "-h") for word in argv):
        return None
    for position, word in enumerate(argv):
        name, _, value = word.lstrip("-").partition("=")
        if name == "workdir" and word.startswith("-"):
            value = value or (argv[position + 1] if position + 1 < len(argv) else "")
            return pathlib.Path(value).expanduser() if value else None
    raise UserError("--workdir is missing; give it as --workdir=DIR")


def result_name(config: ExperimentConfig, steps: int) -> str:
    """Names a model's result file.

    Args:
        config: The run's config.
        steps: Steps taken; 0 for an untrained model.

    Returns:
        A file name without suffix: model, augmentation (or "untrained", or the file that the
        weights came from), seed.
    """
    labels = config.model.name, config.training_label(steps)
    words = [re.sub(r"\W+", "_", text).strip("_") for text in labels]
    return "_".join([*words, f"seed{config.seed}"])


def evaluate(
    built: Experiment,
    variables: Any,
    output: pathlib.Path,
    *,
    steps: int,
    seconds: float,
    overwrite: bool,
) -> AccuracyRow:
    """Measures one model and writes what was found.

    Args:
        built: The experiment.
        variables: Parameters and batch statistics.
        output: Folder for `accuracy.csv` and `invariance/NAME.nc`.
        steps: Steps of training; 0 for an untrained model.
        seconds: Time of training.
        overwrite: Whether a result file of other weights may be replaced.

    Returns:
        The row of the accuracy table.

    Raises:
        UserError: The result file belongs to another model or grid.
    """
    config = built.config
    attributes = {
        "model": config.model.name,
        # What an untrained network would have been trained with has not touched it.
        "augmentation": config.training_label(steps),
        "seed": config.seed,
        "steps": steps,
        "dataset": config.data.name,
        "split": config.eval.split,
        "domain": config.eval.domain,
        "parameters_sha256": results.fingerprint(variables),
        "config": config.to_json(),
    }
    path = output / "invariance" / f"{result_name(config, steps)}.nc"
    if not _already_measured(path, attributes, overwrite):
        distances = _measure_grid(built, variables, path.stem)
        examples = [_named(built.evaluation_source, i) for i in range(len(built.evaluation_source))]
        results.write(
            results.to_dataset(
                distances,
                TRANSFORMS,
                names=[name for name, _ in examples],
                labels=[label for _, label in examples],
                attributes=attributes,
            ),
            path,
        )
    measured = loop.make_validate(built)(variables)
    row = AccuracyRow(
        model=config.model.name,
        augmentation=str(attributes["augmentation"]),
        seed=config.seed,
        top1=measured.top1,
        steps=steps,
        seconds=seconds,
    )
    accuracy_table.update(output / "accuracy.csv", row)
    return row


def _named(source: data.Source, index: int) -> tuple[str, int]:
    example = source[index]
    return example["name"], example["label"]


def _already_measured(path: pathlib.Path, attributes: dict[str, Any], overwrite: bool) -> bool:
    """Whether the file holds this very measurement; another one is not overwritten in silence."""
    if not path.exists() or overwrite:
        return False
    found = results.read(path).attrs
    same = ("parameters_sha256", "dataset", "split")
    different = [name for name in same if found.get(name) != attributes[name]]
    ours, theirs = (json.loads(each["config"])["eval"] for each in (attributes, found))
    different += [f"config.eval.{name}" for name in ours if ours[name] != theirs.get(name)]
    if different:
        raise UserError(
            f"{path} holds another measurement (its {', '.join(different)} differ); "
            "move it away or give --overwrite"
        )
    return True


def _measure_grid(built: Experiment, variables: Any, description: str) -> grid.GridDistances:
    config, source = built.config, built.evaluation_source

    def batches() -> Iterable[data.Batch]:
        return data.prefetch_to_device(
            data.evaluation_batches(
                source,
                batch_size=config.eval.grid_batch_size,
                canvas_size=config.data.canvas_size,
                workers=config.data.workers,
            ),
            devices.by_example(built.mesh),
        )

    with progress.bar(total=len(source), description=description, unit="images") as bar:
        return grid.measure(
            built.model,
            jax.device_put(variables, devices.replicated(built.mesh)),
            built.preprocess,
            TRANSFORMS,
            config.eval.domain,
            batches,
            images=len(source),
            seed=config.eval.seed,
            mesh=built.mesh,
            progress=bar.update,
        )
