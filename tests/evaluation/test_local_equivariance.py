"""Lie derivatives of models whose answer is known."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import config, models
from invariance_jax.errors import UserError
from invariance_jax.evaluation.local_equivariance import LocalEquivariance, act
from invariance_jax.transforms import generators

from .conftest import MEAN, SIDE, counted, measured_one, pixels_of

MEAN_COLOUR = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
CYCLIC = ("translate_x(padding_mode='wrap')", "translate_y(padding_mode='wrap')")


class Dense(nn.Module):
    """Scores that are weights times pixels."""

    num_classes = 4

    @nn.compact
    def __call__(self, images, train=False):
        logits = nn.Dense(4, name="head")(images.reshape(images.shape[0], -1))
        return logits, {"embedding": jnp.tanh(logits)}


class Circular(nn.Module):
    """A convolution on a circle and its mean: the map moves along, the mean stays."""

    num_classes = 5

    @nn.compact
    def __call__(self, images, train=False):
        found = nn.Conv(5, (3, 3), padding="CIRCULAR")(images)
        mean = found.mean((1, 2))
        return mean, {"map": found, "tanh": jnp.tanh(found), "embedding": mean}


def model_of(module):
    variables = module.init(jax.random.key(1), jnp.zeros((1, SIDE, SIDE, 3)))
    return models.from_flax(module, jax.device_get(variables), name="model")


def along(*names, features=()):
    return LocalEquivariance(generators=[generators.get(each) for each in names], features=features)


def central_difference(images, axis):
    """Content that moves by half a side on a circle."""
    return (np.roll(images, 1, axis) - np.roll(images, -1, axis)) / 2 * SIDE / 2


def test_a_linear_model_by_hand(digits):
    names, model = (*CYCLIC, "brightness"), model_of(Dense())
    found = measured_one(along(*names), digits, model)
    assert list(found.output.values) == ["logits", "probabilities", "embedding"]
    assert list(found.generator.values) == list(names) and found.attrs == {}
    images, kernel = np.asarray(pixels_of(digits)), model.variables["params"]["head"]["kernel"]
    logits = ((images - MEAN_COLOUR) / DEVIATION).reshape(len(images), -1) @ kernel
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    changes = [central_difference(images, 2), central_difference(images, 1), images]
    for name, change in zip(names, changes, strict=True):
        moved = (change / DEVIATION).reshape(len(images), -1) @ kernel
        error = found.local_equivariance_error.sel(generator=name)
        for output, derivative in (
            ("logits", moved),
            ("embedding", moved * (1 - np.tanh(logits) ** 2)),
            ("probabilities", p * (moved - (p * moved).sum(1, keepdims=True))),
        ):
            np.testing.assert_allclose(
                error.sel(output=output),
                (derivative**2).mean(1),
                rtol=1e-4 if output == "logits" else 1e-3,
                atol=1e-9,
                err_msg=f"{name} {output}",
            )
    for output, value in (("logits", logits), ("probabilities", p), ("embedding", np.tanh(logits))):
        np.testing.assert_allclose(
            found.mean_square.sel(output=output), (value**2).mean(1), rtol=1e-4, err_msg=output
        )
    lines = along(*names).summary(found).splitlines()
    assert lines[1].split() == ["logits", "probabilities", "embedding"]
    means = found.local_equivariance_error.mean("image").sel(generator="brightness")
    assert lines[-1].split() == ["brightness", *(f"{x:.3g}" for x in means.values)]


def test_a_blind_model_is_exactly_invariant_on_a_circle(digits):
    names = (*CYCLIC, "translate_x(padding_mode='constant')", "scale", "brightness")
    found = measured_one(along(*names), digits, MEAN)
    # It gives no scores, and so no probabilities.
    assert list(found.output.values) == ["embedding"]
    error = found.local_equivariance_error
    assert float(error.sel(generator=list(CYCLIC)).max()) < 1e-5
    # What changes the mean is not invisible.
    others = error.sel(generator=["scale", "brightness"])
    assert float(others.min()) > 1e-2


def test_a_circular_convolution_moves_along(digits):
    # A mirrored border is another thing than a circle.
    names = (*CYCLIC, "translate_x")
    measurement = along(*names, features=("map", "tanh"))
    found = measured_one(measurement, digits, model_of(Circular()))
    relative = found.local_equivariance_error / found.mean_square
    cyclic = {"generator": list(CYCLIC)}
    assert float(relative.sel(cyclic).sel(output="map").max()) < 1e-9
    assert float(found.local_equivariance_error.sel(cyclic).sel(output="logits").max()) < 1e-9
    # A pointwise function aliases: what it makes is finer than the pixels can tell.
    assert float(relative.sel(cyclic).sel(output="tanh").min()) > 1e-2
    mirrored = found.local_equivariance_error.sel(generator="translate_x", output="map")
    assert float(mirrored.min()) > 1e-3


def test_tokens_move_as_the_map_that_they_are():
    generator = generators.get("rotate")
    tokens = jnp.asarray(np.random.default_rng(0).random((1 + 16, 5), np.float32))
    found = act(generator, tokens)
    expected = generator.tangent(tokens[1:].reshape(4, 4, 5)).reshape(16, 5)
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1:], expected, atol=1e-6)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(act(generators.get("hue"), tokens), 0)
    with pytest.raises(UserError, match="an output has 16 tokens; expected one more than a square"):
        act(generator, tokens[1:])


def test_the_model_is_traced_once_for_all_generators(digits):
    seen = []
    model = model_of(Dense())

    def watched(variables, images):
        jax.debug.callback(lambda: seen.append(images.shape[0]))
        return model.apply(variables, images)

    network, traced = counted(dataclasses.replace(model, apply=watched))
    names = ("translate_x", "scale", "stretch_x", "hue")
    measured_one(along(*names), digits, network, per_device_batch_size=11)
    jax.effects_barrier()
    # For the shapes of what is carried, for the images as they are, and for all generators: on as
    # many images at a time as make no more of images and tangents than the batch has images.
    assert traced == [1, 11, 3]
    # The function itself runs on the images, not on a copy of them for every generator.
    assert seen == [11, 3, 3, 3, 3]


def test_an_unknown_output_is_named(digits):
    with pytest.raises(UserError, match="unknown output 'embeding'; did you mean 'embedding'"):
        measured_one(along("hue", features=("embeding",)), digits, MEAN)


def test_generators_are_those_of_the_config():
    def of(*names):
        values = {"eval": {"local_equivariance": names, "features": ("block1",)}}
        return LocalEquivariance.from_config(config.check(config.ExperimentConfig, values))

    made = of("rotate", CYCLIC[0])
    assert [each.name for each in made.generators] == ["rotate", CYCLIC[0]]
    assert made.features == ("block1",)
    assert [each.name for each in of().generators] == list(generators.NAMES)
    with pytest.raises(UserError, match=r"config\.eval\.local_equivariance\[1\]: .*'rotate'"):
        of("hue", "rotat")
