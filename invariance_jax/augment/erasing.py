"""Random erasing: a rectangle of the image is filled with one value."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from invariance_jax.augment.boxes import Box
from invariance_jax.augment.checks import check_number, check_pair
from invariance_jax.augment.sizes import TRIES

Image = Float[Array, "height width channels"]


def inside(box: Box, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    """Which pixels have their centre within a box.

    Args:
        box: A rectangle in pixels.
        height: Height of the image.
        width: Width of the image.

    Returns:
        bool [height, width].
    """
    y, x = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    rows = (y >= box.top) & (y < box.top + box.height)
    columns = (x >= box.left) & (x < box.left + box.width)
    return rows[:, None] & columns[None, :]


def erase(image: Image, box: Box, fill: float | Float[Array, ""] = 0.0) -> Image:
    """Fills a rectangle.

    Args:
        image: float32 [height, width, channels].
        box: What is filled, in pixels.
        fill: The value.

    Returns:
        The image with the rectangle filled, same shape and dtype.
    """
    height, width, _ = image.shape
    return jnp.where(inside(box, height, width)[..., None], fill, image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Fills a random rectangle of some images; see `random_erasing`.

    Attributes:
        probability: How often.
        scale: Smallest and largest area, as a fraction of the image's.
        ratio: Smallest and largest aspect, height over width.
        fill: The value.
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    fill: float

    def sample_box(self, key: PRNGKeyArray, height: int, width: int) -> Box:
        """Draws a rectangle of whole pixels; all tries at once, the first that fits wins.

        Args:
            key: Random key.
            height: Height of the image.
            width: Width of the image.

        Returns:
            The rectangle, smaller than the image along both axes; empty if no try fitted.
        """
        key_area, key_aspect, key_top, key_left = jax.random.split(key, 4)
        low, high = self.scale
        area = jax.random.uniform(key_area, (TRIES,), minval=low, maxval=high) * (height * width)
        low, high = (jnp.log(limit) for limit in self.ratio)
        aspect = jnp.exp(jax.random.uniform(key_aspect, (TRIES,), minval=low, maxval=high))
        heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
        widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
        fits = (heights < height) & (widths < width)
        first = jnp.argmax(fits)
        box_height = jnp.where(fits[first], heights[first], 0)
        box_width = jnp.where(fits[first], widths[first], 0)
        top: Int[Array, ""] = jax.random.randint(key_top, (), 0, height - box_height + 1)
        left: Int[Array, ""] = jax.random.randint(key_left, (), 0, width - box_width + 1)
        return Box(*(each.astype(jnp.float32) for each in (top, left, box_height, box_width)))

    def __call__(self, key: PRNGKeyArray, image: Image) -> Image:
        """Erases a rectangle of one image, or keeps it.

        Args:
            key: Random key.
            image: float32 [height, width, channels].

        Returns:
            The image, same shape and dtype.
        """
        key_whether, key_box = jax.random.split(key)
        box = self.sample_box(key_box, *image.shape[:2])
        erased = erase(image, box, self.fill)
        return jnp.where(jax.random.bernoulli(key_whether, self.probability), erased, image)


def random_erasing(
    probability: float = 0.5,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    fill: float = 0.0,
) -> RandomErasing:
    """Makes random erasing (Zhong et al., 2020, https://arxiv.org/abs/1708.04896).

    Args:
        probability: How often a rectangle is erased, 0 to 1.
        scale: Smallest and largest area, as a fraction of the image's.
        ratio: Smallest and largest aspect, height over width.
        fill: The value, 0 to 1. Black by default; torchvision erases the normalised image, where
            0 is the mean colour.

    Returns:
        `erasing(key, image) -> image`, frozen.

    Raises:
        UserError: A number is out of range.
    """
    check_number("probability", probability, 0, 1)
    check_pair("scale", scale, 1.0)
    check_pair("ratio", ratio, float("inf"))
    check_number("fill", fill, 0, 1)
    return RandomErasing(probability=probability, scale=tuple(scale), ratio=tuple(ratio), fill=fill)
