"""Networks in Flax Linen, and the weights of torchvision and timm for them."""

from invariance_jax.models.import_weights import export_weights, import_weights, weight_shapes
from invariance_jax.models.registry import create, names
from invariance_jax.models.weight_files import load_weights

__all__ = [
    "create",
    "export_weights",
    "import_weights",
    "load_weights",
    "names",
    "weight_shapes",
]
