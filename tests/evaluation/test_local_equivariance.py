"""Lie derivatives of models whose answer is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment, data, devices
from invariance_jax.errors import UserError
from invariance_jax.evaluation import local_equivariance
from invariance_jax.transforms import generators

IMAGES, SIZE = 11, 8
NONE = augment.get("none", size=SIZE, resize=SIZE)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
CYCLIC = ("translate_x(padding_mode='wrap')", "translate_y(padding_mode='wrap')")


class Linear(nn.Module):
    """Logits that are weights times pixels."""

    @nn.compact
    def __call__(self, images, train=False):
        logits = nn.Dense(4, name="head")(images.reshape(images.shape[0], -1))
        return logits, {"embedding": jnp.tanh(logits)}


class Mean(nn.Module):
    """Blind to where things are."""

    def __call__(self, images, train=False):
        logits = images.mean((1, 2))
        return logits, {"embedding": jnp.tanh(logits)}


class Circular(nn.Module):
    """A convolution on a circle and its mean: the map moves along, the mean stays."""

    @nn.compact
    def __call__(self, images, train=False):
        found = nn.Conv(5, (3, 3), padding="CIRCULAR")(images)
        return found.mean((1, 2)), {"map": found, "tanh": jnp.tanh(found)}


@pytest.fixture(scope="module")
def source():
    return data.load_source("digits", f"validation[:{IMAGES}]")


def images_of(source):
    pixels = [data.to_canvas(source[i]["image"], SIZE)[0] for i in range(len(source))]
    return np.stack(pixels).astype(np.float32) / 255


def measure(model, variables, source, *, names, outputs, batch_size=4, count=1):
    mesh = devices.make_mesh(count)
    batches = data.prefetch_to_device(
        data.evaluation_batches(source, batch_size=batch_size, canvas_size=SIZE),
        devices.by_example(mesh),
    )
    done = []
    found = local_equivariance.measure(
        model,
        variables,
        NONE,
        [generators.get(name) for name in names],
        outputs,
        batches,
        names=[f"image{i}" for i in range(len(source))],
        labels=range(len(source)),
        mesh=mesh,
        progress=done.append,
    )
    assert sum(done) == len(source)
    return found


def init(model):
    return model.init(jax.random.key(1), jnp.zeros((1, SIZE, SIZE, 3)))


def central_difference(images, axis):
    """Content that moves by half a side on a circle."""
    return (np.roll(images, 1, axis) - np.roll(images, -1, axis)) / 2 * SIZE / 2


def test_a_linear_model_by_hand(source):
    variables = init(Linear())
    names = (*CYCLIC, "brightness")
    found = measure(Linear(), variables, source, names=names, outputs=("logits", "embedding"))
    images, kernel = images_of(source), np.asarray(variables["params"]["head"]["kernel"])
    changes = [central_difference(images, 2), central_difference(images, 1), images]
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    logits = ((images - mean) / DEVIATION).reshape(IMAGES, -1) @ kernel
    for name, change in zip(names, changes, strict=True):
        derivative = (change / DEVIATION).reshape(IMAGES, -1) @ kernel
        error = found.local_equivariance_error.sel(generator=name)
        np.testing.assert_allclose(
            error.sel(output="logits"), (derivative**2).mean(1), rtol=1e-4, err_msg=name
        )
        through_tanh = derivative * (1 - np.tanh(logits) ** 2)
        np.testing.assert_allclose(
            error.sel(output="embedding"), (through_tanh**2).mean(1), rtol=1e-3, err_msg=name
        )
    np.testing.assert_allclose(
        found.mean_square.sel(output="logits"), (logits**2).mean(1), rtol=1e-4
    )


def test_probabilities_by_hand(source):
    variables = init(Linear())
    found = measure(Linear(), variables, source, names=("brightness",), outputs=("probabilities",))
    images, kernel = images_of(source), np.asarray(variables["params"]["head"]["kernel"])
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    logits = ((images - mean) / DEVIATION).reshape(IMAGES, -1) @ kernel
    change = (images / DEVIATION).reshape(IMAGES, -1) @ kernel
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    derivative = p * (change - (p * change).sum(1, keepdims=True))
    np.testing.assert_allclose(
        found.local_equivariance_error[0, 0], (derivative**2).mean(1), rtol=1e-3, atol=1e-9
    )


def test_a_blind_model_is_exactly_invariant_on_a_circle(source):
    names = (*CYCLIC, "translate_x(padding_mode='constant')", "scale", "brightness")
    found = measure(Mean(), {}, source, names=names, outputs=("logits", "embedding"))
    error = found.local_equivariance_error
    assert float(error.sel(generator=list(CYCLIC)).max()) < 1e-5
    # What changes the mean is not invisible.
    others = error.sel(generator=["scale", "brightness"], output="logits")
    assert float(others.min()) > 1e-2


def test_a_circular_convolution_moves_along(source):
    variables = init(Circular())
    outputs = ("map", "tanh", "logits")
    found = measure(Circular(), variables, source, names=CYCLIC, outputs=outputs)
    error, size = found.local_equivariance_error, found.mean_square
    assert float((error / size).sel(output="map").max()) < 1e-9
    assert float(error.sel(output="logits").max()) < 1e-9
    # A pointwise function aliases: what it makes is finer than the pixels can tell.
    assert float((error / size).sel(output="tanh").min()) > 1e-2
    # A mirrored border is another thing than a circle.
    mirrored = measure(Circular(), variables, source, names=("translate_x",), outputs=outputs)
    assert float(mirrored.local_equivariance_error.sel(output="map").min()) > 1e-3


def test_tokens_move_as_the_map_that_they_are():
    generator = generators.get("rotate")
    tokens = jnp.asarray(np.random.default_rng(0).random((1 + 16, 5), np.float32))
    found = local_equivariance.act(generator, tokens)
    expected = generator.tangent(tokens[1:].reshape(4, 4, 5)).reshape(16, 5)
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1:], expected, atol=1e-6)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(local_equivariance.act(generators.get("hue"), tokens), 0)
    with pytest.raises(UserError, match="an output has 16 tokens; expected one more than a square"):
        local_equivariance.act(generator, tokens[1:])


@pytest.mark.parametrize(("batch_size", "count"), [(11, 1), (8, 8), (16, 8)])
def test_independent_of_batch_size_and_devices(source, batch_size, count):
    variables, names = init(Linear()), ("rotate", "saturation")
    expected = measure(Linear(), variables, source, names=names, outputs=("embedding",))
    found = measure(
        *(Linear(), variables, source),
        names=names,
        outputs=("embedding",),
        batch_size=batch_size,
        count=count,
    )
    assert list(found.image.values) == [f"image{i}" for i in range(IMAGES)]
    for name in expected.data_vars:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


def test_the_model_is_traced_once_for_all_generators(source):
    traces = []

    class Counted(Linear):
        @nn.compact
        def __call__(self, images, train=False):
            traces.append(images.shape)
            return super().__call__(images, train)

    variables = init(Linear())
    measure(Counted(), variables, source, names=generators.NAMES, outputs=("logits",))
    assert len(traces) == 1, traces
    # The function itself runs on the batch, not on a copy of it for every generator.
    assert traces[0] == (4, SIZE, SIZE, 3)


def test_an_unknown_output_is_named(source):
    with pytest.raises(UserError, match="unknown output 'logit'; did you mean 'logits'"):
        measure(Mean(), {}, source, names=("hue",), outputs=("logit",))
