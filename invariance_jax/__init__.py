"""Where does invariance come from: architecture, data or augmentation?

A JAX system after "Grounding inductive biases in natural images: invariance stems from
variations in data" (NeurIPS 2021, arXiv 2106.05121). What people import stands here:

    import invariance_jax as ij
    found = ij.measure(function, images)

Nothing is loaded before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invariance_jax import augment, data, models
    from invariance_jax.errors import UserError
    from invariance_jax.evaluation.api import measure
    from invariance_jax.evaluation.results import read
    from invariance_jax.models import load_model
    from invariance_jax.transforms import AUTOAUGMENT, TRANSFORMS

__version__ = "0.2.0"

__all__ = [
    "AUTOAUGMENT",
    "TRANSFORMS",
    "UserError",
    "__version__",
    "augment",
    "data",
    "load_model",
    "measure",
    "models",
    "read",
]

# Where each name comes from; a module's own name stands for the module.
_HOME = {
    "AUTOAUGMENT": "transforms",
    "TRANSFORMS": "transforms",
    "UserError": "errors",
    "augment": "augment",
    "data": "data",
    "load_model": "models",
    "measure": "evaluation.api",
    "models": "models",
    "read": "evaluation.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    return module if _HOME[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
