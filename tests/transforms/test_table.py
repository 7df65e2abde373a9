"""The tables of transforms crossed with the properties that each row must have."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.transforms import AUTOAUGMENT, TRANSFORMS

GRID = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
ALL = pytest.mark.parametrize(
    "transform",
    [*TRANSFORMS.values(), *AUTOAUGMENT.values()],
    ids=[*TRANSFORMS, *(f"autoaugment_{name}" for name in AUTOAUGMENT)],
)
IMAGES = hypothesis.extra.numpy.arrays(
    np.float32, (9, 7, 3), elements=st.floats(0, 1, width=32, allow_subnormal=False)
)
FEW = hypothesis.settings(max_examples=10, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def image():
    return jnp.asarray(np.random.default_rng(0).random((12, 10, 3), np.float32))


@GRID
def test_magnitudes_are_the_papers(transform, golden_dir):
    golden = np.load(golden_dir / "transforms.npz")["magnitudes"]
    row = list(TRANSFORMS).index(transform.name)
    np.testing.assert_array_equal(transform.magnitudes, golden[row])


@GRID
def test_equals_torchvision(transform, golden_dir):
    golden = np.load(golden_dir / "transforms.npz")
    image = jnp.asarray(golden["image_u8"].astype(np.float32) / 255)
    rows, columns = golden["points_yx"].T
    apply = jax.jit(transform.apply)
    expected = golden["grid_pixel"][list(TRANSFORMS).index(transform.name)]
    for magnitude, points in zip(transform.magnitudes, expected, strict=True):
        error = np.abs(np.asarray(apply(image, jnp.float32(magnitude)))[rows, columns] - points)
        assert error.mean() <= 1e-5
        assert (error <= 2e-3).mean() >= 0.999


@ALL
@FEW
@hypothesis.given(pixels=IMAGES)
def test_identity_magnitude_is_exact(transform, pixels):
    if transform.identity is None:
        assert transform.name in ("autocontrast", "equalize", "invert")
        return
    out = jax.jit(transform.apply)(jnp.asarray(pixels), jnp.float32(transform.identity))
    np.testing.assert_array_equal(out, pixels)


@ALL
@FEW
@hypothesis.given(pixels=IMAGES, index=st.integers(0, 9), sign=st.sampled_from((1, -1)))
def test_range_shape_and_dtype_are_kept(transform, pixels, index, sign):
    magnitude = transform.magnitudes[index] * (sign if transform.signed else 1)
    out = jax.jit(transform.apply)(jnp.asarray(pixels), jnp.float32(magnitude))
    assert out.shape == pixels.shape and out.dtype == jnp.float32
    assert float(out.min()) >= 0 and float(out.max()) <= 1 + 1e-6


@ALL
def test_jit_equals_eager(transform, image):
    for magnitude in map(jnp.float32, transform.magnitudes):
        np.testing.assert_allclose(
            jax.jit(transform.apply)(image, magnitude),
            transform.apply(image, magnitude),
            atol=2e-5,
        )


@ALL
def test_vmap_equals_loop(transform, image):
    images = jnp.stack([image, image[::-1], 1 - image])
    magnitudes = jnp.asarray(transform.magnitudes, jnp.float32)
    mapped = jax.jit(jax.vmap(jax.vmap(transform.apply, (0, None)), (None, 0)))(images, magnitudes)
    apply = jax.jit(transform.apply)
    looped = [[apply(i, m) for i in images] for m in magnitudes]
    np.testing.assert_allclose(mapped, jnp.asarray(looped), atol=2e-5)


@GRID
def test_every_stronger_magnitude_changes_the_image(transform, image):
    for magnitude in transform.magnitudes[1:]:
        if transform.name == "posterize" and magnitude == 8:
            continue
        assert float(jnp.abs(transform.apply(image, jnp.float32(magnitude)) - image).max()) > 1e-3


@ALL
def test_gradients_are_finite(transform, image):
    def total(pixels, magnitude):
        return jnp.sum(transform.apply(pixels, magnitude) ** 2)

    gradient = jax.jit(jax.grad(total, (0, 1)))
    magnitudes = {*transform.magnitudes, transform.identity} - {None}
    for magnitude in map(jnp.float32, sorted(magnitudes)):
        by_image, by_magnitude = gradient(image, magnitude)
        assert jnp.isfinite(by_image).all() and jnp.isfinite(by_magnitude)


def test_geometric_transforms_move_the_right_way():
    dot = jnp.zeros((5, 5, 3)).at[2, 2].set(1.0)
    moved = TRANSFORMS["translate_x"].apply(dot, 224 / 5)
    assert float(moved[2, 3, 0]) == pytest.approx(1) and float(moved[2, 2, 0]) == pytest.approx(0)
    moved = TRANSFORMS["translate_y"].apply(dot, 224 / 5)
    assert float(moved[3, 2, 0]) == pytest.approx(1, abs=1e-6)
    right = jnp.zeros((5, 5, 3)).at[2, 4].set(1.0)
    turned = TRANSFORMS["rotate"].apply(right, 90.0)
    assert float(turned[4, 2, 0]) == pytest.approx(1, abs=1e-5)  # clockwise: right goes down


def test_translation_is_a_fraction_of_each_side():
    image = jnp.ones((8, 16, 3))
    right, down = (TRANSFORMS[f"translate_{axis}"].apply(image, 56.0) for axis in "xy")
    np.testing.assert_array_equal(right[0, :, 0], [0] * 4 + [1] * 12)  # a quarter of 16
    np.testing.assert_array_equal(down[:, 0, 0], [0] * 2 + [1] * 6)  # a quarter of 8


def test_solarize_at_one_inverts_saturated_pixels():
    image = jnp.asarray([[[1.0, 0.5, 0.0]]])
    np.testing.assert_array_equal(TRANSFORMS["solarize"].apply(image, 1.0), [[[0.0, 0.5, 0.0]]])


def test_posterize_keeps_the_high_bits():
    image = jnp.asarray([[[255.0, 127.6, 127.4]]]) / 255  # rounded to 255, 128, 127 first
    out = TRANSFORMS["posterize"].apply(image, 1.0) * 255
    np.testing.assert_allclose(out, [[[128.0, 128.0, 0.0]]], atol=1e-4)
