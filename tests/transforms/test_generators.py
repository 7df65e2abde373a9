"""Derivatives at the identity, against calculus and hand-worked pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.transforms import generators

SIZE = 16
# Content that moves by (vx, vy), x to the right and y down, from -1 to 1.
VELOCITIES = {
    "translate_x": lambda x, y: (np.ones_like(x), 0 * y),
    "translate_y": lambda x, y: (0 * x, np.ones_like(y)),
    "rotate": lambda x, y: (-y, x),  # what is on the right goes down: clockwise
    "scale": lambda x, y: (x, y),
    "shear_x": lambda x, y: (y, 0 * y),
    "shear_y": lambda x, y: (0 * x, x),
    "stretch_x": lambda x, y: (x, 0 * y),
    "stretch_y": lambda x, y: (0 * x, y),
}


@functools.cache
def compiled(text):
    return jax.jit(generators.get(text).tangent)


def tangent(text, image):
    return np.asarray(compiled(text)(jnp.asarray(image, jnp.float32)))


def image(seed=0):
    return np.random.default_rng(seed).random((SIZE, SIZE, 3), np.float32)


def coordinates():
    centres = (2 * np.arange(SIZE) + 1) / SIZE - 1
    return centres[None, :], centres[:, None]


def test_every_geometric_generator_is_tested():
    assert set(VELOCITIES) == {
        name for name in generators.NAMES if generators.get(name).family == "geometric"
    }


@pytest.mark.parametrize("name", VELOCITIES)
def test_quadratics_are_exact(name):
    x, y = coordinates()
    # One quadratic in each channel; its derivatives by hand.
    channels = [1 + 2 * x - y + 0 * x * y, x * y + x**2, y**2 - 3 * x * y + 0.5 * x]
    by_x = [2 + 0 * x * y, y + 2 * x, -3 * y + 0.5 + 0 * x]
    by_y = [-1 + 0 * x * y, x + 0 * y, 2 * y - 3 * x]
    vx, vy = VELOCITIES[name](x, y)
    expected = np.stack([-(vx * dx + vy * dy) for dx, dy in zip(by_x, by_y, strict=True)], -1)
    found = tangent(name, np.stack(channels, -1))
    inside = np.s_[1:-1, 1:-1]  # the border depends on what lies beyond
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-5)


def test_a_wave_on_a_circle():
    # A wave of w radians a pixel; the interpolation passes the share sin(w) / w of its derivative.
    pixels = np.arange(64)
    for waves in (1, 3, 32):
        w = 2 * np.pi * waves / 64
        wave = np.broadcast_to(np.sin(w * pixels)[None, :, None], (64, 64, 3))
        found = tangent("translate_x(padding_mode='wrap')", wave)
        true = -np.cos(w * pixels) * w * 32  # one unit is half a side
        share = np.sin(w) / w
        np.testing.assert_allclose(found[5, :, 1], true * share, atol=2e-4)
        if waves == 1:
            np.testing.assert_allclose(found[5, :, 1], true, atol=0.002 * 32 * w)
        np.testing.assert_allclose(tangent("translate_y(padding_mode='wrap')", wave), 0, atol=1e-5)


def test_what_is_round_does_not_turn():
    x, y = coordinates()
    ring = np.broadcast_to(np.exp(-4 * (x**2 + y**2))[..., None], (SIZE, SIZE, 3))
    # Round, but for the error of the interpolation; the scale moves it by much more.
    assert np.abs(tangent("rotate", ring)).max() < 0.06
    assert np.abs(tangent("scale", ring)).max() > 0.5


def test_what_lies_beyond_the_border():
    ramp = np.broadcast_to(np.arange(1.0, 5.0)[None, :, None], (4, 4, 1))
    # Half of the right minus the left neighbour, times two pixels for half a side.
    for mode, expected in {
        "reflect": [0, -2, -2, 0],  # the neighbours of 1 are 2 and 2
        "wrap": [2, -2, -2, 2],  # of 1: 4 and 2
        "constant": [-2, -2, -2, 3],  # of 1: 0 and 2; of 4: 3 and 0
    }.items():
        found = tangent(f"translate_x(padding_mode={mode!r})", ramp)
        np.testing.assert_allclose(found[1, :, 0], expected, atol=1e-6, err_msg=mode)
        turned = tangent(f"translate_y(padding_mode={mode!r})", np.swapaxes(ramp, 0, 1))
        np.testing.assert_allclose(turned[:, 1, 0], expected, atol=1e-6, err_msg=mode)


def test_a_map_of_one_pixel_has_nowhere_to_move():
    np.testing.assert_array_equal(tangent("translate_x", np.ones((1, 1, 5))), 0)


@pytest.mark.parametrize("padding_mode", ["reflect", "wrap", "constant"])
def test_the_resampler_passes_through_pixels_and_is_smooth_there(padding_mode):
    @jax.jit
    def weights(offset):
        pixels = jnp.arange(6, dtype=jnp.float32)
        return generators.cubic_weights(pixels + offset, 6, padding_mode)

    np.testing.assert_array_equal(weights(0.0), np.eye(6))
    _, change = jax.jvp(weights, (jnp.float32(0),), (jnp.float32(1),))
    step = 1e-2
    for side in (step, -step):  # no kink: both sides have the derivative of the identity
        np.testing.assert_allclose((weights(side) - weights(0.0)) / side, change, atol=0.03)
    # Halfway between pixels: -1/16, 9/16, 9/16, -1/16.
    np.testing.assert_allclose(weights(0.5)[2], [0, -1 / 16, 9 / 16, 9 / 16, -1 / 16, 0], atol=1e-6)


def test_colours_by_hand():
    shown = image()
    luma = np.asarray([0.2989, 0.587, 0.114], np.float32)  # torchvision's
    grey = (shown * luma).sum(-1, keepdims=True)
    np.testing.assert_allclose(tangent("brightness", shown), shown, atol=1e-6)
    np.testing.assert_allclose(tangent("contrast", shown), shown - grey.mean(), atol=1e-5)
    np.testing.assert_allclose(tangent("saturation", shown), shown - grey, atol=1e-5)


def test_hue_turns_colours_about_grey():
    change = tangent("hue", image())
    # Luma stays; its weights here are YIQ's.
    np.testing.assert_allclose(change @ np.array([0.299, 0.587, 0.114]), 0, atol=1e-5)
    colour = np.array([[0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    i, q = np.moveaxis(image() @ colour.T, -1, 0)
    change_i, change_q = np.moveaxis(change @ colour.T, -1, 0)
    np.testing.assert_allclose(change_i, -q, atol=1e-5)
    np.testing.assert_allclose(change_q, i, atol=1e-5)
    np.testing.assert_allclose(tangent("hue", np.full((4, 4, 3), 0.3)), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("turn", "unknown generator 'turn'; one of: translate_x"),
        (
            "rotate(padding_mode='cyclic')",
            "unknown padding mode 'cyclic'; one of: reflect, wrap, constant",
        ),
        (
            "rotate(border=1)",
            "generator 'rotate' has no option 'border'; its options: padding_mode",
        ),
        (
            "hue(padding_mode='wrap')",
            "generator 'hue' has no option 'padding_mode'; its options: n",
        ),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message):
        generators.get(text)
