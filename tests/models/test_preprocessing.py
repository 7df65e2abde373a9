"""What weights want of images: read beside them, from the table, and done as Pillow does it."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import invariance_jax as ij
from invariance_jax import augment, data
from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import prepare
from invariance_jax.models import Preprocessing, preprocessing_of

CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
TIMM = {"input_size": [3, 384, 384], "crop_pct": 0.95, "interpolation": "bicubic", **CLIP}
HUGGING_FACE = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
}


@pytest.fixture(scope="module")
def photo(golden_dir):
    with np.load(golden_dir / "crops.npz") as arrays:
        return arrays["full_u8"]


def written(folder, name, values):
    (folder / name).write_text(values if isinstance(values, str) else json.dumps(values))
    return folder / "model.safetensors"


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_reads_the_file_of_timm(form, tmp_path):
    nested = {"architecture": "vit", "pretrained_cfg": TIMM}
    found = preprocessing_of(
        "any", written(tmp_path, "config.json", nested if form == "nested" else TIMM)
    )
    assert (found.image_size, found.resize_size, found.interpolation) == (384, 404, "bicubic")
    assert found.mean == tuple(CLIP["mean"]) and found.std == tuple(CLIP["std"])
    assert found.source == "config.json beside the weights" and not found.squash
    squash = preprocessing_of(
        "any", written(tmp_path, "config.json", TIMM | {"crop_mode": "squash"})
    )
    assert squash == dataclasses.replace(found, squash=True)
    assert str(squash).startswith("both sides to 404 pixels, bicubic, centre of 384, ")


@pytest.mark.parametrize(
    ("changes", "sizes", "interpolation", "squash"),
    [
        ({}, (224, 256), "bicubic", False),
        (
            {"size": {"height": 224, "width": 224}, "crop_size": None, "resample": 2},
            (224, 224),
            "bilinear",
            True,
        ),
        # As DeiT's.
        ({"size": {"height": 256, "width": 256}}, (224, 256), "bicubic", True),
        ({"size": 384, "do_center_crop": False}, (384, 384), "bicubic", True),
        ({"size": 256, "image_processor_type": "CLIPImageProcessor"}, (224, 256), "bicubic", False),
        (
            {"size": 256, "feature_extractor_type": "ViTFeatureExtractor"},
            (224, 256),
            "bicubic",
            True,
        ),
    ],
)
def test_reads_the_file_of_hugging_face(changes, sizes, interpolation, squash, tmp_path):
    # A network's own config.json, which says nothing of images, is passed over.
    written(tmp_path, "config.json", {"hidden_size": 768})
    weights = written(tmp_path, "preprocessor_config.json", HUGGING_FACE | changes)
    found = preprocessing_of("any", weights)
    assert (found.image_size, found.resize_size) == sizes
    assert found.interpolation == interpolation and found.mean == (0.5, 0.5, 0.5)
    assert found.squash == squash


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("vit_b16", "vit_base_patch16_224.augreg_in1k.safetensors", (224, 248, "bicubic", 0.5)),
        ("resnet50", "resnet50-11ad3fa6.pth", (224, 232, "bilinear", 0.485)),
        ("resnet50", "resnet50-0676ba61.pth", (224, 256, "bilinear", 0.485)),
        (
            "resnet50",
            "models--timm--resnet50.a1_in1k/model.safetensors",
            (224, 235, "bicubic", 0.485),
        ),
        ("vit_base_patch14_dinov2.lvd142m", "x.safetensors", (518, 518, "bicubic", 0.485)),
        ("vit_base_patch14_dinov2.lvd142m", "", (518, 518, "bicubic", 0.485)),
        # All tags want the same, or not.
        ("vit_base_patch14_dinov2(reg_tokens=4)", "", (518, 518, "bicubic", 0.485)),
        ("vit_base_patch16_224", "", (224, 256, "bilinear", 0.485)),
        ("resnet18(stem='cifar')", "mine.npz", (224, 256, "bilinear", 0.485)),
    ],
)
def test_the_table_knows_what_is_published(name, weights, expected, tmp_path):
    found = preprocessing_of(name, weights and tmp_path / weights)
    assert (found.image_size, found.resize_size, found.interpolation, found.mean[0]) == expected
    assert not found.squash
    assert found.source.startswith(
        "ImageNet's" if expected[1] == 256 and "-" not in weights else "a table"
    )


def test_the_table_knows_what_is_squashed():
    found = preprocessing_of("vit_large_patch14_clip_336.laion2b_ft_in12k_in1k")
    assert found.squash and found.resize_size == found.image_size == 336
    assert found.replaced(squash=False).squash is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "config.json', which lies beside the weights, does not say how images are prepared"),
        (TIMM | {"mean": [0.5]}, "config.json', which lies beside the weights, does not say"),
        (TIMM | {"crop_pct": 0}, "does not say how images are prepared (ZeroDivisionError"),
        (
            TIMM | {"interpolation": "lanczos"},
            "the filter 'lanczos'; expected one of: bilinear, bicubic",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(values, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        preprocessing_of("any", written(tmp_path, "config.json", values))
    assert "\n" not in str(caught.value)


def test_what_is_given_is_known_better():
    table = preprocessing_of("vit_base_patch16_224.augreg_in1k")
    assert table.replaced(mean=None, std=(0.5, 0.5, 0.5)) is table
    larger = table.replaced(image_size=448, mean=(0.1, 0.2, 0.3))
    assert (larger.image_size, larger.resize_size) == (448, 496)
    assert larger.mean == (0.1, 0.2, 0.3) and larger.std == table.std
    assert larger.source.endswith("at vit_base_patch16_224.augreg_in1k; image_size, mean as given")
    assert str(dataclasses.replace(table, source="")) == (
        "shorter side to 248 pixels, bicubic, centre of 224, mean 0.5 0.5 0.5, standard deviation "
        "0.5 0.5 0.5"
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photos_are_prepared_as_pillow_prepares_them(photo, interpolation):
    height, width = photo.shape[:2]
    wanted = Preprocessing(image_size=96, resize_size=106, interpolation=interpolation)
    side = wanted.resize_size
    sizes = tuple(int(side * length / min(height, width)) for length in (width, height))
    filter_ = getattr(Image.Resampling, interpolation.upper())
    resized = np.asarray(Image.fromarray(photo).resize(sizes, filter_))
    top, left = (round((length - 96) / 2) for length in resized.shape[:2])
    expected = resized[top : top + 96, left : left + 96].astype(np.float32)

    canvas, *sides = data.to_canvas(photo, max(height, width))
    none = augment.get("none", size=96, resize=106, interpolation=interpolation)
    batch = dict(zip(("height", "width"), map(np.array, ([each] for each in sides)), strict=True))
    (found,) = jax.jit(prepare)(none, {"canvas": canvas[None], **batch})
    apart = np.abs(255 * np.asarray(found) - expected)
    assert np.quantile(apart, 0.99) <= 1.5 and apart.mean() < 0.6
    # The other filter would be seen.
    other = augment.get("none", size=96, resize=106, interpolation="bilinear")
    if interpolation == "bicubic":
        (blurred,) = jax.jit(prepare)(other, {"canvas": canvas[None], **batch})
        assert np.abs(255 * np.asarray(blurred) - expected).mean() > 2 * apart.mean()


@pytest.mark.parametrize("resize", [96, 106])
def test_squashed_photos_equal_pillows(photo, resize):
    height, width = photo.shape[:2]
    assert height != width
    squashed = np.asarray(Image.fromarray(photo).resize((resize, resize), Image.Resampling.BICUBIC))
    edge = round((resize - 96) / 2)
    expected = squashed[edge : edge + 96, edge : edge + 96].astype(np.float32)
    canvas, *sides = data.to_canvas(photo, max(height, width))
    options = {"size": 96, "resize": resize, "interpolation": "bicubic", "squash": True}
    batch = dict(zip(("height", "width"), map(np.array, ([each] for each in sides)), strict=True))
    (found,) = jax.jit(prepare)(augment.get("none", **options), {"canvas": canvas[None], **batch})
    apart = np.abs(255 * np.asarray(found) - expected)
    assert np.quantile(apart, 0.99) <= 1.5 and apart.mean() < 0.6
    # Every variant that resizes first starts from the same picture.
    for name in ("translate(t=0)", "random_crop", "crop_translate_scale_square"):
        assert augment.parse(name, field="name", **options).boxes.squash


def test_a_model_brings_its_preprocessing_into_measure(tmp_path):
    model = ij.load_model("vit_mu8", image_size=16, num_classes=5)
    assert model.preprocessing.resize_size == 18 and model.image_size == 16
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    wanted = Preprocessing(image_size=16, resize_size=20, interpolation="bicubic", squash=True)
    as_wanted = dataclasses.replace(model, preprocessing=wanted)
    options = {"progress": False, "transforms": {"rotate": ij.TRANSFORMS["rotate"]}}
    found = ij.measure(as_wanted, tmp_path, **options)
    asked = ij.measure(
        model, tmp_path, resize_size=20, interpolation="bicubic", squash=True, **options
    )
    np.testing.assert_array_equal(found.relative_invariance, asked.relative_invariance)
    for less in ({"interpolation": "bilinear", "squash": True}, {"interpolation": "bicubic"}):
        plain = ij.measure(model, tmp_path, resize_size=20, **less, **options)
        assert np.abs(plain.relative_invariance - asked.relative_invariance).max() > 1e-3
