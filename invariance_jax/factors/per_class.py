"""Per-class augmentation: which rows of a search augment the images of a class (section 4)."""

import abc
import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from invariance_jax import augment, files, spec
from invariance_jax.errors import UserError, unknown_name
from invariance_jax.evaluation import results
from invariance_jax.factors import rankings
from invariance_jax.factors.rows import SIGNED, Row
from invariance_jax.factors.statistics import of_search

# In the workdir of a run, the rows of each class.
LIST = "per_class.csv"
When = Literal["after", "before", "instead"]
# What "fixed" means, and the "softmax" of one row.
_FIXED, _ALONE = 0.1, 0.5
_PROBABILITIES = ("uniform", "fixed", "softmax")
_NEEDED = ("change", "similarity", "label", "class_name", "row")


class Chosen(NamedTuple):
    """A row that images of a class get.

    Attributes:
        row: What is done.
        probability: How often, 0 to 1.
    """

    row: Row
    probability: float


# By label, in the order in which they are done; nothing of classes that were not considered.
ByClass = Mapping[int, tuple[Chosen, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerClassRows(abc.ABC):
    """A way to choose the rows of each class.

    Attributes:
        when: Whether they act "after" the augmentation of all images, "before" it, or "instead".
        share: Share of the classes with rows that are augmented, drawn at random; the others are
            left as they are, to see what they gain.
        seed: Of this draw.
    """

    when: When = "after"
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.when not in get_args(When):
            raise unknown_name("time to act", self.when, get_args(When))
        expected = "a share of the classes, above 0, at most 1"
        spec.check_number("share", self.share, np.nextafter(0, 1), 1, expected)
        spec.check_number("seed", self.seed, 0, 2**31 - 1, whole=True)

    def choose(self, class_names: Sequence[str], trained: Sequence[int] | None = None) -> ByClass:
        """Says what every class gets.

        Args:
            class_names: Names of all classes, in the order of the labels.
            trained: Labels of those that are trained on; all by default.

        Returns:
            Their rows, none of those that keep none or are not of the share; nothing of classes
            that the search does not have.

        Raises:
            UserError: The search is missing or of other classes, a class is unknown, or no class
                has a row.
        """
        every = self._all(class_names)
        found = {x: every[x] for x in sorted(every) if trained is None or x in trained}
        left = [label for label, rows in found.items() if rows]
        if not left:
            count = len(class_names if trained is None else trained)
            raise UserError(
                f"none of {count} classes keeps a row; expected filters that leave some, or a "
                "search of these classes"
            )
        count = max(1, round(self.share * len(left)))
        chosen = np.random.default_rng(self.seed).choice(left, count, replace=False)
        return {label: rows if label in chosen else () for label, rows in found.items()}

    @abc.abstractmethod
    def _all(self, class_names: Sequence[str]) -> ByClass:
        """The rows of every class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched(PerClassRows):
    """The first rows of a similarity search that pass some filters.

    Attributes:
        file: The result file of `search`.
        top: How many rows of the ranking are considered; the filters come after.
        ranking: By what rows are ranked; see `rankings.order`.
        across_classes: Rank the means over classes: the same rows for all.
        least_proportion: Rows stay that boost a larger share of pairs; None for all.
        least_change: Rows stay whose mean change is at least this, a fraction; None for all. Not
            read across classes.
        probability: How often each of n rows is done: "uniform", 1 / n; "fixed", 0.1; "softmax",
            over the rows, of (mean change of boosted pairs, a fraction) × (proportion boosted),
            0.5 of one alone; or a number.
    """

    file: str
    top: int = 25
    ranking: rankings.By = "proportion_boosted"
    across_classes: bool = False
    least_proportion: float | None = 0.4
    least_change: float | None = 0.0
    probability: str | float = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_number("top", self.top, 1, math.inf, whole=True)
        if self.ranking not in get_args(rankings.By):
            raise unknown_name("ranking", self.ranking, get_args(rankings.By))
        for name in ("least_proportion", "least_change"):
            if getattr(self, name) is not None:
                spec.check_number(name, getattr(self, name), -math.inf, math.inf)
        if type(self.across_classes) is not bool:
            raise UserError(f"across_classes is {self.across_classes!r}; expected True or False")
        if not isinstance(self.probability, str):
            spec.check_number("probability", self.probability, 0, 1)
        elif self.probability not in _PROBABILITIES:
            raise unknown_name("probability", self.probability, (*_PROBABILITIES, "a number"))

    def of(self, statistics: xr.Dataset) -> ByClass:
        """Chooses rows by what a search says of them.

        Args:
            statistics: Statistics of the search.

        Returns:
            The rows of every class, the first of the ranking first.
        """
        names = ["proportion_boosted", "mean_percent_change", "mean_percent_boost"]
        table = statistics[names]
        if self.across_classes:
            table = table.mean("class").expand_dims({"class": [0]})
        boosted, change, boost = (table[name].transpose("class", "row").values for name in names)
        kept = np.ones_like(boosted, bool)
        if self.least_proportion is not None:
            kept &= boosted > self.least_proportion
        if self.least_change is not None and not self.across_classes:
            kept &= change >= self.least_change
        rows = [Row.parse(label) for label in statistics["row"].values.tolist()]
        found = []
        order = rankings.order(statistics, self.ranking, over_classes=self.across_classes)
        for line, ranked in enumerate(order[:, : self.top]):
            left = [place for place in ranked.tolist() if kept[line, place]]
            # A row without a boost has none to weigh.
            chances = self._chances(np.nan_to_num(boost[line, left] * boosted[line, left]))
            found.append(
                tuple(Chosen(rows[place], p) for place, p in zip(left, chances, strict=True))
            )
        labels = statistics["class"].values.tolist()
        found *= len(labels) if self.across_classes else 1
        return dict(zip(labels, found, strict=True))

    def _chances(self, weight: np.ndarray) -> list[float]:
        """The probabilities of rows of these weights."""
        count = len(weight)
        if self.probability == "softmax" and count > 1:
            powers = np.exp(weight - weight.max())
            return (powers / powers.sum()).tolist()
        same = {"uniform": 1 / max(count, 1), "fixed": _FIXED, "softmax": _ALONE}
        return [float(same.get(self.probability, self.probability))] * count

    def _all(self, class_names: Sequence[str]) -> ByClass:
        path = files.local_path(self.file, "file")
        found = results.read(path)
        for name in _NEEDED:
            if name not in found.variables:
                raise UserError(f"{path} lacks {name!r}; expected a result file of `search`")
        statistics = of_search(found)
        pairs = zip(statistics["class"].values, statistics["class_name"].values, strict=True)
        for label, name in pairs:
            ours = class_names[label] if label < len(class_names) else None
            if ours != name:
                raise UserError(
                    f"{path} is a search of other classes: its class {label} is {str(name)!r}, "
                    f"here {ours!r}; expected a search of the data set that is trained on"
                )
        return self.of(statistics)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named(PerClassRows):
    """Rows that are named, for classes that are named.

    Attributes:
        rows: What is done, in this order.
        classes: Names or numbers of classes; none for all.
        probability: How often each row is done.
    """

    rows: str | tuple[str, ...] = "shear_x 5"
    classes: str | int | tuple[str | int, ...] = ()
    probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_number("probability", self.probability, 0, 1)
        if not self._chosen():
            raise UserError("rows is (); expected at least one, as 'shear_x 5'")

    def _chosen(self) -> tuple[Chosen, ...]:
        rows = (self.rows,) if isinstance(self.rows, str) else self.rows
        return tuple(Chosen(Row.parse(each), float(self.probability)) for each in rows)

    def _all(self, class_names: Sequence[str]) -> ByClass:
        wanted = self.classes if isinstance(self.classes, tuple | list) else (self.classes,)
        known = {name: label for label, name in enumerate(class_names)}
        known |= {label: label for label in known.values()}
        for each in wanted:
            if each not in known:
                raise unknown_name("class", each, map(str, class_names))
        named = {known[each] for each in wanted or class_names}
        return {x: self._chosen() if x in named else () for x in range(len(class_names))}


PER_CLASS: Mapping[str, type[PerClassRows]] = MappingProxyType(
    {"searched": Searched, "named": Named}
)


def parse(text: str, field: str = "per_class") -> PerClassRows | None:
    """Reads how a config chooses the rows of each class.

    Args:
        text: Empty for none; "searched(file='NAME.nc', top=25)" or "named(rows='shear_x 5',
            classes='n03291819')", with the attributes of `Searched` and `Named` as options.
        field: Where the text came from, for error messages.

    Returns:
        The choice; None for none.

    Raises:
        UserError: Unknown name, option or row, or a value out of range.

    Examples:
        >>> parse("named(rows='rotate 9', share=0.5)").when
        'after'
    """
    return spec.call(PER_CLASS, text, kind="per-class augmentation", field=field) if text else None


def operation_of(
    chosen: ByClass,
    num_classes: int,
    *,
    augmentation: augment.WithPolicies,
    square: augment.Augmentation | None = None,
) -> augment.PerClass:
    """Turns rows into the arrays that a training step looks up.

    Args:
        chosen: The rows of each class.
        num_classes: How many classes there are.
        augmentation: What every image gets.
        square: See `augment.PerClass`.

    Returns:
        `operation(key, canvas, height, width, label) -> image`.
    """
    every = [each.row.steps for rows in chosen.values() for each in rows]
    names = sorted({step.operation for steps in every for step in steps})
    shape = num_classes, max(map(len, chosen.values())), max(map(len, every))
    operation, strongest = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    probability = np.zeros(shape[:2], np.float32)
    for label, rows in chosen.items():
        for place, (row, chance) in enumerate(rows):
            probability[label, place] = chance
            for number, step in enumerate(row.steps):
                operation[label, place, number] = names.index(step.operation)
                strongest[label, place, number] = step.index
    return augment.PerClass(
        augmentation=augmentation,
        square=square,
        operations=tuple(names),
        signed=SIGNED,
        operation=operation,
        strongest=strongest,
        probability=probability,
    )


def to_csv(chosen: ByClass, class_names: Sequence[str]) -> str:
    """Lists the rows of each class.

    Args:
        chosen: The rows.
        class_names: Names of all classes.

    Returns:
        CSV text: class, class_name, row, probability; a line a row, in the order in which they are
        done, and one without for a class that has none.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "class_name", "row", "probability"))
    for label, rows in chosen.items():
        cells = [(x.row.label, f"{x.probability:.6g}") for x in rows] or [("", "")]
        writer.writerows((label, class_names[label], *each) for each in cells)
    return text.getvalue()


def told(chosen: ByClass) -> str:
    """Says in one line how many classes have how many rows.

    Args:
        chosen: The rows of each class.

    Returns:
        The line.
    """
    counts = np.bincount([len(rows) for rows in chosen.values()])
    listed = ", ".join(f"{rows}: {classes}" for rows, classes in enumerate(counts) if classes)
    augmented = len(chosen) - counts[0]
    return (
        f"per-class augmentation of {augmented} of {len(chosen)} classes; by number of rows, how "
        f"many classes have so many: {listed}"
    )
