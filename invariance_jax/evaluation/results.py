"""Result files: labelled arrays that know which model they came from."""

import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from invariance_jax import __version__, files
from invariance_jax.errors import UserError
from invariance_jax.evaluation import measures
from invariance_jax.evaluation.grid import GridDistances
from invariance_jax.transforms import Transform

_DIMENSIONS = ("transform", "magnitude", "image")
_RECORDED_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tensorflow-datasets")


def fingerprint(variables: Any) -> str:
    """Names a model by the bytes of its variables.

    Args:
        variables: Parameters and batch statistics.

    Returns:
        The SHA-256 of every array with its path, as hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
        array = np.ascontiguousarray(value)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def versions() -> str:
    """Versions of this package and of those whose numerics matter, as JSON text."""
    installed = {name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES}
    return json.dumps({"invariance_jax": __version__, **installed}, sort_keys=True)


def to_dataset(
    distances: GridDistances,
    transforms: Mapping[str, Transform],
    *,
    names: Sequence[str],
    labels: Sequence[int],
    attributes: Mapping[str, str | int],
) -> xr.Dataset:
    """Labels the distances of one model and adds relative invariance.

    Args:
        distances: What `grid.measure` returned.
        transforms: The table it used.
        names: Each image's id.
        labels: Each image's class.
        attributes: The model's identity, config and seed.

    Returns:
        float32 variables `transformed_D`, `baseline_D` and `relative_invariance_D` for D in
        "cosine", "euclidean", with dims (transform, magnitude, image).
    """
    table = list(transforms.values())
    variables = {}
    for kind in measures.DISTANCES:
        transformed, baseline = distances.transformed[kind], distances.baseline[kind]
        invariance = np.asarray(measures.relative_invariance(baseline, transformed))
        variables[f"relative_invariance_{kind}"] = (_DIMENSIONS, invariance)
        variables[f"transformed_{kind}"] = (_DIMENSIONS, transformed)
        variables[f"baseline_{kind}"] = (_DIMENSIONS, baseline)
    return xr.Dataset(
        variables,
        coords={
            "transform": [t.name for t in table],
            "magnitude": np.arange(len(table[0].magnitudes), dtype=np.int32),
            "image": list(names),
            "magnitude_value": (_DIMENSIONS[:2], np.array([t.magnitudes for t in table])),
            "unit": ("transform", [t.unit for t in table]),
            "family": ("transform", [t.family for t in table]),
            "label": ("image", np.asarray(labels, np.int32)),
            "permutation": ("image", distances.permutation.astype(np.int32)),
        },
        attrs={**attributes, "versions": versions()},
    )


def write(dataset: xr.Dataset, path: pathlib.Path) -> None:
    """Writes a result file atomically.

    Args:
        dataset: What `to_dataset` returned.
        path: Where, ending in `.nc`.
    """
    with files.atomic_path(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")


def read(path: pathlib.Path) -> xr.Dataset:
    """Reads a result file into memory.

    Args:
        path: Where it is.

    Returns:
        The dataset.

    Raises:
        UserError: It is not a result file.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable result file: {error}") from error
