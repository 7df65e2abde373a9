"""Networks in Flax Linen, the weights of torchvision and timm for them, and any other function."""

from invariance_jax.models.model import Model, from_flax, from_function, init_variables, load_model
from invariance_jax.models.registry import create, names
from invariance_jax.models.weights import (
    export_weights,
    import_weights,
    load_weights,
    weight_shapes,
)

__all__ = [
    "Model",
    "create",
    "export_weights",
    "from_flax",
    "from_function",
    "import_weights",
    "init_variables",
    "load_model",
    "load_weights",
    "names",
    "weight_shapes",
]
