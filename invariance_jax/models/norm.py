"""Batch normalisation with explicit groups, moving its statistics as torch does."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from invariance_jax.errors import UserError

MOMENTUM = 0.1  # share of the new statistics, torch's convention
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Normalises each channel by the mean and variance of a group of images.

    The original trains with statistics per GPU; a group here is `group` consecutive images of
    the global batch, wherever they are computed. In training each group is normalised by its
    own mean and biased variance; the running mean and the running (unbiased, as in torch)
    variance move by the mean over groups. In evaluation the running statistics are used.

    Attributes:
        group: How many images share statistics; 0 for the whole batch.
        dtype: Of the result. Statistics, running statistics, scale and bias are float32 always.
    """

    group: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Normalises.

        Args:
            x: Any floating dtype.
            train: Use and move the statistics of the batch rather than the running ones.

        Returns:
            The same shape, in `dtype`.

        Raises:
            UserError: In training, `group` does not divide the batch, or a group has one value
                a channel, of which there is no variance.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        if train:
            groups = _split(x, self.group).astype(jnp.float32)
            mean = jnp.mean(groups, axis=(1, 2, 3))
            # The mean is subtracted first: E[x^2] - E[x]^2 loses all digits at large means.
            variance = jnp.mean(jnp.square(groups - _per_pixel(mean)), axis=(1, 2, 3))
            if not self.is_initializing():
                count = math.prod(groups.shape[1:4])
                unbiased = variance * (count / (count - 1))
                running_mean.value = _moved(running_mean.value, mean)
                running_var.value = _moved(running_var.value, unbiased)
        else:
            groups = x[None].astype(jnp.float32)
            mean, variance = running_mean.value[None], running_var.value[None]
        factor = scale[None] * jax.lax.rsqrt(variance + EPSILON)
        normalized = (groups - _per_pixel(mean)) * _per_pixel(factor) + _per_pixel(bias[None])
        return normalized.reshape(x.shape).astype(self.dtype)


def _split(x: Array, group: int) -> Array:
    """The batch as [group, image of the group, height, width, channel]."""
    batch, height, width, _ = x.shape
    size = group or batch
    if batch % size:
        raise UserError(
            f"bn_group is {group}, but the batch has {batch} images; expected a divisor of the "
            "batch, or 0 for the whole batch"
        )
    if size * height * width == 1:
        raise UserError(
            f"BatchNorm in training has one value a channel (bn_group {group}, batch {batch}, "
            "feature maps of 1x1); expected more images in a group, or larger images"
        )
    return x.reshape(batch // size, size, *x.shape[1:])


def _per_pixel(values: Float[Array, "group channels"]) -> Float[Array, "group 1 1 1 channels"]:
    return values[:, None, None, None, :]


def _moved(
    running: Float[Array, "channels"], new: Float[Array, "group channels"]
) -> Float[Array, "channels"]:
    return (1 - MOMENTUM) * running + MOMENTUM * jnp.mean(new, axis=0)
