"""One view of every model: images in [0, 1] to an embedding, other features and scores.

A Flax network, or any function of a user's, in whatever library it is written.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array, Float, PRNGKeyArray

from invariance_jax import distributed, spec
from invariance_jax.errors import UserError
from invariance_jax.models.preprocessing import Preprocessing, preprocessing_of
from invariance_jax.models.registry import DEFAULT_CLASSES, create
from invariance_jax.models.weight_files import load_weights
from invariance_jax.models.weights import import_weights
from invariance_jax.transforms import Colour
from invariance_jax.transforms.resize import Interpolation

Images = Float[Array | np.ndarray, "n h w 3"]
Apply = Callable[[Any, Images], tuple[Float[Array, "n classes"] | None, dict[str, Array]]]

# Parameters are drawn from the seed folded with a number that no training step reaches.
_INIT = np.uint32(0xFFFF_FFFF)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A network as the evaluator sees it: images to named features and, if it classifies, scores.

    Attributes:
        name: What tables and charts call it.
        variables: A pytree of arrays, handed to `apply`; {} for plain functions.
        apply: `apply(variables, inputs) -> (logits, features)`, traceable. The logits are float32
            [N, classes], or None; the features are float32 arrays by name, [N, ...], among them
            "embedding", [N, D].
        normalize: From float32 images in [0, 1], [N, H, W, 3], to the inputs of `apply`.
        num_classes: Length of the logits; None for a model without.
        image_size: Side of the images that it was made for, pixels; None for any.
        preprocessing: How photos become its images; None if nobody said.
        fingerprint: What tells its parameters from others', where they are not in `variables`.
        dtype: To which `apply` rounds its inputs, and others may before.
        differentiable: Whether JAX can differentiate it.
        runs_on: What it runs on, where that is not JAX; empty otherwise.
    """

    name: str
    variables: Any
    apply: Apply
    normalize: Callable[[Images], Array]
    num_classes: int | None
    image_size: int | None
    preprocessing: Preprocessing | None = None
    fingerprint: str = ""
    dtype: str = "float32"
    differentiable: bool = True
    runs_on: str = ""

    def __call__(self, images: Images) -> Float[Array, "n d"]:
        """Embeds images; compiled once for each shape of them.

        Args:
            images: Floating point in [0, 1], [N, H, W, 3].

        Returns:
            The embeddings, float32 [N, D].
        """
        return self._embed(self.variables, images)

    @functools.cached_property
    def _embed(self) -> Callable[[Any, Images], Array]:
        return jax.jit(
            lambda variables, x: self.apply(variables, self.normalize(x))[1]["embedding"]
        )


def from_flax(
    module: nn.Module,
    variables: Any,
    *,
    name: str,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Model:
    """Makes a model of a Flax network.

    Args:
        module: As `create` makes it: `apply(variables, inputs, train=False)` gives the logits and
            the features by name. Where it has a `dtype`, it rounds its inputs to it at first.
        variables: Its parameters and running statistics.
        name: What tables and charts call it.
        image_size: Side of the images that it was made for, pixels; None for any, or for that of
            the preprocessing.
        preprocessing: How photos become its images; by ImageNet's mean and deviation by default.

    Returns:
        The model.
    """
    return Model(
        name=name,
        variables=variables,
        apply=functools.partial(module.apply, train=False),
        normalize=(preprocessing or Preprocessing()).normalize,
        num_classes=module.num_classes or None,
        image_size=image_size or (preprocessing and preprocessing.image_size),
        preprocessing=preprocessing,
        dtype=jnp.dtype(getattr(module, "dtype", None) or "float32").name,
    )


def init_variables(model: nn.Module, key: PRNGKeyArray, image_size: int) -> dict[str, Any]:
    """Draws a network's parameters.

    Args:
        model: The network.
        key: The run's key.
        image_size: Side of the images, pixels.

    Returns:
        What `model.apply` takes: "params", and "batch_stats" for models with BatchNorm.
    """
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    return model.init(jax.random.fold_in(key, _INIT), images, train=False)


def options_of_drawing() -> dict[str, Any]:
    """Compiler options of a program that draws parameters, which runs once.

    A CPU takes 2 seconds to compile it without optimisations, and 8 with them. Both ways to begin,
    `load_model` and training, use them: so the parameters are the same, bit for bit.

    Returns:
        Options as `jax.jit` takes them; none on other platforms.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}


def load_model(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    seed: int = 0,
    num_classes: int | None = None,
    dtype: str = "float32",
    resize_size: int | None = None,
    interpolation: Interpolation | None = None,
    squash: bool | None = None,
    mean: Colour | None = None,
    std: Colour | None = None,
    which_weights: str = "auto",
    resample_pos_embed: bool = False,
) -> Model:
    """Makes a model of a network's name and a file of its weights.

    Args:
        name: One of `names()`, with options: `resnet18(stem='cifar')`; or `timm:NAME`,
            `torchvision:NAME` or `FILE.py:FUNCTION`, which run on the host (`load_foreign`).
        weights: A file of weights, or a folder with one, as `load_weights` and `import_weights`
            take them; None to draw the parameters, as training with this seed would begin.
        image_size: Side of the images, pixels; None for what the weights want.
        seed: Of the parameters that are drawn.
        num_classes: Length of the logits; None for as many as the file has, 1000 without a file. A
            file without a head makes a model without scores.
        dtype: What it computes in: "float32" or "bfloat16".
        resize_size: Shorter side of a photo before the centre crop; None, as for what follows, for
            what `preprocessing_of` finds beside the weights or in its table.
        interpolation: The filter of that resize.
        squash: Whether it makes a photo square, whatever its aspect.
        mean: What is subtracted from red, green and blue in [0, 1].
        std: What is then divided by.
        which_weights: Of weights and their moving average in one file: "auto" (the plain ones, or
            the only ones), "plain" or "ema".
        resample_pos_embed: Resample position embeddings that were made for another image size.

    Returns:
        The model; `model.preprocessing` says what it wants of its images, and who said so.

    Raises:
        UserError: No such network or option, or the file cannot be read, or holds another network,
            number of classes or image size.
    """
    given = {"image_size": image_size, "resize_size": resize_size, "interpolation": interpolation}
    given |= {"squash": squash, "mean": mean, "std": std}
    from invariance_jax.models.foreign import is_foreign, load_foreign

    if is_foreign(name):
        return load_foreign(name, weights, **given)
    kind, options = spec.parse(name)
    preprocessing = preprocessing_of(kind, weights or "").replaced(**given)
    image_size = preprocessing.image_size
    if weights is None:
        module = create(
            kind, DEFAULT_CLASSES if num_classes is None else num_classes, dtype=dtype, **options
        )
        draw = jax.jit(
            init_variables,
            static_argnames=("model", "image_size"),
            compiler_options=options_of_drawing(),
        )
        variables = draw(module, jax.random.key(seed), image_size=image_size)
    else:
        variables = import_weights(
            kind,
            load_weights(weights),
            num_classes=num_classes,
            image_size=image_size if resample_pos_embed else None,
            which_weights=which_weights,
            announce=lambda said: distributed.say(f"weights {os.fspath(weights)!r}: {said}"),
            **options,
        )
        head = variables["params"].get("head")
        module = create(kind, len(head["bias"]) if head else 0, dtype=dtype, **options)
        _check_shapes(variables, module, weights, image_size)
    return from_flax(module, variables, name=name, preprocessing=preprocessing)


def _check_shapes(variables: Any, module: nn.Module, weights: Any, image_size: int) -> None:
    """Refuses weights that were made for another size of the images."""
    expected = jax.eval_shape(lambda: init_variables(module, jax.random.key(0), image_size))
    for (path, here), there in zip(
        jax.tree_util.tree_leaves_with_path(variables), jax.tree.leaves(expected), strict=True
    ):
        if here.shape != there.shape:
            raise UserError(
                f"weights {str(weights)!r}: {jax.tree_util.keystr(path)} has shape {here.shape}; "
                f"images of {image_size} pixels need {there.shape}; resample_pos_embed=True "
                "resamples it"
            )


def from_function(
    function: Callable[[Any], Any],
    *,
    name: str | None = None,
    on_host: bool | None = None,
    image_size: int | None = None,
) -> Model:
    """Makes a model of any function from images to vectors.

    Args:
        function: From float32 images in [0, 1], [N, H, W, 3], to vectors, [N, D]. One that JAX can
            trace becomes part of the compiled program. Any other, of numpy or PyTorch say, is
            called on the host with a numpy array of its own, and may return whatever `np.asarray`
            takes; it must not use JAX.
        name: What tables and charts call it; the function's own name by default.
        on_host: Whether to call it on the host; None to find out by tracing it.
        image_size: Side of the images that it takes, pixels; None for any.

    Returns:
        The model; its embedding is float32 whatever the function returns.

    Raises:
        UserError: The function does not give one vector of numbers for each image. It is tried on
            two black images: here, or when it is first used if there is no `image_size`.

    Examples:
        >>> model = from_function(lambda images: images.mean((1, 2)), name="mean colour")
        >>> model(np.ones((5, 8, 8, 3), np.float32)).shape
        (5, 3)
    """
    name = name or getattr(function, "__name__", type(function).__name__)

    def embed(images: Images) -> Float[Array, "n d"]:
        host = not can_be_traced(function, images.shape[1:]) if on_host is None else on_host
        return (_embed_on_host if host else _embed_in_program)(function, name, images)

    if image_size is not None:
        images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
        jax.eval_shape(embed, images)
    return Model(
        name=name,
        variables={},
        apply=lambda _, images: (None, {"embedding": embed(images)}),
        normalize=lambda images: images,
        num_classes=None,
        image_size=image_size,
    )


def can_be_traced(function: Callable[[Any], Any], shape: tuple[int, ...]) -> bool:
    """Whether JAX can compile a function; one that fails otherwise will do so on the host.

    Args:
        function: From images to vectors.
        shape: Of one image.

    Returns:
        Whether it can.
    """
    try:
        jax.eval_shape(function, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    except Exception:  # numpy, PyTorch and users refuse a tracer in many ways
        return False
    return True


def _embed_in_program(function: Callable[[Any], Any], name: str, images: Images) -> Array:
    found = function(images)
    _check_vectors(name, found, len(images))
    return jnp.asarray(found, jnp.float32)


def _embed_on_host(function: Callable[[Any], Any], name: str, images: Images) -> Array:
    def call(images: Any) -> Float[np.ndarray, "n d"]:
        # A copy: memory of JAX's is read-only, and not there for long.
        found = function(np.array(images))
        if isinstance(found, jax.Array):  # could wait for ever for the program that waits for it
            raise UserError(
                f"model {name!r} uses JAX, but JAX cannot trace it; expected a function that "
                "jax.jit compiles, or one without JAX"
            )
        if hasattr(found, "detach"):  # a tensor of PyTorch's, whose gradient nobody wants
            found = found.detach().cpu()
        found = np.asarray(found)
        _check_vectors(name, found, len(images))
        return found.astype(np.float32)

    # Two: of one image it could not be seen that a function mixes them up.
    with jax.ensure_compile_time_eval():
        length = call(np.zeros((2, *images.shape[1:]), np.float32)).shape[1]
    shape = jax.ShapeDtypeStruct((len(images), length), jnp.float32)
    if jax.default_backend() != "cpu":
        return jax.pure_callback(call, shape, images, vmap_method="sequential")

    # `pure_callback` hands over JAX arrays, whose copy waits for a thread of the CPU's pool: where
    # every thread stands in such a call, all wait for ever. A buffer is bare memory.
    def fill(context: Any, out: Any, images: Any) -> None:
        np.asarray(out)[...] = call(np.asarray(images))

    return buffer_callback(fill, shape, vmap_method="sequential")(images.astype(jnp.float32))


def _check_vectors(name: str, found: Any, count: int) -> None:
    """Refuses what is not one vector of numbers for each image."""
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape is None or len(shape) != 2 or shape[0] != count or not shape[1]:
        came = type(found).__name__ if shape is None else f"shape {tuple(shape)}"
        raise UserError(
            f"model {name!r} gave {came} for {count} images; expected [{count}, D], one vector "
            "for each image"
        )
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise UserError(f"model {name!r} gave values of dtype {dtype}; expected real numbers")
