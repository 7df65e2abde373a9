"""Does the similarity say what people see? Eight comparisons of images (paper, section 4).

Two images of a class should be more alike than two of different classes, and an image more like
itself turned a little than turned a lot.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from invariance_jax import data
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import metrics, results
from invariance_jax.evaluation.measurement import MAIN, GroupMeasurement, Images, Network, Seen
from invariance_jax.factors.search import Features, vectors
from invariance_jax.factors.statistics import pairs
from invariance_jax.transforms import TRANSFORMS

ANGLES = (5.0, 90.0)
VIEWS = ("as they are", "turned by one random angle", "each turned by its own")


def check_pairs(
    labels: Int[np.ndarray, " image"], *, limit: int, class_pairs: int, seed: int
) -> Int[np.ndarray, "pair 2"]:
    """Pairs images within classes and across classes.

    Args:
        labels: Class of each image.
        limit: Most pairs of a class, or of two classes.
        class_pairs: Most pairs of classes; drawn at random, without replacement, of all that there
            are.
        seed: Of the draw.

    Returns:
        Positions: first neighbours within each class, then the i-th image of one class with the
        i-th of another.
    """
    classes = np.unique(labels)
    combinations = np.stack(np.triu_indices(len(classes), 1), axis=1)
    count = min(class_pairs, len(combinations))
    drawn = np.random.default_rng(seed).choice(len(combinations), count, replace=False)
    found = [pairs(labels, batch=2, limit=limit)]
    images = [np.flatnonzero(labels == each)[:limit] for each in classes]
    for one, other in combinations[np.sort(drawn)]:
        length = min(len(images[one]), len(images[other]))
        found.append(np.stack([images[one][:length], images[other][:length]], axis=1))
    return np.concatenate(found)


def over_groups(
    values: Float[np.ndarray, "value ..."], groups: Int[np.ndarray, "value 2"]
) -> tuple[float, float, int]:
    """Averages what is found of each group of values.

    Args:
        values: Similarities.
        groups: The class, or the two classes, that each is of.

    Returns:
        The mean over groups of the groups' means, that of their standard deviations (ddof 0), and
        how many groups there are; NaN of none.
    """
    names, group = np.unique(groups, axis=0, return_inverse=True)
    if not len(names):
        return np.nan, np.nan, 0
    parts = [np.asarray(values[group.ravel() == each], np.float64) for each in range(len(names))]
    means, deviations = np.mean([(each.mean(), each.std()) for each in parts], axis=0)
    return float(means), float(deviations), len(names)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SimilarityChecks(GroupMeasurement):
    """The similarity within and across classes, and of an image to itself turned.

    Attributes:
        features: Whose similarity is measured.
        limit: Most pairs of a class, and of two classes.
        class_pairs: Most pairs of classes.
        seed: Of these pairs, and of the angles.
    """

    features: Features = "embedding"
    limit: int = 100
    class_pairs: int = 1000
    seed: int = 0

    name = "similarity_checks"
    split_field = "search.checks_split"
    together = 2

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """The fields of `config.search`."""
        chosen = config.search
        return cls(
            features=chosen.features,
            limit=chosen.checks_pairs,
            class_pairs=chosen.checks_class_pairs,
            seed=chosen.seed,
        )

    @property
    def needs_scores(self) -> bool:
        """Whether logits are compared."""
        return self.features == "logits"

    def order(self, source: data.Source) -> Int[np.ndarray, " image"]:
        """The pairs, one after another."""
        found = self._pairs(source.labels()) if source.has_labels else np.empty((0, 2), int)
        if not len(found):
            raise UserError(
                f"config.{self.split_field}: {source.name} {source.split} has no labels, or one "
                "image; expected classes, whose images are compared (or '' for no checks)"
            )
        return found.reshape(-1)

    def _pairs(self, labels: Int[np.ndarray, " image"]) -> Int[np.ndarray, "pair 2"]:
        return check_pairs(labels, limit=self.limit, class_pairs=self.class_pairs, seed=self.seed)

    def angles(self, index: Int[Array, " image"]) -> Float[Array, "view image"]:
        """Says how far images are turned.

        Args:
            index: Positions of the images, pair after pair.

        Returns:
            Degrees: by `ANGLES`, by one random angle for each pair, and each by its own.
        """

        def draw(pair: Int[Array, "2"]) -> Float[Array, "3"]:
            key = jax.random.fold_in(jax.random.key(self.seed), pair[0])
            return jax.random.uniform(jax.random.fold_in(key, pair[1]), (3,), maxval=360.0)

        drawn = jax.vmap(draw)(index.reshape(-1, 2))
        fixed = [jnp.full(len(index), each) for each in ANGLES]
        return jnp.stack([*fixed, jnp.repeat(drawn[:, 0], 2), drawn[:, 1:].reshape(-1)])

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Measures one device's pairs, images 2k and 2k + 1.

        Returns:
            "similarity" of the two, float32 [batch, view], and "turned", of each to itself, [batch,
            image, angle]; both images of a pair have what is the pair's.
        """
        rotate = jax.vmap(TRANSFORMS["rotate"].apply)

        def one(_: None, angle: Array) -> tuple[None, Array]:
            shown = network.normalize(rotate(seen.image, angle))
            return None, vectors(self.features, *network.apply(shown))

        z = vectors(self.features, seen.logits, seen.features)
        _, turned = jax.lax.scan(one, None, self.angles(seen.index))
        views = jnp.concatenate([z[None], turned[len(ANGLES) :]])
        similarity = 1.0 - metrics.cosine_distance(views[:, 0::2], views[:, 1::2]).T
        own = 1.0 - metrics.cosine_distance(z[None], turned[: len(ANGLES)]).T
        return {
            "similarity": jnp.repeat(similarity, 2, axis=0),
            "turned": jnp.repeat(own.reshape(-1, 2, len(ANGLES)), 2, axis=0),
        }

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found.

        Args:
            found: The arrays of `step` over all pairs.
            images: The images.

        Returns:
            float32 `similarity` (pair, view) and `turned` (pair, image_of_pair, angle), with the
            coordinates `label1`, `label2`, `image1`, `image2`; and the table: float64 `mean` and
            `std` and int32 `groups` (classes, or pairs of them), dim (check,).
        """
        positions = self._pairs(images.labels)
        names, labels = np.asarray(images.names)[positions], images.labels[positions]
        within = labels[:, 0] == labels[:, 1]
        checks: dict[str, tuple[float, float, int]] = {}
        twice = np.repeat(labels[within], 2, axis=0)
        for column, angle in enumerate(ANGLES):
            own = found["turned"][within, :, column].reshape(-1)
            checks[f"itself, turned by {angle:g} degrees"] = over_groups(own, twice)
        for what, chosen in (("within a class", within), ("across classes", ~within)):
            for column, view in enumerate(VIEWS):
                values = found["similarity"][chosen, column]
                checks[f"{what}, {view}"] = over_groups(values, labels[chosen])
        mean, std, groups = zip(*checks.values(), strict=True)
        return {
            MAIN: xr.Dataset(
                {
                    "similarity": (("pair", "view"), found["similarity"]),
                    "turned": (("pair", "image_of_pair", "angle"), found["turned"]),
                    "mean": ("check", np.array(mean)),
                    "std": ("check", np.array(std)),
                    "groups": ("check", np.array(groups, np.int32)),
                },
                {
                    "check": list(checks),
                    "view": list(VIEWS),
                    "angle": list(ANGLES),
                    **{f"label{i + 1}": ("pair", labels[:, i].astype(np.int32)) for i in range(2)},
                    **{f"image{i + 1}": ("pair", names[:, i]) for i in range(2)},
                },
                {"features": self.features},
            )
        }

    def sidecar(self, dataset: xr.Dataset) -> str:
        """The eight comparisons, as CSV."""
        table = dataset[["mean", "std", "groups"]].to_dataframe()
        return table.to_csv(float_format="%.9g")

    def summary(self, dataset: xr.Dataset) -> str:
        """The eight comparisons."""
        body = [
            (str(each["check"].values), f"{float(each['mean']):.4f}", f"{float(each['std']):.4f}")
            for each in (dataset.isel(check=row) for row in range(dataset.sizes["check"]))
        ]
        title = f"Cosine similarity of images ({dataset.attrs['features']}), means over classes of"
        return results.table(title, ("", "mean", "std"), body)
