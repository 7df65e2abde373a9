"""Prediction consistency: how alike a network judges random augmentations of one image.

The mean over ordered pairs of K random augmentations of KL(p_i || p_j), p the softmax of the
scores (arXiv 2203.03304, where it serves as a regulariser).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import (
    MAIN,
    Images,
    Measurement,
    Network,
    Seen,
    augmentation_of,
    to_bytes,
)


def mean_divergence(
    log_probability: Float[Array, "augmentation *batch classes"],
) -> Float[Array, "*batch"]:
    """Mean over ordered pairs of different augmentations of KL(p_i || p_j).

    Args:
        log_probability: Logarithms of the probabilities of the classes, at least 2 augmentations.

    Returns:
        The mean, in nats, not negative; 0 where all are alike.
    """
    count = log_probability.shape[0]
    probability = jnp.exp(log_probability)
    # The sum over pairs of sum_c p_i (log p_i - log p_j), those with i = j being 0.
    own = jnp.sum(probability * log_probability, axis=-1)
    crossed = jnp.sum(jnp.sum(probability, 0) * jnp.sum(log_probability, 0), axis=-1)
    total = count * jnp.sum(own, axis=0) - crossed
    return jnp.maximum(total, 0.0) / (count * (count - 1))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PredictionConsistency(Measurement):
    """How alike random augmentations of each image are judged.

    Attributes:
        augmentation: What is drawn.
        described: The same in words.
        samples: How many are drawn of each image, at least 2.
        seed: Of the draws; what an image gets depends on it and on the image's index alone.
    """

    augmentation: Augmentation
    described: str
    samples: int = 8
    seed: int = 0

    name = "prediction_consistency"
    needs_scores = True

    def __post_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 2:
            raise UserError(f"samples is {self.samples!r}; expected a whole number, at least 2")

    @classmethod
    def from_config(
        cls,
        config: ExperimentConfig,
        *,
        augmentation: str = "random_resized_crop",
        samples: int = 8,
    ) -> Self:
        """The augmentation that is drawn, of `augment.NAMES`, and how often."""
        made = augmentation_of(config, augmentation, "augmentation")
        return cls(
            augmentation=made, described=augmentation, samples=samples, seed=config.eval.seed
        )

    def identity(self) -> dict[str, Any]:
        """Its options."""
        return {"augmentation": self.described, "samples": self.samples}

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Measures one device's images: "divergence", float32 [batch]."""

        def one(_: None, key: PRNGKeyArray) -> tuple[None, Array]:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, seen.index)
            images = jax.vmap(self.augmentation)(keys, seen.canvas, seen.height, seen.width)
            logits, _ = network.apply(network.normalize(to_bytes(images)))
            return None, jax.nn.log_softmax(logits)

        keys = jax.random.split(jax.random.key(self.seed), self.samples)
        _, log_probability = jax.lax.scan(one, None, keys)
        return {"divergence": mean_divergence(log_probability)}

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found: `divergence`, float32, dim (image,), in nats."""
        variables = {"divergence": ("image", found["divergence"])}
        attributes = {"augmentation_of_images": self.described, "samples": self.samples}
        return {MAIN: xr.Dataset(variables, images.coordinates(), attributes)}

    def summary(self, dataset: xr.Dataset) -> str:
        """The mean over images."""
        mean = float(dataset["divergence"].mean())
        return (
            f"Prediction consistency: KL {mean:.4f} nats between "
            f"{dataset.attrs['augmentation_of_images']} draws, mean of "
            f"{dataset.sizes['image']} images"
        )
