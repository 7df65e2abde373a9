"""Predictions of every image, against a plain loop and counts by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from invariance_jax import augment, data, devices
from invariance_jax.evaluation import test_time
from invariance_jax.evaluation.accuracy import to_bytes
from invariance_jax.transforms import normalize

IMAGES, SIZE, SEED = 11, 8, 5
VARIANTS = {
    "none": augment.get("none", size=SIZE, resize=SIZE),
    "random_resized_crop": augment.get("random_resized_crop", size=SIZE, resize=SIZE),
    **{
        f"scaled_center_crop(k={k})": augment.get("scaled_center_crop", size=SIZE, resize=SIZE, k=k)
        for k in (0, 7, 14)
    },
}


class Linear(nn.Module):
    """The smallest classifier."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(10)(images.reshape(images.shape[0], -1)), {}


@pytest.fixture(scope="module")
def source():
    return data.load_source("digits", f"validation[:{IMAGES}]")


@pytest.fixture(scope="module")
def variables():
    return Linear().init(jax.random.key(1), jnp.zeros((1, SIZE, SIZE, 3)))


def measure(model, variables, source, *, batch_size=4, count=1, seed=SEED):
    mesh = devices.make_mesh(count)
    batches = data.prefetch_to_device(
        data.evaluation_batches(source, batch_size=batch_size, canvas_size=SIZE),
        devices.by_example(mesh),
    )
    done = []
    found = test_time.measure(
        model,
        variables,
        VARIANTS,
        batches,
        names=[f"image{i}" for i in range(len(source))],
        labels=[source[i]["label"] for i in range(len(source))],
        seed=seed,
        mesh=mesh,
        progress=done.append,
    )
    assert sum(done) == len(source)
    return found


def test_equals_a_plain_loop(source, variables):
    found = measure(Linear(), variables, source)
    assert found.correct_top1.dims == ("variant", "image") and found.sizes["image"] == IMAGES
    for name, augmentation in VARIANTS.items():
        for i in range(IMAGES):
            canvas, height, width = data.to_canvas(source[i]["image"], SIZE)
            key = jax.random.fold_in(jax.random.key(SEED), i)
            image = augmentation(key, jnp.asarray(canvas), jnp.int32(height), jnp.int32(width))
            logits = np.asarray(Linear().apply(variables, normalize(to_bytes(image))[None])[0][0])
            label = source[i]["label"]
            better = (logits > logits[label]).sum()
            at = {"variant": name, "image": f"image{i}"}
            assert int(found.label.sel(image=f"image{i}")) == label
            assert int(found.predicted.sel(at)) == logits.argmax()
            assert int(found.correct_top1.sel(at)) == (better < 1)
            assert int(found.correct_top5.sel(at)) == (better < 5)
            shares = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(found.probability.sel(at), shares[label], rtol=1e-3)


def test_the_crops_differ_and_come_from_the_seed(source, variables):
    first, again = measure(Linear(), variables, source), measure(Linear(), variables, source)
    other = measure(Linear(), variables, source, seed=SEED + 1)
    np.testing.assert_array_equal(first.probability, again.probability)
    fixed = ["none", "scaled_center_crop(k=0)"]  # k = 0 is the whole centre crop
    np.testing.assert_array_equal(
        first.probability.sel(variant=fixed), other.probability.sel(variant=fixed)
    )
    np.testing.assert_allclose(
        first.probability.sel(variant=fixed[0]), first.probability.sel(variant=fixed[1]), atol=1e-5
    )
    drawn = ["random_resized_crop", "scaled_center_crop(k=7)", "scaled_center_crop(k=14)"]
    change = np.abs(first.probability - other.probability).sel(variant=drawn)
    assert float(change.max("image").min()) > 1e-3


@pytest.mark.parametrize(("batch_size", "count"), [(11, 1), (8, 8), (16, 8)])
def test_independent_of_batch_size_and_devices(source, variables, batch_size, count):
    expected = measure(Linear(), variables, source)
    found = measure(Linear(), variables, source, batch_size=batch_size, count=count)
    for name in ("correct_top1", "correct_top5", "predicted"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-4)


def test_variants_of_one_structure_share_a_program(source, variables):
    traces = []

    class Counted(Linear):
        @nn.compact
        def __call__(self, images, train=False):
            traces.append(images.shape)
            return super().__call__(images, train)

    measure(Counted(), variables, source)
    assert len(traces) == 3, traces  # none, random_resized_crop, all scaled_center_crop


def test_classes_by_hand():
    found = xr.Dataset(
        {
            "correct_top1": (("variant", "image"), np.array([[1, 0, 1], [0, 0, 0]], np.int8)),
            "correct_top5": (("variant", "image"), np.array([[1, 1, 1], [0, 1, 0]], np.int8)),
        },
        coords={
            "variant": ["none", "scaled_center_crop(k=3)"],
            "image": ["a", "b", "c"],
            "label": ("image", np.array([7, 7, 2], np.int32)),
        },
    )
    assert test_time.by_class(found).splitlines() == [
        "variant,label,images,top1,top5",
        "none,2,1,1.000000,1.000000",
        "none,7,2,0.500000,1.000000",
        "scaled_center_crop(k=3),2,1,0.000000,0.000000",
        "scaled_center_crop(k=3),7,2,0.000000,0.500000",
    ]
