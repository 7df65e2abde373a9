"""The one table of AutoAugment's operations (paper, section 4), with Pillow's semantics."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from invariance_jax.transforms import pillow_color, pillow_geometry, pillow_levels
from invariance_jax.transforms.transform import Transform


def _line(start: float, stop: float) -> tuple[float, ...]:
    """Ten values from start to stop."""
    return tuple(np.linspace(start, stop, 10).tolist())


_SHEAR = _line(0, 0.3)
_TRANSLATE = _line(0, 150 / 331)
_FACTOR = _line(0, 0.9)
_POSTERIZE = tuple(np.round(np.linspace(8, 4, 10)).tolist())
# Operations without magnitude ignore it.
_IGNORED = (0.0,) * 10

# name, function, magnitudes, identity, unit, family, whether the magnitude takes a sign
_ROWS = (
    ("shear_x", pillow_geometry.shear_x, _SHEAR, 0.0, "slope", "geometric", True),
    ("shear_y", pillow_geometry.shear_y, _SHEAR, 0.0, "slope", "geometric", True),
    ("translate_x", pillow_geometry.translate_x, _TRANSLATE, 0.0, "of width", "geometric", True),
    ("translate_y", pillow_geometry.translate_y, _TRANSLATE, 0.0, "of height", "geometric", True),
    ("rotate", pillow_geometry.rotate, _line(0, 30), 0.0, "degrees", "geometric", True),
    ("color", pillow_color.color, _FACTOR, 0.0, "change of factor", "appearance", True),
    ("contrast", pillow_color.contrast, _FACTOR, 0.0, "change of factor", "appearance", True),
    ("sharpness", pillow_color.sharpness, _FACTOR, 0.0, "change of factor", "appearance", True),
    ("brightness", pillow_color.brightness, _FACTOR, 0.0, "change of factor", "appearance", True),
    ("posterize", pillow_levels.posterize, _POSTERIZE, 8.0, "bits", "appearance", False),
    ("solarize", pillow_levels.solarize, _line(256, 0), 256.0, "threshold", "appearance", False),
    ("autocontrast", pillow_levels.autocontrast, _IGNORED, None, "none", "appearance", False),
    ("equalize", pillow_levels.equalize, _IGNORED, None, "none", "appearance", False),
    ("invert", pillow_levels.invert, _IGNORED, None, "none", "appearance", False),
    (
        *("rescale", pillow_geometry.rescale, pillow_geometry.RESCALE_FACTORS),
        *(1.0, "factor", "geometric", False),
    ),
)

# Beyond these a magnitude means nothing.
_LIMITS = {"posterize": (0.0, 8.0), "rescale": (0.01, 100.0)}

AUTOAUGMENT: Mapping[str, Transform] = MappingProxyType(
    {
        name: Transform(
            name=name,
            function=function,
            magnitudes=magnitudes,
            identity=identity,
            unit=unit,
            family=family,
            signed=signed,
            limits=_LIMITS.get(name, (-math.inf, math.inf)),
        )
        for name, function, magnitudes, identity, unit, family, signed in _ROWS
    }
)
