"""Numbers of the report: pure functions from results to labelled arrays."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.report.entries import Accuracy, Result, Run
from invariance_jax.report.rows import untrained_of
from invariance_jax.transforms import TRANSFORMS

R = TypeVar("R", bound=Result)
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
    "appearance": tuple(name for name, x in TRANSFORMS.items() if x.family == "appearance"),
}


def quantiles(
    runs: Sequence[Run], levels: Sequence[float] = (0.25, 0.5, 0.75), *, measure: Measure = "cosine"
) -> xr.DataArray:
    """Quantiles over images of relative invariance.

    Args:
        runs: One entry a network; at least one.
        levels: Which quantiles, 0 to 1.
        measure: Distance between embeddings.

    Returns:
        float64, dims (run, quantile, transform, magnitude), at most 1. Coordinates of `run`: row
        (label), model, training; of the grid: those of the files.
    """
    if not runs:
        raise UserError("no invariance results; expected at least one invariance/*.nc")
    return _by_run(runs, lambda run: _values(run, measure).quantile(list(levels), "image"))


def _values(run: Run, measure: Measure = "cosine") -> xr.DataArray:
    return run.data[f"relative_invariance_{measure}"].astype(np.float64)


def _by_run(entries: Sequence[R], of: Callable[[R], xr.DataArray]) -> xr.DataArray:
    """Computes something of every network."""
    rows = [entry.row for entry in entries]
    return xr.concat([of(entry) for entry in entries], "run").assign_coords(
        row=("run", [row.label for row in rows]),
        model=("run", [row.model for row in rows]),
        training=("run", [row.training for row in rows]),
    )


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
    groups = [values.isel(run=np.flatnonzero(values["row"] == label)) for label in labels]
    names = {x: [group[x].values[0] for group in groups] for x in ("row", "model", "training")}
    found = {
        "mean": xr.concat([group.mean("run") for group in groups], "row"),
        "standard_error": xr.concat([_standard_error(group) for group in groups], "row"),
        "seeds": ("row", [group.sizes["run"] for group in groups]),
    }
    return xr.Dataset(found).assign_coords({name: ("row", x) for name, x in names.items()})


def _standard_error(values: xr.DataArray) -> xr.DataArray:
    seeds = values.sizes["run"]
    if seeds == 1:
        return values.isel(run=0, drop=True) * np.nan
    return values.std("run", ddof=1) / np.sqrt(seeds)


def _middle(runs: Sequence[Run], measure: Measure = "cosine") -> xr.DataArray:
    """The median over images, averaged over the middle magnitudes: dims (run, transform)."""
    medians = quantiles(runs, (0.5,), measure=measure).isel(quantile=0, drop=True)
    return medians.isel(magnitude=list(MIDDLE_MAGNITUDES)).mean("magnitude")


def invariance(runs: Sequence[Run], *, measure: Measure = "cosine") -> xr.Dataset:
    """Relative invariance of every row to every transform: the report's main table.

    Args:
        runs: One entry a network; at least one.
        measure: Distance between embeddings.

    Returns:
        As `over_seeds`, dims (row, transform): the median over images, averaged over magnitudes
        3 to 7, at most 1.
    """
    return over_seeds(_middle(runs, measure))


def grouped_invariance(runs: Sequence[Run]) -> xr.Dataset:
    """Relative invariance (cosine) of every row to groups of transforms.

    Args:
        runs: One entry a network; at least one.

    Returns:
        As `over_seeds`, dims (row, group), groups of `GROUPS`: mean over the group's transforms
        of the values of `invariance`.
    """
    middle = _middle(runs)
    parts = [middle.sel(transform=list(names)).mean("transform") for names in GROUPS.values()]
    return over_seeds(xr.concat(parts, "group").assign_coords(group=list(GROUPS)).T)


def small_translation_by_image(runs: Sequence[Run]) -> xr.DataArray:
    """Relative invariance (cosine) of every network to small translations, image by image.

    Args:
        runs: One entry a network; at least one.

    Returns:
        float64, dims (run, image), at most 1: mean over translate_x and translate_y at magnitudes
        1 and 2 (25 and 50 of 224 pixels); coordinates of `run` as in `quantiles`.
    """

    def of(run: Run) -> xr.DataArray:
        small = _values(run).sel(transform=list(SMALL_TRANSFORMS))
        return small.isel(magnitude=list(SMALL_MAGNITUDES)).mean(("transform", "magnitude"))

    return _by_run(runs, of)


def invariance_gap(runs: Sequence[Run]) -> xr.Dataset:
    """How much more invariant a trained network is than the untrained one of its architecture.

    Args:
        runs: One entry a network; at least one.

    Returns:
        Dims (row, transform), for the trained rows whose architecture also has an untrained row:
        `mean`, the difference of `invariance`; `standard_error`, of both added in squares, NaN
        where either is; `seeds`, of the trained row.
    """
    before = untrained_of(run.row for run in runs)
    table = invariance(runs)
    trained = table.sel(row=[row.label for row in before])
    other = table.sel(row=[row.label for row in before.values()])
    return trained.assign(
        mean=trained["mean"] - other["mean"].values,
        standard_error=np.hypot(trained["standard_error"], other["standard_error"].values),
    )


def accuracy(entries: Sequence[Accuracy]) -> xr.Dataset:
    """Accuracy of every row.

    Args:
        entries: One entry a network; at least one.

    Returns:
        As `over_seeds`, dims (row,), of top-1 accuracy, a fraction, 0 to 1; and means: `top5`,
        NaN where it is not known, `steps` and `seconds`.
    """
    if not entries:
        raise UserError("no accuracy results; expected accuracy/*.nc or a row in accuracy.csv")

    def table(name: str) -> xr.Dataset:
        return over_seeds(_by_run(entries, lambda x: xr.DataArray(float(getattr(x, name)))))

    return table("top1").assign({x: table(x)["mean"] for x in ("top5", "steps", "seconds")})
