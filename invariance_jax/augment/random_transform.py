"""One named transform at a random magnitude: the random twin of a row of the tables."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax.augment.checks import check_number
from invariance_jax.errors import lookup
from invariance_jax.transforms import AUTOAUGMENT, TRANSFORMS, Transform

Image = Float[Array, "height width 3"]

_TABLES = {"grid": TRANSFORMS, "autoaugment": AUTOAUGMENT}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomTransform:
    """A transform that is applied to some images; see `random_transform`.

    Attributes:
        transform: The row of the table.
        probability: How often it is applied.
        strongest: Index of the strongest magnitude that is drawn.
    """

    transform: Transform
    probability: float
    strongest: int

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Transforms one image, or keeps it.

        Args:
            key: Random key.
            image: float32 [height, width, 3] in [0, 1].

        Returns:
            The image, same shape and dtype.
        """
        key_whether, key_magnitude = jax.random.split(key)
        changed = self.transform.random(key_magnitude, image, strongest=self.strongest)
        return jnp.where(jax.random.bernoulli(key_whether, self.probability), changed, image)


def random_transform(
    *, name: str, probability: float = 0.5, strongest: int = 9, table: str = "grid"
) -> RandomTransform:
    """Makes an augmentation of one transform, its magnitude uniform over the table's.

    Args:
        name: A row of the table: "rotate".
        probability: How often the transform is applied, 0 to 1.
        strongest: Index of the strongest magnitude that is drawn, 0 to 9.
        table: "grid" for `transforms.TRANSFORMS` (section 3 of the paper), "autoaugment" for
            `transforms.AUTOAUGMENT` (section 4).

    Returns:
        `policy(key, image) -> image`, frozen.

    Raises:
        UserError: Unknown table or name, or a number out of range.

    Examples:
        >>> random_transform(name="rotate", strongest=3).transform.unit
        'degrees'
    """
    transform = lookup(lookup(_TABLES, table, "table of transforms"), name, "transform")
    check_number("probability", probability, 0, 1)
    transform.check_strongest(strongest)
    return RandomTransform(transform=transform, probability=probability, strongest=strongest)
