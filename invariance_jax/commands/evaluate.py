"""`evaluate`: what a config asks for, measured of a run or of a file of weights."""

import pathlib
import re
import zlib
from collections.abc import Callable, Sequence

from absl import flags
from jax.sharding import Mesh

from invariance_jax import data, devices, distributed, files, models, spec
from invariance_jax.commands import parsing
from invariance_jax.config import TRAINED_FIELDS, TRAINING_FIELDS, ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.evaluate import evaluate
from invariance_jax.evaluation.measurement import Measurement
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.fields import differences
from invariance_jax.models import is_foreign
from invariance_jax.training import workdir

_USAGE = """\
usage: invariance-jax evaluate --workdir=DIR [--untrained] [--config.FIELD=VALUE ...]
       invariance-jax evaluate --workdir=DIR --config=FILE.py:ARGUMENT [--config.FIELD=VALUE ...]

Measures top-1 accuracy and relative invariance over 13 transforms x 10 magnitudes of the newest
checkpoint in DIR (or --checkpoint=best, by top-1 in validation), and writes DIR/accuracy.csv,
DIR/accuracy/NAME.nc and DIR/invariance/NAME.nc. Interrupted, the same command goes on where it
stopped. With config.eval.local_equivariance it writes DIR/local_equivariance/NAME.nc too, with
config.eval.test_time DIR/test_time/NAME.nc and NAME.csv; config.eval.measurements chooses among
all measurements. Any data set, split or folder of images can be measured: --config.data.name=folder
--config.data.data_dir=DIR. With --output results go elsewhere than into the workdir, so that a run
can be measured on several.

With --untrained the same network is measured as it was before its first step: what the
architecture alone brings. With --config there need be no run in DIR: what is measured is the
network of the config, with the weights in config.model.weights.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def make(config: ExperimentConfig, trained: bool) -> list[Measurement]:
        return make_measurements(config, trained=trained)

    measure(argv, usage=_USAGE, make=make, split_field="eval.split")


def measure(
    argv: Sequence[str],
    *,
    usage: str,
    make: Callable[[ExperimentConfig, bool], list[Measurement]],
    split_field: str,
) -> list[pathlib.Path]:
    """Measures the network that flags name, and writes what was found.

    Args:
        argv: The flags.
        usage: The command's help.
        make: Makes what is measured, of a config and whether the network is trained.
        split_field: The config's field with the split whose classes an untrained network has.

    Returns:
        Where the result of each measurement stands, if it could be measured.

    Raises:
        UserError: A flag, a field, the run or the weights cannot be used; or as `write`.
    """

    def define(values: flags.FlagValues) -> None:
        parsing.define_run(values)
        flags.DEFINE_bool("untrained", False, "measure before the first step", flag_values=values)
        flags.DEFINE_bool(
            "overwrite", False, "replace a result file of other weights", flag_values=values
        )
        what = "where results go, by default --workdir: one folder for each split or data set"
        flags.DEFINE_string("output", None, what, flag_values=values)

    with distributed.together():
        folder = _workdir_of(argv)
        of_file = any(word.lstrip("-").partition("=")[0] == "config" for word in argv)
        stored = workdir.read_config(folder) if folder and not of_file else None
        parsed = parsing.parse(argv, usage=usage, define=define, config=stored or "")
        parsing.required(parsed, "workdir", "DIR")
        values, config = parsed.flags, parsing.required(parsed, "config", "FILE")
        has_weights = bool(config.model.weights) or is_foreign(config.model.name)
        if stored:
            _check_same_training(folder, stored, config)
        elif not (has_weights or values.untrained):
            raise UserError(
                "config.model.weights is empty, so that there is nothing to measure; give a file "
                "of weights, or --untrained, or leave --config out to measure the run in --workdir"
            )
        output = files.local_path(values.output, "--output") if values.output else folder
        trained = stored is not None and not values.untrained
        measurements = make(config, trained)
        mesh = devices.make_mesh(config.mesh.data, config.mesh.model)
        if not trained:
            model, steps, seconds = initial(config, split_field), 0, 0.0
            if has_weights:
                distributed.say(f"images: {model.preprocessing}")
            if model.runs_on:
                distributed.say(f"{model.name} runs in {model.runs_on}")
            if has_weights and not config.model.weights:
                config = config.with_values(model={"weights": "as published"})
        else:
            found = workdir.load_run(folder, best=values.checkpoint == "best")
            kind, options = spec.parse(config.model.name)
            model = models.from_flax(
                models.create(kind, found.num_classes, dtype=config.model.dtype, **options),
                found.variables,
                name=config.model.name,
                preprocessing=models.Preprocessing.of_config(config.data),
            )
            steps, seconds = found.step, found.seconds
    distributed.say(distributed.device_map(mesh))
    write(
        model,
        config,
        output,
        mesh,
        steps=steps,
        seconds=seconds,
        overwrite=values.overwrite,
        measurements=measurements,
        trained_as=stored if trained else None,
    )
    return [output / each.name / f"{result_name(config, steps)}.nc" for each in measurements]


def initial(config: ExperimentConfig, split_field: str = "eval.split") -> models.Model:
    """The network before its first step.

    Args:
        config: The run's config.
        split_field: The field with the split whose classes it has, without "config.".

    Returns:
        The network with the weights of `config.model.weights`, or as the seed draws it.

    Raises:
        UserError: The weights or the data set cannot be read, or do not fit.
    """
    file, classes = config.model.weights, None
    if not file and not is_foreign(config.model.name):
        section, field = split_field.split(".")
        split = getattr(getattr(config, section), field)
        classes = data.from_config(config.data, split, split_field).num_classes
    try:
        return models.load_model(
            config.model.name,
            file or None,
            image_size=config.data.image_size,
            seed=config.seed,
            num_classes=classes,
            dtype=config.model.dtype,
            resize_size=config.data.resize_size,
            interpolation=config.data.interpolation,
            squash=config.data.squash,
            mean=config.data.mean,
            std=config.data.std,
            which_weights=config.model.which_weights,
            resample_pos_embed=config.model.resample_pos_embed,
        )
    except UserError as error:
        raise UserError(f"config.model.{'weights' if file else 'name'}: {error}") from error


def write(
    model: models.Model,
    config: ExperimentConfig,
    folder: pathlib.Path,
    mesh: Mesh,
    *,
    steps: int,
    seconds: float,
    overwrite: bool = False,
    measurements: Sequence[Measurement] | None = None,
    trained_as: ExperimentConfig | None = None,
) -> None:
    """Measures a network and writes what was found.

    Args:
        model: The network.
        config: The run's config.
        folder: Folder of all results.
        mesh: The devices.
        steps: Steps taken; 0 for an untrained network.
        seconds: Time of training.
        overwrite: Whether a result file of another measurement may be replaced.
        measurements: What is measured; by default what `config.eval` asks for.
        trained_as: The config that it was trained with, where that may differ, as for a run that is
            measured on other classes or another data set.

    Raises:
        UserError: As `evaluation.evaluate`.
    """
    attributes = {
        "model": config.model.name,
        "augmentation": config.training_label(steps),
        "seed": config.seed,
        "steps": steps,
        "seconds": seconds,
        "preprocessing": str(model.preprocessing),
        "config": config.to_json(),
    }
    if trained_as and TRAINING_FIELDS & differences(trained_as, config).keys():
        attributes["training_config"] = trained_as.to_json()
    evaluate(
        model,
        config,
        folder,
        name=result_name(config, steps),
        attributes=attributes,
        mesh=mesh,
        measurements=measurements,
        overwrite=overwrite,
    )


def _check_same_training(
    folder: pathlib.Path, stored: ExperimentConfig, config: ExperimentConfig
) -> None:
    for path, (there, here) in differences(stored, config).items():
        if path in TRAINED_FIELDS:
            raise UserError(
                f"--config.{path} is {here!r}, but {folder} was trained with {there!r}; evaluate "
                "can change what is measured and how (config.eval.*, config.search.*, "
                "config.data.*, config.mesh.*), not what was trained"
            )


def _workdir_of(argv: Sequence[str]) -> pathlib.Path | None:
    """The workdir, needed before the flags can be parsed: it holds the fields they override."""
    if any(word in ("--help", "-help", "-h") for word in argv):
        return None
    for position, word in enumerate(argv):
        name, _, value = word.lstrip("-").partition("=")
        if name == "workdir" and word.startswith("-"):
            value = value or (argv[position + 1] if position + 1 < len(argv) else "")
            return files.local_path(value, "--workdir") if value else None
    raise UserError("--workdir is missing; give it as --workdir=DIR")


def result_name(config: ExperimentConfig, steps: int) -> str:
    """Names a network's result files.

    Args:
        config: The run's config.
        steps: Steps taken; 0 for an untrained network.

    Returns:
        A file name without suffix: network, augmentation (or "untrained", or the file that the
        weights came from), seed.
    """
    return file_name(config.model.name, config.training_label(steps), f"seed{config.seed}")


def file_name(*words: str, longest: int = 200) -> str:
    """Makes the name of a file or folder.

    Args:
        *words: What it says.
        longest: Most characters, of the 255 that file systems allow; a longer name is cut, and a
            checksum tells it from others with this beginning.

    Returns:
        Letters, digits and underscores.
    """
    name = "_".join(re.sub(r"\W+", "_", word).strip("_") for word in words if word)
    return name if len(name) <= longest else f"{name[:longest]}_{zlib.crc32(name.encode()):08x}"
