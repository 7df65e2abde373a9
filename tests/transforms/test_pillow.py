"""AutoAugment's operations against Pillow and by hand; test_tables.py has the golden arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from invariance_jax.transforms import AUTOAUGMENT, pillow


@pytest.fixture(scope="module")
def shown(apply):
    """Function of (name, pixels, magnitude): the operation on 8-bit pixels, as 8-bit pixels."""

    def show(name, pixels, magnitude=0.0):
        out = np.asarray(apply(AUTOAUGMENT[name], image_of(pixels), magnitude)) * 255
        np.testing.assert_allclose(out, np.round(out), atol=1e-4)  # whole levels
        return np.round(out).astype(int)

    return show


def image_of(pixels):
    return jnp.asarray(np.asarray(pixels, np.float32) / 255)


def grey(*rows):
    return np.repeat(np.asarray(rows)[..., None], 3, axis=-1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_tiny_images_are_served(shape):
    image = image_of(np.random.default_rng(0).integers(0, 256, (*shape, 3)))

    @jax.jit
    def results():
        return {name: row.apply(image, row.magnitudes[6]) for name, row in AUTOAUGMENT.items()}

    for name, result in results().items():
        assert result.shape == (*shape, 3) and np.isfinite(result).all(), name
        assert result.min() >= 0 and result.max() <= 1, name
    # The frame stays, and here is nothing else.
    np.testing.assert_allclose(results()["sharpness"], image, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_histograms_equal_pillows_on_other_images(shown, name, seed):
    generator = np.random.default_rng(seed)
    # Skewed, within a part of the range, each channel another.
    pixels = (generator.beta(2, 5, (35, 20, 3)) * (250, 120, 60)).astype(np.uint8)
    expected = np.asarray(getattr(ImageOps, name)(Image.fromarray(pixels)), int)
    assert np.abs(shown(name, pixels) - expected).max() <= (name == "autocontrast")


def test_equalize_keeps_what_it_cannot_spread(shown):
    flat = np.full((35, 20, 3), 77)
    few = grey(np.minimum(range(700), 250)).reshape(35, 20, 3)  # under 255 pixels are darker
    for pixels in (flat, few):
        np.testing.assert_array_equal(shown("equalize", pixels), pixels)


def test_equalize_spreads_two_levels(shown):
    # 600 dark pixels: step 600 // 255 = 2; dark gets (1 + 0) // 2, bright (1 + 600) // 2, cut.
    pixels = grey([10] * 600 + [20] * 100).reshape(35, 20, 3)
    expected = grey([0] * 600 + [255] * 100).reshape(35, 20, 3)
    np.testing.assert_array_equal(shown("equalize", pixels), expected)


def test_autocontrast_by_hand_channel_by_channel(shown):
    pixels = np.stack([[50, 60, 100], [0, 128, 255], [9, 9, 9]], axis=-1)[None]
    expected = np.stack([[0, 51, 255], [0, 128, 255], [9, 9, 9]], axis=-1)[None]
    np.testing.assert_array_equal(shown("autocontrast", pixels), expected)


def test_enhancements_by_hand(shown):
    pixels = np.asarray([[[100, 200, 40], [0, 10, 20]]])
    # Lumas .299 r + .587 g + .114 b: 151.86 and 8.15; rounded 152 and 8, their mean 80.
    expected = {
        ("color", -1.0): [[[152, 152, 152], [8, 8, 8]]],
        ("color", -0.5): [[[126, 176, 96], [4, 9, 14]]],
        ("contrast", -1.0): [[[80, 80, 80], [80, 80, 80]]],
        ("contrast", 0.5): [[[110, 255, 20], [0, 0, 0]]],
        ("brightness", -0.5): [[[50, 100, 20], [0, 5, 10]]],
        ("brightness", 0.75): [[[175, 255, 70], [0, 17, 35]]],  # 17.5 is cut off
    }
    for (name, magnitude), values in expected.items():
        np.testing.assert_array_equal(shown(name, pixels, magnitude), values, err_msg=name)


def test_sharpness_by_hand(shown):
    pixels = np.zeros((3, 3, 3), int)
    pixels[1, 1], pixels[0, 0] = 130, 26
    blurred = pixels.copy()
    blurred[1, 1] = 52  # (5 * 130 + 26) / 13
    np.testing.assert_array_equal(shown("sharpness", pixels, -1.0), blurred)
    sharper = pixels.copy()
    sharper[1, 1] = 169  # 130 + (130 - 52) / 2
    np.testing.assert_array_equal(shown("sharpness", pixels, 0.5), sharper)


def test_geometry_by_hand(shown):
    row = grey([10, 20, 30, 40])
    np.testing.assert_array_equal(shown("translate_x", row, 0.25), grey([20, 30, 40, 128]))
    np.testing.assert_array_equal(shown("translate_x", row, -0.5), grey([128, 128, 10, 20]))
    column = row.swapaxes(0, 1)
    np.testing.assert_array_equal(
        shown("translate_y", column, 0.25), grey([20, 30, 40, 128]).swapaxes(0, 1)
    )
    np.testing.assert_array_equal(shown("rescale", row, 0.5)[0, :, 0], [0, 20, 40, 0])
    # Row 0 starts half a column farther right, row 1 one and a half: halves mix by the cubic
    # weights -1/8, 5/8, 5/8, -1/8.
    pair = grey([80, 80, 0, 0], [80, 80, 0, 0])
    sheared = shown("shear_x", pair, 1.0)
    np.testing.assert_array_equal(sheared[0, :, 0], [90, 40, 0, 128])
    np.testing.assert_array_equal(sheared[1, :, 0], [40, 0, 128, 128])
    np.testing.assert_array_equal(
        shown("shear_y", pair.swapaxes(0, 1), 1.0), sheared.swapaxes(0, 1)
    )


def test_rotate_turns_counterclockwise(shown):
    square = grey([1, 2, 3], [4, 5, 6], [7, 8, 9])
    np.testing.assert_array_equal(shown("rotate", square, 90.0), np.rot90(square))


@pytest.mark.parametrize("size", [64, 97, 224])
def test_rescale_breaks_ties_as_pillow(shown, size):
    ramp = (np.arange(size) % 251 + 1).astype(np.uint8)
    for factor in AUTOAUGMENT["rescale"].magnitudes:
        step = 1 / factor
        start = step * (-size * 0.5) + size * 0.5
        expected = Image.fromarray(np.tile(ramp, (2, 1))).transform(
            (size, 2), Image.Transform.AFFINE, (step, 0, start, 0, 1, 0), Image.Resampling.NEAREST
        )
        out = shown("rescale", grey(*[ramp] * size), factor)[size // 2, :, 0]
        np.testing.assert_array_equal(out, np.asarray(expected)[0], err_msg=str(factor))


def test_rescale_serves_factors_between_those_of_the_table(shown):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    index = np.floor((np.arange(32) + 0.5 - 16) / 2 + 16).astype(int)
    np.testing.assert_array_equal(shown("rescale", pixels, 2.0), pixels[index][:, index])


def test_solarize_and_posterize_by_hand(shown):
    pixels = grey([0, 100, 200, 255])
    np.testing.assert_array_equal(shown("solarize", pixels, 100.0), grey([0, 155, 55, 0]))
    np.testing.assert_array_equal(shown("solarize", pixels, 100.5), grey([0, 100, 55, 0]))
    np.testing.assert_array_equal(shown("posterize", pixels, 2.0), grey([0, 64, 192, 192]))


def test_gradient_is_that_of_the_rule_before_rounding():
    image = image_of([[[100, 110, 120]]])
    gradient = jax.jit(jax.grad(lambda x: AUTOAUGMENT["brightness"].apply(x, -0.25).sum()))(image)
    np.testing.assert_allclose(gradient, np.full((1, 1, 3), 0.75), rtol=1e-6)


def test_levels_round_half_up_and_truncate():
    np.testing.assert_array_equal(pillow.to_levels(jnp.asarray([0.4, 1.5, 2.6]) / 255), [0, 2, 3])
    values = jnp.asarray([-3.0, 7.9, 8.99999, 300.0])
    np.testing.assert_array_equal(pillow.truncate(values), [0, 7, 9, 255])


@pytest.mark.parametrize("shape", [(40, 35, 3), (3, 5, 3), (2, 16, 1)])
def test_products_find_what_look_ups_find(shape):
    """What TPUs get in place of gathers, number for number."""
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, shape)
    for pixels in (levels, np.minimum(levels, 3), np.full(shape, 255)):
        found = jax.jit(pillow.equalized_by_products)(jnp.asarray(pixels, jnp.int32))
        expected = jax.jit(pillow.equalized_by_lookup)(jnp.asarray(pixels, jnp.int32))
        np.testing.assert_array_equal(found, expected)
    height, width, _ = shape
    shifts = generator.integers(-3 * width, 3 * width, (4, height))
    shifts[0] = np.arange(height) - height // 2
    rows = jnp.asarray(levels, jnp.float32)
    moved = {
        form: jax.jit(jax.vmap(form, (None, 0)))(rows, jnp.asarray(shifts, jnp.int32))
        for form in (pillow.moved_by_lookup, pillow.moved_by_products)
    }
    columns = np.clip(shifts[..., None] + np.arange(width + 3), 0, width - 1)
    expected = levels[np.arange(height)[:, None], columns]
    for form, found in moved.items():
        np.testing.assert_array_equal(found, expected, err_msg=form.__name__)


def test_translations_beyond_the_image_are_grey(shown):
    row = grey([10, 20, 30, 40])
    for magnitude in (1.0, -1.0, 7.5, -7.5):
        np.testing.assert_array_equal(shown("translate_x", row, magnitude), np.full(row.shape, 128))


@pytest.mark.parametrize("name", ["translate_x", "translate_y", "shear_x", "shear_y", "equalize"])
def test_programs_for_tpus_look_nothing_up(name):
    image = jax.ShapeDtypeStruct((32, 24, 3), jnp.float32)
    traced = jax.jit(AUTOAUGMENT[name].apply).trace(image, jnp.float32(0.1))
    program = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.gather" not in program and "stablehlo.scatter" not in program
