"""Infinitesimal transforms: which way an image begins to change under a group of transforms.

A generator is a velocity. T_t moves an image for a time t, and the tangent is the derivative of
T_t(image) at t = 0, got by `jax.jvp`. At the identity only the velocity matters: by the chain rule
a flow of velocity v through the resampler changes the image by -v · gradient(image).

The resampler is cubic convolution. Bilinear interpolation has a kink at every pixel: its
derivative there is whichever side was looked at. Keys's kernel (IEEE Trans. ASSP 29(6), 1981, a =
-1/2) is once continuously differentiable, passes through the pixels, and reproduces quadratics.
Its derivative at pixel i is (x[i + 1] - x[i - 1]) / 2, exact for quadratics; of a wave of angular
frequency w per pixel it gives the share sin(w) / w, so that detail near a pixel's size counts
less, down to nothing for an alternation of single pixels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from invariance_jax import spec
from invariance_jax.errors import lookup
from invariance_jax.transforms import resample
from invariance_jax.transforms.appearance import grey
from invariance_jax.transforms.transform import Image, Scalar

# What lies beyond the first and last pixel: the image mirrored about their centres (the derivative
# across the border is 0 there), its other side, or black.
Padding = Literal["reflect", "wrap", "constant"]


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
    tangent: Callable[[Image], Image]
    unit: str
    family: Literal["geometric", "appearance"]


def cubic_weights(
    coordinates: Float[Array, "out"], size: int, padding_mode: Padding
) -> Float[Array, "out {size}"]:
    """Weights of cubic convolution along one axis.

    Args:
        coordinates: Where to sample, in source pixels; pixel i has its centre at i.
        size: Number of source pixels.
        padding_mode: What lies beyond the first and last pixel.

    Returns:
        One row for each coordinate; rows sum to 1 but where zeros lie beyond the edge.
    """
    pixels = jnp.floor(coordinates)[:, None] + jnp.arange(-1, 3, dtype=jnp.float32)[None, :]
    x = jnp.abs(coordinates[:, None] - pixels)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = jnp.where(x <= 1, near, jnp.where(x < 2, far, 0.0))
    at = _PLACES[padding_mode](pixels.astype(jnp.int32), size)
    return jnp.sum(weights[..., None] * jax.nn.one_hot(at, size), axis=1)


def _mirrored(pixels: Int[Array, "..."], size: int) -> Int[Array, "..."]:
    period = max(2 * (size - 1), 1)
    return jnp.minimum(pixels % period, period - pixels % period)


# Which pixel of the image stands in for each pixel; for "constant" none does beyond the edge, where
# one_hot gives no place.
_PLACES: Mapping[str, Callable[[Int[Array, "..."], int], Int[Array, "..."]]] = {
    "reflect": _mirrored,
    "wrap": lambda pixels, size: pixels % size,
    "constant": lambda pixels, _: pixels,
}


def _derivative_weights(size: int, padding_mode: Padding) -> Float[Array, "{size} {size}"]:
    """How the weights change as all sample positions move; resampling is linear in them."""
    pixels = jnp.arange(size, dtype=jnp.float32)
    return _derivative(lambda offset: cubic_weights(pixels + offset, size, padding_mode))


def _derivative(function: Callable[[Scalar], Float[Array, "..."]]) -> Float[Array, "..."]:
    """At 0."""
    return jax.jvp(function, (jnp.float32(0),), (jnp.float32(1),))[1]


def flow(
    image: Image,
    velocity: tuple[tuple[float, ...], tuple[float, ...]],
    padding_mode: Padding = "reflect",
) -> Image:
    """Derivative of an image whose content begins to move.

    It is exact for the interpolated image (`jax.jvp` of the resampling at the positions of the
    pixels themselves): there is no step size.

    Args:
        image: An image or feature map of any number of channels.
        velocity: Rows (x, y) of the 2x3 matrix that takes (x, y, 1) to the velocity there; x to
            the right and y down, both from -1 to 1 between the image's borders. The borders of an
            image and of the feature maps over it coincide, so one velocity serves all.
        padding_mode: What lies beyond the border.

    Returns:
        The derivative for one unit of time.
    """
    height, width, _ = image.shape
    rows, columns = (_derivative_weights(size, padding_mode) for size in (height, width))
    down = jnp.einsum("oh,hwc->owc", rows, image, precision=resample.PRECISION)
    right = jnp.einsum("pw,hwc->hpc", columns, image, precision=resample.PRECISION)
    x = (2 * jnp.arange(width, dtype=jnp.float32) + 1)[None, :, None] / width - 1
    y = (2 * jnp.arange(height, dtype=jnp.float32) + 1)[:, None, None] / height - 1
    (xx, xy, x1), (yx, yy, y1) = velocity
    # Half a side is one unit of x or y.
    return -((xx * x + xy * y + x1) * right * width + (yx * x + yy * y + y1) * down * height) / 2


# Rows of the velocity: of x, of y; each times (x, y, 1). y points down.
VELOCITIES = {
    "translate_x": (((0, 0, 1), (0, 0, 0)), "half sides"),
    "translate_y": (((0, 0, 0), (0, 0, 1)), "half sides"),
    "rotate": (((0, -1, 0), (1, 0, 0)), "radians, clockwise"),
    "scale": (((1, 0, 0), (0, 1, 0)), "logarithm of the factor"),
    "shear_x": (((0, 1, 0), (0, 0, 0)), "slope"),
    "shear_y": (((0, 0, 0), (1, 0, 0)), "slope"),
    "stretch_x": (((1, 0, 0), (0, 0, 0)), "logarithm of the factor"),
    "stretch_y": (((0, 0, 0), (0, 1, 0)), "logarithm of the factor"),
}

# Of NTSC's YIQ: luma first, then two axes of colour in which hue is an angle.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _away_from(dull: Float[Array, "..."], image: Image, t: Scalar) -> Image:
    return dull + (image - dull) * (1 + t)


def _hue(image: Image, t: Scalar) -> Image:
    cosine, sine = jnp.cos(t), jnp.sin(t)
    luma, i, q = jnp.moveaxis(_mixed(_YIQ, image), -1, 0)
    turned = jnp.stack([luma, cosine * i - sine * q, sine * i + cosine * q], axis=-1)
    return _mixed(np.linalg.inv(_YIQ), turned)


def _mixed(matrix: np.ndarray, image: Image) -> Image:
    weights = jnp.asarray(matrix, jnp.float32)
    return jnp.einsum("kc,hwc->hwk", weights, image, precision=resample.PRECISION)


# Without the clipping of `transforms.appearance`: saturated pixels would have a kink here.
_COLOURS = {
    "brightness": (lambda image, t: image * (1 + t), "change of the factor"),
    "contrast": (
        lambda image, t: _away_from(jnp.mean(grey(image)), image, t),
        "change of the factor",
    ),
    "saturation": (lambda image, t: _away_from(grey(image), image, t), "change of the factor"),
    "hue": (_hue, "radians in the chroma plane of YIQ"),
}


def _geometric(name: str, *, padding_mode: Padding = "reflect") -> Generator:
    lookup(_PLACES, padding_mode, "padding mode")
    velocity, unit = VELOCITIES[name]
    tangent = partial(flow, velocity=velocity, padding_mode=padding_mode)
    return Generator(name=name, tangent=tangent, unit=unit, family="geometric")


def _appearance(name: str) -> Generator:
    function, unit = _COLOURS[name]

    def tangent(image: Image) -> Image:
        return _derivative(partial(function, image))

    return Generator(name=name, tangent=tangent, unit=unit, family="appearance")


_MAKERS: Mapping[str, Callable[..., Generator]] = MappingProxyType(
    {name: partial(_geometric, name) for name in VELOCITIES}
    | {name: partial(_appearance, name) for name in _COLOURS}
)

NAMES: tuple[str, ...] = tuple(_MAKERS)


def get(text: str, field: str = "generator") -> Generator:
    """Makes a generator.

    Args:
        text: One of `NAMES`. Geometric ones have an option, `rotate(padding_mode='wrap')`: what
            lies beyond the border, "reflect" (the default), "wrap" or "constant". With "constant"
            the border itself is a sharp edge that moves.
        field: Where the text came from, for error messages.

    Returns:
        The generator.

    Raises:
        UserError: Unknown name, option or padding mode.

    Examples:
        >>> get("translate_x(padding_mode='wrap')").unit
        'half sides'
    """
    generator = spec.call(_MAKERS, text, kind="generator", field=field)
    return dataclasses.replace(generator, name=text)
