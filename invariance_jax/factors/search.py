"""The similarity search: which operations bring the images of a class together (section 4).

Of each pair (x1, x2) of one class, x2 is changed by every row, and the question is whether it comes
nearer to x1. Image and partner are shown to one device together: each is decoded and embedded once,
and one pass a row follows for x2 alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from invariance_jax import data
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import metrics, results
from invariance_jax.evaluation.measurement import (
    MAIN,
    GroupMeasurement,
    Images,
    Network,
    Seen,
    in_passes,
)
from invariance_jax.factors import rankings
from invariance_jax.factors import rows as tables
from invariance_jax.factors.rows import IDENTITY, Row
from invariance_jax.factors.statistics import BATCH, LIMIT, of_search, pairs, tidy
from invariance_jax.transforms import AUTOAUGMENT

Features = Literal["embedding", "logits"]
# NetCDF group of the result file.
STATISTICS_GROUP = "statistics"
# Images are whole grey levels: where none differs by this much, none differs.
_HALF_A_LEVEL = 0.5 / 255
_TOP, _SHOWN = 5, 10


def vectors(
    features: Features, logits: Array | None, named: Mapping[str, Array]
) -> Float[Array, "batch feature"]:
    """What is compared of each image.

    Args:
        features: "embedding" or "logits".
        logits: The network's scores.
        named: Its features by name.

    Returns:
        One vector for each image.
    """
    return logits if features == "logits" else named["embedding"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SimilaritySearch(GroupMeasurement):
    """How much each row brings x2 of each pair to x1.

    Attributes:
        rows: What is tried.
        mode: The same in words, for the result file.
        features: Whose similarity is measured.
        batch: Images of a class that are paired at a time; see `statistics.pairs`.
        limit: Most pairs of a class.
        seed: Of the signs.
    """

    rows: Sequence[Row] = tables.ROWS
    mode: str = "all"
    features: Features = "embedding"
    batch: int = BATCH
    limit: int = LIMIT
    seed: int = 0

    name = "similarity_search"
    split_field = "search.split"
    together = 2

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """The fields of `config.search`."""
        chosen = config.search
        if chosen.batch_size % 2:
            raise UserError(
                f"config.search.batch_size is {chosen.batch_size}; expected an even number, of "
                "which one half is paired with the other"
            )
        rows = tables.parse(chosen.rows, "config.search.rows")
        if not tables.distinct(rows):
            raise UserError(f"config.search.rows is {chosen.rows!r}, which changes no image")
        is_set = len(chosen.rows) == 1 and chosen.rows[0] in tables.SETS
        return cls(
            rows=rows,
            mode=chosen.rows[0] if is_set else "named",
            features=chosen.features,
            batch=chosen.batch_size,
            limit=chosen.pairs_per_class,
            seed=chosen.seed,
        )

    @property
    def needs_scores(self) -> bool:
        """Whether logits are compared."""
        return self.features == "logits"

    @property
    def computed(self) -> tuple[Row, ...]:
        """The rows that need a pass: neither copies nor those that change no image."""
        return tables.distinct(self.rows)

    def identity(self) -> dict[str, Any]:
        """The rows with their magnitudes."""
        return {"rows": {each.label: [x.magnitude for x in each.steps] for each in self.rows}}

    def order(self, source: data.Source) -> Int[np.ndarray, " image"]:
        """The pairs, one after another."""
        if not source.has_labels:
            raise UserError(
                f"config.{self.split_field}: {source.name} {source.split} has no labels; expected "
                "classes, whose images are compared with each other"
            )
        labels = source.labels()
        found = self._pairs(labels)
        if not len(found):
            most = int(np.unique(labels, return_counts=True)[1].max())
            raise UserError(
                f"config.search.batch_size is {self.batch}, but no class of {source.name} "
                f"{source.split} has more than {most} images; expected an even number up to that"
            )
        return found.reshape(-1)

    def _pairs(self, labels: Int[np.ndarray, " image"]) -> Int[np.ndarray, "pair 2"]:
        return pairs(labels, batch=self.batch, limit=self.limit)

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Measures one device's pairs, images 2k and 2k + 1.

        Returns:
            "similarity", cos(z1, z2), float32 [batch], and "change", of that by each computed row,
            [batch, row]; both images of a pair have what is the pair's.
        """
        z = vectors(self.features, seen.logits, seen.features).astype(jnp.float32)
        first, second, images = z[0::2], z[1::2], seen.image[1::2]
        distance = metrics.cosine_distance(first, second)

        def one_pass(_: None, rows: Any) -> tuple[None, Array]:
            shown = jax.lax.map(lambda row: self._show(images, seen.index[1::2], row), rows)
            # A row may leave an image as it is, as solarize does one without bright pixels. Its
            # change is 0 then, and not a rounding error that would count as boost or decrease.
            same = jnp.max(jnp.abs(shown - images[None]), axis=(2, 3, 4)) < _HALF_A_LEVEL
            logits, named = network.apply(network.normalize(shown.reshape(-1, *images.shape[1:])))
            z = vectors(self.features, logits, named).astype(jnp.float32)
            z = z.reshape(*same.shape, -1)
            change = distance[None] - metrics.cosine_distance(first[None], z)
            return None, jnp.where(same, 0.0, change)

        # The images are half of what a forward pass bears: it takes several rows of them. The scan
        # compiles the network once for all.
        passes = in_passes(self._computed_steps(), len(images), network.largest_pass)
        _, change = jax.lax.scan(one_pass, None, passes)
        change = change.reshape(-1, len(images))[: len(self.computed)].T
        return {
            "similarity": jnp.repeat(1.0 - distance, 2),
            "change": jnp.repeat(change, 2, axis=0),
        }

    def _computed_steps(self) -> dict[str, np.ndarray]:
        """The computed rows: number [row], operation and magnitude of each step [row, step]."""
        longest = max(len(row.steps) for row in self.computed)
        names = self._operations
        found = [
            [(names.index(each.operation), each.magnitude) for each in row.steps]
            + [(0, 0.0)] * (longest - len(row.steps))
            for row in self.computed
        ]
        operation, magnitude = np.moveaxis(np.array(found), 2, 0)
        return {
            "number": np.array([row.number for row in self.computed], np.int32),
            "operation": operation.astype(np.int32),
            "magnitude": magnitude.astype(np.float32),
        }

    @property
    def _operations(self) -> list[str]:
        """The operations that occur; the first stands for no step."""
        return [IDENTITY, *sorted({step.operation for row in self.computed for step in row.steps})]

    def _show(
        self,
        images: Float[Array, "image height width 3"],
        index: Int[Array, " image"],
        row: Mapping[str, Array],
    ) -> Float[Array, "image height width 3"]:
        """Applies a row; what depends on no sign is shared by the images."""

        def branch(name: str) -> Any:
            if name == IDENTITY:
                return lambda images, magnitude, sign: images
            function = AUTOAUGMENT[name].apply
            if name in tables.SIGNED:
                return lambda images, size, sign: jax.vmap(function)(images, size * sign)
            return lambda images, size, sign: jax.vmap(function, (0, None))(images, size)

        signs = jax.vmap(tables.signs, (None, 0, None))(self.seed, index, row["number"])
        branches = [branch(name) for name in self._operations]

        def one(images: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
            operation, magnitude, sign = step
            return jax.lax.switch(operation, branches, images, magnitude, sign), None

        signs = signs.T[: len(row["operation"])]
        return jax.lax.scan(one, images, (row["operation"], row["magnitude"], signs))[0]

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found.

        Args:
            found: The arrays of `step` over all pairs.
            images: The images.

        Returns:
            float32 `similarity` (pair,) and `change` (pair, row): copies have what their original
            has, rows that change no image 0. Coordinates of the pair: `label`, `class_name`,
            `image1`, `image2`; of the row: see `rows.coordinates`. In the group "statistics", see
            `statistics.statistics`.
        """
        positions = self._pairs(images.labels)
        names, labels = np.asarray(images.names), images.labels[positions[:, 0]]
        columns = {row.label: x for row, x in zip(self.computed, found["change"].T, strict=True)}
        nothing = np.zeros(len(positions), np.float32)
        change = [columns.get(original, nothing) for original in tables.copies(self.rows)]
        counts = np.unique(images.labels, return_counts=True)[1]
        main = xr.Dataset(
            {
                "similarity": ("pair", found["similarity"]),
                "change": (("pair", "row"), np.stack(change, axis=1)),
            },
            {
                "label": ("pair", labels.astype(np.int32)),
                "class_name": ("pair", np.asarray(images.class_names)[labels]),
                "image1": ("pair", names[positions[:, 0]]),
                "image2": ("pair", names[positions[:, 1]]),
                **tables.coordinates(self.rows),
            },
            {
                "features": self.features,
                "mode": self.mode,
                "batch_size": self.batch,
                "skipped_classes": int(np.sum(counts < self.batch)),
            },
        )
        return {MAIN: main, STATISTICS_GROUP: of_search(main)}

    def sidecar(self, dataset: xr.Dataset) -> str:
        """Every statistic of every class and row, as CSV."""
        return tidy(of_search(dataset))

    def summary(self, dataset: xr.Dataset) -> str:
        """The rows that are most often a boost, and how many of those change the appearance."""
        found = of_search(dataset)
        mean = found[["proportion_boosted", "mean_percent_change"]].mean("class")
        best = np.argsort(-mean["proportion_boosted"].values, kind="stable")[:_SHOWN]
        body = [
            (
                str(each["row"].values),
                str(each["kind"].values),
                f"{float(each['proportion_boosted']):.1%}",
                f"{float(each['mean_percent_change']):z.2%}",
            )
            for each in (mean.isel(row=row) for row in best)
        ]
        attributes = dataset.attrs
        title = (
            f"Most boosted of {found.sizes['row']} rows, mean of {found.sizes['class']} classes, "
            f"{dataset.sizes['pair']} pairs ({attributes['features']})"
        )
        lines = [results.table(title, ("", "kind", "boosted", "change"), body)]
        lines.append(_appearance("all rows", found))
        distinct = rankings.distinct(found)
        if distinct.sizes["row"] < found.sizes["row"]:
            lines.append(_appearance("without copies and identities", distinct))
        if attributes["skipped_classes"]:
            lines.append(
                f"{attributes['skipped_classes']} classes with fewer than "
                f"{attributes['batch_size']} images are skipped"
            )
        return "\n".join(lines)


def _appearance(what: str, found: xr.Dataset) -> str:
    """The share of appearance among each class's most boosted rows, beside the base rate."""
    share = rankings.appearance_share(found, min(_TOP, found.sizes["row"]))
    return (
        f"Appearance, {what}: {share.share:.1%} ({share.low:.1%} to {share.high:.1%}) of "
        f"the {share.top} most boosted of each class, {share.base_rate:.1%} of the {share.rows} "
        "searched"
    )
