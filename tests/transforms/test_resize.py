"""The antialiased resize: against Pillow, by hand, and its two forms against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from invariance_jax.transforms import resize

# (canvas height, width, output): enlarge, equal, shrink, shrink by no whole number, not square.
SIZES = [(64, 64, 64), (24, 40, 48), (120, 120, 50), (96, 64, 40)]

dense = jax.jit(resize.Axis.dense, static_argnums=(1, 2, 3))
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def axis(start, length, cut, visible, flip=False):
    edges = (tuple(map(jnp.float32, each)) for each in (cut, visible))
    return resize.Axis(jnp.float32(start), jnp.float32(length), *edges, jnp.bool_(flip))


def weights(start, length, size, canvas_size, cut=None):
    whole = (0, canvas_size)
    return dense(axis(start, length, cut or whole, whole), size, canvas_size)


def canvas_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def stacked(axes):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *axes)


def random_axes(height, width, count):
    """Boxes of every size up to the canvas, some leaving it; two ways to cut, two to mirror."""
    rng = np.random.default_rng(1)
    rows, columns = [], []
    for number in range(count):
        lengths = [side * rng.uniform(0.02, 1.0) for side in (height, width)]
        starts = [rng.uniform(-side / 2, side / 2) for side in (height, width)]
        if number < 2:
            lengths, starts = [height, width], [0, 0]
        boxes = [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        image = (0, height - 3 * (number % 2)), (0, width)
        cuts = boxes if number % 4 < 2 else image
        rows.append(axis(starts[0], lengths[0], cuts[0], image[0]))
        columns.append(axis(starts[1], lengths[1], cuts[1], image[1], flip=number % 2 == 1))
    return stacked(rows), stacked(columns)


def test_same_size_is_the_identity():
    np.testing.assert_array_equal(weights(0, 6, 6, 6), np.eye(6))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("side", "size"), [(64, 20), (20, 64), (33, 32)])
def test_equals_pillow(side, size, interpolation):
    pixels = np.random.default_rng(0).random((side, side)).astype(np.float32)
    # Pillow's mode F works in floating point: no rounding hides an error.
    expected = np.asarray(Image.fromarray(pixels).resize((size,) * 2, FILTERS[interpolation]))
    whole = (0, side)
    matrix = np.asarray(dense(axis(0, side, whole, whole), size, side, interpolation))
    np.testing.assert_allclose(matrix @ pixels @ matrix.T, expected, atol=1e-5)


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
    @jax.jit
    @jax.value_and_grad
    def total(start):
        return jnp.sum(axis(0, 4, (0, 4), (0, 4))._replace(start=start).dense(4, 4))

    @jax.jit
    @jax.value_and_grad
    def total_of_cut(start):
        moved = axis(0, 4, (0, 4), (0, 4))._replace(start=start, cut=(start, start + 4))
        return jnp.sum(moved.dense(4, 4))

    for function in (total, total_of_cut):
        value, gradient = function(jnp.float32(100))
        assert value == 0 and jnp.isfinite(gradient)


def test_a_cubic_reaches_two_pixels_and_goes_below_zero():
    # Half a pixel to the right of the second of six pixels, at no change of scale.
    whole = (0, 6)
    (row,) = dense(axis(1.5, 1, whole, whole), 1, 6, "bicubic")
    np.testing.assert_allclose(row, [-0.0625, 0.5625, 0.5625, -0.0625, 0, 0], atol=1e-6)
    # What lies outside the cut does not count, and the rest is normalised.
    (row,) = dense(axis(1.5, 1, (1, 6), whole), 1, 6, "bicubic")
    np.testing.assert_allclose(row * 17, [0, 9, 9, -1, 0, 0], atol=1e-5)
    # What lies in the cut and off the canvas counts, as black.
    (row,) = dense(axis(-0.5, 1, (-9, 9), (-9, 9)), 1, 6, "bicubic")
    np.testing.assert_allclose(row, [0.5625, -0.0625, 0, 0, 0, 0], atol=1e-6)


def test_black_and_white_are_the_ends():
    canvas = np.zeros((16, 16, 3), np.uint8)
    canvas[:, 8:] = 255
    whole = (0, 16)
    both = axis(0, 16, whole, whole), axis(0, 16, whole, whole)
    for form in (resize.resize_box_banded, resize.resize_box_fast, resize.resize_box_dense):
        image = form(jnp.asarray(canvas), *both, size=40, interpolation="bicubic")
        assert image.min() == 0 and image.max() == 1
        assert image[0, 20, 0] > image[0, 19, 0]


@pytest.mark.parametrize(
    ("height", "width", "size", "interpolation"),
    [(*each, "bilinear") for each in SIZES] + [(96, 64, 40, "bicubic")],
)
def test_all_forms_give_the_same_image(height, width, size, interpolation):
    canvas = jnp.asarray(canvas_of(height, width))
    forms = (resize.resize_box_banded, resize.resize_box_fast, resize.resize_box_dense)

    @jax.jit
    def all_forms(*axes):
        return [
            jax.vmap(functools.partial(form, size=size, interpolation=interpolation), (None, 0, 0))(
                canvas, *axes
            )
            for form in forms
        ]

    banded, fast, expected = all_forms(*random_axes(height, width, 40))
    assert expected.shape == (40, size, size, 3) and expected.dtype == jnp.float32
    assert expected[0].max() > 0.5
    np.testing.assert_allclose(banded, expected, atol=1e-5)
    np.testing.assert_allclose(fast, expected, atol=1e-5)


def test_two_boxes_in_one_go_equal_one_after_the_other():
    canvas = jnp.asarray(canvas_of(40, 32))
    rows, columns = (
        [axis(start, length, (0, side), (0, side)), axis(2, 9, (2, 11), (0, 24))]
        for start, length, side in ((3, 30, 40), (-2, 28, 32))
    )
    columns[1] = columns[1]._replace(flip=jnp.bool_(True))

    @jax.jit
    def found(rows, columns):
        return resize.resize_boxes(canvas, rows, columns, sizes=(24, 10))

    (outer_rows, inner_rows), (outer_columns, inner_columns) = (
        [np.asarray(dense(*each)) for each in zip(axes, (24, 10), (side, 24), strict=True)]
        for axes, side in ((rows, 40), (columns, 32))
    )
    outer = np.einsum("oh,hwc,pw->opc", outer_rows, np.asarray(canvas) / 255, outer_columns)
    expected = np.einsum("oh,hwc,pw->opc", inner_rows, outer, inner_columns)
    np.testing.assert_allclose(found(rows, columns), expected, atol=1e-5)


def test_jit_equals_eager():
    canvas = jnp.asarray(canvas_of(16, 16))
    axes = axis(3, 10.5, (3, 13.5), (0, 16)), axis(-4, 15, (0, 16), (0, 16), flip=True)
    function = functools.partial(resize.resize_box_banded, size=14)
    np.testing.assert_allclose(function(canvas, *axes), jax.jit(function)(canvas, *axes), atol=1e-5)


def test_gradients_are_finite_and_equal_those_of_the_dense_products():
    canvas = jnp.asarray(canvas_of(48, 48))
    weight = jnp.asarray(np.random.default_rng(2).random((40, 40, 3)), jnp.float32)

    def loss(box, form):
        rows, columns = (axis(0, 48, (0, 48), (0, 48)) for _ in range(2))
        rows = rows._replace(start=box[0], length=box[1])
        columns = columns._replace(start=box[2], length=box[3])
        return jnp.sum(weight * form(canvas, rows, columns, size=40))

    # On a CPU `resize_box` is the band.
    gradients = [
        jax.jit(jax.grad(functools.partial(loss, form=form)))
        for form in (resize.resize_box, resize.resize_box_dense)
    ]
    boxes = jnp.asarray([[3.2, 31.3, 8.1, 37.7], [100.0, 20.0, 0.3, 41.1]])
    found, expected = (np.stack([gradient(box) for box in boxes]) for gradient in gradients)
    assert np.isfinite(found).all() and np.isfinite(expected).all()
    assert np.abs(expected[0]).min() > 1e-2 and not np.abs(expected[1]).any()
    np.testing.assert_allclose(found, expected, atol=1e-2, rtol=1e-3)


def test_eight_devices_equal_one_and_move_no_pixels():
    canvas = jnp.asarray(np.stack([canvas_of(32, 32, seed) for seed in range(8)]))
    rows, columns = random_axes(32, 32, 8)
    function = jax.jit(jax.vmap(functools.partial(resize.resize_box, size=24)))
    expected = function(canvas, rows, columns)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put((canvas, rows, columns), NamedSharding(mesh, PartitionSpec("data")))
    program = function.lower(*spread).compile()
    np.testing.assert_allclose(program(*spread), expected, atol=1e-6)
    assert "all-gather" not in program.as_text() and "all-to-all" not in program.as_text()


@pytest.mark.parametrize(("platform", "has_products"), [("cpu", False), ("tpu", True)])
def test_matrix_units_get_products_and_a_cpu_does_not(platform, has_products):
    image = (0, 64)
    arguments = jnp.asarray(canvas_of(64, 64)), axis(0, 60, image, image), axis(2, 62, image, image)
    function = jax.jit(functools.partial(resize.resize_box, size=64))
    program = function.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert ("dot_general" in program) == has_products
    assert ("HIGHEST" in program) == has_products


def test_the_row_pass_stays_a_function_of_its_own_on_a_cpu():
    # Fused into the column pass it would be computed anew for each tap: same pixels, far slower.
    image = (0, 64)
    arguments = jnp.asarray(canvas_of(64, 64)), axis(0, 60, image, image), axis(2, 62, image, image)
    program = jax.jit(functools.partial(resize.resize_box, size=48)).lower(*arguments).compile()
    calls = [line for line in program.as_text().splitlines() if " call(" in line]
    assert any("f32[48,192]" in line for line in calls)


@pytest.mark.parametrize(
    ("canvas_size", "size", "count"), [(512, 224, 5), (64, 64, 3), (64, 100, 3), (300, 200, 5)]
)
def test_tap_count(canvas_size, size, count):
    assert resize.tap_count(canvas_size, size) == count


def test_no_tap_is_missed_at_the_largest_scale():
    # Between integers and half-integers of the scale the number of reachable pixels changes.
    # Without jit: the programs of all sides with as many taps are the same.
    for side in range(8, 33):
        whole = (0, side)
        pixels, found = map(np.asarray, axis(0, side, whole, whole).taps(8, side))
        centres = (np.arange(8) + 0.5) * side / 8
        for centre, seen, weight in zip(centres, pixels, found, strict=True):
            reached = np.flatnonzero(np.abs(np.arange(side) + 0.5 - centre) < side / 8 - 1e-4)
            assert set(reached) <= set(seen.tolist())
            assert weight.sum() == pytest.approx(1, abs=1e-5)


def test_a_wide_band_uses_the_products():
    assert resize.is_band_narrow(512, 224) and resize.is_band_narrow(28, 28)
    assert not resize.is_band_narrow(1000, 8)
