"""Result files: labelled arrays that know which network they came from; what they say."""

import functools
import hashlib
import importlib.metadata
import io
import json
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import h5netcdf
import jax
import numpy as np
import xarray as xr

from invariance_jax import __version__, files
from invariance_jax.config import differing
from invariance_jax.errors import UserError
from invariance_jax.evaluation import metrics

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
    """Versions of this package and of those whose numerics matter, as JSON text.

    Where the package runs from a checkout of git, "commit" is its commit, with "-dirty" where files
    differ from it.
    """
    installed = {name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES}
    commit = commit_of(pathlib.Path(__file__).parents[2])
    known = {"commit": commit} if commit else {}
    return json.dumps({"invariance_jax": __version__, **installed, **known}, sort_keys=True)


@functools.cache
def commit_of(folder: pathlib.Path) -> str:
    """Names the commit of a checkout.

    Args:
        folder: Its top folder.

    Returns:
        The first digits of the commit, with "-dirty" where files differ from it; empty where the
        folder is no checkout, or git does not say.
    """
    # What is installed into an environment inside another project's checkout is not of its commit.
    if not (folder / ".git").exists():
        return ""
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write(
    dataset: xr.Dataset, path: pathlib.Path, groups: Mapping[str, xr.Dataset] | None = None
) -> None:
    """Writes a result file atomically.

    Args:
        dataset: The main dataset.
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
    with files.atomic_path(path) as temporary:
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
        # From memory: HDF5 would lock the file, which some file systems refuse.
        content = io.BytesIO(path.read_bytes())
        with xr.open_dataset(content, engine="h5netcdf", group=group) as dataset:
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
    with h5netcdf.File(io.BytesIO(path.read_bytes()), "r") as file:
        return tuple(file.groups)


# What is summed up: the paper reports all three.
_SUMMED = tuple(
    f"{name}_{kind}"
    for kind in metrics.DISTANCES
    for name in ("relative_invariance", "baseline", "transformed")
)
# Of each class: the box of a box plot, its whiskers and its ends.
_OF_CLASSES = (0, 5, 25, 50, 75, 95, 100)


def percentiles(dataset: xr.Dataset, levels: Sequence[float] = tuple(range(101))) -> xr.Dataset:
    """Sums up all images.

    Args:
        dataset: The main dataset of the invariance.
        levels: Which, 0 to 100.

    Returns:
        The variables `_SUMMED`, float32, dims (percentile, ..., transform, magnitude), with
        linear interpolation between images.
    """
    found = dataset[list(_SUMMED)].quantile(np.asarray(levels) / 100, dim="image")
    return (
        found.rename(quantile="percentile")
        .assign_coords(percentile=np.asarray(levels, np.float64))
        .astype(np.float32)
    )


def percentiles_by_class(dataset: xr.Dataset, class_names: Sequence[str]) -> xr.Dataset:
    """Sums up the images of each class.

    Args:
        dataset: The main dataset of the invariance.
        class_names: Names of all classes, in the order of the labels.

    Returns:
        float32 `_SUMMED` with dims (class, percentile, transform, magnitude), float32 `flip` and
        `correct`, shares with dims (class, transform, magnitude); `images` counts those of each
        class. Classes without images are left out; the coordinate `class` holds labels,
        `class_name` names.
    """
    labels = np.unique(dataset["label"].values)
    parts = []
    for label in labels:
        images = dataset.isel(image=np.flatnonzero(dataset["label"].values == label))
        known = [name for name in ("flip", "correct") if name in images]
        shares = images[known].mean("image").astype(np.float32)
        parts.append(
            xr.merge([percentiles(images, _OF_CLASSES), shares]).assign(
                images=images.sizes["image"]
            )
        )
    return xr.concat(parts, dim="class").assign_coords(
        {
            "class": labels.astype(np.int32),
            "class_name": ("class", [class_names[label] for label in labels]),
        }
    )


_SHOWN = (1, 3, 5, 7, 9)


def summary(dataset: xr.Dataset) -> str:
    """Sums invariance up, one line a transform.

    Args:
        dataset: The main dataset of the invariance.

    Returns:
        Median relative invariance (cosine) at some magnitudes, and means over magnitudes 3 to 7 of
        that and, of classifiers, of the share of flipped predictions and of top-1.
    """
    medians = np.median(dataset["relative_invariance_cosine"].values, axis=-1)
    middle = metrics.GAP_MAGNITUDES
    span = f"{middle.start}-{middle.stop - 1}"
    shares = {"flips": "flip", "top-1": "correct"}
    shares = {title: name for title, name in shares.items() if name in dataset}
    header = ("", *map(str, _SHOWN), span, *(f"{title} {span}" for title in shares))
    body = [
        (
            str(name),
            *(f"{x:z.2f}" for x in (*medians[row, list(_SHOWN)], medians[row, middle].mean())),
            *(f"{float(dataset[each].values[row, middle].mean()):.1%}" for each in shares.values()),
        )
        for row, name in enumerate(dataset["transform"].values)
    ]
    title = f"Relative invariance (cosine), median of {dataset.sizes['image']} images, at magnitude"
    return table(title, header, body)


def table(title: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Sets a table for the terminal.

    Args:
        title: The line above it.
        header: Names of the columns.
        body: Rows of as many cells; the first column is flush left.

    Returns:
        The lines, joined.
    """
    rows = [header, *body]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([title, *lines])
