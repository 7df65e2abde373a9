"""How alike two ImageNet classes are in WordNet, and whether like classes have like factors.

The nouns above the 1000 classes come with the package (`data/wordnet.csv`, cut out of WordNet 3.0
by `benchmarks/make_wordnet.py`). The similarities are those of NLTK.
"""

import dataclasses
import functools
import graphlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int

from invariance_jax.data import imagenet
from invariance_jax.errors import UserError, unknown_name
from invariance_jax.factors import rankings

Similarity = Literal["wup", "path", "lch"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
Senses = Literal["wnid", "first"]
# The deepest noun of WordNet 3.0 has 19 nodes above it; Leacock and Chodorow scale by that.
_DEEPEST = 19
# Classes that the paper calls similar, and different, by Wu-Palmer similarity.
SIMILAR, DIFFERENT = 0.75, 0.25
# The paper compares the operations among as many rows.
TOPS = (25, 5)
COMPARISONS = (*(f"iou_{top}" for top in TOPS), "spearman")


class Place(NamedTuple):
    """Where a synset stands.

    Attributes:
        ways: Length of the shortest way up to each of its ancestors, itself with 0 among them.
        least_depth: Length of the shortest way up to a root.
        most_depth: Length of the longest way up to a root.
    """

    ways: Mapping[str, int]
    least_depth: int
    most_depth: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """Nouns, each with those right above it.

    Attributes:
        above: Hypernyms of each synset, by id.
        names: Its name as in "dog.n.01": of equally deep common ancestors the first name counts.
        first_sense: Of a class the first sense of its first word, by wnid.
    """

    above: Mapping[str, Sequence[str]]
    names: Mapping[str, str]
    first_sense: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    @functools.cache
    def of_imagenet(cls) -> Self:
        """The nouns above ImageNet's 1000 classes and above the first senses of their words."""
        rows = imagenet.nouns()
        return cls(
            above={row["synset"]: tuple(row["hypernyms"].split()) for row in rows},
            names={row["synset"]: row["name"] for row in rows},
            first_sense={row["synset"]: row["first_sense"] for row in rows if row["label"]},
        )

    @functools.cached_property
    def places(self) -> Mapping[str, "Place"]:
        """Where each synset stands."""
        found: dict[str, Place] = {}
        for synset in graphlib.TopologicalSorter(self.above).static_order():  # roots first
            parents = [found[each] for each in self.above[synset]]
            ways = {synset: 0}
            for parent in parents:
                for ancestor, way in parent.ways.items():
                    ways[ancestor] = min(way + 1, ways.get(ancestor, way + 1))
            least = min((each.least_depth + 1 for each in parents), default=0)
            most = max((each.most_depth + 1 for each in parents), default=0)
            found[synset] = Place(ways, least, most)
        return found

    def similarity(self, first: str, second: str, kind: Similarity) -> float:
        """How alike two nouns are, by NLTK's rules.

        Args:
            first: Id of a synset.
            second: Another one.
            kind: "wup" (Wu-Palmer): 2D / (d1 + d2 + 2D), with D one more than the longest way from
                the common ancestor to the root, and d1, d2 the `distance` of each to it; the common
                ancestor is the one whose shortest way to the root is longest. "path":
                1 / (d + 1), d their distance. "lch" (Leacock-Chodorow): -ln((d + 1) / 38).

        Returns:
            The similarity, higher for more alike: wup and path at most 1, lch at most 3.64.

        Raises:
            UserError: No such similarity.
        """
        if kind not in SIMILARITIES:
            raise unknown_name("similarity of classes", kind, SIMILARITIES)
        if kind == "path":
            return 1 / (self.distance(first, second) + 1)
        if kind == "lch":
            return -math.log((self.distance(first, second) + 1) / (2 * _DEEPEST))
        common = self.places[first].ways.keys() & self.places[second].ways.keys()
        deepest = max(self.places[each].least_depth for each in common)
        candidates = [each for each in common if self.places[each].least_depth == deepest]
        subsumer = first if first in candidates else min(candidates, key=self.names.__getitem__)
        depth = self.places[subsumer].most_depth + 1
        ways = self.distance(first, subsumer) + self.distance(second, subsumer)
        return 2 * depth / (ways + 2 * depth)

    def distance(self, first: str, second: str) -> int:
        """Length of the shortest way from one noun up to an ancestor of both and down again."""
        ours, theirs = self.places[first].ways, self.places[second].ways
        return min(ours[each] + theirs[each] for each in ours.keys() & theirs.keys())


def synsets(statistics: xr.Dataset, senses: Senses = "wnid") -> list[str]:
    """Finds every class of a search in WordNet.

    Args:
        statistics: Statistics of a search, with a coordinate `wnid` [class].
        senses: "wnid" takes the synset that the class is; "first" the first sense of its first
            word, as the paper's code did: another one for 209 of the 1000 classes.

    Returns:
        Ids that `Hierarchy.of_imagenet` knows, in the order of the classes.

    Raises:
        UserError: A class is none of ImageNet's, or there is no such choice of senses.
    """
    if senses not in get_args(Senses):
        raise unknown_name("senses", senses, get_args(Senses))
    known = Hierarchy.of_imagenet().first_sense
    names = statistics["wnid" if "wnid" in statistics.coords else "class_name"].values.tolist()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(names)} classes have no WordNet id, the first is "
            f"{unknown[0]!r}; expected ImageNet's classes, called as in n01440764"
        )
    return names if senses == "wnid" else [known[name] for name in names]


def pairs(classes: int, count: int, seed: int) -> Int[np.ndarray, "2 pair"]:
    """Draws pairs of two different classes, with replacement.

    Args:
        classes: How many classes there are, at least 2.
        count: How many pairs.
        seed: Of the draws.

    Returns:
        Positions of the first and of the second class.
    """
    if classes < 2:
        raise UserError(f"the search has {classes} class; class specificity compares two or more")
    draws = np.random.default_rng(seed)
    first = draws.integers(classes, size=count)
    return np.stack([first, (first + draws.integers(1, classes, size=count)) % classes])


def specificity(
    statistics: xr.Dataset,
    *,
    senses: Senses = "wnid",
    count: int = 10_000,
    seed: int = 0,
) -> xr.Dataset:
    """Compares the rankings of pairs of classes with how alike the classes are (paper, 4.3).

    Args:
        statistics: Statistics of a search; rows are ranked by percent change.
        senses: See `synsets`.
        count: How many pairs of different classes are drawn.
        seed: Of the pairs.

    Returns:
        Dim `class_pair`; int `first`, `second`, positions of the classes; float64 `wup`, `path`,
        `lch` (`Hierarchy.similarity`); `iou_25`, `iou_5`, shared over all operations among the
        first rows, 0 to 1; `spearman`, rank correlation of the places at which the operations
        first appear, -1 to 1.
    """
    ids = synsets(statistics, senses)
    first, second = pairs(len(ids), count, seed)
    tree = Hierarchy.of_imagenet()
    found = {
        kind: [tree.similarity(ids[a], ids[b], kind) for a, b in zip(first, second, strict=True)]
        for kind in SIMILARITIES
    }
    order = rankings.order(statistics, "percent_change")
    places = rankings.first_places(statistics, order)
    for top in TOPS:
        found[f"iou_{top}"] = _overlap(places[first] < top, places[second] < top)
    found["spearman"] = _correlation(places[first], places[second])
    found |= {"first": first, "second": second}
    variables = {name: ("class_pair", np.asarray(x)) for name, x in found.items()}
    return xr.Dataset(variables, attrs={"classes": len(ids)})


def _overlap(
    ours: Bool[np.ndarray, "pair name"], theirs: Bool[np.ndarray, "pair name"]
) -> Float[np.ndarray, " pair"]:
    return (ours & theirs).sum(axis=1) / (ours | theirs).sum(axis=1)


def _correlation(
    ours: Int[np.ndarray, "pair name"], theirs: Int[np.ndarray, "pair name"]
) -> Float[np.ndarray, " pair"]:
    """Spearman's, of places without ties."""
    ranks = [each.argsort(axis=1).argsort(axis=1) for each in (ours, theirs)]
    names = ours.shape[1]
    return 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum(axis=1) / (names * (names**2 - 1))


def similar_minus_different(
    found: xr.Dataset, variable: str, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """How much more alike the rankings of similar classes are than those of different ones.

    Args:
        found: From `specificity`.
        variable: "iou_25", "iou_5" or "spearman".
        draws: Of the bootstrap. It draws classes, as pairs that share a class are no
            independent ones.
        seed: Of the draws.

    Returns:
        Mean over pairs with Wu-Palmer similarity above 0.75 minus mean over those below 0.25, and
        the ends of its 95% interval; NaN where there are no such pairs.
    """
    near, far = (found["wup"].values > SIMILAR), (found["wup"].values < DIFFERENT)
    if not (near.any() and far.any()):
        return math.nan, math.nan, math.nan
    first, second, values = (found[name].values for name in ("first", "second", variable))
    weights = rankings.resampled(found.attrs["classes"], draws, seed)
    both = weights[:, first] * weights[:, second]

    def mean(chosen: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw without such pairs
            return both[:, chosen] @ values[chosen] / both[:, chosen].sum(axis=1)

    low, high = np.nanpercentile(mean(near) - mean(far), (2.5, 97.5))
    return float(values[near].mean() - values[far].mean()), float(low), float(high)


def summary(found: xr.Dataset) -> pd.DataFrame:
    """Sums up how alike the rankings of similar and of different classes are.

    Args:
        found: From `specificity`.

    Returns:
        A line for each way to compare rankings: `compared_by`; `similar`, `different`, means;
        `difference`, `low`, `high`, from `similar_minus_different`.
    """
    wup, lines = found["wup"].values, []
    for name in COMPARISONS:
        values = found[name].values
        means = [
            values[chosen].mean() if chosen.any() else math.nan
            for chosen in (wup > SIMILAR, wup < DIFFERENT)
        ]
        lines.append((name, *means, *similar_minus_different(found, name)))
    columns = ["compared_by", "similar", "different", "difference", "low", "high"]
    return pd.DataFrame(lines, columns=columns)
