"""The band of few taps against the dense products, and who gets which."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from invariance_jax.transforms import banded, resize

# (canvas height, width, output): enlarge, equal, shrink, shrink by no whole number, not square.
SIZES = [(64, 64, 64), (24, 40, 48), (120, 120, 50), (96, 64, 40)]


def axis(start, length, side, *, cut="box", flip=False):
    image = (jnp.float32(0), jnp.float32(side))
    start, length = jnp.float32(start), jnp.float32(length)
    inside = (start, start + length) if cut == "box" else image
    return resize.Axis(start, length, inside, image, jnp.bool_(flip))


def canvas_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def random_axes(height, width, count, cut):
    """Boxes of every size up to the canvas, some leaving it, and mirrored every other time."""
    rng = np.random.default_rng(1)
    for number in range(count):
        sides = [side * rng.uniform(0.02, 1.0) for side in (height, width)]
        starts = [rng.uniform(-side / 2, side / 2) for side in (height, width)]
        if number == 0:
            sides, starts = [height, width], [0, 0]
        yield (
            axis(starts[0], sides[0], height - 3 * (number % 2), cut=cut),
            axis(starts[1], sides[1], width, cut=cut, flip=number % 2 == 1),
        )


@pytest.mark.parametrize("cut", ["box", "image"])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_the_band_equals_the_dense_products(height, width, size, cut):
    canvas = jnp.asarray(canvas_of(height, width))
    axes = list(random_axes(height, width, 20, cut))
    rows, columns = (
        jax.tree.map(lambda *x: jnp.stack(x), *side) for side in zip(*axes, strict=True)
    )
    results = {
        function: jax.jit(jax.vmap(functools.partial(function, size=size), (None, 0, 0)))(
            canvas, rows, columns
        )
        for function in (resize.resize_box_banded, resize.resize_box_dense, resize.resize_box)
    }
    expected = results[resize.resize_box_dense]
    assert expected.shape == (20, size, size, 3) and expected.dtype == jnp.float32
    assert expected[0].max() > 0.5
    for result in results.values():
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_jit_equals_eager():
    canvas = jnp.asarray(canvas_of(32, 32))
    rows, columns = axis(3, 20.5, 32), axis(-4, 30, 32, flip=True)
    function = functools.partial(resize.resize_box_banded, size=28)
    np.testing.assert_allclose(
        function(canvas, rows, columns), jax.jit(function)(canvas, rows, columns), atol=1e-5
    )


def test_gradients_are_finite_and_equal_those_of_the_dense_products():
    canvas = jnp.asarray(canvas_of(48, 48))
    weight = jnp.asarray(np.random.default_rng(2).random((40, 40, 3)), jnp.float32)

    def loss(box, function):
        rows, columns = axis(*box[:2], 48, cut="image"), axis(*box[2:], 48, cut="image")
        rows = rows._replace(start=box[0], length=box[1])
        columns = columns._replace(start=box[2], length=box[3])
        return jnp.sum(weight * function(canvas, rows, columns, size=40))

    boxes = jnp.asarray([[3.2, 31.3, 8.1, 37.7], [100.0, 20.0, 0.3, 41.1]])
    gradients = [
        jax.jit(jax.vmap(jax.grad(functools.partial(loss, function=function))))(boxes)
        for function in (resize.resize_box_banded, resize.resize_box_dense, resize.resize_box)
    ]
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.abs(gradients[1][0]).min() > 1e-2 and not np.abs(gradients[1][1]).any()
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-2, rtol=1e-3)
    np.testing.assert_allclose(gradients[2], gradients[0])


def test_eight_devices_equal_one_and_move_no_pixels():
    canvas = jnp.asarray(np.stack([canvas_of(32, 32, seed) for seed in range(8)]))
    rows, columns = (
        jax.tree.map(lambda *x: jnp.stack(x), *side)
        for side in zip(*random_axes(32, 32, 8, "box"), strict=True)
    )
    function = jax.jit(jax.vmap(functools.partial(resize.resize_box, size=24)))
    expected = function(canvas, rows, columns)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put((canvas, rows, columns), NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(function(*spread), expected, atol=1e-6)
    program = function.lower(*spread).compile().as_text()
    assert "all-gather" not in program and "all-to-all" not in program


@pytest.mark.parametrize(("platform", "has_products"), [("cpu", False), ("tpu", True)])
def test_matrix_units_get_products_and_a_cpu_does_not(platform, has_products):
    arguments = (jnp.asarray(canvas_of(64, 64)), axis(0, 60, 64), axis(2, 62, 64))
    function = jax.jit(functools.partial(resize.resize_box, size=64))
    program = function.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert ("dot_general" in program) == has_products
    assert ("HIGHEST" in program) == has_products


def test_the_row_pass_stays_a_function_of_its_own_on_a_cpu():
    # Fused into the column pass it would be computed anew for each tap: same pixels, far slower.
    arguments = (jnp.asarray(canvas_of(64, 64)), axis(0, 60, 64), axis(2, 62, 64))
    program = jax.jit(functools.partial(resize.resize_box, size=48)).lower(*arguments).compile()
    calls = [line for line in program.as_text().splitlines() if " call(" in line]
    assert any("f32[48,192]" in line for line in calls)


@pytest.mark.parametrize(
    ("size", "out_size", "count"), [(512, 224, 5), (64, 64, 3), (64, 100, 3), (300, 200, 5)]
)
def test_tap_count(size, out_size, count):
    assert banded.tap_count(size, out_size) == count


def test_no_tap_is_missed_at_the_largest_scale():
    # Between integers and half-integers of the scale the number of reachable pixels changes.
    for size in range(16, 65):
        pixels = banded.tap_pixels(jnp.float32(0), jnp.float32(size), out_size=16, size=size)
        centres = (np.arange(16) + 0.5) * size / 16
        for centre, seen in zip(centres, np.asarray(pixels), strict=True):
            reached = np.flatnonzero(np.abs(np.arange(size) + 0.5 - centre) < size / 16 - 1e-4)
            assert set(reached) <= set(seen.tolist())


def test_a_wide_band_uses_the_products():
    assert banded.is_worthwhile(512, 224) and banded.is_worthwhile(28, 28)
    assert not banded.is_worthwhile(1000, 8)
