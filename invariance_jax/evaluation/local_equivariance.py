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

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Array, Float

from invariance_jax import devices
from invariance_jax.augment import Augmentation
from invariance_jax.errors import UserError, lookup
from invariance_jax.evaluation import collect
from invariance_jax.evaluation.accuracy import prepare
from invariance_jax.transforms import Generator, normalize

Batch = Mapping[str, Array]
Outputs = Callable[[Any, Float[Array, "batch height width 3"]], dict[str, Array]]


def make_outputs(model: nn.Module, names: Sequence[str]) -> Outputs:
    """Makes the function from images to the outputs whose change is measured.

    Args:
        model: The network.
        names: "logits", "probabilities", or names of features ("embedding", "stage1_block1").

    Returns:
        `outputs(variables, images)`, images float32 in [0, 1], not normalised: a dict by name.

    Raises:
        UserError: When it is traced: the network has no such output.
    """

    def outputs(variables: Any, images: Array) -> dict[str, Array]:
        logits, features = model.apply(variables, normalize(images), train=False)
        found = {"logits": logits, "probabilities": jax.nn.softmax(logits), **features}
        return {name: lookup(found, name, "output") for name in names}

    return outputs


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


def make_step(
    outputs: Outputs, preprocess: Augmentation, generators: Sequence[Generator], mesh: Mesh
) -> Callable[[Any, Batch], dict[str, Any]]:
    """Makes the jitted function that measures one batch.

    Args:
        outputs: What `make_outputs` returned.
        preprocess: Canvas to image, `none` as a rule.
        generators: What moves the images.
        mesh: The devices.

    Returns:
        `step(variables, batch)` as `collect.per_image` takes it: "values" holds `error`, by
        output [generator, batch], and `mean_square`, by output [batch], float32.
    """

    def mean_square(value: Array, axes: int) -> Array:
        return jnp.mean(jnp.square(value.astype(jnp.float32)), axis=tuple(range(axes, value.ndim)))

    def step(variables: Any, batch: Batch) -> dict[str, Any]:
        images = prepare(preprocess, batch)
        values, derivatives = lie_derivatives(
            lambda shown: outputs(variables, shown), images, generators
        )
        found = {
            "error": {name: mean_square(each, 2) for name, each in derivatives.items()},
            "mean_square": {name: mean_square(each, 1) for name, each in values.items()},
        }
        return {"index": batch["index"], "mask": batch["mask"], "values": found}

    whole = devices.replicated(mesh)
    return jax.jit(step, in_shardings=(whole, devices.by_example(mesh)), out_shardings=whole)


def measure(
    model: nn.Module,
    variables: Any,
    preprocess: Augmentation,
    generators: Sequence[Generator],
    outputs: Sequence[str],
    batches: Iterable[Batch],
    *,
    names: Sequence[str],
    labels: Sequence[int],
    mesh: Mesh,
    progress: Callable[[int], object],
) -> xr.Dataset:
    """Measures the local equivariance error of a model, image by image.

    Args:
        model: The network.
        variables: Its parameters and batch statistics.
        preprocess: Canvas to image, `none` as a rule.
        generators: What moves the images.
        outputs: Names of outputs, see `make_outputs`.
        batches: The split's batches on the devices; memory is that of
            (1 + number of generators) x batch forward passes.
        names: Each image's id.
        labels: Each image's class.
        mesh: The devices.
        progress: Called with the number of images just done.

    Returns:
        float32 `local_equivariance_error` (output, generator, image), whose mean over images is
        the paper's Equation 4, and `mean_square` (output, image), the mean square of the output
        itself: their quotient compares outputs of different size.
    """
    step = make_step(make_outputs(model, outputs), preprocess, generators, mesh)
    found = collect.per_image(
        lambda batch: step(variables, batch), batches, images=len(names), progress=progress
    )
    return xr.Dataset(
        {
            "local_equivariance_error": (
                ("output", "generator", "image"),
                np.stack([found["error"][name] for name in outputs]),
            ),
            "mean_square": (
                ("output", "image"),
                np.stack([found["mean_square"][name] for name in outputs]),
            ),
        },
        coords={
            "output": list(outputs),
            "generator": [each.name for each in generators],
            "image": list(names),
            "unit": ("generator", [each.unit for each in generators]),
            "family": ("generator", [each.family for each in generators]),
            "label": ("image", np.asarray(labels, np.int32)),
        },
    )
