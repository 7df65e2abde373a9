"""Distributions of the area of a crop, as a fraction of the image's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax.augment.boxes import Scalar
from invariance_jax.augment.pytree import pytree

# The smallest area of torchvision's crop; the heavy-tailed and the beta crop keep it.
SMALLEST = 0.08


@pytree
class UniformArea:
    """Uniform between two fractions, torchvision's.

    Attributes:
        scale: Smallest and largest area fraction.
    """

    scale: tuple[float | Scalar, float | Scalar]

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        return jax.random.uniform(key, (count,), minval=self.scale[0], maxval=self.scale[1])


@pytree
class ExponentialArea:
    """1 / clip(1 + Exp(rate), 1, 1 / .08): small crops are rare where the rate is high.

    Attributes:
        rate: Rate of the exponential distribution, 1 / its mean; positive.
    """

    rate: float | Scalar

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        inverse = 1.0 + jax.random.exponential(key, (count,)) / self.rate
        return 1.0 / jnp.clip(inverse, 1.0, 1.0 / SMALLEST)


@pytree
class BetaArea:
    """.08 + .92 Beta(1, b): uniform for b = 1, small crops for b above, large ones below.

    Attributes:
        b: Second parameter of the beta distribution, positive.
    """

    b: float | Scalar

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        # Beta(1, b) has the distribution function 1 - (1 - x)^b, which can be inverted; 1 - u is
        # as uniform as u.
        beta = 1.0 - jax.random.uniform(key, (count,)) ** (1.0 / jnp.asarray(self.b))
        return SMALLEST + (1.0 - SMALLEST) * beta


@pytree
class InverseScaleArea:
    """s^2 with 1 / s uniform: a heavy tail of small crops.

    Attributes:
        side: Smallest and largest s, the side as a fraction of the image's.
    """

    side: tuple[float | Scalar, float | Scalar]

    def __call__(self, key: PRNGKeyArray, count: int) -> Float[Array, "{count}"]:
        """Draws `count` area fractions."""
        lowest, highest = 1.0 / self.side[1], 1.0 / self.side[0]
        return jax.random.uniform(key, (count,), minval=lowest, maxval=highest) ** -2.0


Area = UniformArea | ExponentialArea | BetaArea | InverseScaleArea
