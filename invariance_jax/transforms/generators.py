"""Infinitesimal transforms: which way an image begins to change under a group of transforms.

A generator is a velocity. T_t moves an image for a time t, and the tangent is the derivative of
T_t(image) at t = 0, got by `jax.jvp`. At the identity only the velocity matters: by the chain rule
a flow of velocity v through the resampler changes the image by -v · gradient(image).
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from invariance_jax import spec
from invariance_jax.errors import lookup
from invariance_jax.transforms import cubic
from invariance_jax.transforms.appearance import LUMA
from invariance_jax.transforms.cubic import EDGES, Edge

Map = Float[Array, "height width channels"]
Image = Float[Array, "height width 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """One infinitesimal transform.

    Attributes:
        name: As it was asked for, options included.
        tangent: From an image to its derivative, same shape and dtype; images are float32
            [height, width, 3] in [0, 1], not normalised. A geometric generator takes a feature map
            of any number of channels too: it moves the map as it moves the image.
        unit: What t counts.
        family: Does it move things, or change how they look?
    """

    name: str
    tangent: Callable[[Map], Map]
    unit: str
    family: Literal["geometric", "appearance"]


def flow(
    image: Map, velocity: tuple[tuple[float, ...], tuple[float, ...]], edge: Edge = "reflect"
) -> Map:
    """Derivative of an image whose content begins to move.

    Args:
        image: A square image or feature map.
        velocity: Rows (x, y) of the 2x3 matrix that takes (x, y, 1) to the velocity there; x to
            the right and y down, both from -1 to 1 between the image's borders. The borders of an
            image and of the feature maps over it coincide, so one velocity serves all.
        edge: What lies beyond the border.

    Returns:
        The derivative for one unit of time.
    """
    height, width, _ = image.shape
    down, right = cubic.gradient(image, edge)
    x = (2 * jnp.arange(width, dtype=jnp.float32) + 1)[None, :, None] / width - 1
    y = (2 * jnp.arange(height, dtype=jnp.float32) + 1)[:, None, None] / height - 1
    (xx, xy, x1), (yx, yy, y1) = velocity
    # Half a side is one unit of x or y.
    return -((xx * x + xy * y + x1) * right * width + (yx * x + yy * y + y1) * down * height) / 2


# Rows of the velocity: of x, of y; each times (x, y, 1). y points down.
_VELOCITIES = {
    "translate_x": (((0, 0, 1), (0, 0, 0)), "half sides"),
    "translate_y": (((0, 0, 0), (0, 0, 1)), "half sides"),
    "rotate": (((0, -1, 0), (1, 0, 0)), "radians, clockwise"),
    "scale": (((1, 0, 0), (0, 1, 0)), "logarithm of the factor"),
    "shear_x": (((0, 1, 0), (0, 0, 0)), "slope"),
    "shear_y": (((0, 0, 0), (1, 0, 0)), "slope"),
    "stretch_x": (((1, 0, 0), (0, 0, 0)), "logarithm of the factor"),
    "stretch_y": (((0, 0, 0), (0, 1, 0)), "logarithm of the factor"),
}


def _grey(image: Image) -> Float[Array, "height width 1"]:
    return jnp.sum(image * jnp.array(LUMA, jnp.float32)[None, None, :], axis=-1, keepdims=True)


def _brightness(image: Image, t: Float[Array, ""]) -> Image:
    return image * (1 + t)


def _contrast(image: Image, t: Float[Array, ""]) -> Image:
    mean = jnp.mean(_grey(image))
    return mean + (image - mean) * (1 + t)


def _saturation(image: Image, t: Float[Array, ""]) -> Image:
    grey = _grey(image)
    return grey + (image - grey) * (1 + t)


# Of NTSC's YIQ: luma first, then two axes of colour in which hue is an angle.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _hue(image: Image, t: Float[Array, ""]) -> Image:
    cosine, sine = jnp.cos(t), jnp.sin(t)
    luma, i, q = jnp.moveaxis(_mixed(_YIQ, image), -1, 0)
    turned = jnp.stack([luma, cosine * i - sine * q, sine * i + cosine * q], axis=-1)
    return _mixed(np.linalg.inv(_YIQ), turned)


def _mixed(matrix: np.ndarray, image: Image) -> Image:
    weights = jnp.asarray(matrix, jnp.float32)
    return jnp.einsum("kc,hwc->hwk", weights, image, precision=jax.lax.Precision.HIGHEST)


# Without the clipping of `transforms.appearance`: saturated pixels would have a kink here.
_COLOURS = {
    "brightness": (_brightness, "change of the factor"),
    "contrast": (_contrast, "change of the factor"),
    "saturation": (_saturation, "change of the factor"),
    "hue": (_hue, "radians in the chroma plane of YIQ"),
}


def _geometric(name: str, *, edge: Edge = "reflect") -> Generator:
    lookup(dict.fromkeys(EDGES), edge, "edge")
    velocity, unit = _VELOCITIES[name]
    tangent = partial(flow, velocity=velocity, edge=edge)
    return Generator(name=name, tangent=tangent, unit=unit, family="geometric")


def _appearance(name: str) -> Generator:
    function, unit = _COLOURS[name]
    tangent = partial(_derivative, function)
    return Generator(name=name, tangent=tangent, unit=unit, family="appearance")


def _derivative(function: Callable[[Image, Float[Array, ""]], Image], image: Image) -> Image:
    _, tangent = jax.jvp(lambda t: function(image, t), (jnp.float32(0),), (jnp.float32(1),))
    return tangent


_MAKERS: Mapping[str, Callable[..., Generator]] = MappingProxyType(
    {name: partial(_geometric, name) for name in _VELOCITIES}
    | {name: partial(_appearance, name) for name in _COLOURS}
)

NAMES: tuple[str, ...] = tuple(_MAKERS)


def get(text: str, field: str = "generator") -> Generator:
    """Makes a generator.

    Args:
        text: One of `NAMES`. Geometric ones have an option, `rotate(edge='cyclic')`: what lies
            beyond the border, "reflect" (the default), "cyclic" or "zero". With "zero" the border
            itself is a sharp edge that moves.
        field: Where the text came from, for error messages.

    Returns:
        The generator.

    Raises:
        UserError: Unknown name, option or edge.

    Examples:
        >>> get("translate_x(edge='cyclic')").unit
        'half sides'
    """
    generator = spec.call(_MAKERS, text, kind="generator", field=field)
    return dataclasses.replace(generator, name=text)
