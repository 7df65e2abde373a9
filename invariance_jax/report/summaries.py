"""Numbers of the report: pure functions from results to labelled arrays."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.report.load import Accuracy, Run
from invariance_jax.report.rows import UNTRAINED

Measure = Literal["cosine", "euclidean"]

# REFERENCE section 3: neither so weak that everything is invariant, nor so strong that nothing is.
MIDDLE_MAGNITUDES = (3, 4, 5, 6, 7)
SMALL_TRANSFORMS = ("translate_x", "translate_y")
SMALL_MAGNITUDES = (1, 2)
GROUPS = {
    "translate": ("translate_x", "translate_y"),
    "scale": ("scale_zoom_out", "scale_zoom_in"),
    "rotate": ("rotate",),
    "shear": ("shear_x", "shear_y"),
    "appearance": (
        "posterize",
        "decrease_contrast",
        "increase_contrast",
        "solarize",
        "decrease_brightness",
        "increase_brightness",
    ),
}


def quantiles(
    runs: Sequence[Run],
    levels: Sequence[float] = (0.25, 0.5, 0.75),
    *,
    measure: Measure = "cosine",
) -> xr.DataArray:
    """Quantiles over images of relative invariance.

    Args:
        runs: One entry a network; at least one.
        levels: Which quantiles, 0 to 1.
        measure: Distance between embeddings.

    Returns:
        float64, dims (run, quantile, transform, magnitude), at most 1. Coordinates of `run`: row
        (label), model, training, seed.
    """
    if not runs:
        raise UserError("no invariance results; expected at least one invariance/*.nc")
    arrays = [run.data[f"relative_invariance_{measure}"] for run in runs]
    values = np.stack([np.quantile(a.values.astype(np.float64), levels, axis=2) for a in arrays])
    return xr.DataArray(
        values,
        dims=("run", "quantile", "transform", "magnitude"),
        coords=_run_coordinates(runs)
        | {
            "quantile": list(levels),
            "transform": arrays[0]["transform"].values,
            "magnitude": arrays[0]["magnitude"].values,
        },
    )


def medians(runs: Sequence[Run], *, measure: Measure = "cosine") -> xr.DataArray:
    """Median over images of relative invariance.

    Args:
        runs: One entry a network; at least one.
        measure: Distance between embeddings.

    Returns:
        float64, dims (run, transform, magnitude), at most 1; coordinates as in `quantiles`.
    """
    return quantiles(runs, (0.5,), measure=measure).isel(quantile=0, drop=True)


def over_seeds(values: xr.DataArray) -> xr.Dataset:
    """Mean and standard error over the seeds of each row.

    Args:
        values: First dim `run`, with coordinates row, model and training; any further dims.

    Returns:
        Dims (row, ...), rows in the order of their first run. Variables: `mean`;
        `standard_error` (sample standard deviation over the square root of the number of seeds;
        NaN for one seed, whose spread is unknown); `seeds`, their number.
    """
    labels = list(dict.fromkeys(values["row"].values.tolist()))
    groups = [values.isel(run=np.flatnonzero(values["row"].values == label)) for label in labels]
    dims = ("row", *(dim for dim in values.dims if dim != "run"))
    return xr.Dataset(
        {
            "mean": (dims, np.stack([group.mean("run").values for group in groups])),
            "standard_error": (dims, np.stack([_standard_error(group.values) for group in groups])),
            "seeds": ("row", [group.sizes["run"] for group in groups]),
        },
        coords={
            "row": labels,
            "model": ("row", [str(group["model"].values[0]) for group in groups]),
            "training": ("row", [str(group["training"].values[0]) for group in groups]),
        }
        | {dim: values[dim] for dim in dims[1:] if dim in values.coords},
    )


def _standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error over the first axis."""
    count = len(values)
    if count == 1:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(count)


def invariance(runs: Sequence[Run], *, measure: Measure = "cosine") -> xr.Dataset:
    """Relative invariance of every row to every transform: the report's main table.

    Args:
        runs: One entry a network; at least one.
        measure: Distance between embeddings.

    Returns:
        As `over_seeds`, dims (row, transform): the median over images, averaged over magnitudes
        3 to 7, at most 1.
    """
    middle = medians(runs, measure=measure).isel(magnitude=list(MIDDLE_MAGNITUDES))
    return over_seeds(middle.mean("magnitude"))


def grouped_invariance(runs: Sequence[Run]) -> xr.Dataset:
    """Relative invariance (cosine) of every row to groups of transforms.

    Args:
        runs: One entry a network; at least one.

    Returns:
        As `over_seeds`, dims (row, group), groups of `GROUPS`: mean over the group's transforms
        of the values of `invariance`.
    """
    middle = medians(runs).isel(magnitude=list(MIDDLE_MAGNITUDES)).mean("magnitude")
    parts = [middle.sel(transform=list(names)).mean("transform") for names in GROUPS.values()]
    names = xr.DataArray(list(GROUPS), dims="group", name="group")
    return over_seeds(xr.concat(parts, dim=names).transpose("run", ...))


def small_translation_by_image(runs: Sequence[Run]) -> xr.DataArray:
    """Relative invariance (cosine) of every network to small translations, image by image.

    Args:
        runs: One entry a network; at least one.

    Returns:
        float64, dims (run, image), at most 1: mean over translate_x and translate_y at magnitudes
        1 and 2 (25 and 50 of 224 pixels); coordinates of `run` as in `quantiles`.
    """
    small = [
        run.data["relative_invariance_cosine"]
        .sel(transform=list(SMALL_TRANSFORMS))
        .isel(magnitude=list(SMALL_MAGNITUDES))
        .astype(np.float64)
        .mean(("transform", "magnitude"))
        .values
        for run in runs
    ]
    return xr.DataArray(np.stack(small), dims=("run", "image"), coords=_run_coordinates(runs))


def _run_coordinates(entries: Sequence[Run | Accuracy]) -> dict[str, tuple[str, list[str | int]]]:
    return {
        "row": ("run", [entry.row.label for entry in entries]),
        "model": ("run", [entry.row.model for entry in entries]),
        "training": ("run", [entry.row.training for entry in entries]),
        "seed": ("run", [entry.seed for entry in entries]),
    }


def invariance_gap(table: xr.Dataset) -> xr.Dataset:
    """How much more invariant a trained network is than the untrained one of its architecture.

    Args:
        table: From `invariance`.

    Returns:
        Dims (row, transform), for the trained rows whose architecture also has an untrained row:
        `mean`, the difference; `standard_error`, of both added in squares, NaN where either is.
    """
    untrained = table.isel(row=np.flatnonzero(table["training"].values == UNTRAINED))
    reference = {str(model): i for i, model in enumerate(untrained["model"].values)}
    trained = table.isel(
        row=[
            i
            for i, (model, training) in enumerate(
                zip(table["model"].values, table["training"].values, strict=True)
            )
            if training != UNTRAINED and model in reference
        ]
    )
    other = untrained.isel(row=[reference[str(model)] for model in trained["model"].values])
    gap = trained["mean"] - other["mean"].values
    error = np.hypot(trained["standard_error"], other["standard_error"].values)
    return xr.Dataset({"mean": gap, "standard_error": error, "seeds": trained["seeds"]})


def accuracy(entries: Sequence[Accuracy]) -> xr.Dataset:
    """Top-1 accuracy of every row.

    Args:
        entries: One entry a network; at least one.

    Returns:
        As `over_seeds`, dims (row,): fractions, 0 to 1; and `steps` and `seconds`, means.
    """
    if not entries:
        raise UserError("no accuracy results; expected at least one row in accuracy.csv")

    def table(values: list[float]) -> xr.Dataset:
        return over_seeds(
            xr.DataArray(np.asarray(values, float), dims="run", coords=_run_coordinates(entries))
        )

    top1 = table([entry.top1 for entry in entries])
    return top1.assign(
        steps=table([entry.steps for entry in entries])["mean"],
        seconds=table([entry.seconds for entry in entries])["mean"],
    )
