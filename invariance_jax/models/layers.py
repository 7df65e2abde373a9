"""What the networks share: initial values, batch normalisation, the check of their input."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax.errors import UserError

# torchvision's ResNet: `kaiming_normal_(mode="fan_out", nonlinearity="relu")`, never truncated.
kaiming_normal_fan_out: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# timm's ViT: torch's `trunc_normal_(std=0.02)` cuts at -2 and 2, a hundred deviations away, so
# that it is a plain normal; JAX's `truncated_normal` would cut at two deviations.
timm_normal: Initializer = nn.initializers.normal(0.02)

# timm's class and register tokens start at almost nothing.
timm_small_normal: Initializer = nn.initializers.normal(1e-6)

# torch's default for the weights of `Linear` and `Conv2d`: uniform within 1 / sqrt(fan_in).
torch_uniform: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

MOMENTUM = 0.1  # share of the new statistics, torch's convention
EPSILON = 1e-5


def torch_uniform_bias(fan_in: int) -> Initializer:
    """Makes torch's default for the bias of `Linear` and `Conv2d`.

    Args:
        fan_in: How many inputs one output of the layer sums up.

    Returns:
        An initializer, uniform within 1 / sqrt(fan_in).
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def check_images(images: Array) -> None:
    """Refuses what cannot be a batch of normalised images.

    Args:
        images: What was given to the network.

    Raises:
        UserError: Not [N, H, W, 3], or not floating point (which normalised images are).
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise UserError(f"images have shape {images.shape}; expected [N, H, W, 3], none of them 0")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; expected normalised float32")


class BatchNorm(nn.Module):
    """Normalises each channel by the mean and variance of a ghost batch.

    The original trains with statistics per GPU; a ghost batch is as many consecutive images of the
    global batch, wherever they are computed. In training each ghost batch is normalised by its
    own mean and biased variance; the running mean and the running (unbiased, as in torch)
    variance move by the mean over ghost batches. In evaluation the running statistics are used.

    Attributes:
        ghost_batch_size: How many images share statistics; 0 for the whole batch.
        dtype: Of the result. Statistics, running statistics, scale and bias are float32 always.
    """

    ghost_batch_size: int
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
            UserError: In training, `ghost_batch_size` does not divide the batch, or a ghost batch
                has one value a channel, of which there is no variance.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        if train:
            ghosts = _split(x, self.ghost_batch_size).astype(jnp.float32)
            mean, variance = batch_statistics(ghosts, running_mean.value)
            if not self.is_initializing():
                count = math.prod(ghosts.shape[1:4])
                unbiased = variance * (count / (count - 1))
                running_mean.value = _moved(running_mean.value, mean)
                running_var.value = _moved(running_var.value, unbiased)
        else:
            ghosts = x[None].astype(jnp.float32)
            mean, variance = running_mean.value[None], running_var.value[None]
        factor = scale[None] * jax.lax.rsqrt(variance + EPSILON)
        normalized = (ghosts - _per_pixel(mean)) * _per_pixel(factor) + _per_pixel(bias[None])
        return normalized.reshape(x.shape).astype(self.dtype)


@jax.custom_jvp
def batch_statistics(
    ghosts: Float[Array, "ghost batch height width channels"], guess: Float[Array, "channels"]
) -> tuple[Float[Array, "ghost channels"], Float[Array, "ghost channels"]]:
    """Mean and biased variance of each channel of each ghost batch.

    A TPU takes both in one pass over the feature maps, and sums both over the devices at once.

    Args:
        ghosts: Feature maps, float32.
        guess: About the mean, which makes no difference but of rounding: the running mean.

    Returns:
        The mean and the variance.
    """
    return jax.lax.platform_dependent(ghosts, guess, tpu=in_one_pass, default=in_two_passes)


@batch_statistics.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Any, Any]:
    # The same for both ways: that the mean moves with the feature maps changes no variance.
    mean, variance = batch_statistics(*primals)
    ghosts, moved = primals[0], tangents[0]
    of_variance = 2 * jnp.mean((ghosts - _per_pixel(mean)) * moved, axis=(1, 2, 3))
    return (mean, variance), (jnp.mean(moved, axis=(1, 2, 3)), of_variance)


def in_two_passes(ghosts: Array, guess: Array) -> tuple[Array, Array]:
    """`batch_statistics` whatever the platform: the mean, then squares of distances to it."""
    del guess
    mean = jnp.mean(ghosts, axis=(1, 2, 3))
    # The mean is subtracted first: E[x^2] - E[x]^2 loses all digits at large means.
    return mean, jnp.mean(jnp.square(ghosts - _per_pixel(mean)), axis=(1, 2, 3))


def in_one_pass(ghosts: Array, guess: Array) -> tuple[Array, Array]:
    """`batch_statistics` whatever the platform: means of d and d^2, d the distance to the guess.

    The variance is wrong by up to 1e-6 (1 + (mean - guess)^2 / variance) of itself: nothing once
    the running mean has moved to the mean, and little before, when networks are as they were drawn.
    """
    distance = ghosts - _per_pixel(guess[None])
    mean = jnp.mean(distance, axis=(1, 2, 3))
    variance = jnp.mean(jnp.square(distance), axis=(1, 2, 3)) - jnp.square(mean)
    return guess[None] + mean, jnp.maximum(variance, 0.0)


def _split(x: Array, ghost_batch_size: int) -> Array:
    """The batch as [ghost batch, image of it, height, width, channel]."""
    batch, height, width, _ = x.shape
    size = ghost_batch_size or batch
    if batch % size:
        raise UserError(
            f"ghost_batch_size is {size}, but the batch has {batch} images; expected a divisor of "
            "the batch, or 0 for the whole batch"
        )
    if size * height * width == 1:
        raise UserError(
            "BatchNorm in training has one value a channel (ghost_batch_size "
            f"{ghost_batch_size}, batch {batch}, feature maps of 1x1); expected more images in a "
            "ghost batch, or larger images"
        )
    return x.reshape(batch // size, size, *x.shape[1:])


def _per_pixel(values: Float[Array, "ghost channels"]) -> Float[Array, "ghost 1 1 1 channels"]:
    return values[:, None, None, None, :]


def _moved(
    running: Float[Array, "channels"], new: Float[Array, "ghost channels"]
) -> Float[Array, "channels"]:
    return (1 - MOMENTUM) * running + MOMENTUM * jnp.mean(new, axis=0)
