"""`evaluate`: accuracy and invariance of a run, as a table row and a result file."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from invariance_jax import devices, distributed
from invariance_jax.commands import further, parsing
from invariance_jax.config import TRAINED_FIELDS, ExperimentConfig, differences, identity
from invariance_jax.errors import UserError
from invariance_jax.evaluation import accuracy_table, invariance, percentiles, results, summary
from invariance_jax.evaluation.accuracy_table import AccuracyRow
from invariance_jax.evaluation.shards import Shards
from invariance_jax.training import experiment, loop, workdir
from invariance_jax.training.experiment import Experiment
from invariance_jax.transforms import TRANSFORMS

_USAGE = """\
usage: invariance-jax evaluate --workdir=DIR [--untrained] [--config.eval.FIELD=VALUE ...]
       invariance-jax evaluate --workdir=DIR --config=FILE.py:ARGUMENT [--config.FIELD=VALUE ...]

Measures top-1 accuracy and relative invariance over 13 transforms x 10 magnitudes of the newest
checkpoint in DIR (or --checkpoint=best, by top-1 in validation), and writes DIR/accuracy.csv and
DIR/invariance/NAME.nc. Interrupted, the same command goes on where it stopped. With
config.eval.local_equivariance it writes DIR/local_equivariance/NAME.nc too, with
config.eval.test_time DIR/test_time/NAME.nc and NAME.csv.

With --untrained the same network is measured as it was before its first step: what the
architecture alone brings. With --config there need be no run in DIR: what is measured is the
network of the config, with the weights in config.model.weights.
"""


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
        parsing.define_checkpoint(values)

    with distributed.together():
        folder = _workdir_of(argv)
        of_file = any(word.lstrip("-").partition("=")[0] == "config" for word in argv)
        stored = workdir.read_config(folder) if folder and not of_file else None
        parsed = parsing.parse(
            argv, usage=_USAGE, define=define, config="" if of_file or not stored else stored
        )
        values = parsed.flags
        parsing.required(parsed, "workdir", "DIR")
        best = parsing.wants_best(values)
        config = parsing.required(parsed, "config", "FILE")
        if stored:
            _check_same_training(folder, stored, config)
        elif not (config.model.weights or values.untrained):
            raise UserError(
                "config.model.weights is empty, so that there is nothing to measure; give a file "
                "of weights, or --untrained, or leave --config out to measure the run in --workdir"
            )
        built = experiment.make(config)
        _ = built.evaluation_source, built.validation_source
    distributed.say(distributed.device_map(built.mesh))
    if values.untrained or not stored:
        variables, steps, seconds = built.init_state().variables, 0, 0.0
    else:
        run_ = workdir.load_run(folder, best=best)
        variables, steps, seconds = run_.variables, run_.step, run_.seconds
    row = evaluate(
        built, variables, folder, steps=steps, seconds=seconds, overwrite=values.overwrite
    )
    if distributed.is_lead():
        print(summary.table(results.read(result_path(folder, config, steps))))
        print(further.tables_of(folder, built, result_name(config, steps)), end="")
        print(f"{folder}: {row.model}, {steps} steps, validation top-1 {row.top1:.2%}")


def _check_same_training(
    folder: pathlib.Path, stored: ExperimentConfig, config: ExperimentConfig
) -> None:
    for path, (there, here) in differences(stored, config).items():
        if path in TRAINED_FIELDS:
            raise UserError(
                f"--config.{path} is {here!r}, but {folder} was trained with {there!r}; "
                f"evaluate can change only config.eval.*, config.mesh.*, config.data.data_dir, "
                "config.data.validation_split and config.data.workers"
            )


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


def result_path(output: pathlib.Path, config: ExperimentConfig, steps: int) -> pathlib.Path:
    """Says where a model's result file stands.

    Args:
        output: The folder of all results.
        config: The run's config.
        steps: Steps taken; 0 for an untrained model.

    Returns:
        The path.
    """
    return output / "invariance" / f"{result_name(config, steps)}.nc"


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
        output: Folder for `accuracy.csv` and `invariance/NAME.nc`; all processes must see it.
        steps: Steps of training; 0 for an untrained model.
        seconds: Time of training.
        overwrite: Whether a result file of another measurement may be replaced.

    Returns:
        The row of the accuracy table.

    Raises:
        UserError: The result file belongs to another model or grid, or as `invariance.measure`.
    """
    config = built.config
    host = devices.to_host(variables)
    attributes = _attributes(config, steps, results.fingerprint(host))
    _measure_invariance(built, host, output, steps, overwrite, attributes)
    further.measure(
        built,
        variables,
        output,
        result_name(config, steps),
        attributes=attributes,
        overwrite=overwrite,
    )
    measured = loop.make_validate(built)(variables)
    row = AccuracyRow(
        model=config.model.name,
        # What an untrained network would have been trained with has not touched it.
        augmentation=config.training_label(steps),
        seed=config.seed,
        top1=measured.top1,
        steps=steps,
        seconds=seconds,
    )
    if distributed.is_lead():
        accuracy_table.update(output / "accuracy.csv", row)
    return row


def _attributes(config: ExperimentConfig, steps: int, fingerprint: str) -> dict[str, Any]:
    """What every result file says of its model."""
    return {
        "model": config.model.name,
        "augmentation": config.training_label(steps),
        "seed": config.seed,
        "steps": steps,
        "dataset": config.data.name,
        "split": config.eval.split,
        "parameters_sha256": fingerprint,
        "config": config.to_json(),
    }


def _measure_invariance(
    built: Experiment,
    variables: Any,
    output: pathlib.Path,
    steps: int,
    overwrite: bool,
    attributes: Mapping[str, Any],
) -> None:
    """Writes the result file unless it is there; only process 0 writes what is written once."""
    config, source = built.config, built.evaluation_source
    path, lead = result_path(output, config, steps), distributed.is_lead()
    shards = Shards(path.with_suffix(".parts"))
    depends_on = _identity(config, attributes["parameters_sha256"])
    if results.holds(path, depends_on, overwrite=overwrite):
        if lead:
            # A kill between the two would leave them.
            shards.remove()
            _add_classes(path, built)
        return
    if lead:
        whole = {"images": len(source), "config.eval.shard_size": config.eval.shard_size}
        shards.claim(depends_on | whole | {"versions": results.versions()}, overwrite=overwrite)
    devices.barrier("shards claimed")
    measured = invariance.measure(
        built.model,
        variables,
        built.preprocess,
        TRANSFORMS,
        source,
        config.eval,
        shards,
        image_size=config.data.image_size,
        canvas_size=config.data.canvas_size,
        workers=config.data.workers,
        mesh=built.mesh,
        description=path.stem,
    )
    if measured is not None:
        shown = {"domain": config.eval.domain, "translation": config.eval.padding_mode}
        said = {"measurement": json.dumps(depends_on, sort_keys=True)}
        dataset = results.to_dataset(
            measured, TRANSFORMS, attributes={**attributes, **shown, **said}
        )
        groups = {}
        if config.eval.features:
            groups[results.FEATURES_GROUP] = results.to_features(measured, TRANSFORMS)
        if config.eval.per_class:
            groups[results.CLASSES_GROUP] = percentiles.by_class(dataset, source.class_names)
        results.write(dataset, path, groups)
        shards.remove()
    devices.barrier("result written")


def _identity(config: ExperimentConfig, fingerprint: str) -> dict[str, Any]:
    """What must be equal for two measurements to be one, as JSON values."""
    return {
        "parameters_sha256": fingerprint,
        "config.model.name": config.model.name,
        **identity(config, "invariance"),
        "grid": {name: list(each.magnitudes) for name, each in TRANSFORMS.items()},
    }


def _add_classes(path: pathlib.Path, built: Experiment) -> None:
    """Adds percentiles by class to a finished file if they are asked for and not there."""
    if not built.config.eval.per_class or results.CLASSES_GROUP in results.groups(path):
        return
    dataset = results.read(path)
    groups = {name: results.read(path, name) for name in results.groups(path)}
    groups[results.CLASSES_GROUP] = percentiles.by_class(
        dataset, built.evaluation_source.class_names
    )
    results.write(dataset, path, groups)
