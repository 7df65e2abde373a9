"""The resampler against Pillow and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax.transforms import normalize, resample


def weights(start, length, out_size, size, cut=None, visible=None):
    whole = (0.0, float(size))
    return resample.antialiased_weights(
        jnp.float32(start),
        jnp.float32(length),
        out_size=out_size,
        size=size,
        cut=tuple(map(jnp.float32, cut or whole)),
        visible=tuple(map(jnp.float32, visible or whole)),
    )


def test_same_size_is_the_identity():
    np.testing.assert_array_equal(weights(0, 6, 6, 6), np.eye(6))


@pytest.mark.parametrize(("size", "out_size"), [(64, 20), (20, 64), (33, 32)])
def test_equals_pillow(size, out_size):
    pixels = np.random.default_rng(0).random((size, size)).astype(np.float32)
    # Pillow's mode F works in floating point: no rounding hides an error.
    expected = np.asarray(
        Image.fromarray(pixels).resize((out_size,) * 2, Image.Resampling.BILINEAR)
    )
    matrix = weights(0, size, out_size, size)
    out = resample.apply_weights(jnp.asarray(pixels)[..., None], matrix, matrix)[..., 0]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_cut_hides_what_lies_outside_the_box():
    # Two pixels averaged into one: the cut box is [2, 4).
    inside = weights(2, 2, 1, 6, cut=(2, 4))
    np.testing.assert_allclose(inside, [[0, 0, 0.5, 0.5, 0, 0]], atol=1e-6)
    # Without the cut the triangle of width 2 reaches one pixel farther on each side.
    np.testing.assert_allclose(weights(2, 2, 1, 6), [[0, 0.125, 0.375, 0.375, 0.125, 0]], atol=1e-6)


def test_zero_fill_is_black_and_not_normalised_away():
    shifted = weights(-2, 4, 4, 4)  # moved by two pixels
    np.testing.assert_allclose(
        shifted, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], atol=1e-6
    )


def test_a_pixel_whose_centre_lies_outside_is_black_though_its_filter_reaches_inside():
    np.testing.assert_allclose(weights(-0.75, 2, 2, 2), [[0, 0], [0.75, 0.25]], atol=1e-6)


def test_a_box_without_any_source_pixel_is_black_with_finite_gradient():
    def total(start):
        return jnp.sum(
            resample.antialiased_weights(
                start,
                jnp.float32(4),
                out_size=4,
                size=4,
                cut=(start, start + 4),
                visible=(jnp.float32(0), jnp.float32(4)),
            )
        )

    assert total(jnp.float32(100)) == 0
    assert jnp.isfinite(jax.grad(total)(jnp.float32(100)))


def test_sample_bilinear_mixes_four_pixels_and_fades_outside():
    image = jnp.asarray([[0.0, 1.0], [2.0, 3.0]])[..., None]
    y, x = jnp.asarray([[0.5, -0.5]]), jnp.asarray([[0.25, 1.0]])
    np.testing.assert_allclose(resample.sample_bilinear(image, y, x)[0, :, 0], [1.25, 0.5])


def test_normalize_uses_imagenets_statistics():
    out = normalize(jnp.ones((2, 1, 1, 3)))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(out[1, 0, 0], expected, rtol=1e-6)
