"""Losses against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.training.losses import make_loss

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
MIXED = np.array([[0.7, 0.3, 0.0], [0.0, 0.1, 0.9]])


def loss_of(text, smoothing, target=MIXED):
    return make_loss(text, smoothing)(
        jnp.asarray(LOGITS, jnp.float32), jnp.asarray(target, jnp.float32)
    )


def by_hand(target):
    """Each class's own cross-entropy, and their mean."""
    probability = 1 / (1 + np.exp(-LOGITS))
    return -(target * np.log(probability) + (1 - target) * np.log(1 - probability)).mean(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_torchs(smoothing):
    # torch: the target is (1 - smoothing) at the true class, plus smoothing / classes everywhere.
    log_probability = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    for target in (np.eye(3)[[0, 1]], MIXED):
        expected = -(((1 - smoothing) * target + smoothing / 3) * log_probability).sum(1)
        found = loss_of("cross_entropy", smoothing, target)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_binary_cross_entropy_asks_each_class():
    np.testing.assert_allclose(loss_of("binary_cross_entropy", 0.0), by_hand(MIXED), rtol=1e-5)
    smoothed = 0.9 * MIXED + 0.1 / 3
    np.testing.assert_allclose(loss_of("binary_cross_entropy", 0.1), by_hand(smoothed), rtol=1e-5)


def test_binary_cross_entropy_takes_mixed_classes_as_there():
    whole = np.array([[1.0, 1, 0], [0, 0, 1]])
    found = loss_of("binary_cross_entropy(threshold=0.2)", 0.0)
    np.testing.assert_allclose(found, by_hand(whole), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cross_entrpy", r"config\.train\.loss: unknown loss 'cross_entrpy'; did you mean"),
        ("cross_entropy(threshold=1)", r"has no option 'threshold'; its options: none"),
        ("binary_cross_entropy(threshold=1)", r"threshold is 1; expected 0 to 1, 1 excluded"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message):
        make_loss(text, 0.0)
