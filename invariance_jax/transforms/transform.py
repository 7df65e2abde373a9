"""What a transform is, and where it acts: on pixels, or as the original on normalised values."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax.errors import UserError, lookup

Image = Float[Array, "height width channels"]
Scalar = Float[Array, ""]
Function = Callable[[Image, Scalar], Image]
Domain = Literal["pixel", "normalized"]
Colour = tuple[float, float, float]

# Of ImageNet's colours.
MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transform:
    """One row of a table of transforms.

    Attributes:
        name: Its key in the table.
        function: The rule, unchecked; `apply` is the same with its arguments checked.
        magnitudes: The ten magnitudes of the grid, the weakest first.
        identity: A magnitude at which `apply` returns every image exactly as it is; None where
            there is none, as for `invert`. The grid need not contain it: `solarize` at its
            weakest magnitude still inverts saturated pixels, so its identity is infinity.
        unit: What a magnitude counts, for axes and tables.
        family: Does it move things, or change how they look?
        signed: Whether -magnitude is as good as magnitude, the other way: `magnitudes` holds
            sizes, and `random` draws the sign.
        limits: Smallest and largest magnitude that mean anything, ends included.
        function_normalized: The original's rule on normalised values, where it is another than
            `function`; None where that serves.
    """

    name: str
    function: Function
    magnitudes: tuple[float, ...]
    identity: float | None
    unit: str
    family: Literal["geometric", "appearance"]
    signed: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)
    function_normalized: Function | None = None

    def apply(self, image: Image | np.ndarray, magnitude: ArrayLike) -> Image:
        """Transforms one image.

        Args:
            image: float32 [height, width, 3] in [0, 1].
            magnitude: A scalar within `limits`; it may be traced, and is not checked then.

        Returns:
            The transformed image, same shape and dtype.

        Raises:
            UserError: The image is not float [height, width, 3], or the magnitude is out of range.
        """
        return self.function(self._checked_image(image), self._checked_magnitude(magnitude))

    def apply_normalized(self, image: Image | np.ndarray, magnitude: ArrayLike) -> Image:
        """Transforms one normalised image as the original does; see `apply`.

        Args:
            image: float32 [height, width, 3], normalised.
            magnitude: A scalar within `limits`.

        Returns:
            The transformed image, same shape and dtype.

        Raises:
            UserError: As `apply`.
        """
        function = self.function_normalized or self.function
        return function(self._checked_image(image), self._checked_magnitude(magnitude))

    def random(self, key: PRNGKeyArray, image: Image, *, strongest: int = 9) -> Image:
        """Transforms one image at a random magnitude: the random twin of `apply`.

        Args:
            key: Random key.
            image: float32 [height, width, 3] in [0, 1].
            strongest: Index of the strongest magnitude that is drawn, 0 to 9.

        Returns:
            The transformed image, same shape and dtype.

        Raises:
            UserError: The image is not float [height, width, 3], or `strongest` is out of range.
        """
        return self.apply(image, self.draw(key, strongest=strongest))

    def draw(self, key: PRNGKeyArray, *, strongest: int = 9) -> Scalar:
        """Draws a magnitude.

        Args:
            key: Random key.
            strongest: Index of the strongest magnitude that is drawn, 0 to 9.

        Returns:
            One of `magnitudes`, from the weakest to that one, each as likely as the others; of
            random sign where the transform is signed.

        Raises:
            UserError: `strongest` is out of range.
        """
        self.check_strongest(strongest)
        key_index, key_sign = jax.random.split(key)
        magnitudes = jnp.asarray(self.magnitudes, jnp.float32)
        magnitude = magnitudes[jax.random.randint(key_index, (), 0, strongest + 1)]
        if not self.signed:
            return magnitude
        return magnitude * jax.random.rademacher(key_sign, (), jnp.float32)

    def check_strongest(self, strongest: int) -> None:
        """Checks an index of `magnitudes`.

        Args:
            strongest: The index.

        Raises:
            UserError: It is none.
        """
        last = len(self.magnitudes) - 1
        if type(strongest) is not int or not 0 <= strongest <= last:
            raise UserError(
                f"strongest magnitude of {self.name} is {strongest!r}; expected its index in the "
                f"table, 0 to {last}"
            )

    def _checked_image(self, image: Image | np.ndarray) -> Image:
        image = jnp.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(
                f"image for {self.name} has shape {image.shape}; expected [height, width, 3], one "
                "image (map over a batch with jax.vmap)"
            )
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise UserError(
                f"image for {self.name} is {image.dtype}; expected float32 in [0, 1]: divide 8-bit "
                "values by 255"
            )
        return image

    def _checked_magnitude(self, magnitude: ArrayLike) -> Array:
        if jnp.ndim(magnitude):
            raise UserError(
                f"magnitude of {self.name} has shape {jnp.shape(magnitude)}; expected one number"
            )
        low, high = self.limits
        if not isinstance(magnitude, jax.core.Tracer) and not low <= np.asarray(magnitude) <= high:
            raise UserError(
                f"magnitude of {self.name} is {magnitude}; expected {low:g} to {high:g} "
                f"({self.unit})"
            )
        return jnp.asarray(magnitude, jnp.float32)


def normalize(
    images: Float[Array | np.ndarray, "*batch height width 3"],
    mean: Colour = MEAN,
    std: Colour = STANDARD_DEVIATION,
) -> Float[Array, "..."]:
    """Subtracts a mean colour and divides by a standard deviation.

    Args:
        images: One image or any batch of them, float32 in [0, 1].
        mean: Red, green and blue, in [0, 1]; ImageNet's by default.
        std: Likewise, above 0.

    Returns:
        What models take; same shape and dtype.
    """
    shape = (1,) * (images.ndim - 1) + (3,)
    return (images - jnp.array(mean, images.dtype).reshape(shape)) / jnp.array(
        std, images.dtype
    ).reshape(shape)


def in_domain(
    transform: Transform, domain: Domain, normalize: Callable[[Image], Image] = normalize
) -> Function:
    """Turns a transform into the function from an image to what the model takes.

    Args:
        transform: A row of a table.
        domain: "pixel" transforms the image and normalises it then. "normalized" normalises
            first, as the original does: zero fill is ImageNet's mean colour there, clipping to
            [0, 1], solarizing and posterizing act on normalised values, and even an identity
            magnitude changes the image.
        normalize: From images in [0, 1] to what the model takes.

    Returns:
        `seen(image, magnitude)`: image float32 [height, width, 3] in [0, 1], not normalised;
        the result has the same shape and is normalised.

    Raises:
        UserError: No such domain.
    """
    choices: dict[str, Function] = {
        "pixel": lambda image, magnitude: normalize(transform.apply(image, magnitude)),
        "normalized": lambda image, magnitude: transform.apply_normalized(
            normalize(image), magnitude
        ),
    }
    return lookup(choices, domain, "domain")
