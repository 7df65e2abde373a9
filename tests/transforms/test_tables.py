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
PILLOW = pytest.mark.parametrize("transform", AUTOAUGMENT.values(), ids=AUTOAUGMENT)
ALL = pytest.mark.parametrize(
    "transform",
    [*TRANSFORMS.values(), *AUTOAUGMENT.values()],
    ids=[*TRANSFORMS, *(f"autoaugment_{name}" for name in AUTOAUGMENT)],
)
SHAPE = (9, 7, 3)
IMAGES = hypothesis.extra.numpy.arrays(
    np.float32, SHAPE, elements=st.floats(0, 1, width=32, allow_subnormal=False)
)
FEW = hypothesis.settings(max_examples=10, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def image():
    return jnp.asarray(np.random.default_rng(0).random(SHAPE, np.float32))


def golden_row(golden, transform):
    """The original writes shearX."""
    names = [name.replace("X", "_x").replace("Y", "_y") for name in golden["names"]]
    return names.index(transform.name)


def test_magnitudes_are_the_papers(golden_dir):
    grid = np.load(golden_dir / "transforms.npz")["magnitudes"]
    np.testing.assert_array_equal([row.magnitudes for row in TRANSFORMS.values()], grid)
    golden = np.load(golden_dir / "autoaugment.npz")
    for row in AUTOAUGMENT.values():
        np.testing.assert_array_equal(row.magnitudes, golden["magnitudes"][golden_row(golden, row)])


def test_rows_are_what_they_are_called():
    for table, count in ((TRANSFORMS, 13), (AUTOAUGMENT, 15)):
        assert len(table) == count and all(row.name == name for name, row in table.items())
    assert {name for name, row in AUTOAUGMENT.items() if row.signed} == {
        *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
        *("color", "contrast", "sharpness", "brightness"),
    }
    assert not any(row.signed for row in TRANSFORMS.values())
    rows = [*TRANSFORMS.items(), *AUTOAUGMENT.items()]
    moving = ("shear", "translate", "rotate", "scale", "rescale")
    for name, row in rows:
        assert (row.family == "geometric") == name.startswith(moving), name


@GRID
def test_equals_torchvision(transform, golden_dir, golden_image, apply):
    image, rows, columns = golden_image
    golden = np.load(golden_dir / "transforms.npz")["grid_pixel"]
    expected = golden[list(TRANSFORMS).index(transform.name)]
    for magnitude, points in zip(transform.magnitudes, expected, strict=True):
        error = np.abs(np.asarray(apply(transform, image, magnitude))[rows, columns] - points)
        assert error.mean() <= 1e-5
        assert (error <= 2e-3).mean() >= 0.999


@PILLOW
def test_equals_pillow(transform, golden_dir, golden_image, apply):
    image, rows, columns = golden_image
    golden = np.load(golden_dir / "autoaugment.npz")
    expected = golden["levels"][golden_row(golden, transform)]
    for magnitude, of_magnitude in zip(transform.magnitudes, expected, strict=True):
        for sign, points in zip((1, -1), of_magnitude, strict=True):
            out = np.asarray(apply(transform, image, sign * magnitude))
            error = np.abs(out[rows, columns] * 255 - points)
            assert (error <= 1.01).mean() >= 0.99, (magnitude, sign)
            # Decimals that decide a level may fall either way, but seldom.
            assert (error <= 0.01).mean() >= 0.95, (magnitude, sign)


@ALL
@FEW
@hypothesis.given(pixels=IMAGES)
def test_identity_magnitude_is_exact(transform, apply, pixels):
    if transform.identity is None:
        assert transform.name in ("autocontrast", "equalize", "invert")
        return
    np.testing.assert_array_equal(apply(transform, pixels, transform.identity), pixels)


@ALL
@FEW
@hypothesis.given(pixels=IMAGES, index=st.integers(0, 9), sign=st.sampled_from((1, -1)))
def test_range_shape_and_dtype_are_kept(transform, apply, pixels, index, sign):
    magnitude = transform.magnitudes[index] * (sign if transform.signed else 1)
    out = np.asarray(apply(transform, pixels, magnitude))
    assert out.shape == pixels.shape and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 1 + 1e-6


@ALL
def test_apply_equals_the_function_with_and_without_jit(transform, apply, image):
    for magnitude in transform.magnitudes:
        np.testing.assert_allclose(
            apply(transform, image, magnitude), transform.apply(image, magnitude), atol=2e-5
        )


@ALL
def test_vmap_equals_loop(transform, apply, image):
    images = jnp.stack([image, image[::-1], 1 - image])
    magnitudes = jnp.asarray(transform.magnitudes, jnp.float32)
    mapped = jax.jit(jax.vmap(jax.vmap(transform.apply, (0, None)), (None, 0)))(images, magnitudes)
    looped = [[apply(transform, i, m) for i in images] for m in magnitudes]
    np.testing.assert_allclose(mapped, np.asarray(looped), atol=2e-5)


@GRID
def test_every_stronger_magnitude_changes_the_image(transform, apply, image):
    for magnitude in transform.magnitudes[1:]:
        if transform.name == "posterize" and magnitude == 8:
            continue
        assert float(jnp.abs(apply(transform, image, magnitude) - image).max()) > 1e-3


@ALL
def test_gradients_are_finite(transform, image):
    def total(pixels, magnitude):
        return jnp.sum(transform.apply(pixels, magnitude) ** 2)

    gradient = jax.jit(jax.grad(total, (0, 1)))
    for magnitude in sorted({*transform.magnitudes, transform.identity} - {None}):
        by_image, by_magnitude = gradient(image, jnp.float32(magnitude))
        assert np.isfinite(by_image).all() and np.isfinite(by_magnitude), magnitude


@ALL
def test_random_twin_draws_every_magnitude_up_to_the_strongest(transform, image):
    keys = jax.random.split(jax.random.key(0), 400)
    # Without jit: what one row has compiled serves all.
    drawn = np.asarray(jax.vmap(lambda key: transform.draw(key, strongest=3))(keys))
    sizes = np.asarray(transform.magnitudes[:4], np.float32)
    expected = np.concatenate([sizes, -sizes]) if transform.signed else sizes
    assert set(drawn.tolist()) == set(expected.tolist())
    for value, share in zip(*np.unique(np.abs(drawn), return_counts=True), strict=True):
        chance = np.mean(np.abs(sizes) == value)
        assert abs(share / 400 - chance) < 5 * (chance * (1 - chance) / 400) ** 0.5 + 1e-9
    # And it is what `apply` makes of that magnitude.
    twin = transform.random(keys[0], image, strongest=3)
    np.testing.assert_array_equal(twin, transform.apply(image, drawn[0]))
