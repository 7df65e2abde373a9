"""The one table of the invariance grid: 13 transforms of 10 magnitudes (paper, section 3)."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from invariance_jax.transforms import appearance, geometric
from invariance_jax.transforms.transform import Transform


def _by_size(*parts: np.ndarray) -> tuple[float, ...]:
    """Distinct values of all parts, the smallest in absolute value first."""
    return tuple(sorted(np.unique(np.concatenate(parts)).tolist(), key=abs))


def _line(start: float, stop: float) -> tuple[float, ...]:
    """Ten values from start to stop."""
    return tuple(np.linspace(start, stop, 10).tolist())


_SHEAR = _by_size(np.linspace(0, 91, 5), np.linspace(0, -89, 6))
_ROTATE = _by_size(np.linspace(0, 180, 5), np.linspace(-135, 0, 6))
_TRANSLATE = _line(0, geometric.REFERENCE_SIZE)
_POSTERIZE = tuple(np.round(np.linspace(8, 0, 10)).tolist())

_ROWS = (
    # name, function, magnitudes, identity, unit, family
    ("shear_x", geometric.shear_x, _SHEAR, 0.0, "degrees", "geometric"),
    ("shear_y", geometric.shear_y, _SHEAR, 0.0, "degrees", "geometric"),
    ("translate_x", geometric.translate_x, _TRANSLATE, 0.0, "pixels of 224", "geometric"),
    ("translate_y", geometric.translate_y, _TRANSLATE, 0.0, "pixels of 224", "geometric"),
    ("rotate", geometric.rotate, _ROTATE, 0.0, "degrees", "geometric"),
    ("scale_zoom_out", geometric.scale, _line(1, 0.28), 1.0, "factor", "geometric"),
    ("scale_zoom_in", geometric.scale, _line(1, 3.5), 1.0, "factor", "geometric"),
    ("posterize", appearance.posterize, _POSTERIZE, 8.0, "bits", "appearance"),
    ("decrease_contrast", appearance.contrast, _line(1, 0), 1.0, "factor", "appearance"),
    ("increase_contrast", appearance.contrast, _line(1, 2), 1.0, "factor", "appearance"),
    ("solarize", appearance.solarize, _line(1, 0), math.inf, "threshold", "appearance"),
    ("decrease_brightness", appearance.brightness, _line(1, 0), 1.0, "factor", "appearance"),
    ("increase_brightness", appearance.brightness, _line(1, 2), 1.0, "factor", "appearance"),
)

# Where the original's rule on normalised values is another one.
_ON_NORMALIZED = {"posterize": appearance.posterize_normalized}

# Beyond these a magnitude means nothing: a factor below 0, more bits than a byte has.
_NOT_NEGATIVE = (0.0, math.inf)
_LIMITS = {
    geometric.scale: (0.01, 100.0),
    appearance.posterize: (0.0, 8.0),
    appearance.contrast: _NOT_NEGATIVE,
    appearance.brightness: _NOT_NEGATIVE,
}

TRANSFORMS: Mapping[str, Transform] = MappingProxyType(
    {
        name: Transform(
            name=name,
            function=function,
            magnitudes=magnitudes,
            identity=identity,
            unit=unit,
            family=family,
            limits=_LIMITS.get(function, (-math.inf, math.inf)),
            function_normalized=_ON_NORMALIZED.get(name),
        )
        for name, function, magnitudes, identity, unit, family in _ROWS
    }
)
