"""One view of every model: Flax networks, functions in the program, functions on the host."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import PartitionSpec as P

from invariance_jax import devices, models
from invariance_jax.errors import UserError
from invariance_jax.transforms import normalize

IMAGES = np.random.default_rng(0).random((8, 4, 4, 3)).astype(np.float32)


def corners(images):
    """Something that JAX cannot trace: it is written into, and compared in Python."""
    assert type(images) is np.ndarray and images.dtype == np.float32
    images[:, 0, 0] *= 2  # the function's own copy
    return np.stack([images[:, 0, 0, 0], images[:, -1, -1, 2]], 1).astype(np.float64)


def corners_by_hand(images):
    return np.stack([2 * images[:, 0, 0, 0], images[:, -1, -1, 2]], 1)


def embedding(model):
    return lambda images: model.apply(model.variables, model.normalize(images))[1]["embedding"]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory, draw_weights):
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    weights = draw_weights(models.weight_shapes("vit_mu8", 7, image_size=8))
    safetensors.numpy.save_file(weights, path)
    return path


def test_a_network_with_the_weights_of_a_file(weights_file):
    model = models.load_model("vit_mu8", weights_file, image_size=8)
    assert (model.name, model.num_classes, model.image_size) == ("vit_mu8", 7, 8)
    variables = models.import_weights("vit_mu8", models.load_weights(weights_file))
    jax.tree.map(np.testing.assert_array_equal, model.variables, variables)
    images = np.random.default_rng(1).random((2, 8, 8, 3)).astype(np.float32)
    module = models.create("vit_mu8", 7)
    inputs = normalize(jnp.asarray(images))
    np.testing.assert_array_equal(model.normalize(jnp.asarray(images)), inputs)
    logits, features = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, inputs)
    found_logits, found = jax.jit(model.apply)(model.variables, inputs)
    np.testing.assert_array_equal(found_logits, logits)
    assert set(found) == set(features)
    for _ in range(2):
        np.testing.assert_allclose(model(images), features["embedding"], atol=1e-5)
    assert model._embed._cache_size() == 1


def test_without_a_file_the_parameters_are_drawn_from_the_seed():
    model = models.load_model("vit_mu8", image_size=8, seed=3, num_classes=5)
    assert model.num_classes == 5
    draw = jax.jit(models.init_variables, static_argnames=("model", "image_size"))
    drawn = draw(models.create("vit_mu8", 5), jax.random.key(3), image_size=8)
    # Compiled with other options: rounding differs.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8)
    jax.tree.map(close, model.variables, drawn)

    class Scale(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            return images * self.param("scale", nn.initializers.normal(), (1, 1, 1, 3))

    images, key = jnp.zeros((1, 8, 8, 3)), jax.random.fold_in(jax.random.key(3), 2**32 - 1)
    jax.tree.map(
        np.testing.assert_array_equal,
        models.init_variables(Scale(), jax.random.key(3), 8),
        Scale().init(key, images, train=False),
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "vit_mu8",
            {},
            "vit.safetensors': ['params']['pos_embed'] has shape (1, 2, 64); images of 224 pixels "
            "need (1, 785, 64); resample_pos_embed=True resamples it",
        ),
        ("vit_mu8", {"num_classes": 8, "image_size": 8}, "'head.weight' has shape (7, 64)"),
        ("vit_mu9", {}, "unknown model 'vit_mu9'; did you mean 'vit_mu8'"),
        ("vit_mu8(depth=1)", {}, "unknown option of model 'vit_mu8' 'depth'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, options, message, weights_file):
    with pytest.raises(UserError, match=re.escape(message)):
        models.load_model(name, weights_file, **options)


def test_a_function_that_jax_can_trace_becomes_part_of_the_program():
    traced = []

    def colours(images):
        traced.append(images)
        return (images.mean((1, 2)) * 255).astype(jnp.int32)

    model = models.from_function(colours)
    assert (model.name, model.num_classes, model.image_size) == ("colours", None, None)
    found = model(IMAGES)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, (IMAGES.mean((1, 2)) * 255).astype(np.int32))
    assert all(isinstance(each, jax.core.Tracer) for each in traced)
    assert model.apply({}, IMAGES)[0] is None


def test_a_function_of_numpy_is_called_on_the_host():
    model = models.from_function(corners, name="corners of it", image_size=4)
    before = IMAGES.copy()
    found = model(IMAGES)
    assert model.name == "corners of it" and found.dtype == jnp.float32
    np.testing.assert_array_equal(found, corners_by_hand(IMAGES))
    np.testing.assert_array_equal(IMAGES, before)

    # In a loop, and on two devices that work alone, each with its own loop.
    def looped(images):
        parts = images.reshape(-1, 2, 4, 4, 3)
        found = jax.lax.scan(lambda done, part: (done, embedding(model)(part)), 0, parts)[1]
        return found.reshape(-1, 2)

    np.testing.assert_array_equal(jax.jit(looped)(IMAGES), corners_by_hand(IMAGES))
    mesh = devices.make_mesh(2)
    divided = jax.shard_map(looped, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    np.testing.assert_array_equal(jax.jit(divided)(IMAGES), corners_by_hand(IMAGES))


def test_eight_devices_that_all_call_the_host_do_not_wait_for_each_other():
    # Large enough that JAX would copy them in threads of the pool that the devices occupy.
    images = np.random.default_rng(2).random((64, 224, 224, 3)).astype(np.float32)
    model = models.from_function(corners)

    def looped(images):
        parts = images.reshape(4, -1, 224, 224, 3)
        found = jax.lax.scan(lambda done, part: (done, embedding(model)(part)), 0, parts)[1]
        return found.reshape(-1, 2)

    mesh = devices.make_mesh(8)
    divided = jax.jit(
        jax.shard_map(looped, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    )
    for _ in range(3):
        np.testing.assert_array_equal(divided(images), corners_by_hand(images))


def test_where_a_function_runs_can_be_demanded():
    seen = []

    def total(images):
        seen.append(type(images))
        return images.sum((1, 2))

    found = models.from_function(total, on_host=True)(IMAGES)
    np.testing.assert_allclose(found, IMAGES.sum((1, 2)), rtol=1e-6)
    assert set(seen) == {np.ndarray}
    with pytest.raises(jax.errors.TracerArrayConversionError):
        models.from_function(lambda images: np.linalg.norm(images, axis=1), on_host=False)(IMAGES)


def test_a_function_of_pytorch():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))

    def embed(images):
        return torch.from_numpy(images).mean((1, 2)) @ weight  # with a gradient

    expected = IMAGES.mean((1, 2)) @ np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(models.from_function(embed)(IMAGES), expected, rtol=1e-5)


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.mean((1, 2, 3)), "gave shape (2,) for 2 images; expected [2, D], one vector"),
        (lambda x: x.mean((0, 1, 2))[None], "gave shape (1, 3) for 2 images"),
        (lambda x: x.mean(1), "gave shape (2, 4, 3) for 2 images"),
        (lambda x: x[:, 0, 0, :0], "gave shape (2, 0) for 2 images"),
        (lambda x: x[:, 0, 0] * 1j, "gave values of dtype complex"),
        (lambda x: x[:, 0, 0] > 0.5, "gave values of dtype bool; expected real numbers"),
    ],
)
def test_results_that_are_no_vectors_are_named(function, message, on_host):
    with pytest.raises(UserError, match=re.escape(message)):
        models.from_function(function, name="mine", on_host=on_host, image_size=4)


def test_results_that_are_no_arrays_are_named():
    with pytest.raises(UserError, match=r"model 'mine' gave list for 2 images"):
        models.from_function(lambda x: [x, x], name="mine", on_host=False, image_size=4)
    with pytest.raises(UserError, match=r"model 'mine' gave values of dtype <U3"):
        models.from_function(lambda x: [["cat"], ["dog"]], name="mine", image_size=4)


def test_a_function_that_uses_jax_and_cannot_be_traced_is_refused():
    def sometimes(images):
        return jnp.mean(images, (1, 2)) if images.max() > 0.5 else jnp.zeros((len(images), 3))

    with pytest.raises(UserError, match="model 'sometimes' uses JAX, but JAX cannot trace it"):
        models.from_function(sometimes)(IMAGES)
