"""Pixels against the paper's pipelines, step by step in Pillow on whole grey levels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax import augment
from invariance_jax.augment.boxes import Box, crop_then_resize

BILINEAR = Image.Resampling.BILINEAR
KEY = jax.random.key(0)
SIZE, RESIZE = 48, 55


@dataclasses.dataclass(frozen=True)
class FixedBox:
    box: tuple
    frames = ()

    def __call__(self, key, height, width):
        return (crop_then_resize(Box(*map(jnp.float32, self.box))),)


def resized(image, resize):
    width, height = image.size
    short = min(width, height)
    return image.resize((int(resize * width / short), int(resize * height / short)), BILINEAR)


def cropped(image, top, left, height, width):
    return image.crop((left, top, left + width, top + height))


def center_cropped(image, size):
    width, height = image.size
    return cropped(image, round((height - size) / 2), round((width - size) / 2), size, size)


def translated(image, down, right):
    return image.transform(
        image.size, Image.Transform.AFFINE, (1, 0, -right, 0, 1, -down), Image.Resampling.NEAREST
    )


def centered_box(image, height, width):
    return cropped(
        image, (image.size[1] - height) // 2, (image.size[0] - width) // 2, height, width
    )


# Each pipeline of section 2 of the paper, given the box that the variant drew: top, left, height
# and width in pixels of the source (`pixel` 1) or of the resized image, whole numbers.


def paper_center_crop(image, box):
    return center_cropped(resized(image, RESIZE), SIZE)


def paper_crop(image, box):
    return cropped(image, *box).resize((SIZE, SIZE), BILINEAR)


def paper_translate_scale(image, box):
    top, left, height, width = box
    down, right = (image.size[1] - height) // 2 - top, (image.size[0] - width) // 2 - left
    moved = translated(image, down, right)
    return centered_box(moved, height, width).resize((SIZE, SIZE), BILINEAR)


def paper_random_crop(image, box):
    return cropped(resized(image, RESIZE), *box).resize((SIZE, SIZE), BILINEAR)


def paper_translate(image, box):
    image = resized(image, RESIZE)
    down, right = (round((image.size[1 - i] - SIZE) / 2) - box[i] for i in (0, 1))
    return center_cropped(translated(image, down, right), SIZE)


def paper_crop_translate_scale(image, box):
    top, left, side, _ = box
    image = resized(image, RESIZE)
    start_y, start_x = (round((image.size[1 - i] - SIZE) / 2) for i in (0, 1))
    inner = (SIZE - side) // 2
    down, right = start_y + inner - top, start_x + inner - left
    moved = translated(center_cropped(image, SIZE), down, right)
    return centered_box(moved, side, side).resize((SIZE, SIZE), BILINEAR)


CASES = {
    "none": (paper_center_crop, "resized", {}),
    "random_crop": (paper_random_crop, "resized", {}),
    "random_crop, smaller": (paper_random_crop, "resized", {"cropsize": 30}),
    "random_crop, larger": (paper_random_crop, "resized", {"cropsize": 53}),
    "translate": (paper_translate, "resized", {}),
    "translate_after_crop": (paper_crop_translate_scale, "resized", {}),
    "crop_translate_scale_square": (paper_crop_translate_scale, "resized", {}),
    "crop_translate_inverse_scale": (paper_crop_translate_scale, "resized", {}),
    "scaled_center_crop": (paper_crop_translate_scale, "resized", {}),
    "random_resized_crop": (paper_crop, "source", {}),
    "exponential_crop": (paper_crop, "source", {}),
    "beta_crop": (paper_crop, "source", {}),
    "random_size_center_crop": (paper_crop, "source", {}),
    "translate_scale": (paper_translate_scale, "source", {}),
    "translate_scale_square": (paper_translate_scale, "source", {}),
    "translate_inverse_scale": (paper_translate_scale, "source", {}),
}


def test_every_variant_has_its_pipeline():
    mirrored = {"flip", "random_resized_crop_flip"}
    assert {case.split(",")[0] for case in CASES} | mirrored == set(augment.NAMES)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_papers_pipeline_in_pillow(golden_dir, canvas_of, case):
    paper, unit, overrides = CASES[case]
    variant = augment.get(case.split(",")[0], size=SIZE, resize=RESIZE, **overrides)
    apply, sample_box = jax.jit(variant), jax.jit(variant.sample_box)
    photo = Image.fromarray(np.load(golden_dir / "crops.npz")["full_u8"])
    blackened = 0
    for height, width in ((150, 110), (40, 57)):
        image = photo.resize((width, height), BILINEAR)
        canvas = canvas_of(np.asarray(image), 160)
        for seed in range(4):
            key = jax.random.key(seed)
            out = np.asarray(apply(key, *canvas)) * 255
            box = sample_box(jax.random.split(key)[0], *canvas[1:])
            pixel = (1.0, 1.0)
            if unit == "resized":
                pixel = tuple(
                    side / (RESIZE * side // min(height, width)) for side in (height, width)
                )
            whole = np.asarray(box) / np.array(pixel * 2)
            np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
            expected = np.asarray(paper(image, np.round(whole).astype(int).tolist()), float)
            error = np.abs(out - expected)
            assert error.mean() <= 0.6, (seed, error.mean())
            assert np.quantile(error, 0.99) <= 1.5 and error.max() <= 2.5, (seed, error.max())
            blackened += (expected.max(-1) == 0).all(0).any()
    assert blackened or "translate" not in case  # zeros did move into view


def test_crops_equal_pillow_at_full_size(golden_dir, canvas_of):
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
def test_none_equals_resize_then_center_crop_at_full_size(golden_dir, canvas_of, height, width):
    photo = Image.fromarray(np.load(golden_dir / "crops.npz")["full_u8"]).resize((width, height))
    expected = np.asarray(center_cropped(resized(photo, 256), 224), float)
    out = np.asarray(augment.get("none")(KEY, *canvas_of(np.asarray(photo), 512))) * 255
    assert np.abs(out - expected).mean() <= 0.5 and np.abs(out - expected).max() <= 1.5


def test_translate_moves_whole_resized_pixels_with_black_behind(canvas_of):
    pixels = np.random.default_rng(0).integers(1, 256, (16, 16, 3), np.uint8)
    translate = augment.get("translate", size=16, resize=16, t=0.5)
    apply, canvas = jax.jit(translate), canvas_of(pixels, 16)
    shifts = set()
    for seed in range(40):
        key = jax.random.key(seed)
        out = np.asarray(apply(key, *canvas)) * 255
        box = translate.sample_box(jax.random.split(key)[0], jnp.int32(16), jnp.int32(16))
        down, right = -int(box.top), -int(box.left)
        expected = np.zeros((16, 16, 3))
        moved = pixels[max(0, -down) : 16 - max(0, down), max(0, -right) : 16 - max(0, right)]
        expected[max(0, down) :, max(0, right) :][: moved.shape[0], : moved.shape[1]] = moved
        np.testing.assert_allclose(out, expected, atol=1e-3)
        shifts |= {down, right}
    assert min(shifts) < -4 and max(shifts) > 4 and max(map(abs, shifts)) <= 8


@pytest.mark.parametrize("name", ["flip", "random_resized_crop_flip"])
def test_flip_mirrors_half_of_the_images(canvas_of, name):
    # A left-to-right ramp cropped anyhow still rises, unless it was mirrored.
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (32, 32, 3))
    augmentation = augment.get(name, size=8)
    keys = jax.random.split(KEY, 400)
    out = jax.vmap(augmentation, (0, None, None, None))(keys, *canvas_of(ramp, 32))
    mirrored = np.asarray(out[:, 4, 0, 0] > out[:, 4, -1, 0])
    assert 0.4 < mirrored.mean() < 0.6
