"""What else `evaluate` measures of a model: local equivariance, and accuracy on other crops."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import xarray as xr

from invariance_jax import data, devices, distributed, files, progress
from invariance_jax.config import identity
from invariance_jax.evaluation import local_equivariance, results, test_time
from invariance_jax.report import tables
from invariance_jax.training.experiment import Experiment


def measure(
    built: Experiment,
    variables: Any,
    output: pathlib.Path,
    name: str,
    *,
    attributes: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Writes the files that the config asks for, unless they are there.

    Args:
        built: The experiment.
        variables: Parameters and batch statistics, on the mesh.
        output: Folder of all results.
        name: File name of the model, without suffix.
        attributes: The model's identity, for the files.
        overwrite: Whether a file of another measurement may be replaced.

    Raises:
        UserError: A file holds another measurement, or the model has no such feature.
    """
    config = built.config
    variables = jax.device_put(variables, devices.replicated(built.mesh))
    if config.eval.local_equivariance:
        path = _lie_path(output, name)
        depends_on = _identity(built, attributes, "local_equivariance")
        if not results.holds(path, depends_on, overwrite=overwrite):
            found = _local_equivariance(built, variables, name)
            _write(path, found, attributes, depends_on)
    if config.eval.test_time:
        path = _test_time_path(output, name)
        depends_on = _identity(built, attributes, "test_time")
        if not results.holds(path, depends_on, overwrite=overwrite):
            found = _test_time(built, variables, name)
            # The table first: the file says that both are there.
            if distributed.is_lead():
                files.write_text(path.with_suffix(".csv"), test_time.by_class(found))
            split = {"split": config.data.validation_split}
            _write(path, found, {**attributes, **split}, depends_on)


def tables_of(output: pathlib.Path, built: Experiment, name: str) -> str:
    """Sums the files up for the terminal.

    Args:
        output: Folder of all results.
        built: The experiment.
        name: File name of the model, without suffix.

    Returns:
        Lines, each with its newline; nothing if nothing was asked for.
    """
    parts = []
    if built.config.eval.local_equivariance:
        found = results.read(_lie_path(output, name))["local_equivariance_error"].mean("image")
        body = [
            (str(row), *(f"{x:.3g}" for x in found.sel(generator=row).values))
            for row in found["generator"].values
        ]
        header = ("", *map(str, found["output"].values))
        parts.append("Local equivariance error\n" + tables.align(header, body, left=1))
    if built.config.eval.test_time:
        found = results.read(_test_time_path(output, name)).mean("image")
        body = [
            (
                str(row),
                *(
                    f"{100 * float(found[field].sel(variant=row)):.1f}"
                    for field in ("correct_top1", "correct_top5")
                ),
            )
            for row in found["variant"].values
        ]
        header = ("", "top-1 %", "top-5 %")
        parts.append("Accuracy on other crops\n" + tables.align(header, body, left=1))
    return "".join(f"\n{part}\n" for part in parts)


def _lie_path(output: pathlib.Path, name: str) -> pathlib.Path:
    return output / "local_equivariance" / f"{name}.nc"


def _test_time_path(output: pathlib.Path, name: str) -> pathlib.Path:
    return output / "test_time" / f"{name}.nc"


def _identity(built: Experiment, attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What must be equal for two measurements to be one, as JSON values."""
    return {
        "parameters_sha256": attributes["parameters_sha256"],
        "config.model.name": built.config.model.name,
        **identity(built.config, name),
    }


def _write(
    path: pathlib.Path,
    found: xr.Dataset,
    attributes: Mapping[str, Any],
    depends_on: Mapping[str, Any],
) -> None:
    if distributed.is_lead():
        measurement = json.dumps(depends_on, sort_keys=True)
        said = {**attributes, "measurement": measurement, "versions": results.versions()}
        results.write(found.assign_attrs(said), path)
    devices.barrier(str(path))


def _local_equivariance(built: Experiment, variables: Any, name: str) -> xr.Dataset:
    config, count = built.config.eval, built.mesh.shape[devices.DATA_AXIS]
    outputs = dict.fromkeys(("logits", "probabilities", "embedding", *config.features))
    # A pass holds the images and a tangent of each for every generator: as much as a batch of the
    # validation.
    batch_size = count * max(1, config.per_device_batch_size // (1 + len(built.generators)))
    source = built.evaluation_source
    return _of_source(
        built,
        source,
        batch_size,
        f"{name} local equivariance",
        lambda batches, names, labels, done: local_equivariance.measure(
            built.model,
            variables,
            built.preprocess,
            built.generators,
            tuple(outputs),
            batches,
            names=names,
            labels=labels,
            mesh=built.mesh,
            progress=done,
        ),
    )


def _test_time(built: Experiment, variables: Any, name: str) -> xr.Dataset:
    return _of_source(
        built,
        built.validation_source,
        built.validation_batch_size,
        f"{name} test-time crops",
        lambda batches, names, labels, done: test_time.measure(
            built.model,
            variables,
            built.test_time,
            batches,
            names=names,
            labels=labels,
            seed=built.config.eval.seed,
            mesh=built.mesh,
            progress=done,
        ),
    )


def _of_source(
    built: Experiment,
    source: data.Source,
    batch_size: int,
    description: str,
    run: Callable[
        [Iterable[data.Batch], list[str], list[int], Callable[[int], object]], xr.Dataset
    ],
) -> xr.Dataset:
    """Opens the batches of a split, with a progress bar."""
    config = built.config
    names, labels = [], []
    for position in range(len(source)):
        example = source[position]
        names.append(example["name"])
        labels.append(example["label"])
    batches = data.evaluation_batches(
        source,
        batch_size=batch_size,
        canvas_size=config.data.canvas_size,
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    on_device = data.prefetch_to_device(batches, devices.by_example(built.mesh))
    with progress.bar(total=len(source), description=description, unit="images") as bar:
        return run(on_device, names, labels, bar.update)
