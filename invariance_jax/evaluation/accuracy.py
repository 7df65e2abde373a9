"""Accuracy image by image, of the images as they are and under other crops (paper, section 2).

The paper tests a model on the centre crop that it knows, on random resized crops, and on centred
crops of ever smaller area: which of them it survives says what its training made it used to.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.evaluation import metrics, results
from invariance_jax.evaluation.measurement import (
    MAIN,
    Images,
    Measurement,
    Network,
    Seen,
    augmentation_of,
    to_bytes,
)


def classified(
    logits: Float[Array, "batch classes"], label: Int[Array, " batch"]
) -> dict[str, Array]:
    """What can be said of scores and the true classes.

    Args:
        logits: Scores.
        label: True classes.

    Returns:
        `correct_top1` and `correct_top5` (int8), `predicted` (int32) and `probability` (float32,
        that of the true class), [batch] each. A score that is not a number counts against the
        network.
    """
    rank = metrics.rank_of_label(logits, label)
    return {
        "correct_top1": (rank < 1).astype(jnp.int8),
        "correct_top5": (rank < 5).astype(jnp.int8),
        "predicted": jnp.argmax(logits, axis=1).astype(jnp.int32),
        "probability": jnp.take_along_axis(jax.nn.softmax(logits), label[:, None], 1)[:, 0],
    }


class _OfClassifiers(Measurement):
    """What needs scores and labels, and takes whatever scores there are."""

    needs_labels = True
    needs_scores = True
    split_field = "data.validation_split"

    def check(self, found: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """A score that is not a number counts against the network and ends nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy(_OfClassifiers):
    """Top-1 and top-5 accuracy of the images as they are."""

    name = "accuracy"

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """It has no options."""
        return cls()

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Classifies one device's images; see `classified`."""
        return classified(seen.logits, seen.label)

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found: the arrays of `classified`, dim (image,)."""
        variables = {name: ("image", values) for name, values in found.items()}
        return {MAIN: xr.Dataset(variables, images.coordinates())}

    def summary(self, dataset: xr.Dataset) -> str:
        """Both accuracies, in one line."""
        top1, top5 = (float(dataset[f"correct_{each}"].mean()) for each in ("top1", "top5"))
        return f"Accuracy: top-1 {top1:.2%}, top-5 {top5:.2%} of {dataset.sizes['image']} images"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TestTime(_OfClassifiers):
    """Accuracy under every way in which test images can be cropped.

    Attributes:
        variants: Test-time augmentations by name.
        seed: Of the random crops; the same draws serve every variant.
    """

    variants: Mapping[str, Augmentation]
    seed: int

    name = "test_time"
    __test__ = False  # pytest would take it for one

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """The crops of `config.eval.test_time`, by default the one that the paper trains with."""
        texts = config.eval.test_time or ("none",)
        return cls(
            variants={
                text: augmentation_of(config, text, f"config.eval.test_time[{position}]")
                for position, text in enumerate(texts)
            },
            seed=config.eval.seed,
        )

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Classifies one device's images under every variant.

        What an image gets is drawn from the seed and the image's index alone.

        Returns:
            The arrays of `classified`, [batch, variant].
        """
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed), seen.index)
        branches = [
            lambda each=each: jax.vmap(each)(keys, seen.canvas, seen.height, seen.width)
            for each in self.variants.values()
        ]

        def one(_: None, which: Int[Array, ""]) -> tuple[None, dict[str, Array]]:
            images = to_bytes(jax.lax.switch(which, branches))
            logits, _ = network.apply(network.normalize(images))
            return None, classified(logits, seen.label)

        # The scan compiles the network once for all variants.
        _, found = jax.lax.scan(one, None, jnp.arange(len(branches)))
        return {name: jnp.moveaxis(x, 0, 1) for name, x in found.items()}

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found: the arrays of `classified`, dims (variant, image)."""
        variables = {name: (("variant", "image"), values.T) for name, values in found.items()}
        coordinates = {"variant": list(self.variants), **images.coordinates()}
        return {MAIN: xr.Dataset(variables, coordinates)}

    def summary(self, dataset: xr.Dataset) -> str:
        """Both accuracies under every variant."""
        shares = [
            [f"{100 * float(x):.1f}" for x in dataset[field].mean("image").values]
            for field in ("correct_top1", "correct_top5")
        ]
        body = list(zip(map(str, dataset["variant"].values), *shares, strict=True))
        return results.table("Accuracy on other crops", ("", "top-1 %", "top-5 %"), body)

    def sidecar(self, dataset: xr.Dataset) -> str:
        """The accuracy of every class, as CSV; see `by_class`."""
        return by_class(dataset)


def by_class(dataset: xr.Dataset) -> str:
    """Tables the accuracy of every class.

    Args:
        dataset: The main dataset of `TestTime`.

    Returns:
        CSV text: variant, label, images, top1, top5; the accuracies 0 to 1. Classes without an
        image have no row.
    """
    hits = dataset[["correct_top1", "correct_top5"]].to_dataframe().reset_index()
    grouped = hits.groupby(["variant", "label"], sort=True)
    table = grouped[["correct_top1", "correct_top5"]].mean()
    table.insert(0, "images", grouped.size())
    table = table.loc[[str(each) for each in dataset["variant"].values]]
    table = table.rename(columns={"correct_top1": "top1", "correct_top5": "top5"})
    return table.to_csv(float_format="%.6f")
