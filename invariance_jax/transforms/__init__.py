"""Pure image functions and the one table of them; knows no models and no files."""

from invariance_jax.transforms.normalize import normalize
from invariance_jax.transforms.table import TRANSFORMS
from invariance_jax.transforms.transform import Transform

__all__ = ["TRANSFORMS", "Transform", "normalize"]
