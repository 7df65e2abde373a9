"""What the model is shown at one cell of the grid, from the image or from all of its canvas."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from jaxtyping import Array, Float, Int, UInt8

from invariance_jax.augment import Augmentation, translate_in_context
from invariance_jax.errors import lookup
from invariance_jax.evaluation.accuracy import to_bytes
from invariance_jax.transforms import REFERENCE_SIZE, Domain, Transform, in_domain, normalize

# The padding modes constant, wrap and context, as configs call them.
Translation = Literal["zero", "cyclic", "context"]
# The rows that `translation` concerns, and which way they go (down, right).
_TRANSLATIONS = {"translate_x": (0.0, 1.0), "translate_y": (1.0, 0.0)}


class Source(NamedTuple):
    """An image before and after the preprocessing; with a leading axis, a batch of them.

    Attributes:
        canvas: uint8 pixels with the whole image in the upper left corner of zeros.
        height: Height of the image within the canvas.
        width: Width of the image within the canvas.
        image: What `accuracy.prepare` makes of it, float32 in [0, 1], not normalised.
    """

    canvas: UInt8[Array, "*batch canvas canvas 3"]
    height: Int[Array, "*batch"]
    width: Int[Array, "*batch"]
    image: Float[Array, "*batch size size 3"]


Show = Callable[[Source, Float[Array, ""]], Float[Array, "size size 3"]]


def make_show(
    transform: Transform, *, domain: Domain, translation: Translation, preprocess: Augmentation
) -> Show:
    """Makes the function from one image and a magnitude to what the model takes.

    Args:
        transform: A row of `TRANSFORMS`.
        domain: Whether it acts on "pixel" or on "normalized" values, see `in_domain`.
        translation: What `translate_x` and `translate_y` show where the image has left:
            "zero" is black (in the domain "normalized", ImageNet's mean colour), as in the paper;
            "cyclic" its other side; "context" what stood beside the crop, and black only beyond
            the image's own border. Of no effect on other rows. "context" moves the crop over
            the canvas before anything else, so that it is the same in both domains.
        preprocess: Canvas to image, `none`; "context" moves its crop.

    Returns:
        `show(source, magnitude)`, float32 [size, size, 3], normalised.

    Raises:
        UserError: No such domain or translation.
    """
    on_image = in_domain(transform, domain)

    def from_image(source: Source, magnitude: Float[Array, ""]) -> Array:
        return on_image(source.image, magnitude)

    if transform.name not in _TRANSLATIONS:
        return from_image
    down, right = _TRANSLATIONS[transform.name]
    wrapped = functools.partial(transform.function, padding_mode="wrap")
    turned = in_domain(dataclasses.replace(transform, function=wrapped), domain)

    def on_circle(source: Source, magnitude: Float[Array, ""]) -> Array:
        return turned(source.image, magnitude)

    def in_context(source: Source, magnitude: Float[Array, ""]) -> Array:
        pixels = magnitude * preprocess.size / REFERENCE_SIZE
        moved = translate_in_context(
            preprocess,
            source.canvas,
            source.height,
            source.width,
            down=down * pixels,
            right=right * pixels,
        )
        # The moved crop is preprocessed as the crop in place is.
        return normalize(to_bytes(moved))

    kinds: Mapping[str, Show] = {"zero": from_image, "cyclic": on_circle, "context": in_context}
    return lookup(kinds, translation, "translation")
