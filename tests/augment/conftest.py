"""Canvases, and programs that many tests share: compiling random numbers is what they cost."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment
from invariance_jax.augment import boxes

# Keys and images of one call.
DRAWS, BATCH = 8000, 8


@pytest.fixture(scope="session")
def canvas_of():
    """Function of (pixels, side): canvas, height and width."""

    def make(pixels, side):
        canvas = np.zeros((side, side, 3), np.uint8)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        return jnp.asarray(canvas), jnp.int32(pixels.shape[0]), jnp.int32(pixels.shape[1])

    return make


@jax.jit
def _draw(samplers, key_data, heights, widths):
    def one(sampler, key_data, height, width):
        windows = sampler(jax.random.wrap_key_data(key_data), height, width)
        return windows, jnp.stack(boxes.source_box(windows, sampler.frames))

    return jax.vmap(one)(samplers, key_data, heights, widths)


@pytest.fixture(scope="session")
def draw():
    """Function of (sampler, keys, heights, widths): windows, and the boxes [keys, 4] they show.

    Leaves of the sampler and the sides are one number, or one for each key. One program serves all
    samplers of one structure, however many keys there are.
    """

    def run(sampler, keys, heights, widths):
        count = len(keys)
        place = np.resize(np.arange(count), DRAWS)

        def each(leaf, dtype=np.float32):
            leaf = np.asarray(leaf, dtype)
            return np.full(DRAWS, leaf) if leaf.ndim == 0 else leaf[place]

        data = np.asarray(jax.random.key_data(keys))[place]
        sides = (each(side, np.int32) for side in (heights, widths))
        found = _draw(jax.tree.map(each, sampler), data, *sides)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], found)

    return run


@pytest.fixture(scope="session")
def sample_boxes(draw):
    """Function of (augmentation, height, width): 8000 boxes [8000, 4], as `Box` has them."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return lambda augmentation, height, width: draw(augmentation.boxes, keys, height, width)[1]


@functools.cache
def _render(size, frames):
    # Of the sampler, rendering reads the frames only.
    variant = augment.Augmentation(
        name="any", size=size, boxes=types.SimpleNamespace(frames=frames), flip_probability=0.0
    )
    return jax.jit(jax.vmap(variant.render))


@pytest.fixture(scope="session")
def render():
    """Function of (augmentation, canvases, windows, flips): the images that the windows show."""

    def run(augmentation, canvases, windows, flips=False):
        count = len(canvases)
        program = _render(augmentation.size, augmentation.boxes.frames)
        arguments = np.stack(canvases), windows, np.broadcast_to(flips, count)

        def batch(start):
            place = np.resize(np.arange(start, min(start + BATCH, count)), BATCH)
            return program(*jax.tree.map(lambda leaf: np.asarray(leaf)[place], arguments))

        return np.concatenate([batch(start) for start in range(0, count, BATCH)])[:count]

    return run
