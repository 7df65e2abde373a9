"""Accuracy image by image: as they are, under other crops, averaged over random augmentations.

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
from jaxtyping import Array, Float, Int, PRNGKeyArray

from invariance_jax import augment, spec
from invariance_jax.augment import Augmentation, LearnedAugmentation
from invariance_jax.augment.learned import COLLECTION
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
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
        `correct_top1` and `correct_top5` (int8), `predicted` (int32), and of the true class
        `probability` and `cross_entropy` (its negative logarithm, nats; both float32), [batch]
        each. A score that is not a number counts against the network.
    """
    rank = metrics.rank_of_label(logits, label)
    true = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]
    return {
        "correct_top1": (rank < 1).astype(jnp.int8),
        "correct_top5": (rank < 5).astype(jnp.int8),
        "predicted": jnp.argmax(logits, axis=1).astype(jnp.int32),
        "probability": jnp.exp(true),
        "cross_entropy": -true,
    }


class _OfClassifiers(Measurement):
    """What needs scores and labels, and takes whatever scores there are."""

    needs_labels = True
    needs_scores = True
    split_field = "data.validation_split"
    how = ""

    def check(self, found: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """A score that is not a number counts against the network and ends nothing."""

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found: the arrays of `classified`, dim (image,)."""
        variables = {name: ("image", values) for name, values in found.items()}
        return {MAIN: xr.Dataset(variables, images.coordinates())}

    def summary(self, dataset: xr.Dataset) -> str:
        """Both accuracies, in one line."""
        top1, top5 = (float(dataset[f"correct_{each}"].mean()) for each in ("top1", "top5"))
        said = f"top-1 {top1:.2%}, top-5 {top5:.2%} of {dataset.sizes['image']} images"
        return f"Accuracy{self.how}: {said}"


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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AveragedAccuracy(_OfClassifiers):
    """Accuracy of the log-softmax averaged over random augmentations of each image.

    A network with a learned augmentation is judged so (section 2 of Augerino, arXiv 2010.11882);
    one that was trained with a fixed augmentation can be too, so that they are compared alike.

    Attributes:
        augmentation: What is drawn.
        described: The same in words.
        copies: How many are drawn of each image.
        seed: Of the draws; what an image gets depends on it and on the image's index alone.
    """

    augmentation: Augmentation | LearnedAugmentation
    described: str
    copies: int
    seed: int

    name = "averaged_accuracy"

    @property
    def how(self) -> str:
        """For the summary."""
        return f", averaged over {self.copies} draws of {self.described}"

    @classmethod
    def from_config(
        cls, config: ExperimentConfig, *, augmentation: str = "", copies: int | None = None
    ) -> Self:
        """What is drawn, of `augment.NAMES`, and how often; by default what the run trained with.

        Args:
            config: The config.
            augmentation: Empty for `config.augment.learned`, or where there is none,
                `config.augment.name`.
            copies: By default those of the learned augmentation, or 4.

        Returns:
            The measurement.

        Raises:
            UserError: The learned augmentation has widths for each class, or a value is wrong.
        """
        learned = augment.parse_learned(config.augment.learned, "config.augment.learned")
        text = augmentation or config.augment.learned or config.augment.name
        if not (augmentation or learned) and config.augment.per_class:
            raise UserError(
                f"config.augment.per_class is {config.augment.per_class!r}: which operations an "
                "image gets, only its class says, which is not known in evaluation; expected the "
                "augmentation of averaged_accuracy to be one of augment.NAMES"
            )
        if learned is None or augmentation:
            made = augmentation_of(config, text, "augmentation")
        elif learned.per_class:
            raise UserError(
                f"config.augment.learned is {text!r}: which widths an image has, only its class "
                "says, which is not known in evaluation; expected the augmentation of "
                "averaged_accuracy to be one of augment.NAMES"
            )
        else:
            made = learned
        if copies is None:
            copies = learned.copies if learned else 4
        copies = spec.check_number("copies", copies, 1, 1000, whole=True)
        return cls(augmentation=made, described=text, copies=copies, seed=config.eval.seed)

    def identity(self) -> dict[str, Any]:
        """Its options."""
        return {"augmentation": self.described, "copies": self.copies}

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Classifies one device's images by the average over copies; see `classified`."""

        def one(_: None, key: PRNGKeyArray) -> tuple[None, Float[Array, "batch classes"]]:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, seen.index)
            made = self.augmentation
            if isinstance(made, LearnedAugmentation):
                raw, images = network.variables["params"][COLLECTION], network.normalize(seen.image)
                inputs = made(raw, images, made.draw(keys, 1), seen.label)
            else:
                images = jax.vmap(made)(keys, seen.canvas, seen.height, seen.width)
                inputs = network.normalize(to_bytes(images))
            return None, jax.nn.log_softmax(network.apply(inputs)[0])

        keys = jax.random.split(jax.random.key(self.seed), self.copies)
        _, log_probability = jax.lax.scan(one, None, keys)
        return classified(jnp.mean(log_probability, axis=0), seen.label)


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
