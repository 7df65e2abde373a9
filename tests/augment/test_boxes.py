"""Boxes as torchvision, the original and TensorFlow draw them, and what distributions are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from invariance_jax import augment
from invariance_jax.augment import boxes

STATISTICS = {
    "area": lambda b: b[:, 2] * b[:, 3],
    "log aspect": lambda b: np.log(b[:, 3] / b[:, 2]),
    "top": lambda b: b[:, 0],
    "left": lambda b: b[:, 1],
}

GOLDEN = {
    "random_resized_crop": ("random_resized_crop", {}),
    "random_size_center_crop": ("random_size_center_crop", {}),
    "random_size_center_crop_square": ("translate_scale_square", {"t": 0.0}),
    "uniform_inverse_scale_center_crop": ("translate_inverse_scale", {"t": 0.0}),
    "exponential_crop_rate_0.5": ("exponential_crop", {"rate": 0.5}),
    "exponential_crop_rate_2": ("exponential_crop", {"rate": 2.0}),
    "beta_crop_1_0.3": ("beta_crop", {"b": 0.3}),
    "beta_crop_1_2": ("beta_crop", {"b": 2.0}),
}


def assert_same_distribution(ours, expected):
    for name, statistic in STATISTICS.items():
        p_value = scipy.stats.ks_2samp(statistic(ours), statistic(expected)).pvalue
        assert p_value > 1e-4, (name, p_value, statistic(ours).mean(), statistic(expected).mean())


def plain_tf_boxes(height, width, scale, ratio, count):
    """sample_distorted_bounding_box without objects, one crop after the other."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        box = (0, 0, height, width)
        for _ in range(10):
            aspect = rng.uniform(*ratio)
            smallest, largest = (bound * height * width for bound in scale)
            low, high = (round((area / aspect) ** 0.5) for area in (smallest, largest))
            while high > height or round(high * aspect) > width:
                high -= 1
            h = rng.integers(min(low, high), high + 1)
            h += h * round(h * aspect) < smallest
            h -= h * round(h * aspect) > largest
            w = round(h * aspect)
            if smallest <= h * w <= largest and 0 < w <= width and 0 < h <= height:
                top = rng.integers(height - h) if h < height else 0
                left = rng.integers(width - w) if w < width else 0
                box = (top, left, h, w)
                break
        found.append(box)
    return np.array(found, float)


@pytest.mark.parametrize("size_index", range(3))
@pytest.mark.parametrize("golden_name", GOLDEN)
def test_draws_the_originals_boxes(golden_dir, sample_boxes, golden_name, size_index):
    golden = np.load(golden_dir / "crop_boxes.npz")
    height, width = golden["image_sizes_hw"][size_index].tolist()
    expected = golden[golden_name][size_index].astype(np.float64)
    name, overrides = GOLDEN[golden_name]
    ours = sample_boxes(augment.get(name, **overrides), height, width).astype(float)
    assert_same_distribution(ours, expected)


def test_every_golden_sampler_is_tested(golden_dir):
    assert set(np.load(golden_dir / "crop_boxes.npz")) == {*GOLDEN, "image_sizes_hw"}


def test_centred_crops_lie_where_the_original_puts_them(golden_dir, sample_boxes):
    golden = np.load(golden_dir / "crop_boxes.npz")
    place = {}
    for top, left, height, width in golden["random_size_center_crop"][0].tolist():
        place["height", height], place["width", width] = top, left
    ours = sample_boxes(augment.get("random_size_center_crop"), 500, 375).astype(int)
    seen = 0
    for top, left, height, width in ours.tolist():
        for key, start in ((("height", height), top), (("width", width), left)):
            seen += key in place
            assert place.get(key, start) == start
    assert seen > 8000


@pytest.mark.parametrize(("height", "width"), [(500, 375), (64, 64), (30, 90)])
def test_tf_draws_tensorflows_boxes(sample_boxes, height, width):
    tf = augment.get("random_resized_crop", sampler="tf")
    expected = plain_tf_boxes(height, width, (0.08, 1.0), (3 / 4, 4 / 3), 3000)
    assert_same_distribution(sample_boxes(tf, height, width).astype(float), expected)


def test_tf_boxes_are_smaller_than_torchvisions(sample_boxes):
    mean = {}
    for sampler in ("tf", "torchvision"):
        crop = augment.get("random_resized_crop", sampler=sampler, ratio=(1.0, 1.0))
        found = sample_boxes(crop, 256, 256)
        mean[sampler] = (found[:, 2] * found[:, 3]).mean() / 256**2
    # The mean of a density proportional to 1 / sqrt(a) on (.08, 1), and of the uniform one.
    assert mean["tf"] == pytest.approx((1 + 0.08**0.5 + 0.08) / 3, abs=0.01)
    assert mean["torchvision"] == pytest.approx(0.54, abs=0.01)


def test_tf_falls_back_to_the_whole_image(sample_boxes):
    crop = augment.get("random_resized_crop", sampler="tf", scale=(0.9, 1.0))
    np.testing.assert_array_equal(sample_boxes(crop, 10, 1000), [(0, 0, 10, 1000)] * 8000)


@pytest.mark.parametrize("name", ["random_resized_crop", "exponential_crop", "beta_crop"])
def test_random_crops_are_whole_pixels_inside_the_image(sample_boxes, name):
    found = sample_boxes(augment.get(name), 37, 23)
    np.testing.assert_array_equal(found, np.round(found))
    top, left, height, width = found.T
    assert (height >= 1).all() and (width >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 37).all() and (left + width <= 23).all()
    assert (left + width == 23).any() and (top + height == 37).any()  # the far edge is reached


@pytest.mark.parametrize("name", ["random_resized_crop", "random_size_center_crop"])
@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(1000, 10, (493, 0, 13, 10)), (10, 1000, (0, 493, 10, 13)), (1, 1000, (0, 499, 1, 1))],
)
def test_falls_back_as_torchvision(sample_boxes, name, height, width, box):
    # With the whole area asked for, no aspect in range fits: always the centred fallback.
    crop = augment.get(name, scale=(1.0, 1.0))
    np.testing.assert_array_equal(sample_boxes(crop, height, width), [box] * 8000)


def test_translate_reaches_its_fraction_of_each_side(sample_boxes):
    found = sample_boxes(augment.get("translate", size=48, resize=48, t=0.25), 48, 96)
    # As it is up to 12 pixels vertically and 24 horizontally, about the centre.
    assert set(np.unique(found[:, 0])) == set(range(-12, 13))
    assert found[:, 1].min() == 24 - 24 and found[:, 1].max() == 24 + 24


def test_translate_scale_reaches_its_fraction_of_each_side(sample_boxes):
    # The crop is the whole 64 x 128 image less its long side; what moves is the image.
    crop = augment.get("translate_scale_square", t=0.25, scale=(0.5, 0.5))
    found = sample_boxes(crop, 64, 128)
    assert set(found[:, 2]) == set(found[:, 3]) == {64}
    assert set(np.unique(found[:, 0])) == set(range(-16, 17))
    assert found[:, 1].min() == 32 - 32 and found[:, 1].max() == 32 + 32


@pytest.mark.parametrize("name", ["translate_after_crop", "crop_translate_scale_square"])
def test_translation_of_the_centre_crop_is_a_fraction_of_the_crop(sample_boxes, name):
    overrides = {} if name == "translate_after_crop" else {"scale": (1.0, 1.0)}
    crop = augment.get(name, size=48, resize=55, t=0.25, **overrides)
    found = sample_boxes(crop, 55, 110)
    # The centre crop starts at 3.5, rounded to even, and at 31.
    np.testing.assert_allclose(np.unique(found[:, 0]), np.arange(4 - 12, 4 + 13), atol=1e-5)
    np.testing.assert_allclose(np.unique(found[:, 1]), np.arange(31 - 12, 31 + 13), atol=1e-5)


def test_random_crop_is_uniform_over_the_resized_image(sample_boxes):
    # 110 x 220 resized to 55 x 110; a crop of 30 pixels starts at 0 to 25 and 0 to 80.
    found = sample_boxes(augment.get("random_crop", size=48, resize=55, cropsize=30), 110, 220)
    np.testing.assert_array_equal(found[:, 2:], np.full((8000, 2), 60.0))
    for column, count in ((0, 26), (1, 81)):
        places, counts = np.unique(found[:, column], return_counts=True)
        np.testing.assert_array_equal(places, 2.0 * np.arange(count))
        assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("k", [0, 7, 14])
def test_scaled_center_crop_has_areas_from_one_over_m_squared(sample_boxes, k):
    m = np.linspace(1, 6, 15)[k]
    found = sample_boxes(augment.get("scaled_center_crop", size=48, resize=55, k=k), 55, 55)
    top, left, height, width = found.T
    np.testing.assert_allclose(height, width)
    np.testing.assert_array_equal(top, 4 + (48 - height) // 2)
    np.testing.assert_array_equal(left, top)
    # A side is sqrt(area) of 48 pixels, rounded; the area uniform.
    sides = np.arange(1, 49)
    at_most = (np.clip(((sides + 0.5) / 48) ** 2, m**-2, 1) - m**-2) / max(1 - m**-2, 1e-9)
    if k == 0:
        assert set(height) == {48}
    else:
        share = (height[:, None] <= sides).mean(0)
        np.testing.assert_allclose(share, at_most, atol=0.02)


def test_a_crop_of_a_narrow_image_has_a_pixel_at_least(sample_boxes):
    """A third of its width rounds to nothing."""
    crop = augment.get("random_resized_crop", ratio=(3.0, 4.0))
    assert (sample_boxes(crop, 40, 1)[:, 2:] == 1).all()
    crop = augment.get("random_resized_crop", ratio=(0.25, 0.3))
    assert (sample_boxes(crop, 1, 40)[:, 2:] == 1).all()


def test_a_mask_holds_the_pixels_whose_centre_lies_in_the_box():
    box = boxes.box_of(1, 1.6, 1.4, 2)
    np.testing.assert_array_equal(box.mask(3, 4), [[0] * 4, [0, 0, 1, 1], [0] * 4])


STACKS = {
    "translate": ("t", (0.0, 0.1, 0.5)),
    "translate_after_crop": ("t", (0.0, 0.5)),
    "translate_scale": ("t", (0.0, 0.5)),
    "crop_translate_scale_square": ("scale", ((0.1, 0.2), (0.5, 1.0))),
    "translate_inverse_scale": ("side", ((0.1, 0.2), (0.5, 1.0))),
    "exponential_crop": ("rate", (0.1, 5.0)),
    "beta_crop": ("b", (0.3, 3.0)),
    "random_resized_crop": ("scale", ((0.08, 0.2), (0.9, 1.0))),
    "scaled_center_crop": ("k", (0, 7, 14)),
}


@pytest.mark.parametrize("name", STACKS)
def test_variants_of_one_structure_can_be_stacked_and_mapped_over(draw, name):
    option, values = STACKS[name]
    samplers = [augment.get(name, size=48, **{option: value}).boxes for value in values]
    stacked = jax.tree.map(lambda *leaves: np.asarray(leaves), *samplers)
    key = jax.random.key(0)
    _, found = draw(stacked, jnp.stack([key] * len(values)), 60, 40)
    expected = [draw(sampler, key[None], 60, 40)[1][0] for sampler in samplers]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    assert not np.allclose(expected[0], expected[-1])


def test_none_and_translate_have_one_structure():
    still = augment.get("none", size=8, resize=8).boxes
    moving = augment.get("translate", size=8, resize=8, t=0.5).boxes
    assert jax.tree.structure(still) == jax.tree.structure(moving)


def test_structures_know_their_class():
    # jit keeps one program for each structure: equal ones would share the first one's.
    pairs = [
        (boxes.UniformArea(scale=(0.5, 1.0)), boxes.InverseScaleArea(side=(0.5, 1.0))),
        (boxes.ExponentialArea(rate=1.0), boxes.BetaArea(b=1.0)),
    ]
    for one, other in pairs:
        assert jax.tree.leaves(one) == jax.tree.leaves(other)
        assert jax.tree.structure(one) != jax.tree.structure(other)
        assert jax.tree.map(lambda leaf: leaf, one) == one
