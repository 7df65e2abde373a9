"""Pure image functions and the tables of them; knows no models and no files."""

from invariance_jax.transforms.autoaugment import AUTOAUGMENT
from invariance_jax.transforms.cyclic import Translation
from invariance_jax.transforms.domain import Domain, in_domain
from invariance_jax.transforms.normalize import normalize
from invariance_jax.transforms.table import TRANSFORMS
from invariance_jax.transforms.transform import Transform

__all__ = [
    "AUTOAUGMENT",
    "TRANSFORMS",
    "Domain",
    "Transform",
    "Translation",
    "in_domain",
    "normalize",
]
