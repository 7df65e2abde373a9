"""Losses by name."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from invariance_jax import spec
from invariance_jax.errors import UserError

Logits = Float[Array, "batch classes"]
Targets = Float[Array, "batch classes"]
Loss = Callable[[Logits, Targets], Float[Array, "batch"]]


def cross_entropy(smoothing: float) -> Loss:
    """Cross-entropy with label smoothing, as torch's `CrossEntropyLoss(label_smoothing=...)`.

    Args:
        smoothing: Share of the target spread evenly over all classes, 0 to 1.

    Returns:
        From logits and probabilities of the classes (one-hot, or mixed) to each example's loss.
    """

    def loss(logits: Logits, target: Targets) -> Float[Array, "batch"]:
        log_probability = jax.nn.log_softmax(logits)
        true = jnp.sum(target * log_probability, axis=1)
        return -(1 - smoothing) * true - smoothing * jnp.mean(log_probability, axis=1)

    return loss


def binary_cross_entropy(smoothing: float, *, threshold: float | None = None) -> Loss:
    """Asks of each class whether it is there, apart from the others.

    Wightman et al., "ResNet strikes back" (arXiv 2110.00476), section 2. The mean over classes, as
    there; its size says nothing beside a cross-entropy.

    Args:
        smoothing: Share of the target spread evenly over all classes, 0 to 1.
        threshold: Above it a class counts as wholly there, and below as absent: mixed images hold
            two classes. 0 to 1, 1 excluded; None to leave the target as it is.

    Returns:
        From log odds of each class, and how much of each is in the image, to each example's loss.

    Raises:
        UserError: The threshold is out of range.
    """
    if threshold is not None and not 0 <= threshold < 1:
        raise UserError(f"threshold is {threshold}; expected 0 to 1, 1 excluded, or None")

    def loss(logits: Logits, target: Targets) -> Float[Array, "batch"]:
        target = (1 - smoothing) * target + smoothing / target.shape[1]
        if threshold is not None:
            target = (target > threshold).astype(target.dtype)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, target), axis=1)

    return loss


_LOSSES: Mapping[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def make_loss(text: str, smoothing: float) -> Loss:
    """Makes a loss.

    Args:
        text: `cross_entropy` or `binary_cross_entropy(threshold=None)`.
        smoothing: Share of the target spread evenly over all classes, 0 to 1.

    Returns:
        `loss(logits, target)`, the loss of each example.

    Raises:
        UserError: Unknown loss or option.
    """
    return spec.call(_LOSSES, text, smoothing, kind="loss", field="config.train.loss")
