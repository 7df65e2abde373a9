"""Networks in Flax Linen, the weights of torchvision and timm for them, and any other function."""

from invariance_jax.models.foreign import is_foreign, load_foreign
from invariance_jax.models.model import (
    Model,
    from_flax,
    from_function,
    init_variables,
    load_model,
    options_of_drawing,
)
from invariance_jax.models.preprocessing import Preprocessing, preprocessing_of
from invariance_jax.models.registry import DEFAULT_CLASSES, create, names
from invariance_jax.models.weight_files import load_weights, save_weights
from invariance_jax.models.weights import export_weights, import_weights, weight_shapes
