"""Augmentation whose strength is learned with the network: Augerino.

Benton et al., "Learning invariances in neural networks" (arXiv 2010.11882), in the form in which
the paper ran it on ImageNet. Every image is warped by a random affine map. Its weights on some
generators are uniform, and the widths of these distributions are parameters, which gradients reach
through the resampler. A regulariser rewards width.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from invariance_jax import spec
from invariance_jax.errors import UserError, lookup
from invariance_jax.transforms import geometric, resample
from invariance_jax.transforms.generators import VELOCITIES

# Where the widths stand among a network's parameters.
COLLECTION = "augmentation"

Image = Float[Array, "size size channels"]
Raw = Float[Array | np.ndarray, "*class generator"]
# One number for each generator, or one for all.
PerGenerator = float | tuple[float, ...]

# Folded into an example's key: no `jax.random.split` of it has so many parts.
_DRAW = np.uint32(0xFFFF_FFFD)
_SEQUENTIAL = ("translate_x", "translate_y", "scale")


def _sum(one: str, other: str, sign: int) -> np.ndarray:
    return np.asarray(VELOCITIES[one][0]) + sign * np.asarray(VELOCITIES[other][0])


# Rows (x, y) of the 2x3 matrices, on coordinates from -1 to 1.
_MATRICES: Mapping[str, np.ndarray] = MappingProxyType(
    {name: np.asarray(rows) for name, (rows, _) in VELOCITIES.items()}
    | {
        "stretch": _sum("stretch_x", "stretch_y", -1),
        "shear": _sum("shear_x", "shear_y", 1),
    }
)
# The original's start, where it is known: like `random_resized_crop`. Elsewhere s = log 2.
_START = {"translate_x": 0.84, "translate_y": 0.84, "scale": 2.44}

# What people call a width s: the largest weight is s / 2.
_KNOWN: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "translate": ("fraction of the side", lambda s: s / 4),
    "rotate": ("degrees", lambda s: np.rad2deg(s / 2)),
    "scale": ("smallest side fraction", lambda s: np.exp(-s / 2)),
    "stretch": ("largest factor", lambda s: np.exp(s / 2)),
    "shear": ("slope", lambda s: s / 2),
}


def unit(generator: str) -> str:
    """Says what a width of `LearnedAugmentation.metrics` counts.

    Args:
        generator: The generator's name.

    Returns:
        "degrees", say.
    """
    return _KNOWN[generator.partition("_")[0]][0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedAugmentation:
    """Augerino; make it with `augment.parse_learned`.

    Attributes:
        generators: Names of k generators.
        start: Raw widths w at the start; a width is s = softplus(w).
        floors: Least widths; None for none.
        shutdown: Widths above which the regulariser lets go.
        regularization: Its strength.
        sequential: Whether the generators act by one resampling each, scale only zooming in, or
            (joint) by one warp, the exponential of their weighted sum.
        per_class: Whether every class has widths of its own.
        fixed: Whether the widths stay as they are.
        copies: Draws of an image in evaluation, whose log-probabilities are averaged.
        train_copies: Likewise in training.
        learning_rate_factor: Learning rate of the widths, by the network's.
    """

    generators: tuple[str, ...]
    start: tuple[float, ...]
    floors: tuple[float, ...] | None
    shutdown: tuple[float, ...]
    regularization: float
    sequential: bool
    per_class: bool
    fixed: bool
    copies: int
    train_copies: int
    learning_rate_factor: float

    def initial(self, num_classes: int) -> Raw:
        """The raw widths before the first step.

        Args:
            num_classes: How many classes there are.

        Returns:
            float32 [generator], or [class, generator] if every class has its own.
        """
        start = jnp.asarray(self.start, jnp.float32)
        return jnp.tile(start, (num_classes, 1)) if self.per_class else start

    def draw(
        self, keys: Key[Array, " batch"], copies: int
    ) -> Float[Array, "batch {copies} generator"]:
        """Draws what every copy of a batch's images is made of.

        Args:
            keys: One for each image; what else is drawn from it is independent of this.
            copies: How many copies of each image.

        Returns:
            Uniform numbers, 0 to 1.
        """
        shape = (copies, len(self.generators))
        return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _DRAW), shape))(keys)

    def weights(
        self, raw: Float[Array, "generator"], uniform: Float[Array, "generator"]
    ) -> Float[Array, "generator"]:
        """The weight of each generator.

        Args:
            raw: Raw widths.
            uniform: Numbers from 0 to 1.

        Returns:
            (u - 1/2) s, in [-s/2, s/2]; of the sequential form's scale, if there are no floors,
            (u - 1) s / 2, in [-s/2, 0].
        """
        widths = jax.nn.softplus(raw)
        if self.floors:
            widths = jnp.maximum(widths, jnp.asarray(self.floors, widths.dtype))
        both_sides = (uniform - 0.5) * widths
        if not self.sequential or self.floors:
            return both_sides
        return both_sides.at[-1].set((uniform[-1] - 1) * widths[-1] / 2)

    def warp(self, image: Image, weights: Float[Array, "generator"]) -> Image:
        """Warps one image.

        The matrix takes the output's coordinates to the image's, as torch's `affine_grid` with
        `align_corners=True`; so a negative weight of scale zooms in.

        Args:
            image: Any float image, square; what lies outside is zero.
            weights: Of the generators.

        Returns:
            The warped image.
        """
        size = image.shape[0]
        half = (size - 1) / 2
        if self.sequential:
            right, down, scale = weights
            # A translation leaves the other axis alone, so three resamplings in sequence are one
            # with the products of their matrices; one merged warp would be another.
            zoomed = geometric.axis_weights(size, jnp.exp(scale))
            rows, columns = (
                jnp.matmul(
                    zoomed,
                    geometric.axis_weights(size, shift=shift * half),
                    precision=resample.PRECISION,
                )
                for shift in (down, right)
            )
            return resample.apply_weights(image, rows, columns)
        basis = np.zeros((len(self.generators), 3, 3), np.float32)
        basis[:, :2] = [_MATRICES[name] for name in self.generators]
        matrix = _expm(jnp.tensordot(weights, basis, 1, precision=resample.PRECISION))
        x_of, y_of = ((a, b, c * half) for a, b, c in matrix[:2])
        return geometric.warp(image, x_of, y_of)

    def __call__(
        self,
        raw: Raw,
        images: Float[Array, "batch size size channels"],
        uniform: Float[Array, "batch copies generator"],
        label: Int[Array, " batch"],
    ) -> Float[Array, "batch*copies size size channels"]:
        """Augments a batch of normalised images.

        Args:
            raw: Raw widths, of every class if the classes have their own.
            images: The images, after normalisation: zero fill is the mean colour.
            uniform: From `draw`.
            label: Their classes.

        Returns:
            The copies of the first image, then those of the second, and so on.
        """

        def one(image: Image, uniform: Array, label: Array) -> Array:
            widths = raw[label] if self.per_class else raw
            return jax.vmap(lambda u: self.warp(image, self.weights(widths, u)))(uniform)

        copies = jax.vmap(one)(images, uniform, label)
        return copies.reshape(-1, *images.shape[1:])

    def penalty(self, raw: Raw) -> Float[Array, ""]:
        """What the regulariser adds to the loss.

        Args:
            raw: Raw widths, of every class if the classes have their own.

        Returns:
            -regularization * ||m s||, the Frobenius norm; m is 1 where s is at most the shutdown
            and 0 elsewhere, and s is not floored. Not positive: width is rewarded.
        """
        widths = jax.nn.softplus(raw)
        shutdown = jnp.broadcast_to(jnp.asarray(self.shutdown), widths.shape)
        counted = jnp.where(widths <= shutdown, widths, 0.0)
        # Its gradient is 0, and not 0 / 0, where all widths are shut down.
        return -self.regularization * optax.safe_norm(counted.ravel(), 0.0)

    def metrics(self, raw: Float[np.ndarray, "*class generator"]) -> dict[str, float]:
        """Says how wide the distributions are.

        Args:
            raw: Raw widths, on the host.

        Returns:
            By generator "raw_width/NAME" and "width/NAME", the latter after floors in units that
            people know: fraction of the side, degrees, smallest side fraction. Where classes have
            their own these are means over them, and "width_min/NAME" and "width_max/NAME" stand
            beside.
        """
        raw = np.atleast_2d(np.asarray(raw, np.float64))
        widths = np.maximum(np.logaddexp(raw, 0), self.floors or 0.0)
        found = {}
        for name, values, column in zip(self.generators, raw.T, widths.T, strict=True):
            known = _KNOWN[name.partition("_")[0]][1](column)
            found[f"raw_width/{name}"] = float(values.mean())
            found[f"width/{name}"] = float(known.mean())
            if self.per_class:
                found[f"width_min/{name}"] = float(known.min())
                found[f"width_max/{name}"] = float(known.max())
        return found


# `jax.scipy.linalg.expm` solves linear systems of every size of error, and compiles ten times as
# long. A norm of 8 is 1/8 here, where the ninth power is below what float32 resolves.
_SQUARINGS, _ORDER = 6, 8


def _expm(matrix: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Matrix exponential: Taylor's series of a small part, squared as often as it was halved.

    All without the identity: beside its ones small numbers would lose their digits.
    """
    matmul = functools.partial(jnp.matmul, precision=resample.PRECISION)
    part, identity = matrix / 2**_SQUARINGS, jnp.eye(3, dtype=matrix.dtype)
    found = jax.lax.fori_loop(
        0, _ORDER, lambda i, x: matmul(part, identity + x) / (_ORDER - i), jnp.zeros_like(part)
    )
    return identity + jax.lax.fori_loop(0, _SQUARINGS, lambda _, x: 2 * x + matmul(x, x), found)


def mean_log_probability(
    logits: Float[Array, "image classes"], copies: int
) -> Float[Array, "batch classes"]:
    """Averages the log-softmax over copies that follow each other.

    Args:
        logits: Scores, in the order in which a `LearnedAugmentation` gives its images.
        copies: How many copies of each image.

    Returns:
        What the loss takes as logits.
    """
    log_probability = jax.nn.log_softmax(logits)
    return jnp.mean(log_probability.reshape(-1, copies, logits.shape[1]), axis=1)


def _augerino(
    *,
    generators: tuple[str, ...] = _SEQUENTIAL,
    start: PerGenerator | None = None,
    floors: PerGenerator | None = None,
    shutdown: PerGenerator = 10.0,
    regularization: float = 0.1,
    sequential: bool | None = None,
    per_class: bool = False,
    fixed: bool = False,
    copies: int = 4,
    train_copies: int = 1,
    learning_rate_factor: float = 0.1,
) -> LearnedAugmentation:
    generators = (generators,) if isinstance(generators, str) else tuple(generators)
    for name in generators:
        lookup(_MATRICES, name, "generator")
    if not generators or len(set(generators)) < len(generators):
        raise UserError(f"generators is {generators}; expected at least one, each once")
    if sequential is None:
        sequential = generators == _SEQUENTIAL
    if sequential and generators != _SEQUENTIAL:
        raise UserError(f"sequential is True with generators {generators}; expected {_SEQUENTIAL}")
    for option, value in {
        "sequential": sequential,
        "per_class": per_class,
        "fixed": fixed,
    }.items():
        if type(value) is not bool:
            raise UserError(f"{option} is {value!r}; expected True or False")
    if start is None:
        start = tuple(_START.get(name, 0.0) for name in generators)
    count, most = len(generators), 1000
    return LearnedAugmentation(
        generators=generators,
        start=_of_each("start", start, count, -math.inf),
        floors=None if floors is None else _of_each("floors", floors, count),
        shutdown=_of_each("shutdown", shutdown, count),
        regularization=spec.check_number("regularization", regularization, 0, math.inf),
        sequential=sequential,
        per_class=per_class,
        fixed=fixed,
        copies=spec.check_number("copies", copies, 1, most, whole=True),
        train_copies=spec.check_number("train_copies", train_copies, 1, most, whole=True),
        learning_rate_factor=spec.check_number(
            "learning_rate_factor", learning_rate_factor, 0, math.inf
        ),
    )


def _of_each(name: str, value: Any, count: int, low: float = 0.0) -> tuple[float, ...]:
    """One number for each generator."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * count
    if len(values) != count:
        raise UserError(f"{name} is {value!r}; expected one number, or {count}: one a generator")
    return tuple(spec.check_number(name, each, low, math.inf) for each in values)


LEARNED: Mapping[str, Callable[..., LearnedAugmentation]] = MappingProxyType(
    {"augerino": _augerino}
)


def parse_learned(text: str, field: str = "learned") -> LearnedAugmentation | None:
    """Makes the learned augmentation that a config names.

    Args:
        text: Empty for none, or `augerino` with options; lists are in the order of `generators`,
            one number stands for all:

            - `generators`: of translate_x, translate_y, rotate, scale, stretch, shear, and also
              stretch_x, stretch_y, shear_x, shear_y; translate_x, translate_y, scale.
            - `start`: raw widths w, s = softplus(w). By default the original's for translations and
              scale, (.84, .84, 2.44): translations within .3 of the side, sides of at least .28;
              0 for others.
            - `floors`: least widths s; none. The original's are 1.
            - `sequential`: one resampling for each generator, scale only zooms in (both ways with
              floors); by default where the generators are translate_x, translate_y and scale.
            - `per_class`: widths for each class; False. They act in training only.
            - `fixed`: the widths stay; False.
            - `regularization`: strength; .1. `shutdown`: width above which it lets go; 10.
            - `copies`: draws of an image in evaluation; 4. `train_copies`: in training; 1.
            - `learning_rate_factor`: of the widths; .1. The original's is 1 from a trained network.
        field: Where the text came from, for error messages.

    Returns:
        The learned augmentation, frozen; None for none.

    Raises:
        UserError: Unknown name, option or generator, or a value out of range.

    Examples:
        >>> parse_learned("augerino(generators=('rotate',))").start
        (0.0,)
    """
    return spec.call(LEARNED, text, kind="learned augmentation", field=field) if text else None
