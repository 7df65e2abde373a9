"""Weights that need no storing: each parameter is drawn from its torch name and shape."""

import zlib

import numpy as np


def draw(name, shape):
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
