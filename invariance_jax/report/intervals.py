"""Intervals of the report: what another choice of images and other seeds could have given.

A draw takes images with replacement, the same for all networks, so that networks are compared image
by image; and moves each row by the noise of its seeds. That noise is pooled over the rows that have
several seeds: three seeds of one row alone say little of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from invariance_jax.report.entries import Accuracy, Result, Run
from invariance_jax.report.rows import Row
from invariance_jax.report.summaries import MIDDLE_MAGNITUDES

DRAWS = 200
LEVELS = (2.5, 97.5)


class Interval(NamedTuple):
    """A number and its 95 % interval.

    Attributes:
        value: The number.
        low: Lower end; NaN if the number is.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> int:
        """1 above 0, -1 below 0, 0 where the interval covers 0 or there is no number."""
        return int(self.low > 0) - int(self.high < 0)


class Drawn(NamedTuple):
    """A quantity of every row, as measured and as drawn again.

    Attributes:
        rows: The rows.
        values: As measured: mean over seeds, float64 [row, ...].
        draws: Drawn again, float64 [draw, row, ...].
        seeds: How many seeds each row has.
    """

    rows: tuple[Row, ...]
    values: Float[np.ndarray, "row *more"]
    draws: Float[np.ndarray, "draw row *more"]
    seeds: tuple[int, ...]

    def at(self, row: Row) -> int:
        """The row's place."""
        return self.rows.index(row)

    def contrast(self, weights: Float[np.ndarray, "row"]) -> list[Interval]:
        """A weighted sum over rows, as the difference of two, of each further element.

        Args:
            weights: One a row.

        Returns:
            The sums with their intervals, in the order of the further dims, flattened.
        """
        values = np.tensordot(weights, self.values, axes=(0, 0)).ravel()
        draws = np.tensordot(self.draws, weights, axes=(1, 0)).reshape(len(self.draws), -1)
        low, high = np.percentile(draws, LEVELS, axis=0)
        return [Interval(*map(float, each)) for each in zip(values, low, high, strict=True)]


def invariance(runs: Sequence[Run], *, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Relative invariance (cosine) of every row to every transform.

    Args:
        runs: One entry a network, at least one, measured on the same images.
        draws: How often.
        seed: Of the draws.

    Returns:
        [row, transform]: medians over images, means of magnitudes 3 to 7.
    """

    def of(run: Run) -> Callable[[np.ndarray], np.ndarray]:
        middle = run.data["relative_invariance_cosine"].isel(magnitude=list(MIDDLE_MAGNITUDES))
        values = middle.transpose("image", "transform", "magnitude").values
        return lambda images: np.median(values[images], axis=0).mean(axis=-1, dtype=np.float64)

    return _drawn(runs, of, runs[0].data.sizes["image"], draws, seed)


def accuracy(entries: Sequence[Accuracy], *, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Top-1 accuracy of every row.

    Args:
        entries: One entry a network, at least one; measured on the same images, which is known of
            those with `correct`. Without it images are not drawn again.
        draws: How often.
        seed: Of the draws.

    Returns:
        [row], fractions.
    """
    images = max((each.correct.size for each in entries if each.correct is not None), default=1)

    def of(each: Accuracy) -> Callable[[np.ndarray], np.ndarray]:
        if each.correct is None:
            return lambda _: np.float64(each.top1)
        hits = each.correct.values
        return lambda chosen: hits[chosen].mean(dtype=np.float64)

    found = _drawn(entries, of, images, draws, seed)
    return found._replace(draws=found.draws.clip(0, 1))


def _drawn(
    entries: Sequence[Result],
    of: Callable[[Result], Callable[[np.ndarray], np.ndarray]],
    images: int,
    draws: int,
    seed: int,
) -> Drawn:
    rng = np.random.default_rng(seed)
    samples = [np.arange(images), *rng.integers(0, images, (draws, images))]
    rows = tuple(dict.fromkeys(each.row for each in entries))
    found: list[list[np.ndarray]] = [[] for _ in rows]
    for each in entries:
        measure = of(each)
        found[rows.index(each.row)].append(np.stack([measure(sample) for sample in samples]))
    means = np.stack([np.mean(each, axis=0) for each in found], axis=1)
    seeds = tuple(map(len, found))
    # Of the images as they are.
    variances = [np.var([x[0] for x in each], axis=0, ddof=1) for each in found if len(each) > 1]
    values, drawn = means[0], means[1:]
    if variances:
        pooled = np.sqrt(np.mean(variances, axis=0))
        scale = 1 / np.sqrt(np.array(seeds)).reshape(-1, *[1] * (values.ndim - 1))
        drawn = drawn + rng.standard_normal(drawn.shape) * pooled * scale
    return Drawn(rows, values, drawn, seeds)


def table(drawn: Drawn) -> pd.DataFrame:
    """Every row's number with its interval, of a quantity without further dims.

    Args:
        drawn: From `accuracy`.

    Returns:
        Columns value, low, high; a line a row.
    """
    low, high = np.percentile(drawn.draws, LEVELS, axis=0)
    return pd.DataFrame({"value": drawn.values, "low": low, "high": high})
