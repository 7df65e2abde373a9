"""Translations with three kinds of border, against numpy's roll and crops of Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax import augment
from invariance_jax.evaluation import metrics
from invariance_jax.evaluation.measurement import Seen, to_bytes
from invariance_jax.transforms import TRANSFORMS, normalize

from .conftest import MEAN, coloured, few, grid, measured_one

SIZE, RESIZE, CANVAS = 28, 32, 60
NONE = augment.get("none", size=SIZE, resize=RESIZE)
RENDER = jax.jit(NONE)
# Magnitudes count pixels of 224: 8 of them are one pixel here.
PIXEL = 224 / SIZE
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
MODES = ("constant", "wrap", "context")
DIRECTIONS = {"translate_x": 1, "translate_y": 0}  # name to the image's axis
TRANSLATIONS = pytest.mark.parametrize(("name", "axis"), DIRECTIONS.items(), ids=DIRECTIONS)


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def seen_of(pixels):
    canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    place = jnp.asarray(canvas), jnp.int32(pixels.shape[0]), jnp.int32(pixels.shape[1])
    image = to_bytes(RENDER(jax.random.key(0), *place))
    return Seen(*place, image, jnp.int32(0), jnp.int32(0), None, {})


def shows(name, padding_mode, domain="pixel"):
    measurement = grid(preprocess=NONE, domain=domain, padding_mode=padding_mode)
    return measurement.show(TRANSFORMS[name], normalize)


@TRANSLATIONS
def test_wrap_is_roll_and_between_pixels_the_mean_of_two(name, axis):
    seen, run = seen_of(smooth(50, 40)), jax.jit(shows(name, "wrap"))
    image = np.asarray(seen.image)
    for pixels in (0, 1, 9, SIZE):
        expected = normalize(jnp.asarray(np.roll(image, pixels, axis)))
        np.testing.assert_allclose(run(seen, jnp.float32(pixels * PIXEL)), expected, atol=1e-6)
    halfway = (np.roll(image, 2, axis) + np.roll(image, 3, axis)) / 2
    found = run(seen, jnp.float32(2.5 * PIXEL))
    np.testing.assert_allclose(found, normalize(jnp.asarray(halfway)), atol=1e-5)


@TRANSLATIONS
def test_constant_is_black_where_the_image_has_left(name, axis):
    seen, run = seen_of(smooth(50, 40)), jax.jit(shows(name, "constant"))
    image = np.asarray(seen.image)
    for pixels in (0, 1, 9, SIZE):
        moved = np.roll(image, pixels, axis)
        moved[(slice(None),) * axis + (slice(0, pixels),)] = 0
        found = run(seen, jnp.float32(pixels * PIXEL))
        np.testing.assert_allclose(found, normalize(jnp.asarray(moved)), atol=1e-6)


@TRANSLATIONS
def test_context_is_the_same_crop_elsewhere_in_the_resized_image(name, axis):
    run = jax.jit(shows(name, "context"))
    for height, width in ((50, 40), (33, 57)):
        pixels = smooth(height, width)
        seen = seen_of(pixels)
        short = min(height, width)
        resized = Image.fromarray(pixels).resize(
            (RESIZE * width // short, RESIZE * height // short), Image.Resampling.BILINEAR
        )
        top = round((resized.size[1] - SIZE) / 2)
        left = round((resized.size[0] - SIZE) / 2)
        for shift in (0, 1, 2, 10, SIZE):
            up, back = (shift, 0) if axis == 0 else (0, shift)
            # Pillow's crop is black beyond the image.
            box = (left - back, top - up, left - back + SIZE, top - up + SIZE)
            expected = np.asarray(resized.crop(box), np.float32) / 255
            found = run(seen, jnp.float32(shift * PIXEL))
            error = np.abs(np.asarray(found) - normalize(jnp.asarray(expected))) * DEVIATION * 255
            # Pillow rounds to whole levels after each of its two passes.
            assert error.max() < 1.01, (shift, error.max())
            black = (np.asarray(resized.crop(box)).sum(-1) == 0).mean()
            margin = left if axis == 1 else top
            assert black == pytest.approx(max(0, shift - margin) / SIZE, abs=1e-3)
        # Without a shift it is the image itself.
        still = run(seen, jnp.float32(0))
        np.testing.assert_allclose(still, normalize(seen.image), atol=1e-6)


def test_context_between_pixels_follows_a_slope():
    # Grey grows by 4 levels a pixel; resized and original are the same size, so that nothing blurs.
    ramp = np.broadcast_to((4 * np.arange(48, dtype=np.uint8))[None, :, None], (RESIZE, 48, 3))
    seen, run = seen_of(np.ascontiguousarray(ramp)), jax.jit(shows("translate_x", "context"))
    still, moved = (run(seen, jnp.float32(m * PIXEL)) for m in (0.0, 0.25))
    change = (np.asarray(still) - np.asarray(moved)) * DEVIATION * 255
    np.testing.assert_allclose(change, 1.0, atol=1e-3)  # a quarter pixel of 4 levels


def test_only_translations_differ():
    @jax.jit
    def run(seen):
        return {
            name: (
                normalize(row.apply(seen.image, jnp.float32(row.magnitudes[2]))),
                [shows(name, mode)(seen, jnp.float32(row.magnitudes[2])) for mode in MODES],
            )
            for name, row in TRANSFORMS.items()
        }

    for name, (expected, (constant, *others)) in run(seen_of(smooth(50, 40))).items():
        np.testing.assert_array_equal(constant, expected, err_msg=name)
        for other in others:
            assert np.array_equal(other, constant) == (name not in DIRECTIONS), name


def test_context_is_alike_in_both_domains_and_wrap_commutes_with_normalising():
    @jax.jit
    def run(seen, magnitude):
        return {
            mode: [
                shows("translate_x", mode, domain)(seen, magnitude)
                for domain in ("pixel", "normalized")
            ]
            for mode in ("context", "wrap")
        }

    for pixel, normalized in run(seen_of(smooth(50, 40)), jnp.float32(50)).values():
        np.testing.assert_allclose(pixel, normalized, atol=1e-5)


def test_a_batch_is_mapped_as_one_image():
    each = [seen_of(smooth(*size, seed)) for seed, size in enumerate([(50, 40), (33, 57)])]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    magnitudes = jnp.asarray([0.0, 10.0, 100.0])
    for mode in MODES:
        one = jax.jit(shows("translate_y", mode))
        both = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(batch, magnitudes)
        for m, magnitude in enumerate(magnitudes):
            for i, seen in enumerate(each):
                np.testing.assert_allclose(both[m, i], one(seen, magnitude), atol=1e-5)


def test_a_blind_model_is_exactly_invariant_on_a_circle():
    transforms = few(*DIRECTIONS, "scale_zoom_out")
    found = measured_one(grid(transforms=transforms, padding_mode="wrap"), coloured(), MEAN)
    assert found.attrs["padding_mode"] == "wrap"
    for kind in metrics.DISTANCES:
        invariance = found[f"relative_invariance_{kind}"]
        np.testing.assert_allclose(invariance.sel(transform=list(DIRECTIONS)), 1, atol=1e-4)
        zoomed = invariance.sel(transform="scale_zoom_out", magnitude=5)
        assert float(np.abs(1 - zoomed).min()) > 0.01
