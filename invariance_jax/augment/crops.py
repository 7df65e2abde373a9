"""Crops of the source itself: a random size, at a random place or in the centre."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from invariance_jax.augment.boxes import Box, Scalar, Size, Window, crop_then_resize
from invariance_jax.augment.pytree import pytree
from invariance_jax.augment.sizes import CropSizes


@pytree
class RandomResizedCrop:
    """A crop of random size at a random place (paper: `C`, `Cexp`, `Cbeta`).

    Attributes:
        sizes: Distribution of the crop's height and width.
    """

    sizes: CropSizes

    frames: ClassVar[tuple[int, ...]] = ()

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws one window.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            A box of whole pixels inside the image.
        """
        key_size, key_top, key_left = jax.random.split(key, 3)
        size = self.sizes(key_size, height, width)
        top_count, left_count = (
            jnp.maximum(side - extent + 1 - self.sizes.positions_left_out, 1)
            for side, extent in ((height, size.height), (width, size.width))
        )
        top = jax.random.randint(key_top, (), 0, top_count)
        left = jax.random.randint(key_left, (), 0, left_count)
        top = jnp.where(size.found, top, (height - size.height) // 2)
        left = jnp.where(size.found, left, (width - size.width) // 2)
        return (_window(top, left, size.height, size.width),)


@pytree
class CenterCrop:
    """The image, translated with zero fill, then a centred crop (`CC`, `TS` and its kin).

    Attributes:
        sizes: Distribution of the crop's height and width.
        t: Largest translation as a fraction of the image's height and width; 0 for none.
    """

    sizes: CropSizes
    t: float | Scalar

    frames: ClassVar[tuple[int, ...]] = ()

    def __call__(self, key: PRNGKeyArray, height: Size, width: Size) -> tuple[Window, ...]:
        """Draws one window.

        Args:
            key: Random key.
            height: Height of the image in source pixels.
            width: Width of the image in source pixels.

        Returns:
            A box of whole pixels. It leaves the image where a translation moves zeros into view.
        """
        key_size, key_y, key_x = jax.random.split(key, 3)
        size = self.sizes(key_size, height, width)
        # The image moves; seen from the source the crop moves the other way.
        top = (height - size.height) // 2 - shift(key_y, self.t, height)
        left = (width - size.width) // 2 - shift(key_x, self.t, width)
        return (_window(top, left, size.height, size.width),)


def shift(key: PRNGKeyArray, t: float | Scalar, side: Size) -> Scalar:
    """Draws a translation as torchvision's RandomAffine: round(U(-t side, t side)).

    Args:
        key: Random key.
        t: Largest translation as a fraction of the side.
        side: The side in pixels.

    Returns:
        Whole pixels, float32.
    """
    reach = t * side
    return jnp.round(jax.random.uniform(key, (), minval=-reach, maxval=reach))


def _window(top: Size | Scalar, left: Size | Scalar, height: Size, width: Size) -> Window:
    return crop_then_resize(Box(*(jnp.asarray(x, jnp.float32) for x in (top, left, height, width))))
