"""Cubic convolution: an interpolation that is smooth at the pixels, so that it has a derivative.

Bilinear interpolation has a kink at every pixel: its derivative there is whichever side was looked
at. Keys's kernel (IEEE Trans. ASSP 29(6), 1981, with a = -1/2) is once continuously differentiable,
passes through the pixels, and reproduces quadratics. Its derivative at pixel i is
(x[i + 1] - x[i - 1]) / 2, exact for quadratics; of a wave of angular frequency w per pixel it
gives the share sin(w) / w, so that detail near a pixel's size counts less, down to nothing for
an alternation of single pixels.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from invariance_jax.transforms import resample

Edge = Literal["reflect", "cyclic", "zero"]
EDGES: tuple[Edge, ...] = ("reflect", "cyclic", "zero")


def cubic_weights(
    coordinates: Float[Array, "out"], size: int, edge: Edge
) -> Float[Array, "out {size}"]:
    """Weights of cubic convolution along one axis.

    Args:
        coordinates: Where to sample, in source pixels; pixel i has its centre at i.
        size: Number of source pixels.
        edge: What lies beyond the first and last pixel: "reflect" mirrors about their centres
            (the derivative across the border is 0 there), "cyclic" is the other side, "zero" is
            black.

    Returns:
        One row for each coordinate; rows sum to 1 but where zeros lie beyond the edge.
    """
    pixels = jnp.floor(coordinates)[:, None] + jnp.arange(-1, 3, dtype=jnp.float32)[None, :]
    weights = _keys(coordinates[:, None] - pixels)
    # Pixels beyond the range stay there for "zero": one_hot gives them no place.
    places = {"reflect": _mirrored, "cyclic": lambda at, size: at % size, "zero": lambda at, _: at}
    at = places[edge](pixels.astype(jnp.int32), size)
    return jnp.sum(weights[..., None] * jax.nn.one_hot(at, size), axis=1)


def _keys(distance: Float[Array, "out taps"]) -> Float[Array, "out taps"]:
    x = jnp.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x <= 1, near, jnp.where(x < 2, far, 0.0))


def _mirrored(pixels: Array, size: int) -> Array:
    period = max(2 * (size - 1), 1)
    return jnp.minimum(pixels % period, period - pixels % period)


def gradient(
    image: Float[Array, "height width channels"], edge: Edge
) -> tuple[Float[Array, "height width channels"], Float[Array, "height width channels"]]:
    """Derivatives of the interpolated image at the pixels.

    Args:
        image: Any float image or feature map.
        edge: What lies beyond its border.

    Returns:
        The derivative downwards and the one to the right, per pixel: `jax.jvp` of the resampling
        at the positions of the pixels themselves. It is exact for the interpolated image, there
        is no step size.
    """
    height, width, _ = image.shape
    rows, columns = (_derivative_weights(size, edge) for size in (height, width))
    down = jnp.einsum("oh,hwc->owc", rows, image, precision=resample.PRECISION)
    right = jnp.einsum("pw,hwc->hpc", columns, image, precision=resample.PRECISION)
    return down, right


def _derivative_weights(size: int, edge: Edge) -> Float[Array, "{size} {size}"]:
    """How the weights change as all sample positions move; resampling is linear in them."""
    pixels = jnp.arange(size, dtype=jnp.float32)
    _, change = jax.jvp(
        lambda offset: cubic_weights(pixels + offset, size, edge),
        (jnp.float32(0),),
        (jnp.float32(1),),
    )
    return change
