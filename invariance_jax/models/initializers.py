"""Initial values of parameters, as torch, torchvision and timm draw them."""

import math

import flax.linen as nn
import jax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

# torchvision's ResNet: `kaiming_normal_(mode="fan_out", nonlinearity="relu")`, never truncated.
kaiming_normal_fan_out: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# timm's ViT: torch's `trunc_normal_(std=0.02)` cuts at -2 and 2, a hundred deviations away, so
# that it is a plain normal; JAX's `truncated_normal` would cut at two deviations.
timm_normal: Initializer = nn.initializers.normal(0.02)

# timm's class token starts at almost nothing.
timm_class_token: Initializer = nn.initializers.normal(1e-6)

# torch's default for the weights of `Linear` and `Conv2d`: uniform within 1 / sqrt(fan_in).
torch_uniform: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform_bias(fan_in: int) -> Initializer:
    """Makes torch's default for the bias of `Linear` and `Conv2d`.

    Args:
        fan_in: How many inputs one output of the layer sums up.

    Returns:
        An initializer, uniform within 1 / sqrt(fan_in).
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
