"""Do the invariances that training brought go with the factors of variation (paper, claim 4)?"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from invariance_jax.errors import UserError, unknown_name
from invariance_jax.evaluation.metrics import GAP_MAGNITUDES
from invariance_jax.factors import rankings
from invariance_jax.transforms import TRANSFORMS

Rescale = Literal["by_direction", "zoom_in"]
# Rows of a class that count.
TOP = 5


def transform_of(operation: str, index: int, rescale: Rescale = "by_direction") -> str | None:
    """Finds the transform of the invariance grid that does what a row of the search does.

    Args:
        operation: An operation of the search.
        index: Which of its ten magnitudes.
        rescale: "by_direction" maps rescale 1 to 5 to zooming out and 6 to 9 to zooming in;
            "zoom_in" maps all to zooming in, as the paper's code did by a slip.

    Returns:
        A name of `TRANSFORMS`; None for operations without a counterpart. Contrast is decreased up
        to index 5 and increased beyond, as in the paper, though its sign is drawn.
    """
    if operation == "contrast":
        return "decrease_contrast" if index <= 5 else "increase_contrast"
    if operation == "rescale":
        out = rescale == "by_direction" and index <= 5
        return "scale_zoom_out" if out else "scale_zoom_in"
    return operation if operation in TRANSFORMS else None


def comparable(statistics: xr.Dataset, rescale: Rescale = "by_direction") -> xr.Dataset:
    """Keeps the rows that have a transform of the invariance grid.

    Args:
        statistics: Statistics of a search.
        rescale: See `transform_of`.

    Returns:
        The rows of index 3 to 7 that have one, with a coordinate `transform`.

    Raises:
        UserError: There is no such row, or no such rule.
    """
    if rescale not in get_args(Rescale):
        raise unknown_name("rule for rescale", rescale, get_args(Rescale))
    indices = range(GAP_MAGNITUDES.start, GAP_MAGNITUDES.stop)
    pairs = zip(rankings.operations(statistics), statistics["index"].values, strict=True)
    found = [
        transform_of(operation, int(index), rescale) if index in indices else None
        for operation, index in pairs
    ]
    chosen = [place for place, name in enumerate(found) if name]
    if not chosen:
        raise UserError(
            "the search has no row of index 3 to 7 that is a transform of the invariance grid: "
            + ", ".join(map(str, statistics["row"].values[:5]))
        )
    names = ("row", [found[place] for place in chosen])
    return statistics.isel(row=chosen).assign_coords(transform=names)


class Alignment(NamedTuple):
    """How often the invariance gap is positive for what explains the variation of a class.

    Attributes:
        slots: int64 [transform]: how often a transform's rows are among the first of a class;
            coordinates `gap`, its invariance gap, and `rows`, how many rows it has.
        classes: How many classes were ranked.
        share: Share of the first rows whose transform has a positive gap, 0 to 1.
        low: Lower end of its 95% interval over classes.
        high: Upper end.
        chance: That share if the first rows were drawn at random.
        positive: The paper's bar: mean over transforms of positive gap of their share of the
            first rows; NaN without such transforms.
        positive_error: Its standard error over transforms; NaN for fewer than two.
        other: The same of the other transforms.
        other_error: Its standard error.
    """

    slots: xr.DataArray
    classes: int
    share: float
    low: float
    high: float
    chance: float
    positive: float
    positive_error: float
    other: float
    other_error: float

    @property
    def verdict(self) -> str:
        """In words, whether the factors are among what training made the network invariant to."""
        if self.low <= self.chance <= self.high:
            return "no clear difference"
        return "more than chance" if self.low > self.chance else "less than chance"


def align(
    statistics: xr.Dataset,
    gap: Mapping[str, float],
    *,
    top: int = TOP,
    rescale: Rescale = "by_direction",
    draws: int = 10_000,
    seed: int = 0,
) -> Alignment:
    """Joins a search with the invariance gap of one architecture.

    Args:
        statistics: Statistics of a search; rows are ranked by the proportion of pairs boosted.
        gap: Relative invariance of the trained minus that of the untrained network, by transform.
        top: How many rows of a class count.
        rescale: See `transform_of`.
        draws: Of the bootstrap over classes.
        seed: Of the draws.

    Returns:
        The shares.

    Raises:
        UserError: No row of the search has a transform, or there are fewer than `top`.
    """
    table = comparable(statistics, rescale)
    chosen = rankings.among_first(rankings.order(table), top)
    gained = np.array([gap[name] > 0 for name in table["transform"].values])
    by_class = (chosen & gained).sum(axis=1) / top
    low, high = rankings.interval(by_class, draws=draws, seed=seed)
    names = [name for name in TRANSFORMS if name in table["transform"].values]
    of = [table["transform"].values == name for name in names]
    slots = xr.DataArray(
        [chosen[:, each].sum() for each in of],
        dims="transform",
        coords={
            "transform": names,
            "gap": ("transform", [float(gap[name]) for name in names]),
            "rows": ("transform", [int(each.sum()) for each in of]),
        },
    )
    shares = slots.values / chosen.sum()
    bars = []
    for group in (shares[slots["gap"].values > 0], shares[slots["gap"].values <= 0]):
        size = len(group)
        bars.append(float(group.mean()) if size else math.nan)
        bars.append(float(group.std(ddof=1) / math.sqrt(size)) if size > 1 else math.nan)
    return Alignment(
        slots, len(chosen), float(by_class.mean()), low, high, float(gained.mean()), *bars
    )
