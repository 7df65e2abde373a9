"""The tables of transforms crossed with the properties that each row must have."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
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


@ALL
def test_random_twin_draws_every_magnitude_up_to_the_strongest(transform, image):
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: transform.draw(key, strongest=3)))(keys))
    sizes = np.asarray(transform.magnitudes[:4], np.float32)
    expected = np.concatenate([sizes, -sizes]) if transform.signed else sizes
    assert set(drawn.tolist()) == set(expected.tolist())
    for value, share in zip(*np.unique(np.abs(drawn), return_counts=True), strict=True):
        chance = np.mean(np.abs(sizes) == value)
        assert abs(share / 400 - chance) < 5 * (chance * (1 - chance) / 400) ** 0.5 + 1e-9
    # And it is what `apply` makes of that magnitude.
    twin = transform.random(keys[0], image, strongest=3)
    np.testing.assert_array_equal(twin, transform.apply(image, drawn[0]))


@ALL
def test_what_is_no_image_is_refused(transform, image):
    for wrong, message in (
        (image[None], r"has shape \(1, 12, 10, 3\); expected \[height, width, 3\]"),
        (image[..., :1], r"has shape \(12, 10, 1\)"),
        (image[:0], r"has shape \(0, 10, 3\)"),
        ((255 * image).astype(jnp.uint8), "is uint8; expected float32"),
    ):
        for function in (transform.apply, jax.jit(transform.apply), transform.apply_normalized):
            with pytest.raises(UserError, match=f"image for {transform.name} {message}"):
                function(wrong, 1.0)


@pytest.mark.parametrize(
    ("transform", "magnitude", "message"),
    [
        (TRANSFORMS["posterize"], 9, r"magnitude of posterize is 9; expected 0 to 8 \(bits\)"),
        (AUTOAUGMENT["posterize"], -1, "expected 0 to 8"),
        (TRANSFORMS["scale_zoom_in"], 0.0, r"expected 0\.01 to 100 \(factor\)"),
        (AUTOAUGMENT["rescale"], 0.0, r"expected 0\.01 to 100"),
        (TRANSFORMS["increase_contrast"], -0.5, "expected 0 to inf"),
        (TRANSFORMS["decrease_brightness"], np.float32(-0.5), "expected 0 to inf"),
        (TRANSFORMS["rotate"], float("nan"), "is nan; expected -inf to inf"),
        (TRANSFORMS["rotate"], jnp.ones(3), r"has shape \(3,\); expected one number"),
    ],
)
def test_magnitudes_without_a_meaning_are_refused(image, transform, magnitude, message):
    with pytest.raises(UserError, match=message):
        transform.apply(image, magnitude)


@pytest.mark.parametrize("strongest", [-1, 10, 2.0, True])
def test_a_strongest_magnitude_outside_the_table_is_refused(image, strongest):
    with pytest.raises(UserError, match="expected its index in the table, 0 to 9"):
        TRANSFORMS["rotate"].random(jax.random.key(0), image, strongest=strongest)
