"""Operations that an image gets because of its class, looked up by label in the step (section 4).

What each class gets is a table of rows, which `factors.per_class` makes; here it is arrays. Like
the policies it has two halves: `draw` decides for one image, `apply` does it and draws nothing.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, UInt8

from invariance_jax.augment.boxes import Size
from invariance_jax.augment.pipeline import WithPolicies, image_by_image
from invariance_jax.augment.policies import Image
from invariance_jax.augment.variants import Augmentation, Canvas
from invariance_jax.transforms import AUTOAUGMENT
from invariance_jax.transforms.pillow import from_levels, to_levels

# Folded into an example's key, so that its other draws are those of a run without this.
_DRAW = np.uint32(0xFFFF_FFFC)
# A thousandth of a grey level.
_SLACK = 1e-3 / 255


class Draw(NamedTuple):
    """What was decided for one image: every step of its class's rows, in order.

    Attributes:
        applied: Whether the step is done.
        operation: Position in `PerClass.operations`.
        index: Of the magnitude, 0 to 9.
        sign: 1 or -1; operations without a sign do not read it.
    """

    applied: Bool[Array, " step"]
    operation: Int[Array, " step"]
    index: Int[Array, " step"]
    sign: Float[Array, " step"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PerClass:
    """An augmentation, and operations of each class before or after it.

    Rows of a class are done in their order, each by its own chance, at an index that is uniform
    from 0 to the row's.

    Attributes:
        augmentation: What every image gets.
        square: What makes the image on which the operations act *before* the augmentation, without
            randomness; None if they act after it.
        operations: Names of `AUTOAUGMENT` that occur.
        signed: Which of them are given a random sign.
        operation: Position in `operations` of each step of each row; -1 where there is none.
        strongest: The largest index that is drawn of each.
        probability: How often each row is done; 0 where a class has no more rows.
    """

    augmentation: WithPolicies
    square: Augmentation | None
    operations: tuple[str, ...]
    signed: frozenset[str]
    operation: Int[np.ndarray, "class row step"]
    strongest: Int[np.ndarray, "class row step"]
    probability: Float[np.ndarray, "class row"]

    def draw(self, key: PRNGKeyArray, label: Int[Array, ""]) -> Draw:
        """Draws what one image gets.

        Args:
            key: Random key.
            label: Its class.

        Returns:
            The decisions.
        """
        key_applied, key_index, key_sign = jax.random.split(key, 3)
        operation, strongest, probability = (
            jnp.asarray(table)[label]
            for table in (self.operation, self.strongest, self.probability)
        )
        applied = jax.random.bernoulli(key_applied, probability)
        index = jax.random.randint(key_index, operation.shape, 0, strongest + 1)
        sign = jax.random.rademacher(key_sign, operation.shape, jnp.float32)
        every = (applied[:, None] & (operation >= 0), operation, index, sign)
        return Draw(*(each.reshape(-1) for each in every))

    def apply(self, image: Image, draw: Draw) -> Image:
        """Does what was decided.

        One after another (`on_batch`) an image costs the operations that it gets. Mapped over, a
        batch takes as many rounds as the image with the most of them, and each computes them all.

        Args:
            image: float32 [height, width, 3] in [0, 1]; rounded to 8 bits if anything is done.
            draw: The decisions.

        Returns:
            The image after all operations, same shape and dtype.
        """
        rows = [AUTOAUGMENT[name] for name in self.operations]
        sizes = jnp.asarray([row.magnitudes for row in rows], jnp.float32)
        signed = jnp.asarray([name in self.signed for name in self.operations])
        magnitude = sizes[draw.operation, draw.index]
        magnitude *= jnp.where(signed[draw.operation], draw.sign, 1.0)
        order = jnp.argsort(~draw.applied, stable=True)

        def one(place: Int[Array, ""], image: Image) -> Image:
            step = order[place]
            branches = [row.apply for row in rows]
            return jax.lax.switch(draw.operation[step], branches, image, magnitude[step])

        # Halves go up even where a rounding error lies below, as in evaluation.
        levels = from_levels(to_levels(image + _SLACK))
        image = jnp.where(jnp.any(draw.applied), levels, image)
        return jax.lax.fori_loop(0, jnp.sum(draw.applied), one, image)

    def __call__(
        self, key: PRNGKeyArray, canvas: Canvas, height: Size, width: Size, label: Int[Array, ""]
    ) -> Image:
        """Augments one image; arguments and result are those of `Augmentation`, with the class."""
        draw = self.draw(jax.random.fold_in(key, _DRAW), label)
        if self.square is None:
            return self.apply(self.augmentation(key, canvas, height, width), draw)
        image = self.apply(self.square(key, canvas, height, width), draw)
        return self.augmentation(key, *_laid_out(image, draw, canvas, height, width))

    def on_batch(
        self,
        keys: Key[Array, "batch"],
        canvas: UInt8[Array, "batch canvas_height canvas_width 3"],
        height: Int[Array, "batch"],
        width: Int[Array, "batch"],
        label: Int[Array, "batch"],
    ) -> Float[Array, "batch size size 3"]:
        """Augments the images of one device, as mapping over them does; see `WithPolicies`."""
        draws = jax.vmap(self.draw)(jax.vmap(jax.random.fold_in, (0, None))(keys, _DRAW), label)

        def apply(images: Array) -> Array:
            return image_by_image(lambda each: self.apply(*each), (images, draws))

        shown = (canvas, height, width)
        if self.square is None:
            return apply(self.augmentation.on_batch(keys, *shown, label))
        squares = apply(jax.vmap(self.square)(keys, *shown))
        return self.augmentation.on_batch(keys, *jax.vmap(_laid_out)(squares, draws, *shown), label)


def _laid_out(
    image: Image, draw: Draw, canvas: Canvas, height: Size, width: Size
) -> tuple[Canvas, Size, Size]:
    """The canvas with the image on it; that as it was, if nothing was done to the image."""
    side, changed = len(image), jnp.any(draw.applied)
    levels = to_levels(image).astype(jnp.uint8)
    canvas = jnp.where(changed, jnp.zeros_like(canvas).at[:side, :side].set(levels), canvas)
    height, width = (jnp.where(changed, side, each) for each in (height, width))
    return canvas, height, width
