"""Top-1 and top-5 accuracy, exact on padded batches."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from invariance_jax import devices
from invariance_jax.augment import Augmentation
from invariance_jax.evaluation.measures import rank_of_label
from invariance_jax.transforms import normalize

# In grey levels: more than float32 errs, and less than anyone sees.
_SLACK = 1e-3

Batch = Mapping[str, Array]
AccuracyStep = Callable[[Any, Batch], dict[str, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy over a whole split.

    Attributes:
        top1: Share of images whose best score is the true class, 0 to 1.
        top5: Share of images whose five best scores hold the true class.
        images: How many images there were.
    """

    top1: float
    top5: float
    images: int


def prepare(augmentation: Augmentation, batch: Batch) -> Array:
    """Turns canvases into what a model takes, without randomness.

    Args:
        augmentation: One that draws nothing, as `none`.
        batch: As `data.evaluation_batches` yields it.

    Returns:
        float32 [batch, size, size, 3], multiples of 1 / 255 in [0, 1], not normalised.
    """
    key = jax.random.key(0)
    images = jax.vmap(augmentation, (None, 0, 0, 0))(
        key, batch["canvas"], batch["height"], batch["width"]
    )
    return to_bytes(images)


def to_bytes(images: Float[Array, "*batch height width 3"]) -> Float[Array, "..."]:
    """Rounds preprocessed images to grey levels.

    Pillow gives bytes, and so do we: solarize and posterize compare pixels with thresholds, where a
    white pixel that is 1 - 1e-7 would be another one than 1. Halves go up, as in Pillow; many are
    exact, because sizes are in simple ratios, and a rounding error must not choose.

    Args:
        images: float32 in [0, 1].

    Returns:
        Multiples of 1 / 255, same shape and dtype.
    """
    return jnp.floor(images * 255 + (0.5 + _SLACK)) / 255


def make_accuracy_step(model: nn.Module, augmentation: Augmentation, mesh: Mesh) -> AccuracyStep:
    """Makes the jitted function that counts correct images of one batch.

    Args:
        model: The network.
        augmentation: The preprocessing, `none` as a rule.
        mesh: The devices.

    Returns:
        `step(variables, batch) -> counts`; counts are int32 scalars `top1`, `top5`, `images`.
    """

    def step(variables: Any, batch: Batch) -> dict[str, Array]:
        images = normalize(prepare(augmentation, batch))
        logits, _ = model.apply(variables, images, train=False)
        rank = rank_of_label(logits, batch["label"])
        counts = {"top1": rank < 1, "top5": rank < 5, "images": jnp.ones_like(rank, bool)}
        return {name: jnp.sum(hit & batch["mask"]) for name, hit in counts.items()}

    return jax.jit(
        step,
        # The model's variables stay where training has them, whole or divided.
        in_shardings=(None, devices.by_example(mesh)),
        out_shardings=devices.replicated(mesh),
    )


def measure(step: AccuracyStep, variables: Any, batches: Iterable[Batch]) -> Accuracy:
    """Measures accuracy over all batches; one transfer to the host, at the end.

    Args:
        step: What `make_accuracy_step` returned.
        variables: Parameters and batch statistics.
        batches: The split's batches on the devices.

    Returns:
        The accuracy.
    """
    total = None
    for batch in batches:
        counts = step(variables, batch)
        total = counts if total is None else jax.tree.map(jnp.add, total, counts)
    host = jax.device_get(total)
    images = int(host["images"])
    return Accuracy(top1=int(host["top1"]) / images, top5=int(host["top5"]) / images, images=images)
