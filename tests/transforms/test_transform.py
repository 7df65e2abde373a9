"""What `apply` refuses, normalisation, and transforms on normalised values as the original's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.transforms import AUTOAUGMENT, TRANSFORMS, in_domain, normalize

GRID = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
IMAGE = jnp.asarray(np.random.default_rng(0).random((9, 7, 3), np.float32))


@GRID
def test_normalized_equals_the_original(transform, golden_dir, golden_image):
    pixels, rows, columns = golden_image
    golden = np.load(golden_dir / "transforms_normalized.npz")["grid_normalized"]
    apply = jax.jit(in_domain(transform, "normalized"))
    expected = golden[list(TRANSFORMS).index(transform.name)]
    for magnitude, points in zip(transform.magnitudes, expected, strict=True):
        error = np.abs(np.asarray(apply(pixels, jnp.float32(magnitude)))[rows, columns] - points)
        assert error.mean() <= 1e-5 and (error <= 2e-3).mean() >= 0.999, magnitude


def test_pixel_is_the_transform_and_then_the_normalisation(apply):
    for transform in TRANSFORMS.values():
        magnitude = transform.magnitudes[4]
        np.testing.assert_allclose(
            in_domain(transform, "pixel")(IMAGE, magnitude),
            normalize(apply(transform, IMAGE, magnitude)),
            atol=1e-5,
            err_msg=transform.name,
        )


def test_normalize_uses_imagenets_statistics():
    out = normalize(jnp.ones((2, 1, 1, 3)))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(out[1, 0, 0], expected, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (IMAGE[None], r"has shape \(1, 9, 7, 3\); expected \[height, width, 3\]"),
        (IMAGE[..., :1], r"has shape \(9, 7, 1\)"),
        (IMAGE[:0], r"has shape \(0, 7, 3\)"),
        ((255 * IMAGE).astype(jnp.uint8), "is uint8; expected float32"),
    ],
)
def test_what_is_no_image_is_refused(wrong, message):
    for transform in (*TRANSFORMS.values(), *AUTOAUGMENT.values()):
        for function in (transform.apply, jax.jit(transform.apply), transform.apply_normalized):
            with pytest.raises(UserError, match=f"image for {transform.name} {message}"):
                function(wrong, 1.0)


@pytest.mark.parametrize(
    ("transform", "magnitude", "message"),
    [
        (TRANSFORMS["posterize"], 9, r"magnitude of posterize is 9; expected 0 to 8 \(bits\)"),
        (AUTOAUGMENT["posterize"], -1, "expected 0 to 8"),
        (TRANSFORMS["scale_zoom_in"], 0.0, r"expected 0\.01 to 100 \(factor\)"),
        (TRANSFORMS["scale_zoom_out"], 0.0, r"expected 0\.01 to 100 \(factor\)"),
        (AUTOAUGMENT["rescale"], 0.0, r"expected 0\.01 to 100"),
        (TRANSFORMS["increase_contrast"], -0.5, "expected 0 to inf"),
        (TRANSFORMS["decrease_brightness"], np.float32(-0.5), "expected 0 to inf"),
        (TRANSFORMS["rotate"], float("nan"), "is nan; expected -inf to inf"),
        (TRANSFORMS["rotate"], jnp.ones(3), r"has shape \(3,\); expected one number"),
    ],
)
def test_magnitudes_without_a_meaning_are_refused(transform, magnitude, message):
    with pytest.raises(UserError, match=message):
        transform.apply(IMAGE, magnitude)


@pytest.mark.parametrize("strongest", [-1, 10, 2.0, True])
def test_a_strongest_magnitude_outside_the_table_is_refused(strongest):
    with pytest.raises(UserError, match="expected its index in the table, 0 to 9"):
        TRANSFORMS["rotate"].random(jax.random.key(0), IMAGE, strongest=strongest)
