"""The plain bilinear sampler by hand; the tables' golden arrays test the rest."""

import jax
import jax.numpy as jnp
import numpy as np

from invariance_jax.transforms import resample


def test_sample_bilinear_mixes_four_pixels_and_fades_outside():
    image = jnp.asarray([[0.0, 1.0], [2.0, 3.0]])[..., None]
    y, x = jnp.asarray([[0.5, -0.5]]), jnp.asarray([[0.25, 1.0]])
    found = jax.jit(resample.sample_bilinear)(image, y, x)
    np.testing.assert_allclose(found[0, :, 0], [1.25, 0.5])


def test_weights_mix_neighbours_and_fade_or_go_round_outside():
    places = jnp.asarray([0.0, 1.75, -0.25, 2.5, 5.0])
    plain = [[1, 0, 0], [0, 0.25, 0.75], [0.75, 0, 0], [0, 0, 0.5], [0, 0, 0]]
    np.testing.assert_allclose(resample.interpolation_weights(places, 3), plain)
    circle = [[1, 0, 0], [0, 0.25, 0.75], [0.75, 0, 0.25], [0.5, 0, 0.5], [0, 0, 1]]
    np.testing.assert_allclose(resample.periodic_weights(places, 3), circle)
