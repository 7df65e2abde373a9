"""Every variant: its pixels against the paper's pipelines, step by step in Pillow; its options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax import augment
from invariance_jax.augment.boxes import box_of, crop_then_resize
from invariance_jax.errors import UserError

BILINEAR = Image.Resampling.BILINEAR
KEY = jax.random.key(0)
SIZE, RESIZE, CANVAS = 48, 55, 160


@pytest.fixture(scope="module")
def photo(golden_dir):
    return Image.fromarray(np.load(golden_dir / "crops.npz")["full_u8"])


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
def test_equals_the_papers_pipeline_in_pillow(photo, canvas_of, draw, render, case):
    paper, unit, overrides = CASES[case]
    variant = augment.get(case.split(",")[0], size=SIZE, resize=RESIZE, **overrides)
    sources = [photo.resize((110, 150), BILINEAR)] * 4 + [photo.resize((57, 40), BILINEAR)] * 4
    canvases, heights, widths = zip(
        *(canvas_of(np.asarray(source), CANVAS) for source in sources), strict=True
    )
    windows, boxes = draw(variant.boxes, jax.random.split(KEY, 8), heights, widths)
    images = render(variant, canvases, windows) * 255
    blackened = 0
    for source, image, box in zip(sources, images, boxes, strict=True):
        width, height = source.size
        pixel = (1.0, 1.0)
        if unit == "resized":
            pixel = tuple(side / (RESIZE * side // min(height, width)) for side in (height, width))
        whole = box / np.array(pixel * 2)
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
        expected = np.asarray(paper(source, np.round(whole).astype(int).tolist()), float)
        error = np.abs(image - expected)
        assert error.mean() <= 0.6, error.mean()
        assert np.quantile(error, 0.99) <= 1.5 and error.max() <= 2.5, error.max()
        blackened += (expected.max(-1) == 0).all(0).any()
    assert blackened or "translate" not in case  # zeros did move into view


@pytest.mark.parametrize("name", augment.NAMES)
def test_a_call_draws_windows_and_renders_them(photo, canvas_of, draw, render, name):
    variant = augment.get(name, size=SIZE)
    canvas, *sides = canvas_of(np.asarray(photo.resize((13, 18))), 20)
    keys = jax.random.split(KEY, 3)[np.array([0, 1, 1])]
    # Eager and one by one here, compiled and mapped over the keys there.
    found = np.stack([variant(key, canvas, *sides) for key in keys])
    key_box, key_flip = zip(*map(jax.random.split, keys), strict=True)
    windows, boxes = draw(variant.boxes, jnp.stack(key_box), *sides)
    flips = [jax.random.bernoulli(key, variant.flip_probability) for key in key_flip]
    np.testing.assert_allclose(found, render(variant, [canvas] * 3, windows, flips), atol=2e-5)
    np.testing.assert_allclose(variant.sample_box(key_box[0], *sides), boxes[0], atol=1e-4)
    np.testing.assert_array_equal(found[1], found[2])
    assert found.shape == (3, SIZE, SIZE, 3) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 + 1e-6 and found.std() > 0.01
    fixed = name == "none"
    assert (np.abs(found[0] - found[1]).max() == 0) == fixed or name == "flip"


@pytest.mark.parametrize("name", augment.NAMES)
def test_an_image_of_few_pixels_is_augmented(canvas_of, draw, render, name):
    variant = augment.get(name, size=SIZE)
    shapes = ((1, CANVAS), (CANVAS, 1), (1, 1))
    pixels = [np.full((*shape, 3), 200, np.uint8) for shape in shapes]
    canvases = [canvas_of(each, CANVAS)[0] for each in pixels]
    windows, _ = draw(variant.boxes, jax.random.split(KEY, 3), *zip(*shapes, strict=True))
    images = render(variant, canvases, windows)
    assert np.isfinite(images).all()
    if "translate" in name:
        assert (images <= 200 / 255 + 1e-5).all()
    else:
        np.testing.assert_allclose(images, 200 / 255, atol=1e-5)


def test_flip_mirrors_half_of_the_images(canvas_of):
    # A left-to-right ramp cropped anyhow still rises, unless it was mirrored.
    ramp = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8)[None, :, None], (16, 16, 3))
    mapped = jax.jit(jax.vmap(augment.get("flip", size=8), (0, None, None, None)))
    images = np.asarray(mapped(jax.random.split(KEY, 400), *canvas_of(ramp, 16)))
    rises = images[:, 4, -1, 0] - images[:, 4, 0, 0]
    assert np.abs(rises).min() > 0.05 and 0.4 < (rises < 0).mean() < 0.6


@pytest.mark.parametrize("name", ["none", "random_resized_crop"])
def test_a_flipping_variant_is_another_one_mirrored(name):
    flipping = augment.get("flip" if name == "none" else f"{name}_flip")
    still = dataclasses.replace(flipping, name=name, flip_probability=0.0)
    assert flipping.flip_probability == 0.5 and still == augment.get(name)


def test_crops_equal_pillow_at_full_size(golden_dir, canvas_of, render):
    golden = np.load(golden_dir / "crops.npz")
    canvas, *_ = canvas_of(golden["full_u8"], 512)
    rows, columns = golden["points_yx"].T
    boxes = jax.vmap(box_of)(*jnp.asarray(golden["crop_boxes_tlhw"]).T)
    crop, count = augment.get("random_resized_crop"), len(golden["crops"])
    images = render(crop, [canvas] * count, (crop_then_resize(boxes),))
    for image, expected in zip(images, golden["crops"], strict=True):
        error = np.abs(image[rows, columns] * 255 - expected)
        assert error.mean() <= 0.5 and error.max() <= 1.5


@pytest.mark.parametrize(("height", "width"), [(500, 300), (100, 130), (224, 224)])
def test_none_equals_resize_then_center_crop_at_full_size(photo, canvas_of, render, height, width):
    none, source = augment.get("none"), photo.resize((width, height))
    canvas, *sides = canvas_of(np.asarray(source), 512)
    windows = jax.tree.map(lambda leaf: leaf[None], none.boxes(KEY, *sides))
    (image,) = render(none, [canvas], windows) * 255
    error = np.abs(image - np.asarray(center_cropped(resized(source, 256), 224), float))
    assert error.mean() <= 0.5 and error.max() <= 1.5


def test_translate_moves_whole_resized_pixels_with_black_behind(canvas_of, draw, render):
    pixels = np.random.default_rng(0).integers(1, 256, (48, 48, 3), np.uint8)
    translate = augment.get("translate", size=48, resize=48, t=0.5)
    canvas, *_ = canvas_of(pixels, CANVAS)
    windows, boxes = draw(translate.boxes, jax.random.split(KEY, 40), 48, 48)
    shifts = set()
    images = render(translate, [canvas] * 40, windows)
    for image, (top, left, _, _) in zip(images, boxes, strict=True):
        down, right = -int(top), -int(left)
        expected = np.zeros((48, 48, 3))
        moved = pixels[max(0, -down) : 48 - max(0, down), max(0, -right) : 48 - max(0, right)]
        expected[max(0, down) :, max(0, right) :][: moved.shape[0], : moved.shape[1]] = moved
        np.testing.assert_allclose(image * 255, expected, atol=1e-3)
        shifts |= {down, right}
    assert min(shifts) < -12 and max(shifts) > 12 and max(map(abs, shifts)) <= 24


def interpolated(pixels, size):
    """torch's `interpolate(mode="bilinear", align_corners=False)` along the first axis."""
    length = len(pixels)
    centre = np.maximum((np.arange(size) + 0.5) * length / size - 0.5, 0)
    first = np.floor(centre).astype(int)
    share = (centre - first)[:, None, None]
    return (1 - share) * pixels[first] + share * pixels[np.minimum(first + 1, length - 1)]


@pytest.mark.parametrize(
    "name", ["translate_scale", "translate_scale_square", "translate_inverse_scale"]
)
def test_without_antialias_a_crop_is_resized_as_a_tensor(photo, canvas_of, name):
    variant = augment.get(name, size=SIZE, antialias=False)
    pixels = np.asarray(photo)
    canvas, *_ = canvas_of(pixels, max(pixels.shape))
    flip = jnp.bool_(False)
    # Smaller, larger, and partly off the image: black comes with the crop.
    for top, left, height, width in ((3, 8, 140, 101), (40, 30, 20, 33), (-30, 50, 110, 90)):
        window = crop_then_resize(box_of(top, left, height, width))
        found = np.asarray(jax.jit(variant.render)(canvas, (window,), flip)) * 255
        around = np.pad(pixels.astype(np.float64), ((99, 99), (99, 99), (0, 0)))
        crop = around[top + 99 : top + 99 + height, left + 99 : left + 99 + width]
        expected = interpolated(crop, SIZE)
        expected = interpolated(expected.swapaxes(0, 1), SIZE).swapaxes(0, 1)
        np.testing.assert_allclose(found, expected, atol=2e-2)
        smooth = augment.get(name, size=SIZE).render(canvas, (window,), flip)
        assert (np.abs(found - 255 * smooth).max() > 5) == (height > SIZE)


def test_an_augmentation_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        augment.get("none").size = 8


@pytest.mark.parametrize("name", ["exponential_crop", "beta_crop", "translate_scale"])
def test_gradients_of_the_numbers_are_finite(photo, canvas_of, name):
    canvas = canvas_of(np.asarray(photo.resize((13, 18))), 20)
    # Without jit: the programs of random numbers are there already.
    gradient = jax.grad(lambda variant: jnp.sum(variant(KEY, *canvas)))(
        jax.tree.map(jnp.float32, augment.get(name, size=SIZE))
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("transalte", {}, "unknown augmentation 'transalte'; did you mean 'translate'"),
        ("translate", {"t": 1.5}, "t is 1.5; expected a fraction"),
        ("translate_scale", {"t": -0.1}, "t is -0.1; expected a fraction"),
        ("crop_translate_scale_square", {"t": "x"}, "t is 'x'; expected a fraction"),
        ("none", {"t": 0.1}, "augmentation 'none' has no option 't'"),
        ("translate_scale_square", {"ratio": (1, 2)}, "no option 'ratio'; its options: size, res"),
        ("none", {"size": 0}, "size is 0; expected a positive"),
        ("none", {"resize": True}, "resize is True; expected a positive whole number of pixels"),
        ("none", {"size": 32, "resize": 31}, "resize is 31; expected at least size"),
        ("scaled_center_crop", {"size": 32, "resize": 31}, "resize is 31; expected at least size"),
        ("random_resized_crop", {"scale": (0.5, 1.5)}, "scale is"),
        ("random_resized_crop", {"scale": (0.0, 1.0)}, "scale is"),
        ("random_resized_crop", {"scale": 0.5}, "scale is 0.5; expected two numbers"),
        ("random_resized_crop", {"scale": ("a", 1)}, "expected two numbers"),
        ("random_resized_crop", {"ratio": (2.0, 1.0)}, "ratio is"),
        ("random_resized_crop", {"ratio": (1.0, float("inf"))}, "ratio is"),
        ("random_resized_crop", {"sampler": "TF"}, "unknown sampler 'TF'"),
        ("translate_inverse_scale", {"side": (0.0, 1.0)}, "side is"),
        ("exponential_crop", {"rate": 0.0}, "rate is 0.0; expected a finite number above 0"),
        ("beta_crop", {"b": float("nan")}, "b is nan; expected a finite number above 0"),
        ("beta_crop", {"b": float("inf")}, "b is inf; expected a finite number above 0"),
        ("beta_crop", {"b": True}, "b is True; expected a finite number above 0"),
        ("random_crop", {"cropsize": 0}, "cropsize is 0; expected a whole number"),
        ("random_crop", {"resize": 40, "size": 8, "cropsize": 41}, "1 to resize, which is 40"),
        ("random_crop", {"size": 32, "resize": 31}, "cropsize is 32; expected"),
        ("scaled_center_crop", {"k": 15}, "k is 15; expected a whole number, 0 to 14"),
        ("translate_scale", {"antialias": 0}, "antialias is 0; expected True or False"),
        ("translate", {"antialias": False}, "augmentation 'translate' has no option 'antialias'"),
        ("scaled_center_crop", {"k": 1.5}, "k is 1.5; expected a whole number"),
    ],
)
def test_wrong_options_are_refused(name, overrides, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        augment.get(name, **overrides)


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), r"canvas has shape \(2, 8, 8, 3\); expected \[height,"),
        (np.zeros((8, 8, 1), np.uint8), r"canvas has shape \(8, 8, 1\)"),
        (np.zeros((8, 8, 3), np.float32), "canvas is float32; expected uint8"),
    ],
)
def test_what_is_no_canvas_is_refused(canvas, message):
    for function in (augment.get("none", size=8), jax.jit(augment.get("none", size=8))):
        with pytest.raises(UserError, match=message):
            function(KEY, canvas, jnp.int32(8), jnp.int32(8))
