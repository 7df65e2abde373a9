"""Which way geometric and appearance transforms go, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.transforms import TRANSFORMS, geometric


def test_geometric_transforms_move_the_right_way(apply):
    dot = jnp.zeros((5, 5, 3)).at[2, 2].set(1.0)
    moved = apply(TRANSFORMS["translate_x"], dot, 224 / 5)
    assert float(moved[2, 3, 0]) == pytest.approx(1) and float(moved[2, 2, 0]) == pytest.approx(0)
    moved = apply(TRANSFORMS["translate_y"], dot, 224 / 5)
    assert float(moved[3, 2, 0]) == pytest.approx(1, abs=1e-6)
    right = jnp.zeros((5, 5, 3)).at[2, 4].set(1.0)
    turned = apply(TRANSFORMS["rotate"], right, 90.0)
    assert float(turned[4, 2, 0]) == pytest.approx(1, abs=1e-5)  # clockwise: right goes down


@pytest.mark.parametrize("degrees", [-60.0, -22.5, 1.0, 45.0, 91.0])
def test_a_shear_by_matrices_is_that_by_lookups(degrees):
    image = jnp.asarray(np.random.default_rng(0).random((24, 18, 3), np.float32))
    slope = np.tan(np.deg2rad(degrees))
    found = geometric.shear_by_rows(image, slope)
    expected = geometric.warp(image, (1.0, slope, 0.0), (0.0, 1.0, 0.0))
    assert np.abs(found - image).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=0.004 / 255, rtol=0)


@pytest.mark.parametrize("function", [geometric.shear_x, geometric.shear_y])
def test_a_tpu_looks_nothing_up_to_shear(function):
    traced = jax.jit(function).trace(jnp.ones((24, 18, 3)), 30.0)
    texts = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu")}
    assert "stablehlo.gather" in texts["cpu"] and "stablehlo.gather" not in texts["tpu"]
    assert texts["tpu"].count("stablehlo.dot_general") == 1


def test_translation_is_a_fraction_of_each_side(apply):
    image = jnp.ones((8, 16, 3))
    right, down = (apply(TRANSFORMS[f"translate_{axis}"], image, 56.0) for axis in "xy")
    np.testing.assert_array_equal(right[0, :, 0], [0] * 4 + [1] * 12)  # a quarter of 16
    np.testing.assert_array_equal(down[:, 0, 0], [0] * 2 + [1] * 6)  # a quarter of 8


@pytest.mark.parametrize(
    ("function", "axis"), [(geometric.translate_x, 1), (geometric.translate_y, 0)]
)
def test_wrapped_translation_is_roll_and_between_pixels_the_mean_of_two(function, axis):
    image = jnp.asarray(np.random.default_rng(0).random((8, 14, 3), np.float32))
    size = image.shape[axis]
    moved = jax.jit(lambda pixels: function(image, pixels * 224 / size, padding_mode="wrap"))
    for pixels in (0, 1, 5, -3, size):
        np.testing.assert_allclose(moved(float(pixels)), np.roll(image, pixels, axis), atol=1e-6)
    halfway = (np.roll(image, 2, axis) + np.roll(image, 3, axis)) / 2
    np.testing.assert_allclose(moved(2.5), halfway, atol=1e-5)


def test_an_unknown_padding_mode_is_named():
    with pytest.raises(UserError, match="unknown padding mode 'cyclic'; one of: constant, wrap"):
        geometric.translate_x(jnp.ones((2, 2, 3)), 0.0, padding_mode="cyclic")


def test_solarize_at_one_inverts_saturated_pixels():
    image = jnp.asarray([[[1.0, 0.5, 0.0]]])
    np.testing.assert_array_equal(TRANSFORMS["solarize"].apply(image, 1.0), [[[0.0, 0.5, 0.0]]])


def test_posterize_keeps_the_high_bits():
    image = jnp.asarray([[[255.0, 127.6, 127.4]]]) / 255  # rounded to 255, 128, 127 first
    out = TRANSFORMS["posterize"].apply(image, 1.0) * 255
    np.testing.assert_allclose(out, [[[128.0, 128.0, 0.0]]], atol=1e-4)
