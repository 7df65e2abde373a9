"""Boxes as torchvision, the original and TensorFlow draw them."""

import numpy as np
import pytest
import scipy.stats

from invariance_jax import augment

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
    boxes = []
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
        boxes.append(box)
    return np.array(boxes, float)


@pytest.mark.parametrize("size_index", range(3))
@pytest.mark.parametrize("golden_name", GOLDEN)
def test_draws_the_originals_boxes(golden_dir, sample_boxes, golden_name, size_index):
    golden = np.load(golden_dir / "crop_boxes.npz")
    height, width = golden["image_sizes_hw"][size_index].tolist()
    expected = golden[golden_name][size_index].astype(np.float64)
    name, overrides = GOLDEN[golden_name]
    ours = sample_boxes(augment.get(name, **overrides), height, width, 8000).astype(float)
    assert_same_distribution(ours, expected)


def test_every_golden_sampler_is_tested(golden_dir):
    assert set(np.load(golden_dir / "crop_boxes.npz")) == {*GOLDEN, "image_sizes_hw"}


def test_centred_crops_lie_where_the_original_puts_them(golden_dir, sample_boxes):
    golden = np.load(golden_dir / "crop_boxes.npz")
    place = {}
    for top, left, height, width in golden["random_size_center_crop"][0].tolist():
        place["height", height], place["width", width] = top, left
    ours = sample_boxes(augment.get("random_size_center_crop"), 500, 375, 8000).astype(int)
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
    assert_same_distribution(sample_boxes(tf, height, width, 8000).astype(float), expected)


def test_tf_boxes_are_smaller_than_torchvisions(sample_boxes):
    mean = {}
    for sampler in ("tf", "torchvision"):
        crop = augment.get("random_resized_crop", sampler=sampler, ratio=(1.0, 1.0))
        boxes = sample_boxes(crop, 256, 256, 8000)
        mean[sampler] = (boxes[:, 2] * boxes[:, 3]).mean() / 256**2
    # The mean of a density proportional to 1 / sqrt(a) on (.08, 1), and of the uniform one.
    assert mean["tf"] == pytest.approx((1 + 0.08**0.5 + 0.08) / 3, abs=0.01)
    assert mean["torchvision"] == pytest.approx(0.54, abs=0.01)


def test_tf_falls_back_to_the_whole_image(sample_boxes):
    crop = augment.get("random_resized_crop", sampler="tf", scale=(0.9, 1.0))
    np.testing.assert_array_equal(sample_boxes(crop, 10, 1000, 5), [(0, 0, 10, 1000)] * 5)


@pytest.mark.parametrize("name", ["random_resized_crop", "exponential_crop", "beta_crop"])
def test_random_crops_are_whole_pixels_inside_the_image(sample_boxes, name):
    boxes = sample_boxes(augment.get(name), 37, 23, 8000)
    np.testing.assert_array_equal(boxes, np.round(boxes))
    top, left, height, width = boxes.T
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
    np.testing.assert_array_equal(sample_boxes(crop, height, width, 5), [box] * 5)


def test_translate_reaches_its_fraction_of_each_side(sample_boxes):
    boxes = sample_boxes(augment.get("translate", size=64, resize=64, t=0.25), 64, 128, 8000)
    # Resized to 64 x 128: up to 16 pixels vertically and 32 horizontally, about the centre.
    assert set(np.unique(boxes[:, 0])) == set(range(-16, 17))
    assert boxes[:, 1].min() == 32 - 32 and boxes[:, 1].max() == 32 + 32


def test_translate_scale_reaches_its_fraction_of_each_side(sample_boxes):
    # The crop is the whole 64 x 128 image less its long side; what moves is the image.
    crop = augment.get("translate_scale_square", size=64, t=0.25, scale=(0.5, 0.5))
    boxes = sample_boxes(crop, 64, 128, 8000)
    assert set(boxes[:, 2]) == set(boxes[:, 3]) == {64}
    assert set(np.unique(boxes[:, 0])) == set(range(-16, 17))
    assert boxes[:, 1].min() == 32 - 32 and boxes[:, 1].max() == 32 + 32


@pytest.mark.parametrize("name", ["translate_after_crop", "crop_translate_scale_square"])
def test_translation_of_the_centre_crop_is_a_fraction_of_the_crop(sample_boxes, name):
    overrides = {} if name == "translate_after_crop" else {"scale": (1.0, 1.0)}
    crop = augment.get(name, size=64, resize=64, t=0.25, **overrides)
    boxes = sample_boxes(crop, 64, 128, 8000)
    np.testing.assert_array_equal(np.unique(boxes[:, 0]), np.arange(-16, 17))
    np.testing.assert_array_equal(np.unique(boxes[:, 1]), np.arange(32 - 16, 32 + 17))


def test_random_crop_is_uniform_over_the_resized_image(sample_boxes):
    # 20 x 40 resized to 10 x 20; a crop of 6 pixels starts at 0 to 4 and 0 to 14.
    boxes = sample_boxes(augment.get("random_crop", size=8, resize=10, cropsize=6), 20, 40, 8000)
    np.testing.assert_array_equal(boxes[:, 2:], np.full((8000, 2), 12.0))
    for column, count in ((0, 5), (1, 15)):
        places, counts = np.unique(boxes[:, column], return_counts=True)
        np.testing.assert_array_equal(places, 2.0 * np.arange(count))
        assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("k", [0, 7, 14])
def test_scaled_center_crop_has_areas_from_one_over_m_squared(sample_boxes, k):
    m = np.linspace(1, 6, 15)[k]
    boxes = sample_boxes(augment.get("scaled_center_crop", resize=256, k=k), 256, 256, 8000)
    top, left, height, width = boxes.T
    np.testing.assert_allclose(height, width)
    np.testing.assert_array_equal(top, 16 + (224 - height) // 2)
    np.testing.assert_array_equal(left, top)
    if k == 0:
        assert set(height) == {224}
    else:
        uniform = scipy.stats.uniform(m**-2, 1 - m**-2)
        assert scipy.stats.kstest((height / 224) ** 2, uniform.cdf).statistic < 0.03
        assert height.min() == pytest.approx(224 / m, rel=0.1)
