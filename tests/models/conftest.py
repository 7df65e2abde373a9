"""Weights of torchvision and timm models, drawn from names and shapes as for the golden file."""

import zlib

import numpy as np
import pytest


def _draw(name, shape):
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean"):
        noise = 0.1 * noise
    elif len(shape) <= 1:
        noise = 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
    elif name in ("cls_token", "pos_embed"):
        noise = 0.02 * noise
    else:
        noise = noise * np.sqrt(1 / np.prod(shape[1:]))
    return noise.astype(np.float32)


@pytest.fixture(scope="session")
def draw_weights():
    """Function from a table of shapes to a state dict."""
    return lambda shapes: {name: _draw(name, shape) for name, shape in shapes.items()}
