"""Local equivariance error: how fast an output changes as its image begins to change.

Gruver, Finzi, Goldblum and Wilson, "The Lie derivative for measuring learned equivariance" (arXiv
2210.02984). The Lie derivative of a network f along a generator X is

    L_X f(x) = d/dt at t = 0 of T'_-t( f( T_t(x) ) ),

T moving the image and T' the output: nothing for logits and embeddings, which should not change
at all, and the same flow for feature maps, which should move along. Equation 4 is the mean over
images of ||L_X f||² / (length of the output); 0 is exactly equivariant. The authors' published code
averages absolute values instead, of probabilities, and takes one-sided derivatives of bilinear
interpolation; its translation of one unit is half the distance between the outermost pixel centres
and here half the side; and its "saturate" is this `brightness`, on normalised values.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError, lookup
from invariance_jax.evaluation import results
from invariance_jax.evaluation.measurement import MAIN, Images, Measurement, Network, Seen
from invariance_jax.transforms import Generator, generators


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LocalEquivariance(Measurement):
    """The local equivariance error of each image.

    Attributes:
        generators: What moves the images.
        features: Features whose change is measured beside scores, probabilities and embedding.
    """

    generators: Sequence[Generator]
    features: Sequence[str] = ()

    name = "local_equivariance"
    needs_derivatives = True

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """The generators of `config.eval.local_equivariance`, by default all of them."""
        texts = config.eval.local_equivariance or generators.NAMES
        return cls(
            generators=[
                generators.get(text, f"config.eval.local_equivariance[{position}]")
                for position, text in enumerate(texts)
            ],
            features=config.eval.features,
        )

    def _outputs(self, network: Network, images: Array) -> dict[str, Array]:
        logits, features = network.apply(network.normalize(images))
        scores = {}
        if logits is not None:
            scores = {"logits": logits, "probabilities": jax.nn.softmax(logits)}
        names = dict.fromkeys((*scores, "embedding", *self.features))
        return {name: lookup(scores | features, name, "output") for name in names}

    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Measures one device's images.

        A pass holds the images and a tangent of each for every generator, so a part of the batch is
        taken at a time: as much as a bare forward pass of the batch.

        Returns:
            "error OUTPUT", float32 [batch, generator], and "mean_square OUTPUT", float32 [batch].
        """
        count = seen.image.shape[0]
        part = -(-count // (1 + len(self.generators)))
        rows = jnp.minimum(jnp.arange(-(-count // part) * part), count - 1).reshape(-1, part)

        def one(images: Float[Array, "part height width 3"]) -> dict[str, Array]:
            values, derivatives = lie_derivatives(
                lambda shown: self._outputs(network, shown), images, self.generators
            )
            errors = {f"error {key}": _mean_square(x, 2).T for key, x in derivatives.items()}
            sizes = {f"mean_square {key}": _mean_square(x, 1) for key, x in values.items()}
            return errors | sizes

        found = jax.lax.map(one, seen.image[rows])
        return {key: x.reshape(-1, *x.shape[2:])[:count] for key, x in found.items()}

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found.

        Args:
            found: The arrays of `step` over all images.
            images: The images.

        Returns:
            float32 `local_equivariance_error` (output, generator, image), whose mean over images is
            the paper's Equation 4, and `mean_square` (output, image), the mean square of the
            output itself: their quotient compares outputs of different size.
        """
        known = ("logits", "probabilities", "embedding", *self.features)
        outputs = [name for name in dict.fromkeys(known) if f"error {name}" in found]
        errors = np.stack([found[f"error {name}"].T for name in outputs])
        sizes = np.stack([found[f"mean_square {name}"] for name in outputs])
        table = self.generators
        return {
            MAIN: xr.Dataset(
                {
                    "local_equivariance_error": (("output", "generator", "image"), errors),
                    "mean_square": (("output", "image"), sizes),
                },
                {
                    "output": outputs,
                    "generator": [each.name for each in table],
                    "unit": ("generator", [each.unit for each in table]),
                    "family": ("generator", [each.family for each in table]),
                    **images.coordinates(),
                },
            )
        }

    def summary(self, dataset: xr.Dataset) -> str:
        """The mean over images, by generator and output."""
        found = dataset["local_equivariance_error"].mean("image").transpose("generator", "output")
        header = ("", *map(str, found["output"].values))
        body = [
            (str(name), *(f"{x:.3g}" for x in row))
            for name, row in zip(found["generator"].values, found.values, strict=True)
        ]
        return results.table("Local equivariance error", header, body)


def _mean_square(value: Array, axes: int) -> Array:
    """The mean square over all axes but the first ones."""
    return jnp.mean(jnp.square(value.astype(jnp.float32)), axis=tuple(range(axes, value.ndim)))


def act(generator: Generator, output: Float[Array, "..."]) -> Float[Array, "..."]:
    """How an output of one image begins to change if it moves as the image does.

    Args:
        generator: What moves the image.
        output: A flat output [features]; a map [height, width, channels]; or tokens
            [1 + side * side, width] of a vision transformer, the class token first.

    Returns:
        The derivative, same shape and dtype: zero for flat outputs, for the class token, and for
        generators of appearance, which move nothing.

    Raises:
        UserError: The tokens are no square and one.
    """
    if output.ndim == 1 or generator.family == "appearance":
        return jnp.zeros_like(output)
    if output.ndim == 3:
        return generator.tangent(output)
    side = math.isqrt(output.shape[0] - 1)
    if side * side != output.shape[0] - 1:
        raise UserError(f"an output has {output.shape[0]} tokens; expected one more than a square")
    patches = generator.tangent(output[1:].reshape(side, side, -1))
    return jnp.concatenate([jnp.zeros_like(output[:1]), patches.reshape(side * side, -1)])


def lie_derivatives(
    outputs: Callable[[Array], dict[str, Array]],
    images: Float[Array, "batch height width 3"],
    generators: Sequence[Generator],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Lie derivatives of a function of images, exact: no step size, no projections.

    Forward mode gives the whole derivative of an output, however long, at the price of about one
    more forward pass for each generator; so random projections, which backward mode would need,
    have no place here. The function itself is computed once for all generators.

    Args:
        outputs: From images to arrays [batch, ...] by name; each image by itself.
        images: The images.
        generators: What moves them.

    Returns:
        The outputs, and their Lie derivatives [generator, batch, ...].
    """
    tangents = jnp.stack([jax.vmap(each.tangent)(images) for each in generators])
    values, changes = jax.vmap(
        lambda tangent: jax.jvp(outputs, (images,), (tangent,)), out_axes=(None, 0)
    )(tangents)
    moved = {
        name: jnp.stack([jax.vmap(lambda z, g=g: act(g, z))(value) for g in generators])
        for name, value in values.items()
    }
    return values, {name: changes[name] - moved[name] for name in changes}
