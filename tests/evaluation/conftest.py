"""The smallest things that can be measured, and one way to measure them."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment, data, devices, models
from invariance_jax.evaluation.accuracy import Accuracy, TestTime
from invariance_jax.evaluation.consistency import PredictionConsistency
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.evaluation.local_equivariance import LocalEquivariance
from invariance_jax.evaluation.shards import Shards
from invariance_jax.transforms import TRANSFORMS, generators, normalize

IMAGES, SIDE, CLASSES, SEED = 11, 8, 10, 3
NONE = augment.get("none", size=SIDE, resize=SIDE)


def few(*names):
    """Some rows of the table: compiling the others would take longer than all the rest."""
    return {name: TRANSFORMS[name] for name in names}


class Linear(nn.Module):
    """The smallest network with an embedding, a layer before it, and scores."""

    dtype: Any = jnp.float32
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, images, train=False):
        layer = jnp.tanh(nn.Conv(2, (2, 2), strides=(2, 2), dtype=self.dtype)(images))
        embedding = nn.Dense(6, dtype=self.dtype)(layer.reshape(images.shape[0], -1))
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(embedding)
        found = logits, {"layer": layer, "embedding": embedding}
        return jax.tree.map(lambda each: each.astype(jnp.float32), found)


def linear(module=None, seed=1):
    """A network with drawn parameters as a model."""
    module = module or Linear()
    images = jnp.zeros((1, SIDE, SIDE, 3))
    variables = jax.device_get(jax.jit(module.init)(jax.random.key(seed), images))
    return models.from_flax(module, variables, name="linear", image_size=SIDE)


# Blind to where things are, and gives no scores.
MEAN = models.from_function(
    lambda images: normalize(images).mean((1, 2)), name="mean", image_size=SIDE
)


def counted(model):
    """The model, and a list that the batch of every trace of it is added to."""
    traced = []

    def apply(variables, images):
        traced.append(images.shape[0])
        return model.apply(variables, images)

    return dataclasses.replace(model, apply=apply), traced


def coloured_pixels(images):
    """Noise around a colour of its own: means that point in different directions."""
    generator = np.random.default_rng(0)
    colour = generator.integers(20, 200, (images, 1, 1, 3))
    return (colour + generator.integers(0, 50, (images, SIDE, SIDE, 3))).astype(np.uint8)


def coloured(images=IMAGES):
    """`coloured_pixels` with labels and names."""
    return data.ArraySource(
        coloured_pixels(images),
        np.arange(images) % CLASSES,
        [f"image_{i}" for i in range(images)],
        class_names=[f"class {i}" for i in range(CLASSES)],
    )


def grid(**fields):
    """The invariance of 8-pixel images."""
    return Invariance(**{"preprocess": NONE, "seed": SEED, "show_progress": False, **fields})


def make_driver(measurements, source, model, *, count=1, kind=Driver, **fields):
    """A driver of 8-pixel images, in batches of four on each of `count` devices."""
    fields = {
        "preprocess": NONE,
        "canvas_size": SIDE,
        "workers": 0,
        "per_device_batch_size": 4,
        "memory": 2**30,
        "shard_size": 100,
        "description": "",
        **fields,
    }
    return kind(
        model=model,
        measurements=measurements,
        source=source,
        mesh=devices.make_mesh(count),
        **fields,
    )


def claimed(folder, measurements):
    """A claimed folder of shards for each measurement."""
    shards = {each.name: Shards(folder / each.name, {"name": each.name}) for each in measurements}
    for each in shards.values():
        each.claim(overwrite=False)
    return shards


def measured(measurements, source, model, *, folder=None, **options):
    """Measures, in memory or with shards in a folder: every measurement's datasets by group."""
    driver = make_driver(measurements, source, model, **options)
    shards = claimed(folder, measurements) if folder else None
    return {
        each.name: each.datasets(found, driver.images) for each, found in driver.run(shards=shards)
    }


def measured_one(measurement, source, model, **options):
    """The main dataset of a single measurement."""
    return measured([measurement], source, model, **options)[measurement.name][""]


@pytest.fixture(scope="session")
def digits():
    return data.load_source("digits", f"validation[:{IMAGES}]")


@pytest.fixture(scope="session")
def model():
    return linear()


def pixels_of(source):
    """What a model sees of each image before normalisation, float32 [image, 8, 8, 3]."""
    canvases = [data.to_canvas(source[i]["image"], SIDE)[0] for i in range(len(source))]
    return jnp.asarray(np.stack(canvases), jnp.float32) / 255


VARIANTS = {
    "none": NONE,
    "random_resized_crop": augment.get("random_resized_crop", size=SIDE, resize=SIDE),
    **{
        f"scaled_center_crop(k={k})": augment.get("scaled_center_crop", size=SIDE, resize=SIDE, k=k)
        for k in (0, 7, 14)
    },
}
MEASUREMENTS = {
    each.name: each
    for each in (
        Accuracy(),
        grid(transforms=few("translate_x", "posterize"), features=("layer",), equivariance=True),
        LocalEquivariance(
            generators=[generators.get("rotate"), generators.get("saturation")],
            features=("layer",),
        ),
        TestTime(variants=VARIANTS, seed=SEED),
        PredictionConsistency(
            augmentation=VARIANTS["random_resized_crop"],
            described="random_resized_crop",
            samples=3,
            seed=SEED,
        ),
    )
}


@pytest.fixture(scope="session")
def alone(digits, model):
    """What one device finds for each measurement by itself, in batches of four images."""

    @functools.cache
    def run(name):
        return measured([MEASUREMENTS[name]], digits, model)[name]

    return run


def assert_close(found, expected, **tolerance):
    """Compares datasets: numbers to within a tolerance, everything else exactly."""
    assert found.sizes == expected.sizes
    assert set(found.variables) == set(expected.variables) and found.attrs == expected.attrs
    for name, value in expected.variables.items():
        assert found[name].dtype.kind == value.dtype.kind, name
        assert found[name].dims == value.dims, name
        if value.dtype.kind == "f":
            assert found[name].dtype == value.dtype, name
            np.testing.assert_allclose(found[name], value, err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


# What of each measurement is not the same to the last bit in another program.
_TOLERANCES = {
    "accuracy": {"rtol": 1e-5},
    "invariance": {"atol": 1e-5, "rtol": 0},
    "local_equivariance": {"rtol": 1e-5},
    "test_time": {"rtol": 1e-4},
    "prediction_consistency": {"rtol": 1e-4, "atol": 1e-6},
}


def assert_same(name, found, expected):
    """Compares what a measurement found in two ways, all its groups."""
    assert found.keys() == expected.keys()
    for group, each in expected.items():
        # What is near zero is no stable divisor, nor has it a direction.
        derived = [x for x in each if x.startswith(("relative_", "equivariance_"))]
        assert_close(found[group].drop_vars(derived), each.drop_vars(derived), **_TOLERANCES[name])
        for x in derived:
            assert found[group][x].dtype == np.float32
            if x.startswith("equivariance_"):
                np.testing.assert_allclose(found[group][x], each[x], atol=1e-4)
