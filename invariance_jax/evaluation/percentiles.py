"""Percentiles over images, exact, from the values that a result file keeps (paper, section 3)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from invariance_jax.evaluation import measures

# What is summed up: the paper reports all three.
VARIABLES = tuple(
    f"{name}_{kind}"
    for kind in measures.DISTANCES
    for name in ("relative_invariance", "baseline", "transformed")
)
# Of each class: the box of a box plot, its whiskers and its ends.
_OF_CLASSES = (0, 5, 25, 50, 75, 95, 100)


def over_images(
    dataset: xr.Dataset, percentiles: Sequence[float] = tuple(range(101))
) -> xr.Dataset:
    """Sums up all images.

    Args:
        dataset: From `results.read`.
        percentiles: Which, 0 to 100.

    Returns:
        The variables `VARIABLES`, float32, dims (percentile, ..., transform, magnitude), with
        linear interpolation between images.
    """
    found = dataset[list(VARIABLES)].quantile(np.asarray(percentiles) / 100, dim="image")
    return (
        found.rename(quantile="percentile")
        .assign_coords(percentile=np.asarray(percentiles, np.float64))
        .astype(np.float32)
    )


def by_class(dataset: xr.Dataset, class_names: Sequence[str]) -> xr.Dataset:
    """Sums up the images of each class.

    Args:
        dataset: From `results.read` or `results.to_dataset`.
        class_names: Names of all classes, in the order of the labels.

    Returns:
        float32 `VARIABLES` with dims (class, percentile, transform, magnitude), float32 `flip` and
        `correct`, shares with dims (class, transform, magnitude); `images` counts those of each
        class. Classes without images are left out; the coordinate `class` holds labels,
        `class_name` names.
    """
    labels = np.unique(dataset["label"].values)
    parts = []
    for label in labels:
        images = dataset.isel(image=np.flatnonzero(dataset["label"].values == label))
        shares = images[["flip", "correct"]].mean("image").astype(np.float32)
        parts.append(
            xr.merge([over_images(images, _OF_CLASSES), shares]).assign(
                images=images.sizes["image"]
            )
        )
    return xr.concat(parts, dim="class").assign_coords(
        {
            "class": labels.astype(np.int32),
            "class_name": ("class", [class_names[label] for label in labels]),
        }
    )
