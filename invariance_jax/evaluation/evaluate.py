"""From a network and a config to result files: what is there already is not measured again."""

import csv
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xarray as xr
from jax.sharding import Mesh

from invariance_jax import config as configs
from invariance_jax import data, devices, distributed, files
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.evaluation.accuracy import Accuracy
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.evaluation.measurement import MAIN, Measurement, preprocessing
from invariance_jax.evaluation.shards import Shards
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.models import Model


def evaluate(
    model: Model,
    config: ExperimentConfig,
    output: pathlib.Path,
    *,
    name: str,
    attributes: Mapping[str, Any],
    mesh: Mesh,
    measurements: Sequence[Measurement] | None = None,
    overwrite: bool = False,
    announce: Callable[[str], object] = distributed.say,
) -> None:
    """Measures what the config asks for and writes what was found.

    Images are read once for all measurements of one split. Interrupted, the same call goes on.

    Args:
        model: The network.
        config: What to measure, and on which images.
        output: Folder of all results; all processes must see it. A measurement's results are
            `MEASUREMENT/NAME.nc` in it, and accuracies stand in `accuracy.csv` too.
        name: File name of the network, without suffix.
        attributes: The network's identity, for the files: "model", "augmentation", "seed",
            "steps", "seconds", "config".
        mesh: The devices.
        measurements: What to measure; by default what `config.eval` asks for.
        overwrite: Whether a result file of another measurement may be replaced.
        announce: Takes what was found as soon as it is written.

    Raises:
        UserError: A result file holds another measurement, a field is wrong, or as `Driver.run`.
    """
    fingerprint = model.fingerprint or results.fingerprint(devices.to_host(model.variables))
    common = {**attributes, "dataset": config.data.name, "parameters_sha256": fingerprint}
    wanted = measurements
    if wanted is None:
        wanted = make_measurements(config, trained=attributes["steps"] > 0)
    # One pass for all that look at every image; one each for those that look at groups.
    runs: dict[tuple[str, str], list[Measurement]] = {}
    for each in wanted:
        groups = each.name if each.together > 1 else ""
        runs.setdefault((each.split_of(config), groups), []).append(each)
    # All are opened before the first is measured: mistakes come before work.
    sources = {
        run: data.with_imagenet_labels(
            data.from_config(config.data, run[0], together[0].split_field), model.num_classes
        )
        for run, together in runs.items()
    }
    for run, together in runs.items():
        _check_enough(config, sources[run], together)
    for run, together in runs.items():
        split, source = run[0], sources[run]
        paths = {each.name: output / each.name / f"{name}.nc" for each in together}
        network = {"parameters_sha256": fingerprint, "config.model.name": config.model.name}
        if config.data.name in (
            data.FOLDER,
            data.ARROW,
        ):  # which folder it was, the config does not say
            names = "\n".join(source.names())
            network["names_sha256"] = hashlib.sha256(names.encode()).hexdigest()
        identities = {
            each.name: network | configs.identity(config, each.name) | each.identity()
            for each in together
        }
        missing = []
        for each in together:
            reason = _left_out(each, model, source)
            if reason:
                announce(f"{each.name} is left out: {reason}")
            elif results.holds(paths[each.name], identities[each.name], overwrite=overwrite):
                _again(each, paths[each.name], source, announce)
            else:
                missing.append(each)
        if not missing:
            continue
        shards = {}
        for each in missing:
            # What the parts depend on, beside what the whole does.
            parts = {"images": len(source), "config.eval.shard_size": config.eval.shard_size}
            versions = {"versions": results.versions()}
            folder = paths[each.name].with_suffix(".parts")
            shards[each.name] = Shards(folder, identities[each.name] | parts | versions)
        driver = Driver(
            model=model,
            measurements=missing,
            source=source,
            preprocess=preprocessing(config),
            canvas_size=config.data.canvas_size,
            workers=config.data.workers,
            mesh=mesh,
            per_device_batch_size=config.eval.per_device_batch_size,
            memory=config.eval.memory,
            shard_size=config.eval.shard_size,
            description=f"{name} {split}: {', '.join(each.name for each in missing)}",
        )
        with distributed.held(output, "evaluation"):
            with distributed.together():
                for each in shards.values() if distributed.is_lead() else ():
                    each.claim(overwrite=overwrite)
            for each, found in driver.run(shards=shards) or ():
                datasets = each.datasets(found, driver.images)
                said = {
                    **common,
                    "split": split,
                    "measurement": json.dumps(identities[each.name], sort_keys=True),
                    "versions": results.versions(),
                }
                main = datasets.pop(MAIN).assign_attrs(said)
                table = each.sidecar(main)
                if table is not None:
                    files.write_text(paths[each.name].with_suffix(".csv"), table)
                if isinstance(each, Accuracy):
                    record(output / "accuracy.csv", main)
                # Last: it says that everything is there.
                results.write(main, paths[each.name], datasets)
                shards[each.name].remove()
                announce(each.summary(main))
            devices.barrier("results written")


def _check_enough(
    config: ExperimentConfig, source: data.Source, measurements: list[Measurement]
) -> None:
    for each in measurements:
        if each.least_images > len(source):
            raise UserError(
                f"config.{each.split_field} is {each.split_of(config)!r}, which holds "
                f"{len(source)} images; expected at least {each.least_images}, because "
                f"{each.name} compares different images"
            )
        if each.together > 1:
            each.order(source)


def _left_out(measurement: Measurement, model: Model, source: data.Source) -> str:
    """Why something cannot be measured; empty if it can."""
    if measurement.needs_scores and model.num_classes is None:
        return f"{model.name} gives no scores"
    if measurement.needs_derivatives and not model.differentiable:
        return f"{model.name} runs on {model.runs_on}, where JAX cannot differentiate it"
    if measurement.needs_labels and not source.has_labels:
        return f"{source.name} {source.split} has no labels"
    if measurement.needs_labels and model.num_classes != source.num_classes:
        return (
            f"{model.name} knows {model.num_classes} classes, and {source.name} has "
            f"{source.num_classes}"
        )
    return ""


def _again(
    measurement: Measurement,
    path: pathlib.Path,
    source: data.Source,
    announce: Callable[[str], object],
) -> None:
    """Shows a result that is there; adds what can be derived from it and is newly asked for."""
    if not distributed.is_lead():
        return
    main = results.read(path)
    # A kill after the result was written leaves its parts.
    Shards(path.with_suffix(".parts"), {}).remove()
    groups = {each: results.read(path, each) for each in results.groups(path)}
    if isinstance(measurement, Invariance):
        added = measurement.derived_groups(main, source.class_names)
        if added.keys() - groups.keys():
            results.write(main, path, groups | added)
    announce(measurement.summary(main))


_OF_A_NETWORK = ("model", "augmentation", "seed", "steps", "dataset", "split", "weights")
_COLUMNS = ("model", "augmentation", "seed", "top1", "steps", "seconds", "top5", "images")


def record(path: pathlib.Path, accuracy: xr.Dataset) -> None:
    """Puts an accuracy into the table for people, in place of the network's earlier one.

    Args:
        path: The CSV file; made if absent.
        accuracy: The main dataset of `Accuracy`, with its attributes.
    """
    attributes = accuracy.attrs
    row = {name: str(attributes[name]) for name in ("model", "augmentation", "seed", "steps")}
    row |= {name: attributes[name] for name in ("dataset", "split")}
    row["weights"] = attributes["parameters_sha256"][:12]
    row["seconds"] = f"{attributes['seconds']:.1f}"
    row["images"] = str(accuracy.sizes["image"])
    for each in ("top1", "top5"):
        row[each] = f"{float(accuracy[f'correct_{each}'].mean()):.6f}"
    rows = [each for each in read_table(path) if not _same_network(each, row)]
    text = io.StringIO()
    columns = dict.fromkeys((*_COLUMNS, *row))
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    files.write_text(path, text.getvalue())


def _same_network(row: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two rows are of one network; a row of the first version does not know its data."""
    return all(not row.get(name) or row[name] == other[name] for name in _OF_A_NETWORK)


def read_table(path: pathlib.Path) -> list[dict[str, str]]:
    """Reads the table of accuracies.

    Args:
        path: The CSV file.

    Returns:
        Its rows by column; none if it is not there or is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
    return [row for row in rows if row.get("model") and row.get("top1")]
