"""Transforms on normalised values, as the paper's own code applies them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.transforms import TRANSFORMS, in_domain, normalize

ALL = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


@ALL
def test_normalized_equals_the_original(transform, golden_dir):
    image = np.load(golden_dir / "transforms.npz")
    golden = np.load(golden_dir / "transforms_normalized.npz")["grid_normalized"]
    rows, columns = image["points_yx"].T
    pixels = jnp.asarray(image["image_u8"].astype(np.float32) / 255)
    apply = jax.jit(in_domain(transform, "normalized"))
    expected = golden[list(TRANSFORMS).index(transform.name)]
    for magnitude, points in zip(transform.magnitudes, expected, strict=True):
        error = np.abs(np.asarray(apply(pixels, jnp.float32(magnitude)))[rows, columns] - points)
        assert error.mean() <= 1e-5 and (error <= 2e-3).mean() >= 0.999, magnitude


@ALL
def test_pixel_is_the_transform_and_then_the_normalisation(transform):
    image = jnp.asarray(np.random.default_rng(0).random((8, 6, 3), np.float32))
    magnitude = jnp.float32(transform.magnitudes[4])
    np.testing.assert_allclose(
        jax.jit(in_domain(transform, "pixel"))(image, magnitude),
        normalize(jax.jit(transform.apply)(image, magnitude)),
        atol=1e-5,
    )


def test_posterize_wraps_negative_values_around():
    posterize = TRANSFORMS["posterize"].apply_normalized
    values = jnp.asarray([[[0.559, -0.019, -0.009]]])  # 55, -1 and 0 as whole hundredths
    np.testing.assert_allclose(posterize(values, 8.0), [[[0.55, 2.55, 0.0]]], atol=1e-6)
    np.testing.assert_allclose(posterize(values, 4.0), [[[0.48, 2.4, 0.0]]], atol=1e-6)
    np.testing.assert_array_equal(posterize(values, 0.0), [[[0.0, 0.0, 0.0]]])


def test_identity_magnitudes_clip_normalized_values():
    image = jnp.zeros((2, 2, 3))  # -2 and less when normalised
    out = in_domain(TRANSFORMS["increase_brightness"], "normalized")(image, jnp.float32(1))
    np.testing.assert_array_equal(out, np.zeros((2, 2, 3)))


def test_an_unknown_domain_is_named():
    with pytest.raises(UserError, match=r"unknown domain 'pixels'; did you mean 'pixel'\? one of"):
        in_domain(TRANSFORMS["rotate"], "pixels")
