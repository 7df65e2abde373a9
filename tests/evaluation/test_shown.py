"""Translations with three kinds of border, against numpy's roll and crops of Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax import augment
from invariance_jax.errors import UserError
from invariance_jax.evaluation import measures
from invariance_jax.evaluation.accuracy import to_bytes
from invariance_jax.evaluation.shown import Source, make_show
from invariance_jax.transforms import TRANSFORMS, in_domain, normalize

from .conftest import IMAGES, Coloured, Mean

SIZE, RESIZE, CANVAS = 28, 32, 60
NONE = augment.get("none", size=SIZE, resize=RESIZE)
# Magnitudes count pixels of 224: 8 of them are one pixel here.
PIXEL = 224 / SIZE
DIRECTIONS = {"translate_x": 1, "translate_y": 0}  # name to the image's axis
TRANSLATIONS = pytest.mark.parametrize(("name", "axis"), DIRECTIONS.items(), ids=DIRECTIONS)


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def source_of(pixels):
    canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    place = jnp.asarray(canvas), jnp.int32(pixels.shape[0]), jnp.int32(pixels.shape[1])
    return Source(*place, to_bytes(jax.jit(NONE)(jax.random.key(0), *place)))


def show(name, translation, domain="pixel"):
    return jax.jit(
        make_show(TRANSFORMS[name], domain=domain, translation=translation, preprocess=NONE)
    )


@TRANSLATIONS
def test_cyclic_is_roll_and_between_pixels_the_mean_of_two(name, axis):
    source, run = source_of(smooth(50, 40)), show(name, "cyclic")
    image = np.asarray(source.image)
    for pixels in (0, 1, 9, SIZE):
        expected = normalize(jnp.asarray(np.roll(image, pixels, axis)))
        np.testing.assert_allclose(run(source, jnp.float32(pixels * PIXEL)), expected, atol=1e-6)
    halfway = (np.roll(image, 2, axis) + np.roll(image, 3, axis)) / 2
    found = run(source, jnp.float32(2.5 * PIXEL))
    np.testing.assert_allclose(found, normalize(jnp.asarray(halfway)), atol=1e-5)


@TRANSLATIONS
@pytest.mark.parametrize(("height", "width"), [(50, 40), (33, 57)])
def test_context_is_the_same_crop_elsewhere_in_the_resized_image(name, axis, height, width):
    pixels = smooth(height, width)
    source, run = source_of(pixels), show(name, "context")
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
        found = run(source, jnp.float32(shift * PIXEL))
        scale = np.array([0.229, 0.224, 0.225], np.float32)
        error = np.abs(np.asarray(found) - normalize(jnp.asarray(expected))) * scale * 255
        # Pillow rounds to whole levels after each of its two passes.
        assert error.max() < 1.01, (shift, error.max())
        black = (np.asarray(resized.crop(box)).sum(-1) == 0).mean()
        margin = left if axis == 1 else top
        assert black == pytest.approx(max(0, shift - margin) / SIZE, abs=1e-3)


@TRANSLATIONS
def test_context_without_a_shift_is_the_image_itself(name, axis):
    source = source_of(smooth(50, 40))
    found = show(name, "context")(source, jnp.float32(0))
    np.testing.assert_allclose(found, normalize(source.image), atol=1e-6)


def test_context_between_pixels_follows_a_slope():
    # Grey grows by 4 levels a pixel; resized and original are the same size, so that nothing blurs.
    ramp = np.broadcast_to((4 * np.arange(48, dtype=np.uint8))[None, :, None], (RESIZE, 48, 3))
    run = jax.jit(
        lambda s, m: make_show(
            TRANSFORMS["translate_x"], domain="pixel", translation="context", preprocess=NONE
        )(s, m)
    )
    source = source_of(np.ascontiguousarray(ramp))
    still, moved = (run(source, jnp.float32(m * PIXEL)) for m in (0.0, 0.25))
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    change = (np.asarray(still) - np.asarray(moved)) * deviation * 255
    np.testing.assert_allclose(change, 1.0, atol=1e-3)  # a quarter pixel of 4 levels


def test_only_translations_differ():
    source = source_of(smooth(50, 40))
    for name, row in TRANSFORMS.items():
        magnitude = jnp.float32(row.magnitudes[2])
        shown = [show(name, kind)(source, magnitude) for kind in ("zero", "cyclic", "context")]
        expected = jax.jit(in_domain(row, "pixel"))(source.image, magnitude)
        np.testing.assert_array_equal(shown[0], expected, err_msg=name)
        for other in shown[1:]:
            assert np.array_equal(other, shown[0]) == (name not in DIRECTIONS), name


def test_context_is_alike_in_both_domains_and_cyclic_commutes_with_normalising():
    source, magnitude = source_of(smooth(50, 40)), jnp.float32(50)
    for kind in ("context", "cyclic"):
        found = [
            show("translate_x", kind, domain)(source, magnitude)
            for domain in ("pixel", "normalized")
        ]
        np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_batch_is_mapped_as_one_image():
    sources = [source_of(smooth(*size, seed)) for seed, size in enumerate([(50, 40), (33, 57)])]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *sources)
    magnitudes = jnp.asarray([0.0, 10.0, 100.0])
    for kind in ("zero", "cyclic", "context"):
        one = make_show(
            TRANSFORMS["translate_y"], domain="pixel", translation=kind, preprocess=NONE
        )
        both = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(batch, magnitudes)
        for m, magnitude in enumerate(magnitudes):
            for i, source in enumerate(sources):
                np.testing.assert_allclose(both[m, i], one(source, magnitude), atol=1e-5)


def test_an_unknown_translation_is_named():
    with pytest.raises(UserError, match="unknown translation 'cyclical'; did you mean 'cyclic'"):
        show("translate_x", "cyclical")


def test_a_blind_model_is_exactly_invariant_on_a_circle(measure):
    found = measure(Mean(), model_variables={}, images=Coloured(IMAGES), translation="cyclic")
    for kind in measures.DISTANCES:
        transformed, baseline = (
            each["embedding"][kind] for each in (found.transformed, found.baseline)
        )
        invariance = np.asarray(measures.relative_invariance(baseline, transformed))
        moved = np.flatnonzero(found.permutation != np.arange(IMAGES))
        rows = [list(TRANSFORMS).index(name) for name in DIRECTIONS]
        np.testing.assert_allclose(invariance[rows][:, :, moved], 1, atol=1e-4)
        assert (
            np.abs(1 - invariance[list(TRANSFORMS).index("scale_zoom_out"), 5, moved]).min() > 0.01
        )
