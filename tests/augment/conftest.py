"""Canvases, and many boxes from one program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def canvas_of():
    """Function of (pixels, side): canvas, height and width."""

    def make(pixels, side):
        canvas = np.zeros((side, side, 3), np.uint8)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        return jnp.asarray(canvas), jnp.int32(pixels.shape[0]), jnp.int32(pixels.shape[1])

    return make


@pytest.fixture(scope="session")
def sample_boxes():
    """Function of (augmentation, height, width, count): boxes [count, 4], as `Box` has them."""

    @jax.jit
    def sample(augmentation, keys, height, width):
        return jnp.stack(jax.vmap(augmentation.sample_box, (0, None, None))(keys, height, width), 1)

    def draw(augmentation, height, width, count, seed=0):
        # One name, so that variants of one structure share a program.
        augmentation = dataclasses.replace(augmentation, name="any")
        keys = jax.random.split(jax.random.key(seed), count)
        return np.asarray(sample(augmentation, keys, jnp.int32(height), jnp.int32(width)))

    return draw
