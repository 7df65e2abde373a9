"""Our networks with torchvision's and timm's weights give torchvision's and timm's numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import models
from invariance_jax.transforms import normalize

OURS = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "modified_resnet18_ttt": "modified_resnet18",
    "vit_tiny_patch16_224": "vit_ti16",
    "vit_base_patch16_224": "vit_b16",
}


@pytest.mark.parametrize("theirs", OURS)
def test_logits_and_embedding_equal_golden(theirs, golden_dir, draw_weights):
    name = OURS[theirs]
    image = np.load(golden_dir / "transforms.npz")["image_u8"]
    images = np.stack([image, image[:, ::-1]]).astype(np.float32) / 255
    variables = models.import_weights(name, draw_weights(models.weight_shapes(name)))
    apply = jax.jit(lambda v, x: models.create(name).apply(v, x, train=False))
    logits, features = apply(variables, normalize(jnp.asarray(images)))
    golden = np.load(golden_dir / "models.npz")
    for ours, key in ((logits, "logits"), (features["embedding"], "embedding")):
        expected = golden[f"{theirs}/{key}"]
        error = np.abs(ours - expected).max() / np.abs(expected).max()
        assert error < 1e-5, key


@pytest.mark.real_data
@pytest.mark.parametrize("theirs", OURS)
def test_keys_shapes_and_order_equal_torch(theirs, real_data):
    spec = json.loads((real_data / "golden/models_spec.json").read_text())[theirs]
    shapes = models.weight_shapes(OURS[theirs])
    assert list(shapes.items()) == [(key, tuple(shape)) for key, shape in spec.items()]
