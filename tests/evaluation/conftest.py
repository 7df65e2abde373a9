"""The smallest things that can be evaluated."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment, data, devices
from invariance_jax.config import EvalConfig
from invariance_jax.evaluation import invariance
from invariance_jax.evaluation.shards import Shards
from invariance_jax.transforms import TRANSFORMS

IMAGES = 11
SIDE = 8


class Linear(nn.Module):
    """The smallest network with an embedding, a layer before it, and scores."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        layer = jnp.tanh(nn.Conv(2, (2, 2), strides=(2, 2), dtype=self.dtype)(images))
        embedding = nn.Dense(6, dtype=self.dtype)(layer.reshape(images.shape[0], -1))
        logits = nn.Dense(10, dtype=self.dtype)(embedding)
        found = logits, {"layer": layer, "embedding": embedding}
        return jax.tree.map(lambda each: each.astype(jnp.float32), found)


class Mean(nn.Module):
    """Blind to where things are."""

    def __call__(self, images, train=False):
        embedding = images.mean((1, 2))
        return embedding, {"embedding": embedding}


class Coloured:
    """Noise around a colour of its own: means that point in different directions."""

    name, split, num_classes, has_labels = "coloured", "all", 10, True
    class_names = tuple("0123456789")

    def __init__(self, images):
        generator = np.random.default_rng(0)
        colour = generator.integers(20, 200, (images, 1, 1, 3))
        noise = generator.integers(0, 50, (images, SIDE, SIDE, 3))
        self._pixels = (colour + noise).astype(np.uint8)

    def __len__(self):
        return len(self._pixels)

    def __getitem__(self, index):
        return {"image": self._pixels[index], "label": index % 10, "name": f"image_{index}"}


EVAL = EvalConfig(
    split="validation",
    batch_size=8,
    grid_batch_size=4,
    memory=2**30,
    shard_size=100,
    features=(),
    pooling="mean",
    equivariance=False,
    per_class=False,
    domain="pixel",
    translation="zero",
    lie=(),
    test_time=(),
    seed=3,
)


@pytest.fixture(scope="session")
def source():
    return data.load_source("digits", f"validation[:{IMAGES}]")


@pytest.fixture(scope="session")
def variables():
    return jax.device_get(Linear().init(jax.random.key(1), jnp.zeros((1, SIDE, SIDE, 3))))


def pixels_of(source):
    """What the model sees of each image before normalisation, float32 [image, 8, 8, 3]."""
    canvases = [data.to_canvas(source[i]["image"], SIDE)[0] for i in range(len(source))]
    return jnp.asarray(np.stack(canvases), jnp.float32) / 255


def run_measure(
    source,
    variables,
    folder,
    model=None,
    *,
    transforms=TRANSFORMS,
    count=1,
    **fields,
):
    """Measures with `EVAL`, of which it overrides fields."""
    return invariance.measure(
        model or Linear(),
        variables,
        augment.get("none", size=SIDE, resize=SIDE),
        transforms,
        source,
        replace(EVAL, **fields),
        Shards(folder),
        image_size=SIDE,
        canvas_size=SIDE,
        workers=0,
        mesh=devices.make_mesh(count),
        description="test",
    )


@pytest.fixture
def measure(source, variables, tmp_path):
    """`run_measure` with defaults, in a folder of its own."""

    def run(model=None, *, model_variables=variables, images=source, **options):
        folder = tmp_path / f"parts{len(list(tmp_path.iterdir()))}"
        return run_measure(images, model_variables, folder, model, **options)

    return run
