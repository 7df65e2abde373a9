"""Distributions of the height and width of a crop, in whole pixels: torchvision's and TensorFlow's.

Both try ten times. Here all tries are drawn at once and the first that fits wins.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from invariance_jax.augment.areas import Area
from invariance_jax.augment.boxes import Scalar, Size
from invariance_jax.augment.pytree import pytree

# torchvision and TensorFlow try so often before they fall back.
TRIES = 10


class CropSize(NamedTuple):
    """Height and width of a crop, int32.

    Attributes:
        height: Pixels, at least 1.
        width: Pixels, at least 1.
        found: Whether a try fitted; if not, this is the fallback, which lies in the centre.
    """

    height: Size
    width: Size
    found: Bool[Array, ""]


@pytree
class TorchvisionSize:
    """torchvision's RandomResizedCrop: an area and an aspect, independent of each other.

    Attributes:
        area: Distribution of the area fraction.
        ratio: Smallest and largest aspect, width over height; its logarithm is uniform.
    """

    area: Area
    ratio: tuple[float | Scalar, float | Scalar]

    # Positions are 0 to side - extent.
    positions_left_out: ClassVar[int] = 0

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> CropSize:
        """Draws one size.

        Args:
            key: Random key.
            height: Height of the image in pixels.
            width: Width of the image in pixels.

        Returns:
            A size that fits into the image; if no try did, that of the largest crop whose aspect is
            allowed.
        """
        key_area, key_aspect = jax.random.split(key)
        area = self.area(key_area, TRIES) * (height * width)
        log_aspect = jax.random.uniform(
            key_aspect, (TRIES,), minval=jnp.log(self.ratio[0]), maxval=jnp.log(self.ratio[1])
        )
        widths = jnp.round(jnp.sqrt(area * jnp.exp(log_aspect))).astype(jnp.int32)
        heights = jnp.round(jnp.sqrt(area / jnp.exp(log_aspect))).astype(jnp.int32)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        return _first(heights, widths, fits, self._fallback(height, width))

    def _fallback(self, height: Size, width: Size) -> tuple[Size, Size]:
        """Size of the largest crop whose aspect is allowed."""
        aspect = width / height
        lowest, highest = self.ratio
        narrow_height = jnp.round(width / lowest).astype(jnp.int32)
        wide_width = jnp.round(height * highest).astype(jnp.int32)
        # A 1-pixel side can round to nothing.
        box_height = jnp.where(aspect < lowest, jnp.clip(narrow_height, 1, height), height)
        box_width = jnp.where(aspect > highest, jnp.clip(wide_width, 1, width), width)
        return box_height, box_width


@pytree
class TensorflowSize:
    """tf.image.sample_distorted_bounding_box: an aspect, then a height uniform over what fits.

    The density of an area a is proportional to 1 / sqrt(a): smaller crops than torchvision's. No
    object has to be covered (`min_object_covered=0`).

    Attributes:
        scale: Smallest and largest area fraction.
        ratio: Smallest and largest aspect, width over height; the aspect itself is uniform.
    """

    scale: tuple[float | Scalar, float | Scalar]
    ratio: tuple[float | Scalar, float | Scalar]

    # TensorFlow's upper bound is exclusive: a smaller crop never touches the far edge.
    positions_left_out: ClassVar[int] = 1

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> CropSize:
        """Draws one size.

        Args:
            key: Random key.
            height: Height of the image in pixels.
            width: Width of the image in pixels.

        Returns:
            A size that fits into the image; if no try did, the image's own.
        """
        key_aspect, key_height = jax.random.split(key)
        aspect = jax.random.uniform(
            key_aspect, (TRIES,), minval=self.ratio[0], maxval=self.ratio[1]
        )
        smallest, largest = (bound * (height * width) for bound in self.scale)
        lowest, highest = (_round(jnp.sqrt(area / aspect)) for area in (smallest, largest))
        # The tallest crop that is not too wide either.
        tallest = jnp.floor((width + 0.5) / aspect).astype(jnp.int32)
        tallest = tallest - (_round(tallest * aspect) > width)
        highest = jnp.where(_round(highest * aspect) > width, tallest, highest)
        highest = jnp.minimum(highest, height)
        lowest = jnp.minimum(lowest, highest)
        heights = jax.random.randint(key_height, (TRIES,), lowest, highest + 1)
        # Rounding may have left the range of areas by a pixel.
        heights = heights + (heights * _round(heights * aspect) < smallest)
        heights = heights - (heights * _round(heights * aspect) > largest)
        widths = _round(heights * aspect)
        areas = heights * widths
        fits = (areas >= smallest) & (areas <= largest) & (widths > 0) & (heights > 0)
        fits = fits & (widths <= width) & (heights <= height)
        return _first(heights, widths, fits, (height, width))


CropSizes = TorchvisionSize | TensorflowSize


def _round(value: jax.Array) -> jax.Array:
    """To the nearest whole number, half to even."""
    return jnp.round(value).astype(jnp.int32)


def _first(
    heights: jax.Array, widths: jax.Array, fits: jax.Array, fallback: tuple[Size, Size]
) -> CropSize:
    """The first try that fits."""
    first = jnp.argmax(fits)
    found = fits[first]
    height, width = fallback
    return CropSize(
        jnp.where(found, heights[first], height), jnp.where(found, widths[first], width), found
    )
