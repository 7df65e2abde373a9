"""AutoAugment's operations against Pillow and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from invariance_jax.transforms import AUTOAUGMENT, levels

ALL = pytest.mark.parametrize("transform", AUTOAUGMENT.values(), ids=AUTOAUGMENT)


def golden_row(golden, transform):
    """The original writes shearX."""
    return [name.replace("X", "_x").replace("Y", "_y") for name in golden["names"]].index(
        transform.name
    )


def image_of(pixels):
    return jnp.asarray(np.asarray(pixels, np.float32) / 255)


def shown(name, pixels, magnitude=0.0):
    """The operation on 8-bit pixels, as 8-bit pixels."""
    # Compiled whole: eager operations compile one by one for every shape.
    apply = jax.jit(AUTOAUGMENT[name].apply)
    out = np.asarray(apply(image_of(pixels), jnp.float32(magnitude))) * 255
    np.testing.assert_allclose(out, np.round(out), atol=1e-4)  # whole levels
    return np.round(out).astype(int)


def grey(*rows):
    return np.repeat(np.asarray(rows)[..., None], 3, axis=-1)


@ALL
def test_magnitudes_are_the_papers(transform, golden_dir):
    golden = np.load(golden_dir / "autoaugment.npz")
    expected = golden["magnitudes"][golden_row(golden, transform)]
    np.testing.assert_array_equal(transform.magnitudes, expected)


@ALL
def test_equals_pillow(transform, golden_dir):
    image = np.load(golden_dir / "transforms.npz")
    rows, columns = image["points_yx"].T
    golden = np.load(golden_dir / "autoaugment.npz")
    apply = jax.jit(transform.apply)
    expected = golden["levels"][golden_row(golden, transform)]
    for magnitude, of_magnitude in zip(transform.magnitudes, expected, strict=True):
        for sign, points in zip((1, -1), of_magnitude, strict=True):
            out = apply(image_of(image["image_u8"]), jnp.float32(sign * magnitude))
            error = np.abs(np.asarray(out)[rows, columns] * 255 - points)
            assert (error <= 1.01).mean() >= 0.99, (magnitude, sign)
            # Decimals that decide a level may fall either way, but seldom.
            assert (error <= 0.01).mean() >= 0.95, (magnitude, sign)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_tiny_images_are_served(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3))
    for name, transform in AUTOAUGMENT.items():
        assert shown(name, pixels, transform.magnitudes[6]).shape == (*shape, 3), name
    np.testing.assert_array_equal(shown("sharpness", pixels[:1], 0.9), pixels[:1])  # frame only


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_histograms_equal_pillows_on_other_images(name, seed):
    generator = np.random.default_rng(seed)
    # Skewed, within a part of the range, each channel another.
    pixels = (generator.beta(2, 5, (40, 30, 3)) * (250, 120, 60)).astype(np.uint8)
    expected = np.asarray(getattr(ImageOps, name)(Image.fromarray(pixels)), int)
    assert np.abs(shown(name, pixels) - expected).max() <= (name == "autocontrast")


def test_equalize_keeps_what_it_cannot_spread():
    flat, few = np.full((30, 30, 3), 77), grey(range(250))
    np.testing.assert_array_equal(shown("equalize", flat), flat)
    np.testing.assert_array_equal(shown("equalize", few), few)  # under 255 pixels are darker


def test_equalize_spreads_two_levels():
    # 600 dark pixels: step 600 // 255 = 2; dark gets (1 + 0) // 2, bright (1 + 600) // 2, cut.
    pixels = grey([10] * 600 + [20] * 100)
    np.testing.assert_array_equal(shown("equalize", pixels), grey([0] * 600 + [255] * 100))


def test_autocontrast_by_hand_channel_by_channel():
    pixels = np.stack([[50, 60, 100], [0, 128, 255], [9, 9, 9]], axis=-1)[None]
    expected = np.stack([[0, 51, 255], [0, 128, 255], [9, 9, 9]], axis=-1)[None]
    np.testing.assert_array_equal(shown("autocontrast", pixels), expected)


def test_enhancements_by_hand():
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


def test_sharpness_by_hand():
    pixels = np.zeros((3, 3, 3), int)
    pixels[1, 1], pixels[0, 0] = 130, 26
    blurred = pixels.copy()
    blurred[1, 1] = 52  # (5 * 130 + 26) / 13
    np.testing.assert_array_equal(shown("sharpness", pixels, -1.0), blurred)
    sharper = pixels.copy()
    sharper[1, 1] = 169  # 130 + (130 - 52) / 2
    np.testing.assert_array_equal(shown("sharpness", pixels, 0.5), sharper)


def test_geometry_by_hand():
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


def test_rotate_turns_counterclockwise():
    square = grey([1, 2, 3], [4, 5, 6], [7, 8, 9])
    np.testing.assert_array_equal(shown("rotate", square, 90.0), np.rot90(square))


@pytest.mark.parametrize("size", [64, 97, 224])
def test_rescale_breaks_ties_as_pillow(size):
    ramp = (np.arange(size) % 251 + 1).astype(np.uint8)
    for factor in AUTOAUGMENT["rescale"].magnitudes:
        step = 1 / factor
        start = step * (-size * 0.5) + size * 0.5
        expected = Image.fromarray(np.tile(ramp, (2, 1))).transform(
            (size, 2), Image.Transform.AFFINE, (step, 0, start, 0, 1, 0), Image.Resampling.NEAREST
        )
        out = shown("rescale", grey(*[ramp] * size), factor)[size // 2, :, 0]
        np.testing.assert_array_equal(out, np.asarray(expected)[0], err_msg=str(factor))


def test_rescale_serves_factors_between_those_of_the_table():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    index = np.floor((np.arange(32) + 0.5 - 16) / 2 + 16).astype(int)
    np.testing.assert_array_equal(shown("rescale", pixels, 2.0), pixels[index][:, index])


def test_solarize_and_posterize_by_hand():
    pixels = grey([0, 100, 200, 255])
    np.testing.assert_array_equal(shown("solarize", pixels, 100.0), grey([0, 155, 55, 0]))
    np.testing.assert_array_equal(shown("solarize", pixels, 100.5), grey([0, 100, 55, 0]))
    np.testing.assert_array_equal(shown("posterize", pixels, 2.0), grey([0, 64, 192, 192]))


def test_gradient_is_that_of_the_rule_before_rounding():
    image = image_of([[[100, 110, 120]]])
    gradient = jax.grad(lambda x: AUTOAUGMENT["brightness"].apply(x, -0.25).sum())(image)
    np.testing.assert_allclose(gradient, np.full((1, 1, 3), 0.75), rtol=1e-6)


def test_levels_round_half_up_and_truncate():
    np.testing.assert_array_equal(levels.to_levels(jnp.asarray([0.4, 1.5, 2.6]) / 255), [0, 2, 3])
    values = jnp.asarray([-3.0, 7.9, 8.99999, 300.0])
    np.testing.assert_array_equal(levels.truncate(values), [0, 7, 9, 255])
