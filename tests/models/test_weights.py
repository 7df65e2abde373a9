"""Import, export and files of weights; what refuses them and in which words."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from invariance_jax import models
from invariance_jax.errors import UserError

OPTIONS = {
    "resnet8": {},
    "resnet18": {"stem": "cifar", "stem_stride": 2},
    "resnet50": {},
    "modified_resnet18": {"stage3_pool": False},
    "vit_mu8": {},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_import_has_the_structure_of_init_and_export_undoes_it(name, draw_weights):
    options = OPTIONS[name]
    weights = draw_weights(models.weight_shapes(name, 10, image_size=64, **options))
    variables = models.import_weights(name, weights, **options)
    model = models.create(name, 10, **options)
    images = jnp.zeros((1, 64, 64, 3))
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(variables), jax.tree.leaves(expected), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)

    exported = models.export_weights(name, variables, **options)
    assert list(exported) == list(weights)
    for key, value in weights.items():
        np.testing.assert_array_equal(exported[key], value, err_msg=key)
    again = models.import_weights(name, exported, **options)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_import_copies(draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8", 10))
    variables = models.import_weights("resnet8", weights)
    before = jax.tree.map(np.array, variables)
    # Arrays of every size: JAX may share the memory of large aligned ones only.
    for value in weights.values():
        value += 1
    jax.tree.map(np.testing.assert_array_equal, variables, before)


def test_counters_of_batches_are_ignored(draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8", 10))
    counted = weights | {"bn1.num_batches_tracked": np.array(7)}
    jax.tree.map(
        np.testing.assert_array_equal,
        models.import_weights("resnet8", counted),
        models.import_weights("resnet8", weights),
    )


def test_missing_unexpected_and_wrong_shapes_in_one_message(draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8"))
    for key in ("conv1.weight", "layer2.0.downsample.0.weight", "fc.bias"):
        del weights[key]
    weights["layer4.0.conv1.weight"] = np.zeros((1,))
    weights["bn1.weight"] = np.zeros((17,))
    weights["layer1.0.conv1.weight"] = np.zeros((16, 3, 3, 16))
    message = (
        "weights do not fit model 'resnet8' (3 missing, 1 unexpected, 2 of another shape): "
        "missing 'conv1.weight'; missing 'layer2.0.downsample.0.weight'; missing 'fc.bias'; "
        "unexpected 'layer4.0.conv1.weight'; 'bn1.weight' has shape (17,), expected (16,); "
        "and 1 more"
    )
    with pytest.raises(UserError) as error:
        models.import_weights("resnet8", weights)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "pos_embed",
            np.zeros((1, 16, 64)),
            "'pos_embed' has shape (1, 16, 64), expected (1, 785,",
        ),
        ("pos_embed", np.zeros(3), "'pos_embed' has shape (3,), expected (1, 785, 64)"),
        ("head.bias", np.zeros(11), "'head.bias' has shape (11,), expected (10,)"),
        ("head.weight", np.zeros(64), "'head.weight' has shape (64,), expected (1000, 64)"),
    ],
)
def test_wrong_shapes_of_what_sets_the_size(key, value, message, draw_weights):
    weights = draw_weights(models.weight_shapes("vit_mu8", 10, image_size=32))
    with pytest.raises(UserError, match=re.escape(message)):
        models.import_weights("vit_mu8", weights | {key: value})


def test_number_of_classes_can_be_demanded(draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8", 10))
    variables = models.import_weights("resnet8", weights, num_classes=10)
    assert variables["params"]["head"]["bias"].shape == (10,)
    message = re.escape("'fc.weight' has shape (10, 64), expected (12, 64)")
    with pytest.raises(UserError, match=message):
        models.import_weights("resnet8", weights, num_classes=12)
    with pytest.raises(UserError, match=message):
        models.export_weights("resnet8", variables, num_classes=12)


def test_variables_of_another_network_are_not_exported(draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8", 10))
    variables = models.import_weights("resnet8", weights)
    variables["params"]["cls_token"] = jnp.zeros((1, 1, 64))
    del variables["batch_stats"]["bn1"]
    message = (
        "weights do not fit model 'resnet8' (2 missing, 1 unexpected, 0 of another shape): "
        "missing 'bn1.running_mean'; missing 'bn1.running_var'; unexpected 'params/cls_token'"
    )
    with pytest.raises(UserError) as error:
        models.export_weights("resnet8", variables)
    assert str(error.value) == message


@pytest.mark.parametrize("call", [models.import_weights, models.export_weights])
def test_unknown_names(call):
    with pytest.raises(UserError, match="unknown model 'resnet9'; did you mean"):
        call("resnet9", {})
    with pytest.raises(UserError, match="unknown option of model 'resnet8' 'stage2_pool'"):
        call("resnet8", {}, stage2_pool=True)


def test_files(tmp_path, draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8", 10))
    np.savez(tmp_path / "weights.npz", **weights)
    safetensors.numpy.save_file(weights, tmp_path / "weights.safetensors")
    for suffix in ("npz", "safetensors"):
        read = models.load_weights(tmp_path / f"weights.{suffix}")
        assert set(read) == set(weights)
        for key, value in weights.items():
            np.testing.assert_array_equal(read[key], value)


def test_bfloat16_files_become_float32(tmp_path, draw_weights):
    weights = draw_weights(models.weight_shapes("resnet8", 10))
    low = {key: value.astype(ml_dtypes.bfloat16) for key, value in weights.items()}
    safetensors.numpy.save_file(low, tmp_path / "low.safetensors")
    read = models.load_weights(str(tmp_path / "low.safetensors"))
    bias = models.import_weights("resnet8", read)["params"]["head"]["bias"]
    assert bias.dtype == jnp.float32
    np.testing.assert_array_equal(bias, low["fc.bias"].astype(np.float32))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("weights.xyz", b"", "expected a .safetensors or .npz file, PyTorch's .pth"),
        ("absent.npz", None, "no such file"),
        ("broken.npz", b"not a zip file", "cannot be read"),
        ("cut.npz", b"PK\x03\x04 and no more", "cannot be read"),
        ("empty.npz", b"", "cannot be read"),
        ("array.npz", b"\x93NUMPY", "cannot be read"),
        ("broken.safetensors", b"no header", "cannot be read"),
    ],
)
def test_errors_of_files(file, content, message, tmp_path):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file}'.*{message}"):
        models.load_weights(tmp_path / file)
