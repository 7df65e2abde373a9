"""Files of weights as people have them: read where it is plain, or named with what to do."""

import numpy as np
import pytest
import safetensors.numpy

from invariance_jax import models
from invariance_jax.errors import UserError
from invariance_jax.evaluation.evaluate import _left_out
from invariance_jax.evaluation.table import MEASUREMENTS

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def resnet(draw_weights):
    return draw_weights(models.weight_shapes("resnet8", 10))


@pytest.fixture(scope="module")
def vit(draw_weights):
    return draw_weights(models.weight_shapes("vit_mu8", 10, image_size=32))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "state_dict.", "module._orig_mod.", "net.body."]
)
def test_what_stands_before_every_key_is_taken_off(prefix, resnet):
    expected = models.import_weights("resnet8", resnet)
    found = models.import_weights("resnet8", {prefix + key: x for key, x in resnet.items()})
    assert found["params"].keys() == expected["params"].keys()
    np.testing.assert_array_equal(
        found["params"]["conv1"]["kernel"], expected["params"]["conv1"]["kernel"]
    )


def test_weights_without_a_head_are_measured_without_scores(vit, tmp_path):
    path = tmp_path / "vit.safetensors"
    safetensors.numpy.save_file(vit, path)
    whole = models.load_model("vit_mu8", path, image_size=32)
    headless = {key: x for key, x in vit.items() if not key.startswith("head.")}
    safetensors.numpy.save_file(headless, path)
    found = models.load_model("vit_mu8", path, image_size=32)
    np.testing.assert_array_equal(found(IMAGES), whole(IMAGES))
    assert found.num_classes is None and whole.num_classes == 10
    assert found.apply(found.variables, IMAGES)[0] is None
    accuracy = MEASUREMENTS["accuracy"]()
    assert "gives no scores" in _left_out(accuracy, found, None)
    with pytest.raises(UserError, match=r"missing 'head\.weight'; missing 'head\.bias'"):
        models.load_model("vit_mu8", path, image_size=32, num_classes=10)  # to train on
