"""Where a transform acts: on the pixels, or as the original did on normalised values."""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Array, Float

from invariance_jax.errors import lookup
from invariance_jax.transforms.normalize import normalize
from invariance_jax.transforms.transform import Transform

Domain = Literal["pixel", "normalized"]
Seen = Callable[[Float[Array, "height width 3"], Float[Array, ""]], Float[Array, "height width 3"]]


def in_domain(transform: Transform, domain: Domain) -> Seen:
    """Turns a transform into the function from an image to what the model takes.

    Args:
        transform: A row of the table.
        domain: "pixel" transforms the image and normalises it then. "normalized" normalises
            first, as the original does: zero fill is ImageNet's mean colour there, clipping to
            [0, 1], solarizing and posterizing act on normalised values, and even an identity
            magnitude changes the image.

    Returns:
        `seen(image, magnitude)`: image float32 [height, width, 3] in [0, 1], not normalised;
        the result has the same shape and is normalised.

    Raises:
        UserError: No such domain.
    """
    choices: dict[str, Seen] = {
        "pixel": lambda image, magnitude: normalize(transform.apply(image, magnitude)),
        "normalized": lambda image, magnitude: transform.apply_normalized(
            normalize(image), magnitude
        ),
    }
    return lookup(choices, domain, "domain")
