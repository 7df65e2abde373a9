"""Result files: labelled arrays that know which model they came from."""

import hashlib
import importlib.metadata
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import h5netcdf
import jax
import numpy as np
import xarray as xr

from invariance_jax import __version__, files
from invariance_jax.config import differing
from invariance_jax.errors import UserError
from invariance_jax.evaluation import measures
from invariance_jax.evaluation.features import EMBEDDING
from invariance_jax.evaluation.invariance import Measured
from invariance_jax.evaluation.shards import explained
from invariance_jax.transforms import Transform

_DIMENSIONS = ("transform", "magnitude", "image")
# The NetCDF group of all features, and of percentiles by class.
FEATURES_GROUP, CLASSES_GROUP = "features", "classes"
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
    measured: Measured, transforms: Mapping[str, Transform], *, attributes: Mapping[str, str | int]
) -> xr.Dataset:
    """Labels what was measured of the embedding and adds relative invariance.

    Args:
        measured: What `invariance.measure` returned.
        transforms: The table it used.
        attributes: The model's identity, config and seed.

    Returns:
        Dims (transform, magnitude, image): float32 `transformed_D`, `baseline_D` and
        `relative_invariance_D` for D in "cosine", "euclidean"; bool `flip` and `correct`; float32
        `equivariance_alignment` if it was measured. Coordinates of the image: its label, the
        class predicted without a transform, and the permutation behind the baseline.
    """
    variables = {
        name: (_DIMENSIONS, value) for name, value in _of_feature(measured, EMBEDDING).items()
    }
    variables["flip"] = (_DIMENSIONS, measured.flip)
    variables["correct"] = (_DIMENSIONS, measured.correct)
    dataset = xr.Dataset(variables, attrs={**attributes, "versions": versions()})
    return dataset.assign_coords(
        {
            **_grid_coordinates(transforms),
            "image": list(measured.names),
            "label": ("image", measured.label.astype(np.int32)),
            "prediction": ("image", measured.prediction.astype(np.int32)),
            "permutation": ("image", measured.permutation.astype(np.int32)),
        }
    )


def to_features(measured: Measured, transforms: Mapping[str, Transform]) -> xr.Dataset:
    """Labels what was measured of every feature, for plots over depth.

    Args:
        measured: What `invariance.measure` returned.
        transforms: The table it used.

    Returns:
        The float32 variables of `to_dataset` with dims (feature, transform, magnitude, image);
        the embedding is the first feature.
    """
    names = list(measured.transformed)
    by_feature = [_of_feature(measured, name) for name in names]
    return xr.Dataset(
        {
            name: (("feature", *_DIMENSIONS), np.stack([each[name] for each in by_feature]))
            for name in by_feature[0]
        },
        coords={
            "feature": names,
            **_grid_coordinates(transforms),
            "image": list(measured.names),
        },
    )


def _of_feature(measured: Measured, feature: str) -> dict[str, np.ndarray]:
    found = {}
    for kind in measures.DISTANCES:
        transformed, baseline = (
            measured.transformed[feature][kind],
            measured.baseline[feature][kind],
        )
        invariance = np.asarray(measures.relative_invariance(baseline, transformed))
        found[f"relative_invariance_{kind}"] = invariance
        found[f"transformed_{kind}"] = transformed
        found[f"baseline_{kind}"] = baseline
    if measured.alignment:
        found["equivariance_alignment"] = measured.alignment[feature]
    return found


def _grid_coordinates(transforms: Mapping[str, Transform]) -> dict[str, Any]:
    table = list(transforms.values())
    return {
        "transform": [t.name for t in table],
        "magnitude": np.arange(len(table[0].magnitudes), dtype=np.int32),
        "magnitude_value": (_DIMENSIONS[:2], np.array([t.magnitudes for t in table])),
        "unit": ("transform", [t.unit for t in table]),
        "family": ("transform", [t.family for t in table]),
    }


def write(
    dataset: xr.Dataset, path: pathlib.Path, groups: Mapping[str, xr.Dataset] | None = None
) -> None:
    """Writes a result file atomically.

    Args:
        dataset: What `to_dataset` returned.
        path: Where, ending in `.nc`.
        groups: More datasets, each a NetCDF group of its name.

    Raises:
        UserError: The disk is full or cannot be written; what stood there before is untouched.
    """
    # In memory first: on a full disk HDF5 leaves the process in no state to go on.
    buffer = io.BytesIO()
    dataset.to_netcdf(buffer, engine="h5netcdf")
    for name, group in (groups or {}).items():
        group.to_netcdf(buffer, mode="a", group=name, engine="h5netcdf")
    with explained(path), files.atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: pathlib.Path, group: str | None = None) -> xr.Dataset:
    """Reads a result file into memory.

    Args:
        path: Where it is.
        group: A group of it: `FEATURES_GROUP` or `CLASSES_GROUP`.

    Returns:
        The dataset.

    Raises:
        UserError: It is not a result file, or was written without that group.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf", group=group) as dataset:
            return dataset.load()
    except (OSError, ValueError) as error:
        what = f"a result file with {group}" if group else "a readable result file"
        raise UserError(f"{path} is not {what}: {error}") from error


def holds(path: pathlib.Path, identity: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Whether a file holds this very measurement; another one is not overwritten in silence.

    Args:
        path: Where it would stand.
        identity: What must be equal for two measurements to be one, as JSON values; a file has it
            in the attribute `measurement`.
        overwrite: Whether any other measurement may be replaced.

    Returns:
        True if there is nothing to do.

    Raises:
        UserError: The file holds another measurement and is kept.
    """
    if not path.exists() or overwrite:
        return False
    different = differing(identity, json.loads(read(path).attrs.get("measurement", "{}")))
    if different:
        raise UserError(
            f"{path} holds another measurement (its {', '.join(different)} differ); "
            "move it away or give --overwrite"
        )
    return True


def groups(path: pathlib.Path) -> tuple[str, ...]:
    """Lists the groups of a result file.

    Args:
        path: Where it is.

    Returns:
        Names that `read` takes.
    """
    with h5netcdf.File(path, "r") as file:
        return tuple(file.groups)
