"""Programs that many tests share: compiling is what these tests cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@functools.cache
def compiled(function):
    """One program for all tests, compiled once for every shape."""
    return jax.jit(function)


@pytest.fixture(scope="session")
def apply():
    """Function of (transform, image, magnitude): the transformed image."""

    def run(transform, image, magnitude):
        return compiled(transform.function)(jnp.asarray(image), jnp.float32(magnitude))

    return run


@pytest.fixture(scope="session")
def golden_image(golden_dir):
    """The image of the golden arrays, and the rows and columns of their points."""
    golden = np.load(golden_dir / "transforms.npz")
    return jnp.asarray(golden["image_u8"].astype(np.float32) / 255), *golden["points_yx"].T
