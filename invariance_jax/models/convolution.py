"""Convolution and max-pool that are fast on CPUs too, with the numbers of the plain ones.

XLA's CPU backend leaves its fast kernels in two cases that every ResNet meets. Where the output is
smaller than the kernel (the last stages at 64 pixels) it loops over single numbers, at a fiftieth
of the speed. And it writes the gradient of a 1x1 kernel as a convolution with a window as large as
the feature map, at half the speed for wide layers. Both are sums over the kernel's taps of plain
matrix products, and are computed so here. The gradient of a max-pool is a scatter there, one number
at a time; a maximum of shifted maps has a gradient of whole arrays.
`benchmarks/convolution.py` measures each against the plain one.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channels"]
FeatureMaps = Float[Array, "batch out_height out_width features"]
Pooled = Float[Array, "batch out_height out_width channels"]
# Of groups, each sees a part of the channels.
Kernel = Float[Array, "rows columns _ features"]
Padding = Sequence[tuple[int, int]]

# Below, a product has too few columns to be worth the copies (measured).
_WIDE = 64


def convolve(
    images: Images, kernel: Kernel, strides: tuple[int, int], padding: Padding, **options: Any
) -> FeatureMaps:
    """Convolves, as `jax.lax.conv_general_dilated` does; made for `flax.linen.Conv`.

    Args:
        images: Feature maps of any floating dtype.
        kernel: Of the same dtype.
        strides: Step down and to the right.
        padding: Zeros before and after, down and to the right.
        **options: Of `jax.lax.conv_general_dilated`. Groups and dilated kernels are left to it, and
            so is every dtype but float32, on CPUs too.

    Returns:
        Feature maps of the same dtype.
    """
    whole = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    plain = options.get("feature_group_count", 1) == 1 and all(
        dilation in (None, (1, 1))
        for dilation in (options.get("lhs_dilation"), options.get("rhs_dilation"))
    )
    if not plain or images.dtype != jnp.float32:
        return whole(images, kernel)

    by_taps = functools.partial(_by_taps, strides=strides, padding=padding)
    out_height, out_width = jax.eval_shape(whole, images, kernel).shape[1:3]
    small = out_height < kernel.shape[0] or out_width < kernel.shape[1]
    pointwise = kernel.shape[:2] == (1, 1)
    forward = by_taps if small else whole
    of_kernel = by_taps if pointwise and kernel.shape[-1] >= _WIDE else whole
    if forward is whole and of_kernel is whole:
        return whole(images, kernel)
    on_cpu = _with_two_derivatives(forward, of_kernel)
    return lax.platform_dependent(images, kernel, cpu=on_cpu, default=whole)


def max_pool(images: Images, window: int, stride: int, padding: int = 0) -> Pooled:
    """Takes the largest value of each window, as `flax.linen.max_pool` does.

    Args:
        images: Feature maps of any floating dtype.
        window: Side of the square.
        stride: Step down and to the right.
        padding: Rows and columns of minus infinity on each side.

    Returns:
        Feature maps of the same dtype. NaN goes on. Where several pixels of a window are largest,
        the gradient goes to the first of them, on a CPU to all in shares.
    """
    sides = ((padding, padding), (padding, padding))

    def whole(images: Images) -> Pooled:
        return nn.max_pool(images, (window, window), (stride, stride), sides)

    def of_shifted(images: Images) -> Pooled:
        padded = jnp.pad(images, ((0, 0), *sides, (0, 0)), constant_values=-jnp.inf)
        for axis in (1, 2):
            reach = (padded.shape[axis] - window) // stride * stride + 1
            shifted = [
                lax.slice_in_dim(padded, start, start + reach, stride, axis)
                for start in range(window)
            ]
            padded = functools.reduce(jnp.maximum, shifted)
        return padded

    return lax.platform_dependent(images, cpu=of_shifted, default=whole)


def blur_pool(images: Images) -> Pooled:
    """Halves feature maps after a blur, so that a shift of a pixel changes little.

    Zhang, "Making convolutional networks shift-invariant again" (arXiv 1904.11486), with the
    binomial filter (1, 2, 1) / 4 in both directions and mirrored sides, as timm's.

    Args:
        images: Feature maps of any floating dtype.

    Returns:
        Feature maps of `ceil(side / 2)`, of the same dtype.
    """
    for axis in (1, 2):
        sides = [(int(axis == other),) * 2 for other in range(4)]
        # A row alone has no neighbour to mirror.
        padded = jnp.pad(images, sides, "reflect" if images.shape[axis] > 1 else "edge")
        reach = padded.shape[axis] - 2
        before, here, after = (
            lax.slice_in_dim(padded, start, start + reach, 2, axis) for start in range(3)
        )
        images = before / 4 + here / 2 + after / 4
    return images


def _with_two_derivatives(forward: Any, of_kernel: Any) -> Any:
    """A bilinear function whose derivative by the kernel is computed by `of_kernel`.

    A rule for tangents, not for gradients: JAX transposes it for the backward pass, and forward
    mode, which local equivariance needs, goes on working.
    """

    @jax.custom_jvp
    def function(images: Images, kernel: Kernel) -> FeatureMaps:
        return forward(images, kernel)

    def jvp(primals: tuple[Images, Kernel], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
        (images, kernel), (images_dot, kernel_dot) = primals, tangents
        parts = []
        if not isinstance(images_dot, SymbolicZero):
            parts.append(forward(images_dot, kernel))
        if not isinstance(kernel_dot, SymbolicZero):
            parts.append(of_kernel(images, kernel_dot))
        return forward(images, kernel), sum(parts[1:], parts[0])

    function.defjvp(jvp, symbolic_zeros=True)
    return function


def _by_taps(
    images: Images, kernel: Kernel, *, strides: tuple[int, int], padding: Padding
) -> FeatureMaps:
    """Sums a matrix product for each tap of the kernel."""
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    batch, height, width, channels = padded.shape
    rows, columns = kernel.shape[:2]
    reach_down = (height - rows) // strides[0] * strides[0] + 1
    reach_right = (width - columns) // strides[1] * strides[1] + 1
    products = [
        jnp.einsum(
            "nhwc,cf->nhwf",
            lax.slice(
                padded,
                (0, row, column, 0),
                (batch, row + reach_down, column + reach_right, channels),
                (1, *strides, 1),
            ),
            kernel[row, column],
            precision=lax.Precision.HIGHEST,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    return sum(products[1:], products[0])
