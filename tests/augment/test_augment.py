"""Augmentation variants: boxes as torchvision draws them, pixels as Pillow computes them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from invariance_jax import augment
from invariance_jax.augment.boxes import Box, ResizedCenterCrop
from invariance_jax.errors import UserError

KEY = jax.random.key(0)


def canvas_of(pixels, side):
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return jnp.asarray(canvas), jnp.int32(pixels.shape[0]), jnp.int32(pixels.shape[1])


def sample_boxes(augmentation, height, width, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    sample = jax.jit(jax.vmap(augmentation.sample_box, (0, None, None)))
    return np.stack(sample(keys, jnp.int32(height), jnp.int32(width)), axis=1)


@dataclasses.dataclass(frozen=True)
class FixedBox:
    box: tuple
    cut: str = "box"

    def __call__(self, key, height, width):
        return Box(*map(jnp.float32, self.box))


def test_crops_equal_pillow(golden_dir):
    golden = np.load(golden_dir / "crops.npz")
    canvas = canvas_of(golden["full_u8"], 512)
    rows, columns = golden["points_yx"].T
    for box, expected in zip(golden["crop_boxes_tlhw"], golden["crops"], strict=True):
        crop = dataclasses.replace(
            augment.get("random_resized_crop"), boxes=FixedBox(tuple(box.tolist()))
        )
        error = np.abs(np.asarray(crop(KEY, *canvas))[rows, columns] * 255 - expected)
        assert error.mean() <= 0.5 and error.max() <= 1.5


@pytest.mark.parametrize(("height", "width"), [(500, 300), (100, 130), (224, 224)])
def test_none_equals_resize_then_center_crop_by_pillow(golden_dir, height, width):
    pixels = np.load(golden_dir / "crops.npz")["full_u8"]
    pixels = np.asarray(Image.fromarray(pixels).resize((width, height)))
    short = min(height, width)
    size = (int(256 * width / short), int(256 * height / short))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2) for side in size)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)
    out = np.asarray(augment.get("none")(KEY, *canvas_of(pixels, 512))) * 255
    assert np.abs(out - expected).mean() <= 0.5 and np.abs(out - expected).max() <= 1.5


@pytest.mark.parametrize("size_index", range(3))
def test_random_resized_crop_draws_torchvisions_boxes(golden_dir, size_index):
    golden = np.load(golden_dir / "crop_boxes.npz")
    height, width = golden["image_sizes_hw"][size_index].tolist()
    expected = golden["random_resized_crop"][size_index].astype(np.float64)
    ours = sample_boxes(augment.get("random_resized_crop"), height, width, 20_000).astype(float)
    for name, statistic in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "log aspect": lambda b: np.log(b[:, 3] / b[:, 2]),
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
    }.items():
        p_value = scipy.stats.ks_2samp(statistic(ours), statistic(expected)).pvalue
        assert p_value > 1e-4, (name, p_value)


def test_random_resized_crop_boxes_are_whole_pixels_inside_the_image():
    boxes = sample_boxes(augment.get("random_resized_crop"), 37, 23, 2000)
    np.testing.assert_array_equal(boxes, np.round(boxes))
    top, left, height, width = boxes.T
    assert (height >= 1).all() and (width >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 37).all() and (left + width <= 23).all()
    assert (left + width == 23).any() and (top + height == 37).any()  # the far edge is reached


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(1000, 10, (493, 0, 13, 10)), (10, 1000, (0, 493, 10, 13)), (1, 1000, (0, 499, 1, 1))],
)
def test_random_resized_crop_falls_back_as_torchvision(height, width, box):
    # With the whole area asked for, no aspect in range fits: always the centred fallback.
    crop = augment.get("random_resized_crop", scale=(1.0, 1.0))
    np.testing.assert_array_equal(sample_boxes(crop, height, width, 5), [box] * 5)


def test_a_one_pixel_high_image_is_augmented():
    pixels = np.full((1, 1000, 3), 200, np.uint8)
    for name in augment.NAMES:
        out = augment.get(name, size=8)(KEY, *canvas_of(pixels, 1000))
        assert np.isfinite(out).all(), name
        if name != "translate":
            np.testing.assert_allclose(out, 200 / 255, atol=1e-5, err_msg=name)


def test_translate_moves_whole_resized_pixels_with_black_behind():
    pixels = np.random.default_rng(0).integers(1, 256, (16, 16, 3), np.uint8)
    translate = augment.get("translate", size=16, resize=16, t=0.5)
    shifts = set()
    for seed in range(40):
        key = jax.random.key(seed)
        out = np.asarray(translate(key, *canvas_of(pixels, 16))) * 255
        box = translate.sample_box(jax.random.split(key)[0], jnp.int32(16), jnp.int32(16))
        down, right = -int(box.top), -int(box.left)
        expected = np.zeros((16, 16, 3))
        moved = pixels[max(0, -down) : 16 - max(0, down), max(0, -right) : 16 - max(0, right)]
        expected[max(0, down) :, max(0, right) :][: moved.shape[0], : moved.shape[1]] = moved
        np.testing.assert_allclose(out, expected, atol=1e-3)
        shifts |= {down, right}
    assert min(shifts) < -4 and max(shifts) > 4 and max(map(abs, shifts)) <= 8


def test_translate_of_a_shrunk_image_equals_pillow(golden_dir):
    pixels = np.load(golden_dir / "crops.npz")["full_u8"]
    translate = augment.get("translate", size=100, resize=100)
    resized = np.asarray(Image.fromarray(pixels).resize((100, 166), Image.Resampling.BILINEAR))
    for seed in range(5):
        key = jax.random.key(seed)
        box = translate.sample_box(jax.random.split(key)[0], jnp.int32(500), jnp.int32(300))
        down, right = round(33 - float(box.top) * 166 / 500), round(-float(box.left) * 100 / 300)
        black = np.zeros((166 + 400, 100 + 400, 3), np.float32)
        black[200 + down :, 200 + right :][:166, :100] = resized
        expected = black[200 + 33 : 300 + 33, 200:300]
        error = np.abs(np.asarray(translate(key, *canvas_of(pixels, 512))) * 255 - expected)
        assert error.mean() <= 0.5 and error.max() <= 1.5, (seed, down, right)


def test_translate_reaches_its_fraction_of_each_side():
    boxes = sample_boxes(augment.get("translate", size=64, resize=64, t=0.25), 64, 128, 4000)
    # Resized to 64 x 128: up to 16 pixels vertically and 32 horizontally, about the centre.
    assert set(np.unique(boxes[:, 0])) == set(range(-16, 17))
    assert boxes[:, 1].min() == 32 - 32 and boxes[:, 1].max() == 32 + 32


@pytest.mark.parametrize("name", ["flip", "random_resized_crop_flip"])
def test_flip_mirrors_half_of_the_images(name):
    # A left-to-right ramp cropped anyhow still rises, unless it was mirrored.
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (32, 32, 3))
    augmentation = augment.get(name, size=8)
    keys = jax.random.split(KEY, 400)
    out = jax.vmap(augmentation, (0, None, None, None))(keys, *canvas_of(ramp, 32))
    mirrored = np.asarray(out[:, 4, 0, 0] > out[:, 4, -1, 0])
    assert 0.4 < mirrored.mean() < 0.6


def test_none_and_translate_have_one_structure():
    # So that variants can be stacked and mapped over: numbers are leaves.
    still = ResizedCenterCrop(size=8, resize=8, t=0.0)
    moving = ResizedCenterCrop(size=8, resize=8, t=0.5)
    assert jax.tree.structure(still) == jax.tree.structure(moving)
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(leaves), still, moving)
    boxes = jax.vmap(lambda boxes: boxes(KEY, jnp.int32(8), jnp.int32(8)))(stacked)
    expected = np.stack([np.stack(b(KEY, jnp.int32(8), jnp.int32(8))) for b in (still, moving)])
    np.testing.assert_array_equal(np.stack(boxes, axis=1), expected)


def test_jit_equals_eager_and_vmap_equals_loop(golden_dir):
    canvas, height, width = canvas_of(np.load(golden_dir / "crops.npz")["full_u8"], 512)
    keys = jax.random.split(KEY, 3)
    for name in augment.NAMES:
        augmentation = augment.get(name, size=32)
        looped = [augmentation(key, canvas, height, width) for key in keys]
        mapped = jax.jit(jax.vmap(augmentation, (0, None, None, None)))(keys, canvas, height, width)
        np.testing.assert_allclose(mapped, np.stack(looped), atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("transalte", {}, "unknown augmentation 'transalte'; did you mean 'translate'"),
        ("translate", {"t": 1.5}, "t is 1.5; expected a fraction"),
        ("none", {"t": 0.1}, "augmentation 'none' has no option 't'"),
        ("none", {"size": 0}, "size is 0; expected a positive"),
        ("none", {"size": 32, "resize": 31}, "resize is 31; expected at least size"),
        ("random_resized_crop", {"scale": (0.5, 1.5)}, "scale is"),
        ("random_resized_crop", {"scale": 0.5}, "scale is 0.5; expected two numbers"),
        ("random_resized_crop", {"ratio": (2.0, 1.0)}, "ratio is"),
    ],
)
def test_wrong_options_are_refused(name, overrides, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        augment.get(name, **overrides)
