"""The two tables of transforms, ten magnitudes each: the invariance grid's and AutoAugment's."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from invariance_jax.transforms import appearance, geometric, pillow
from invariance_jax.transforms.transform import Function, Transform


def _line(start: float, stop: float, count: int = 10) -> tuple[float, ...]:
    return tuple(np.linspace(start, stop, count).tolist())


def _by_size(*parts: tuple[float, ...]) -> tuple[float, ...]:
    """Distinct values of all parts, the smallest in absolute value first."""
    return tuple(sorted(np.unique(np.concatenate(parts)).tolist(), key=abs))


def _bits(start: float, stop: float) -> tuple[float, ...]:
    return tuple(np.round(_line(start, stop)).tolist())


# Beyond these a magnitude means nothing: a factor below 0, more bits than a byte has.
_LIMITS: Mapping[Function, tuple[float, float]] = {
    geometric.scale: (0.01, 100.0),
    pillow.rescale: (0.01, 100.0),
    appearance.posterize: (0.0, 8.0),
    pillow.posterize: (0.0, 8.0),
    appearance.contrast: (0.0, math.inf),
    appearance.brightness: (0.0, math.inf),
}

# Where the original's rule on normalised values is another one.
_ON_NORMALIZED = {appearance.posterize: appearance.posterize_normalized}


def _row(
    name: str,
    function: Function,
    magnitudes: tuple[float, ...],
    identity: float | None,
    unit: str,
    family: Literal["geometric", "appearance"],
    signed: bool = False,
) -> Transform:
    return Transform(
        name=name,
        function=function,
        magnitudes=magnitudes,
        identity=identity,
        unit=unit,
        family=family,
        signed=signed,
        limits=_LIMITS.get(function, (-math.inf, math.inf)),
        function_normalized=_ON_NORMALIZED.get(function),
    )


def _table(*rows: tuple) -> Mapping[str, Transform]:
    return MappingProxyType({row[0]: _row(*row) for row in rows})


_DEGREES = _by_size(_line(0, 91, 5), _line(0, -89, 6))
_TURNS = _by_size(_line(0, 180, 5), _line(-135, 0, 6))
_PIXELS = _line(0, geometric.REFERENCE_SIZE)

# Section 3 of the paper, with torchvision's rules.
TRANSFORMS: Mapping[str, Transform] = _table(
    ("shear_x", geometric.shear_x, _DEGREES, 0.0, "degrees", "geometric"),
    ("shear_y", geometric.shear_y, _DEGREES, 0.0, "degrees", "geometric"),
    ("translate_x", geometric.translate_x, _PIXELS, 0.0, "pixels of 224", "geometric"),
    ("translate_y", geometric.translate_y, _PIXELS, 0.0, "pixels of 224", "geometric"),
    ("rotate", geometric.rotate, _TURNS, 0.0, "degrees", "geometric"),
    ("scale_zoom_out", geometric.scale, _line(1, 0.28), 1.0, "factor", "geometric"),
    ("scale_zoom_in", geometric.scale, _line(1, 3.5), 1.0, "factor", "geometric"),
    ("posterize", appearance.posterize, _bits(8, 0), 8.0, "bits", "appearance"),
    ("decrease_contrast", appearance.contrast, _line(1, 0), 1.0, "factor", "appearance"),
    ("increase_contrast", appearance.contrast, _line(1, 2), 1.0, "factor", "appearance"),
    ("solarize", appearance.solarize, _line(1, 0), math.inf, "threshold", "appearance"),
    ("decrease_brightness", appearance.brightness, _line(1, 0), 1.0, "factor", "appearance"),
    ("increase_brightness", appearance.brightness, _line(1, 2), 1.0, "factor", "appearance"),
)

_SLOPE, _SHARE, _CHANGE = _line(0, 0.3), _line(0, 150 / 331), _line(0, 0.9)
# Operations without magnitude ignore it.
_IGNORED = (0.0,) * 10
# The magnitude is a size; its sign is drawn.
_SIGNED = True

# Section 4 of the paper, with Pillow's rules.
AUTOAUGMENT: Mapping[str, Transform] = _table(
    ("shear_x", pillow.shear_x, _SLOPE, 0.0, "slope", "geometric", _SIGNED),
    ("shear_y", pillow.shear_y, _SLOPE, 0.0, "slope", "geometric", _SIGNED),
    ("translate_x", pillow.translate_x, _SHARE, 0.0, "of width", "geometric", _SIGNED),
    ("translate_y", pillow.translate_y, _SHARE, 0.0, "of height", "geometric", _SIGNED),
    ("rotate", pillow.rotate, _line(0, 30), 0.0, "degrees", "geometric", _SIGNED),
    ("color", pillow.color, _CHANGE, 0.0, "change of factor", "appearance", _SIGNED),
    ("contrast", pillow.contrast, _CHANGE, 0.0, "change of factor", "appearance", _SIGNED),
    ("sharpness", pillow.sharpness, _CHANGE, 0.0, "change of factor", "appearance", _SIGNED),
    ("brightness", pillow.brightness, _CHANGE, 0.0, "change of factor", "appearance", _SIGNED),
    ("posterize", pillow.posterize, _bits(8, 4), 8.0, "bits", "appearance"),
    ("solarize", pillow.solarize, _line(256, 0), 256.0, "threshold", "appearance"),
    ("autocontrast", pillow.autocontrast, _IGNORED, None, "none", "appearance"),
    ("equalize", pillow.equalize, _IGNORED, None, "none", "appearance"),
    ("invert", pillow.invert, _IGNORED, None, "none", "appearance"),
    ("rescale", pillow.rescale, pillow.RESCALE_FACTORS, 1.0, "factor", "geometric"),
)
