"""The CPU's own convolution and max-pool against `jax.lax`'s and Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from invariance_jax.models.convolution import convolve, max_pool

NHWC = ("NHWC", "HWIO", "NHWC")


def arrays(side, channels, features, kernel):
    draw = np.random.default_rng(0).standard_normal
    images = draw((2, side, side + 1, channels))
    weights = draw((kernel, kernel, channels, features))
    return jnp.asarray(images, jnp.float32), jnp.asarray(weights, jnp.float32)


def functions(kernel, stride):
    padding = ((kernel // 2, kernel // 2),) * 2

    def ours(images, weights):
        return convolve(images, weights, (stride, stride), padding, dimension_numbers=NHWC)

    def plain(images, weights):
        return lax.conv_general_dilated(
            images,
            weights,
            (stride, stride),
            padding,
            dimension_numbers=NHWC,
            precision=lax.Precision.HIGHEST,
        )

    return ours, plain


SHAPES = {
    "smaller than its kernel": (2, 8, 5, 3, 1),
    "smaller than its kernel, strided": (4, 8, 5, 3, 2),
    "wide": (9, 4, 64, 3, 1),
    "wide stem": (16, 3, 64, 7, 2),
    "wide shortcut": (7, 8, 64, 1, 2),
    "narrow": (9, 4, 8, 3, 1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_derivatives_are_those_of_lax(shape):
    side, channels, features, kernel, stride = shape
    images, weights = arrays(side, channels, features, kernel)
    ours, plain = functions(kernel, stride)
    # Other directions than the point, so that a tangent taken for a value would show.
    directions = (images[::-1], weights[::-1])

    @jax.jit
    def all_of(images, weights, directions):
        found = {}
        for name, function in {"ours": ours, "plain": plain}.items():
            value, tangent = jax.jvp(function, (images, weights), directions)
            cotangent = jnp.sin(value)
            _, along_images = jax.jvp(lambda x: function(x, weights), (images,), directions[:1])  # noqa: B023
            gradients = jax.vjp(function, images, weights)[1](cotangent)
            found[name] = {
                "value": value,
                "both tangents": tangent,
                "tangent along the images": along_images,
                "of images": gradients[0],
                "of weights": gradients[1],
            }
        return found

    found = all_of(images, weights, directions)
    for name, expected in found["plain"].items():
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(
            found["ours"][name], expected, atol=3e-6 * scale, rtol=0, err_msg=name
        )


def products(function, platform, *inputs):
    text = jax.jit(function).trace(*inputs).lower(lowering_platforms=(platform,)).as_text()
    return text.count("stablehlo.dot_general"), text.count("stablehlo.convolution")


def test_a_cpu_multiplies_taps_and_other_devices_convolve():
    images, weights = arrays(2, 8, 5, 3)
    ours, _ = functions(3, 1)

    def gradients(images, weights):
        return jax.grad(lambda *both: jnp.sum(jnp.sin(ours(*both))), (0, 1))(images, weights)

    assert products(ours, "cpu", images, weights) == (9, 0)
    # Forward and by images: nine each; no tenth product of a tangent that is zero.
    assert products(gradients, "cpu", images, weights) == (18, 1)
    for platform in ("tpu", "cuda"):
        assert products(ours, platform, images, weights) == (0, 1)
        assert products(gradients, platform, images, weights) == (0, 3)

    for features, kernel, expected in ((64, 1, (1, 1)), (8, 1, (0, 2)), (64, 3, (0, 2))):
        images, weights = arrays(9, 4, features, kernel)
        other, _ = functions(kernel, 1)
        of_weights = jax.grad(lambda weights, images: jnp.sum(jnp.sin(other(images, weights))))  # noqa: B023
        assert products(of_weights, "cpu", weights, images) == expected
    assert products(ours, "cpu", *arrays(9, 4, 64, 3)) == (0, 1)


def test_groups_dilation_and_other_dtypes_are_left_to_lax():
    images, weights = arrays(2, 8, 6, 3)
    padding = ((1, 1), (1, 1))
    for inputs, options in (
        ((images, weights[:, :, :4]), {"feature_group_count": 2}),
        ((images, weights), {"rhs_dilation": (2, 2)}),
        ((images.astype(jnp.bfloat16), weights.astype(jnp.bfloat16)), {}),
    ):
        padded = ((2, 2), (2, 2)) if "rhs_dilation" in options else padding

        def ours(images, weights, padded=padded, options=options):
            return convolve(images, weights, (1, 1), padded, dimension_numbers=NHWC, **options)

        assert products(ours, "cpu", *inputs) == (0, 1)
        expected = lax.conv_general_dilated(
            *inputs, (1, 1), padded, dimension_numbers=NHWC, **options
        )
        np.testing.assert_array_equal(ours(*inputs), expected)


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_max_pool(window, stride, padding):
    images = arrays(9, 4, 1, 1)[0].at[0, 3, 3, 1].set(jnp.nan)
    sides = ((padding, padding),) * 2

    def plain(images):
        return nn.max_pool(images, (window, window), (stride, stride), sides)

    def ours(images):
        return max_pool(images, window, stride, padding)

    np.testing.assert_array_equal(ours(images), plain(images))
    assert np.isnan(ours(images)[0]).any()
    images = jnp.nan_to_num(images)
    for function in (ours, plain):
        text = jax.jit(jax.grad(lambda x, f=function: jnp.sum(jnp.sin(f(x))))).lower(images)
        assert ("select_and_scatter" in text.as_text()) is (function is plain)
    gradients = [jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(images) for f in (ours, plain)]
    np.testing.assert_allclose(*gradients, atol=1e-6, rtol=0)
