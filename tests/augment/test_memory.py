"""Gathers look few pixels up: no array of indices is as large as the batch of images."""

import jax
import jax.numpy as jnp
import pytest

from invariance_jax import augment
from invariance_jax.transforms import AUTOAUGMENT, TRANSFORMS

BATCH, CANVAS, SIZE = 4, 256, 112
KEYS = jax.random.split(jax.random.key(0), BATCH)


def gathers(jaxpr):
    """Numbers of indices of all gathers of a program, those in its inner programs too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "gather":
            yield equation.invars[1].aval.size
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple) else (parameter,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from gathers(inner)


@pytest.mark.parametrize("name", augment.NAMES)
def test_variants(name):
    canvas = jnp.zeros((BATCH, CANVAS, CANVAS, 3), jnp.uint8)
    sides = jnp.full(BATCH, CANVAS, jnp.int32)
    mapped = jax.vmap(augment.get(name, size=SIZE))
    sizes = list(gathers(jax.make_jaxpr(mapped)(KEYS, canvas, sides, sides).jaxpr))
    two_resamples = len(augment.get(name, size=SIZE).boxes.frames) > 0
    assert two_resamples or sizes  # the few-tap form of a CPU gathers
    # A tenth of the smaller of what goes in and what comes out.
    assert all(size < BATCH * SIZE * SIZE * 3 / 10 for size in sizes)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_the_grid_share_their_indices(name):
    images = jnp.zeros((BATCH, SIZE, SIZE, 3))
    mapped = jax.vmap(TRANSFORMS[name].apply, (0, None))
    sizes = list(gathers(jax.make_jaxpr(mapped)(images, jnp.float32(0)).jaxpr))
    assert all(size <= SIZE * SIZE for size in sizes)
    assert bool(sizes) == (name in ("shear_x", "shear_y", "rotate"))


@pytest.mark.parametrize("name", AUTOAUGMENT)
def test_operations_index_pixels_not_numbers(name):
    images, magnitudes = jnp.zeros((BATCH, SIZE, SIZE, 3)), jnp.ones(BATCH)
    mapped = jax.vmap(AUTOAUGMENT[name].apply)
    sizes = list(gathers(jax.make_jaxpr(mapped)(images, magnitudes).jaxpr))
    # Equalize looks its rule up for every level: there the image itself is the index. A shear's
    # rows are looked up once, with three neighbours more than they have pixels.
    row = {"equalize": 3 * SIZE, "shear_x": SIZE + 3, "shear_y": SIZE + 3}.get(name, SIZE)
    assert all(size <= BATCH * SIZE * row for size in sizes)
