"""Accuracy counted by hand."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from invariance_jax import augment, devices
from invariance_jax.evaluation import accuracy


class Given(nn.Module):
    """Gives the logits that are its only parameter."""

    def __call__(self, images, train=False):
        return self.get_variable("params", "logits")[: images.shape[0]], {}


def measure(logits, label, mask):
    size = len(label)
    mesh = devices.make_mesh(1)
    step = accuracy.make_accuracy_step(Given(), augment.get("none", size=4, resize=4), mesh)
    batch = {
        "canvas": jnp.zeros((size, 4, 4, 3), jnp.uint8),
        "height": jnp.full(size, 4, jnp.int32),
        "width": jnp.full(size, 4, jnp.int32),
        "label": jnp.asarray(label, jnp.int32),
        "mask": jnp.asarray(mask),
    }
    variables = {"params": {"logits": jnp.asarray(logits, jnp.float32)}}
    return accuracy.measure(step, variables, [batch, batch])


def test_top1_top5_and_padding():
    falling = np.arange(10.0, 0.0, -1)  # class 0 first, class 9 last
    found = measure([falling] * 5, label=[0, 4, 5, 1, 0], mask=[True] * 4 + [False])
    # Ranks 0, 4, 5, 1; the last image is padding. Both batches alike.
    assert found == accuracy.Accuracy(top1=1 / 4, top5=3 / 4, images=8)


def test_ties_count_against_the_model():
    found = measure([[0.0] * 10] * 2, label=[0, 9], mask=[True, True])
    assert (found.top1, found.top5) == (0.0, 0.0)


def test_scores_that_are_no_numbers_count_against_the_model():
    broken = [[np.nan] * 10, [np.nan, 9.0, *[0.0] * 8]]
    found = measure(broken, label=[0, 1], mask=[True, True])
    assert (found.top1, found.top5) == (0.0, 1 / 2)  # the second is beaten by one class


def test_halves_between_grey_levels_go_up_whatever_rounding_errors_say():
    halves = (np.arange(255, dtype=np.float64) + 0.5) / 255
    for error in (-1e-6, 0.0, 1e-6):
        images = jnp.asarray((halves + error).astype(np.float32).reshape(1, 5, 17, 3))
        levels = np.asarray(accuracy.to_bytes(images)) * 255
        np.testing.assert_allclose(levels.reshape(-1), np.arange(1, 256), atol=1e-4)
    whole = jnp.asarray(np.arange(255, dtype=np.float32).reshape(1, 5, 17, 3) / 255)
    np.testing.assert_allclose(accuracy.to_bytes(whole), whole, atol=1e-7)
