"""Augerino against hand-worked corner points, loops, and central differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from invariance_jax import augment
from invariance_jax.augment.learned import mean_log_probability, unit
from invariance_jax.errors import UserError

SIZE, CHANNELS = 7, 2
SIX = ("translate_x", "translate_y", "rotate", "scale", "stretch", "shear")
# The published matrices, at (row, column).
PUBLISHED = {
    "translate_x": {(0, 2): 1},
    "translate_y": {(1, 2): 1},
    "rotate": {(0, 1): -1, (1, 0): 1},
    "scale": {(0, 0): 1, (1, 1): 1},
    "stretch": {(0, 0): 1, (1, 1): -1},
    "shear": {(0, 1): 1, (1, 0): 1},
}
VARIANTS = {
    "joint of all": f"generators={SIX}",
    "sequential": "",
    "joint of three": "sequential=False",
    "floors": "floors=(0.5, 3.0, 0.1)",
    "joint with floors": "generators=('rotate', 'shear'), floors=0.1",
    "per class": "per_class=True",
    "joint per class": "generators=('rotate', 'translate_x'), per_class=True",
    "copies": "train_copies=3",
    "shut down": "shutdown=(10, 1, 0.5)",
}


def made(options="", **more):
    listed = [options, *(f"{name}={value!r}" for name, value in more.items())]
    return augment.parse_learned(f"augerino({', '.join(filter(None, listed))})")


def images(count=1, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((count, SIZE, SIZE, CHANNELS))
    return jnp.asarray(drawn)


def sampled(image, place):
    """Bilinear, zero outside; place takes (x, y) in [-1, 1] to the same of the image."""
    half = (SIZE - 1) / 2
    out = np.zeros_like(image)
    for row, column in np.ndindex(SIZE, SIZE):
        x, y = (half * (each + 1) for each in place(column / half - 1, row / half - 1))
        for i, j in np.ndindex(SIZE, SIZE):
            out[row, column] += max(0, 1 - abs(x - j)) * max(0, 1 - abs(y - i)) * image[i, j]
    return out


def by_matrix(matrix):
    return lambda x, y: (matrix @ (x, y, 1))[:2]


@pytest.mark.parametrize("generator", SIX)
def test_one_generator_is_the_exponential_of_the_published_matrix(generator):
    matrix = np.zeros((3, 3))
    for place, value in PUBLISHED[generator].items():
        matrix[place] = value
    image, weight = np.asarray(images()[0], np.float32), -0.37
    found = jax.jit(made(generators=(generator,)).warp)(image, jnp.float32([weight]))
    expected = sampled(image, by_matrix(scipy.linalg.expm(weight * matrix)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_generators_are_one_exponential():
    weights = np.array([0.3, -0.2, 0.4, -0.5, 0.2, 0.1])
    matrix = np.zeros((3, 3))
    for weight, entries in zip(weights, PUBLISHED.values(), strict=True):
        for place, value in entries.items():
            matrix[place] += weight * value
    image = np.asarray(images()[0], np.float32)
    found = jax.jit(made(generators=SIX).warp)(image, jnp.float32(weights))
    np.testing.assert_allclose(
        found, sampled(image, by_matrix(scipy.linalg.expm(matrix))), atol=1e-5
    )


def test_corner_points_by_hand():
    """The matrix takes the output's coordinates to the image's."""
    image = jnp.zeros((3, 3, 1)).at[0, 2].set(1)  # upper right: x = 1, y = -1
    quarter, whole = jnp.float32([np.pi / 2]), jnp.float32([1.0])
    # Output (x, y) shows image (-y, x): the upper right stands where -y = 1 and x = -1.
    turned = made(generators=("rotate",)).warp(image, quarter)
    np.testing.assert_allclose(turned[0, 0], 1, atol=1e-6)
    assert float(jnp.abs(turned).sum()) == pytest.approx(1, abs=1e-5)
    # It shows what stands half a side to the right: content moves left.
    moved = made(generators=("translate_x",)).warp(image, whole)
    assert float(moved[0, 1, 0]) == 1 and float(moved.sum()) == 1
    # Half of each coordinate: output corner (1, -1) shows (1/2, -1/2), a quarter of the corner.
    zoomed = made(generators=("scale",)).warp(image, jnp.log(jnp.float32([0.5])))
    np.testing.assert_allclose(zoomed[0, 2], 0.25, atol=1e-6)


def test_sequential_is_three_resamplings():
    image, weights = np.asarray(images()[0], np.float32), np.float32([0.35, -0.5, -0.6])
    x, y, scale = weights
    expected = sampled(image, lambda a, b: (a + x, b))
    expected = sampled(expected, lambda a, b: (a, b + y))
    expected = sampled(expected, lambda a, b: (np.exp(scale) * a, np.exp(scale) * b))
    found = jax.jit(made().warp)(image, weights)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Merged it is sharper, and what has left the frame is not lost.
    merged = sampled(image, lambda a, b: (np.exp(scale) * a + x, np.exp(scale) * b + y))
    assert np.abs(found - merged).max() > 0.1
    joint = jax.jit(made(sequential=False).warp)(image, weights)
    assert np.abs(found - joint).max() > 0.1


@pytest.mark.parametrize("options", ["", f"generators={SIX}"])
def test_no_weight_is_the_identity(options):
    learned, image = made(options), jnp.float32(images()[0])
    found = jax.jit(learned.warp)(image, jnp.zeros(len(learned.generators)))
    np.testing.assert_array_equal(found, image)


def weights(learned, raw, uniform):
    return jax.vmap(learned.weights, (None, 0))(raw, uniform)


def test_weights_by_hand():
    raw = jnp.log(jnp.expm1(jnp.float32([1.2, 0.8, 2.0])))
    uniform = jnp.float32([[0.0, 0.5, 0.0], [1.0, 0.75, 1.0], [0.25, 1.0, 0.5]])
    one_sided = [[-0.6, 0.0, -1.0], [0.6, 0.2, 0.0], [-0.3, 0.4, -0.5]]
    np.testing.assert_allclose(weights(made(), raw, uniform), one_sided, atol=1e-6)
    two_sided = [[-0.6, 0.0, -1.0], [0.6, 0.2, 1.0], [-0.3, 0.4, 0.0]]
    joint = made(sequential=False)
    np.testing.assert_allclose(weights(joint, raw, uniform), two_sided, atol=1e-6)
    # A floor above a width binds, and with floors scale goes both ways.
    floored = weights(made(floors=1.0), raw, uniform)
    np.testing.assert_allclose(floored[:, 0], [-0.6, 0.6, -0.3], atol=1e-6)
    np.testing.assert_allclose(floored[:, 1], [0.0, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(floored[:, 2], [-1.0, 1.0, 0.0], atol=1e-6)


def test_the_originals_start_is_like_random_resized_crop():
    learned = made()
    found = learned.metrics(np.asarray(learned.initial(5)))
    assert found["raw_width/scale"] == pytest.approx(2.44)
    assert found["width/translate_x"] == pytest.approx(0.3, abs=1e-3)
    assert found["width/scale"] == pytest.approx(0.283, abs=1e-3)
    assert unit("translate_x") == "fraction of the side"
    turned = made(generators=("rotate", "shear_x", "stretch"), start=(0.0, 0.0, 0.0))
    half = np.log(2) / 2
    assert turned.metrics(np.zeros(3)) == pytest.approx(
        {
            **dict.fromkeys(("raw_width/rotate", "raw_width/shear_x", "raw_width/stretch"), 0.0),
            "width/rotate": np.rad2deg(half),
            "width/shear_x": half,
            "width/stretch": np.exp(half),
        }
    )


def test_metrics_of_classes_are_their_mean_and_range():
    learned = made(generators=("rotate",), per_class=True)
    raw = np.log(np.expm1(np.deg2rad([[20.0], [60.0]])))
    found = learned.metrics(raw)
    assert found["width/rotate"] == pytest.approx(20)
    assert found["width_min/rotate"] == pytest.approx(10)
    assert found["width_max/rotate"] == pytest.approx(30)


def test_floors_are_shown_too():
    assert made(floors=1.0).metrics(np.full(3, -9.0))["width/translate_x"] == 0.25


def test_penalty_by_hand():
    raw = jnp.log(jnp.expm1(jnp.float32([[3.0, 4.0], [11.0, 12.0]])))
    learned = made(generators=("rotate", "shear"), per_class=True, regularization=0.5)
    np.testing.assert_allclose(learned.penalty(raw), -0.5 * 5, rtol=1e-5)
    unchecked = made(
        generators=("rotate", "shear"), regularization=0.5, shutdown=(20, 1), floors=9.0
    )
    np.testing.assert_allclose(unchecked.penalty(raw), -0.5 * np.hypot(3, 11), rtol=1e-5)
    # All widths are shut down: no reward, and a gradient of 0.
    value, slope = jax.value_and_grad(made(shutdown=0.1).penalty)(jnp.zeros(3))
    assert float(value) == 0 and not np.any(slope)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_equal_central_differences(variant):
    """Of a loss of all copies with the regulariser, in float64."""
    learned, classes = made(VARIANTS[variant]), 3
    generator = np.random.default_rng(3)
    with jax.enable_x64(True):
        shown, label = images(2), jnp.array([2, 0])
        start = learned.initial(classes)
        raw = jnp.asarray(0.3 + 0.5 * generator.standard_normal(start.shape))
        uniform = jnp.asarray(generator.random((2, learned.train_copies, len(learned.generators))))
        head = jnp.asarray(generator.standard_normal((SIZE * SIZE * CHANNELS, classes)))

        @jax.jit
        def loss(raw):
            copies = learned(raw, shown, uniform, label)
            logits = copies.reshape(len(copies), -1) @ head
            average = mean_log_probability(logits, learned.train_copies)
            return -average[jnp.arange(2), label].mean() + learned.penalty(raw)

        slope = jax.jit(jax.grad(loss))(raw)
        step = 1e-6
        for place in np.ndindex(raw.shape):
            ends = (loss(raw.at[place].add(sign * step)) for sign in (1, -1))
            difference = (next(ends) - next(ends)) / (2 * step)
            np.testing.assert_allclose(slope[place], difference, rtol=1e-5, atol=1e-8)
        if learned.per_class and variant == "joint per class":
            assert np.abs(slope[1]).max() < np.abs(slope[0]).max()  # the penalty alone
        if variant == "floors":  # the second width is below its floor: the penalty alone
            alone = jax.grad(learned.penalty)(raw)
            np.testing.assert_allclose(slope[1], alone[1], rtol=1e-12)


def test_a_gradient_by_hand():
    """One translation on a ramp: the image's slope, times half a side, times the draw."""
    learned = made(generators=("translate_x",), regularization=0.0)
    ramp = jnp.broadcast_to(jnp.arange(5.0)[None, :, None], (5, 5, 1))
    raw, u = 0.2, 0.7

    def middle(raw):
        return learned(raw, ramp[None], jnp.float32([[[u]]]), jnp.zeros(1, int))[0, 2, 2, 0]

    value, slope = jax.jit(jax.value_and_grad(middle))(jnp.float32([raw]))
    width = np.log1p(np.exp(raw))
    assert float(value) == pytest.approx(2 + 2 * (u - 0.5) * width, rel=1e-6)
    assert float(slope[0]) == pytest.approx(2 * (u - 0.5) / (1 + np.exp(-raw)), rel=1e-5)


def test_copies_of_an_image_follow_each_other_and_have_the_widths_of_its_class():
    learned = made(generators=("translate_x", "rotate"), per_class=True)
    generator = np.random.default_rng(0)
    raw = jnp.float32(generator.standard_normal((3, 2)))
    shown, label = jnp.float32(images(2)), jnp.array([2, 0])
    uniform = jnp.float32(generator.random((2, 3, 2)))
    found = jax.jit(learned.__call__)(raw, shown, uniform, label)
    warp = jax.jit(learned.warp)
    for i in range(2):
        for copy in range(3):
            weights = learned.weights(raw[label[i]], uniform[i, copy])
            expected = warp(shown[i], weights)
            np.testing.assert_allclose(found[3 * i + copy], expected, atol=1e-6)


def test_log_probabilities_are_averaged():
    logits = jnp.float32([[0, 1], [2, 0], [1, 1], [3, 0]])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.log(shares).reshape(2, 2, 2).mean(1)
    np.testing.assert_allclose(mean_log_probability(logits, 2), expected, rtol=1e-6)


def test_draws_belong_to_the_key_alone():
    learned = made()
    keys = jax.random.split(jax.random.key(0), 4)
    draw = jax.jit(learned.draw, static_argnums=1)
    whole, part = draw(keys, 5), draw(keys[2:], 5)
    np.testing.assert_array_equal(whole[2:], part)
    assert whole.shape == (4, 5, 3) and len(np.unique(whole)) == whole.size
    assert abs(float(whole.mean()) - 0.5) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("generators=('rotat',)", r"unknown generator 'rotat'; did you mean 'rotate'"),
        ("generators=()", r"generators is \(\); expected at least one"),
        ("generators=('scale', 'scale')", r"each once"),
        ("start=(0.1, 0.2)", r"start is \(0\.1, 0\.2\); expected one number, or 3"),
        ("floors=(1, 1, -1)", r"floors is -1; expected"),
        ("generators=('rotate',), sequential=True", r"sequential is True with generators"),
        ("fixed=1", r"fixed is 1; expected True or False"),
        ("copies=0", r"copies is 0; expected a whole number, 1 to 1000"),
        ("reg=1", r"has no option 'reg'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=rf"config\.augment\.learned: .*{message}"):
        augment.parse_learned(f"augerino({options})", "config.augment.learned")


def test_no_text_is_no_augmentation():
    assert augment.parse_learned("") is None
