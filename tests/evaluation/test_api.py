"""The front door: any function on any images, the same numbers as the command's."""

import numpy as np
import pytest
from PIL import Image

import invariance_jax as ij
from invariance_jax import data, devices
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import grid, results
from invariance_jax.evaluation.evaluate import evaluate
from invariance_jax.fields import check
from invariance_jax.transforms import normalize

from .conftest import SIDE, coloured_pixels, few, linear

TABLE = few("translate_x", "rotate", "posterize")
COUNT = 64
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
# The mean over each quarter of an image, times a matrix: what every library can compute.
MATRIX = np.random.default_rng(1).standard_normal((12, 5)).astype(np.float32)


def quarters(images):
    """[N, 12]; of numpy, JAX and torch alike."""
    side = images.shape[1] // 2
    return images.reshape(len(images), 2, side, 2, side, 3).mean((2, 4)).reshape(len(images), 12)


def jax_function(images):
    return quarters(normalize(images)) @ MATRIX


def numpy_function(images):
    assert type(images) is np.ndarray and images.dtype == np.float32
    return quarters((images - MEAN) / DEVIATION) @ MATRIX


def torch_function(images):
    torch = pytest.importorskip("torch")
    found = torch.from_numpy((images - MEAN) / DEVIATION).requires_grad_()
    return quarters(found) @ torch.from_numpy(MATRIX)


def assert_same_distances(found, expected):
    for name in ("transformed", "baseline"):
        for kind in ("cosine", "euclidean"):
            np.testing.assert_allclose(
                found[f"{name}_{kind}"], expected[f"{name}_{kind}"], atol=1e-4, err_msg=kind
            )
    np.testing.assert_array_equal(found.permutation, expected.permutation)
    np.testing.assert_array_equal(found["image"], expected["image"])


@pytest.fixture(scope="module")
def digits():
    return data.load_source("digits", f"validation[:{COUNT}]")


def measure(function, images, **options):
    return ij.measure(
        *(function, images),
        **{
            "transforms": TABLE,
            "image_size": SIDE,
            "resize_size": SIDE,
            "batch_size": 8,
            "progress": False,
            **options,
        },
    )


def test_a_function_is_the_same_in_every_library(digits):
    expected = measure(jax_function, digits)
    assert_same_distances(measure(numpy_function, digits), expected)
    # A JAX function runs on the host as well, if it gives numpy's arrays there.
    host = measure(lambda images: np.asarray(jax_function(images)), digits, on_host=True)
    assert_same_distances(host, expected)


def test_a_torch_function_is_the_same(digits):
    pytest.importorskip("torch")
    assert_same_distances(measure(torch_function, digits), measure(jax_function, digits))


def test_the_front_door_gives_what_the_command_writes(digits, tmp_path, monkeypatch):
    original = grid.Invariance.from_config.__func__
    monkeypatch.setattr(
        grid.Invariance,
        "from_config",
        classmethod(
            lambda cls, config: grid.dataclasses.replace(original(cls, config), transforms=TABLE)
        ),
    )
    side = {"image_size": SIDE, "resize_size": SIDE, "canvas_size": 32}
    chosen = {"split": f"validation[:{COUNT}]", "per_device_batch_size": 16, "seed": 2}
    chosen |= {"measurements": ("invariance",), "padding_mode": "wrap"}
    config = check(ExperimentConfig, {"data": {"name": "digits", **side}, "eval": chosen})
    model = linear()
    attributes = {"model": "linear", "augmentation": "none", "seed": 0, "steps": 1, "seconds": 0.0}
    evaluate(
        *(model, config, tmp_path),
        name="linear",
        attributes={**attributes, "config": config.to_json()},
        mesh=devices.make_mesh(1),
        announce=lambda text: None,
    )
    written = results.read(tmp_path / "invariance" / "linear.nc")
    options = {"seed": 2, "padding_mode": "wrap", "canvas_size": 32}
    found = measure(model, digits, **options)
    assert_same_distances(found, written)
    extra = {"relative_invariance", "baseline", "transformed"}
    assert set(found.variables) - set(written.variables) == extra
    np.testing.assert_array_equal(found.flip, written.flip)
    np.testing.assert_array_equal(found.correct, written.correct)
    np.testing.assert_array_equal(found.relative_invariance, found.relative_invariance_cosine)
    # The same function of images, without its network's scores.
    alone = measure(lambda images: model(images), digits, **options)
    assert_same_distances(alone, written)
    assert "flip" not in alone and "correct" not in alone


@pytest.mark.real_data
def test_real_photos_are_the_same_in_numpy_and_jax(real_data):
    source = data.load_source(
        "imagenet2012", f"validation[:{COUNT}]", data_dir=str(real_data / "tfds")
    )
    options = {"image_size": 16, "resize_size": 18, "transforms": few("solarize", "shear_x")}
    expected = measure(jax_function, source, **options)
    assert_same_distances(measure(numpy_function, source, **options), expected)
    assert expected.sizes["image"] == COUNT and expected.attrs["dataset"] == "imagenet2012"


def test_arrays_floats_and_folders_are_alike(tmp_path):
    pixels = coloured_pixels(5)
    expected = measure(jax_function, pixels, image_size=None, resize_size=None)
    assert expected["image"].values[0] == "image_00000" and "label" not in expected.coords
    floats = measure(jax_function, pixels.astype(np.float32) / 255, image_size=None)
    assert_same_distances(floats, expected)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"image_{number:05d}.png")
    folder = measure(jax_function, tmp_path)
    assert folder["image"].values[0] == "image_00000.png"
    assert_same_distances(folder.assign_coords(image=expected["image"]), expected)
    other = measure(jax_function, pixels, distance="euclidean")
    np.testing.assert_array_equal(other.transformed, other.transformed_euclidean)
    assert not np.allclose(other.transformed, other.transformed_cosine)


def test_the_batch_is_found_out_from_memory(digits):
    expected = measure(jax_function, digits)
    assert_same_distances(measure(jax_function, digits, batch_size=0, memory=2**24), expected)


@pytest.mark.parametrize(
    ("function", "images", "options", "message"),
    [
        (jax_function, coloured_pixels(1), {}, "images holds 1 image; expected at least 2"),
        (
            jax_function,
            coloured_pixels(3)[:, :6],
            {"image_size": None},
            r"images have shape \(3, 6, 8, 3\), which is not square; give image_size",
        ),
        (lambda images: images, coloured_pixels(3), {}, r"gave shape \(2, 8, 8, 3\) for 2 images"),
        (
            jax_function,
            coloured_pixels(3),
            {"domain": "normalized"},
            "domain is 'normalized', but what a function of its own",
        ),
        (jax_function, coloured_pixels(3), {"distance": "cosin"}, "distance is 'cosin'; expected"),
        (jax_function, "nowhere", {}, "nowhere"),
        (jax_function, coloured_pixels(3), {"padding_mode": "warp"}, "unknown padding mode 'warp'"),
        (jax_function, coloured_pixels(3), {"features": ("layer",)}, "unknown feature 'layer'"),
        (
            lambda images: np.where(np.asarray(images).mean((1, 2)) > 0.5, np.nan, 1.0),
            np.full((3, 8, 8, 3), 255, np.uint8),
            {},
            "the features of image 'image_00000' and 2 more are not finite",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(function, images, options, message):
    with pytest.raises(UserError, match=message):
        measure(function, images, **options)
