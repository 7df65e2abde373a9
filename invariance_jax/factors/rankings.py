"""Which operations explain how the images of a class differ: rankings of the rows of a search.

Everything here takes the statistics of a search, as `statistics.of_search` makes them.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from invariance_jax.errors import UserError, unknown_name

By = Literal["proportion_boosted", "percent_change"]
_VARIABLES = {"proportion_boosted": "proportion_boosted", "percent_change": "mean_percent_change"}
# Percentiles of an interval that holds 95% of the draws.
INTERVAL = (2.5, 97.5)


def order(
    statistics: xr.Dataset, by: By = "proportion_boosted", *, over_classes: bool = False
) -> Int[np.ndarray, "class row"]:
    """Ranks the rows of every class.

    Args:
        statistics: Statistics of a search.
        by: "proportion_boosted", the share of pairs whose similarity rises, or "percent_change",
            the mean change in percent.
        over_classes: Rank the means over classes instead: one ranking.

    Returns:
        Positions of the rows, the highest value first. Of equal values the one that is higher by
        the other measure comes first, then the one that stands first in the search. Values that
        are not a number come last.

    Raises:
        UserError: No such ranking.
    """
    if by not in _VARIABLES:
        raise unknown_name("ranking", by, get_args(By))
    names = [_VARIABLES[by], *(name for each, name in _VARIABLES.items() if each != by)]
    keys = [statistics[name].transpose("class", "row").values.astype(np.float64) for name in names]
    if over_classes:
        keys = [xr.DataArray(each).mean("dim_0").values[None] for each in keys]
    first, second = (-np.nan_to_num(each, nan=-np.inf) for each in keys)
    return np.lexsort((second, first), axis=1)  # stable: then as in the search


def operations(statistics: xr.Dataset) -> np.ndarray:
    """What each row does, whatever its index: "rotate", of a sub-policy "invert + equalize"."""
    first = statistics["operation"].values.astype(object)
    if "operation2" not in statistics.coords:
        return first
    second = statistics["operation2"].values.astype(object)
    return np.where(second == "", first, first + " + " + second)


def distinct(statistics: xr.Dataset) -> xr.Dataset:
    """Leaves out rows that do the same as an earlier one, and those that change no image."""
    copies = statistics["copy_of"].values != statistics["row"].values
    return statistics.isel(row=np.flatnonzero(~copies))


def among_first(ranking: Int[np.ndarray, "class row"], top: int) -> Bool[np.ndarray, "class row"]:
    """Marks the first rows of every class.

    Args:
        ranking: From `order`.
        top: How many.

    Returns:
        True for each row, in the order of the search, that is among the first.

    Raises:
        UserError: There are not as many rows.
    """
    if not 1 <= top <= ranking.shape[1]:
        raise UserError(f"top is {top}; expected 1 to {ranking.shape[1]}, the rows of the search")
    return ranking.argsort(axis=1) < top


def first_places(
    statistics: xr.Dataset, ranking: Int[np.ndarray, "class row"]
) -> Int[np.ndarray, "class name"]:
    """Finds where each operation first appears in the ranking of each class.

    Args:
        statistics: Statistics of a search.
        ranking: From `order`.

    Returns:
        Places, 0 for the first, of the operations in the order of the search.
    """
    done, places = operations(statistics), ranking.argsort(axis=1)
    return np.stack([places[:, done == name].min(axis=1) for name in dict.fromkeys(done)], axis=1)


def counts(statistics: xr.Dataset, top: int, by: By = "proportion_boosted") -> xr.DataArray:
    """Counts how often each operation is among the first rows.

    Args:
        statistics: Statistics of a search.
        top: How many rows of a class count.
        by: See `order`.

    Returns:
        int64, dim `operation`, summed over classes, the most frequent first; coordinates `kind`
        and `expected`, the count if the rows were drawn at random.
    """
    chosen = among_first(order(statistics, by), top).sum(axis=0)
    rows, classes = statistics.sizes["row"], statistics.sizes["class"]
    done, kinds = operations(statistics), statistics["kind"].values
    names = list(dict.fromkeys(done))
    of = [done == name for name in names]
    table = xr.DataArray(
        [chosen[each].sum() for each in of],
        dims="operation",
        coords={
            "operation": names,
            "kind": ("operation", [str(kinds[each][0]) for each in of]),
            "expected": ("operation", [classes * top * each.sum() / rows for each in of]),
        },
    )
    return table.isel(operation=np.argsort(-table.values, kind="stable"))


def resampled(classes: int, draws: int, seed: int) -> Int[np.ndarray, "draw class"]:
    """Draws as many classes as there are, with replacement: how often each is in a draw."""
    return np.random.default_rng(seed).multinomial(classes, np.full(classes, 1 / classes), draws)


def interval(values: Float[np.ndarray, " class"], *, draws: int = 10_000, seed: int = 0) -> tuple:
    """Bootstraps the mean over classes.

    Args:
        values: One of each class.
        draws: How many times the classes are drawn, with replacement.
        seed: Of the draws.

    Returns:
        The ends of the 95% interval.
    """
    means = resampled(len(values), draws, seed) @ values / len(values)
    return tuple(np.percentile(means, INTERVAL).tolist())


class AppearanceShare(NamedTuple):
    """How many of the first rows change appearance.

    Attributes:
        rows: How many rows were ranked.
        top: How many of each class count.
        share: Share of the first rows that change appearance, mean over classes.
        low: Lower end of its 95% interval over classes.
        high: Upper end.
        base_rate: Share of the rows that were ranked.
        p_value: Share of random exchanges of the kinds between operations that exceed the base
            rate as much: whether it may be chance which operations are of which kind.
    """

    rows: int
    top: int
    share: float
    low: float
    high: float
    base_rate: float
    p_value: float

    @property
    def verdict(self) -> str:
        """In words, whether appearance is more frequent than chance."""
        if self.low <= self.base_rate <= self.high:
            return "no clear difference"
        return "more than chance" if self.low > self.base_rate else "less than chance"


def appearance_share(
    statistics: xr.Dataset,
    top: int,
    by: By = "proportion_boosted",
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> AppearanceShare:
    """Judges "mostly appearance" against the rows that were searched.

    More than half of the paper's rows change appearance, so more than half of any ranking does.

    Args:
        statistics: Statistics of a search; of `distinct` for rows that differ.
        top: How many rows of a class count.
        by: See `order`.
        draws: Of the bootstrap over classes, and of the permutation test, which gives the kinds
            to other operations. All rows of an operation go together, as they are alike.
        seed: Of both.

    Returns:
        The share, its interval, and the base rate.
    """
    chosen = among_first(order(statistics, by), top)
    appearance = statistics["kind"].values == "appearance"
    by_class = (chosen & appearance).sum(axis=1) / top
    low, high = interval(by_class, draws=draws, seed=seed)
    names, first, member = np.unique(
        operations(statistics).astype(str), return_index=True, return_inverse=True
    )
    kinds = np.tile(appearance[first], (draws, 1))
    exchanged = np.random.default_rng(seed).permuted(kinds, axis=1)
    slots = np.bincount(member, chosen.mean(axis=0) / top, len(names))
    rows = np.bincount(member, minlength=len(names)) / len(member)
    excess = by_class.mean() - appearance.mean()
    as_much = exchanged @ (slots - rows) >= excess - 1e-12
    return AppearanceShare(
        rows=len(member),
        top=top,
        share=float(by_class.mean()),
        low=low,
        high=high,
        base_rate=float(appearance.mean()),
        p_value=float((1 + as_much.sum()) / (1 + draws)),
    )
