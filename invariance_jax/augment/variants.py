"""The one table of augmentation variants (paper, section 2; names of this project).

A variant is data: a distribution over boxes in the source, the options that it takes, and how often
the image is mirrored. One antialiased resample makes the image of any of them.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from invariance_jax import spec, transforms
from invariance_jax.augment import boxes
from invariance_jax.augment.boxes import SQUARE, Area, Box, Boxes, CropSizes, Scalar, Size, Window
from invariance_jax.errors import UserError, lookup, unknown_name
from invariance_jax.transforms.resize import Interpolation

Canvas = UInt8[Array | np.ndarray, "canvas_height canvas_width 3"]

_PIXELS = "a positive whole number of pixels"
# The paper resizes the shorter side to 256 and crops 224; other sizes keep the proportion.
_RESIZE_OVER_SIZE = 256 / 224


@boxes.pytree
class Augmentation:
    """One augmentation variant as data; make it with `augment.get`.

    Attributes:
        name: The variant's name.
        size: Side of the output in pixels.
        boxes: Which part of the source is shown.
        flip_probability: How often the output is mirrored left to right.
        antialias: Whether a smaller output averages all pixels that it covers.
        interpolation: The filter, as Pillow has it.
        exact: Whether a TPU resamples in the whole of float32, as the evaluator must, or in half
            of that, within a hundredth of a grey level.
    """

    name: str = dataclasses.field(metadata={"static": True})
    size: int = dataclasses.field(metadata={"static": True})
    boxes: Boxes
    flip_probability: float | Scalar
    antialias: bool = dataclasses.field(default=True, metadata={"static": True})
    interpolation: Interpolation = dataclasses.field(default="bilinear", metadata={"static": True})
    exact: bool = dataclasses.field(default=True, metadata={"static": True})

    def sample_box(self, key: PRNGKeyArray, height: Size, width: Size) -> Box:
        """Draws the part of the source that one output shows.

        Args:
            key: Random key.
            height: Height of the image in source pixels, int32.
            width: Width of the image in source pixels, int32.

        Returns:
            (top, left, box_height, box_width) in source pixels, float32.
        """
        return boxes.source_box(self.boxes(key, height, width), self.boxes.frames)

    def __call__(
        self, key: PRNGKeyArray, canvas: Canvas, height: Size, width: Size
    ) -> Float[Array, "{self.size} {self.size} 3"]:
        """Augments one image.

        Args:
            key: Random key.
            canvas: uint8 pixels with the image in the upper left corner of zeros.
            height: Height of the image within the canvas.
            width: Width of the image within the canvas.

        Returns:
            The augmented image, float32 in [0, 1], not normalised.

        Raises:
            UserError: The canvas is not uint8 [height, width, 3].
        """
        _check_canvas(canvas)
        canvas = jnp.asarray(canvas)
        key_box, key_flip = jax.random.split(key)
        windows = self.boxes(key_box, height, width)
        flip = jax.random.bernoulli(key_flip, self.flip_probability)
        return self.render(canvas, windows, flip)

    def render(
        self, canvas: Canvas, windows: tuple[Window, ...], flip: Bool[Array, ""]
    ) -> Float[Array, "{self.size} {self.size} 3"]:
        """Makes the image that given windows show, without randomness.

        Args:
            canvas: uint8 pixels with the image in the upper left corner of zeros.
            windows: One for each resampling, as `boxes` draws them.
            flip: Whether the image is mirrored left to right.

        Returns:
            The image, float32 in [0, 1], not normalised.
        """
        rows, columns = (
            [_axis(window, axis, self.antialias) for window in windows] for axis in (0, 1)
        )
        # Mirrored once, at the end.
        columns[-1] = columns[-1]._replace(flip=flip)
        if len(windows) == 1:
            return transforms.resize.resize_box(
                *(canvas, rows[0], columns[0]),
                size=self.size,
                interpolation=self.interpolation,
                exact=self.exact,
            )
        sizes = (*self.boxes.frames, self.size)
        return transforms.resize.resize_boxes(
            canvas, rows, columns, sizes=sizes, interpolation=self.interpolation
        )


def _check_canvas(canvas: Array | np.ndarray) -> None:
    if canvas.ndim != 3 or canvas.shape[2] != 3 or 0 in canvas.shape:
        raise UserError(
            f"canvas has shape {canvas.shape}; expected [height, width, 3], one image (map over a "
            "batch with jax.vmap)"
        )
    if canvas.dtype != jnp.uint8:
        raise UserError(f"canvas is {canvas.dtype}; expected uint8, as images are decoded")


def _axis(window: Window, axis: int, antialias: bool) -> transforms.resize.Axis:
    """What one axis (0: rows) of a resampling's output shows."""
    edges = [(box[axis], box[axis] + box[axis + 2]) for box in (window.cut, window.visible)]
    return transforms.resize.Axis(*window.box[axis::2], *edges, jnp.bool_(False), antialias)


def translate_in_context(
    none: Augmentation, canvas: Canvas, height: Size, width: Size, *, down: Scalar, right: Scalar
) -> Float[Array, "{none.size} {none.size} 3"]:
    """Moves the content of the centre crop as a camera does, by moving the crop over the image.

    What comes into view are the pixels that the centre crop had left out: a margin of
    (resized side - crop) / 2 on each side, which at the paper's sizes is 16 pixels along the
    shorter side and more along the longer. Only beyond the image's own border there is nothing
    left to show, and it is black. So an image whose margin is m shows no black up to a shift of m;
    at a shift of one whole side, m pixels of real content are still in view where zero fill shows
    black alone. (Shifman and Weiss, arXiv 2404.07153, call this the realistic translation.)

    Args:
        none: `augment.get("none", ...)`.
        canvas: uint8 pixels with the image in the upper left corner of zeros.
        height: Height of the image within the canvas.
        width: Width of the image within the canvas.
        down: How far down the content moves, in pixels of the output; fractions are interpolated.
        right: How far to the right, likewise.

    Returns:
        The image, float32 in [0, 1], not normalised; at (0, 0) exactly what `none` gives.
    """
    windows = none.boxes.moved_by(height, width, down=down, right=right)
    return none.render(canvas, windows, jnp.bool_(False))


def _fraction(name: str, value: object) -> float:
    return spec.check_number(name, value, 0, 1, "a fraction of the side, 0 to 1")


def _positive(name: str, value: object) -> float:
    smallest, largest = math.ulp(0.0), sys.float_info.max
    return spec.check_number(name, value, smallest, largest, "a finite number above 0")


def _at_most_one(name: str, value: object) -> tuple[float, float]:
    return spec.check_interval(name, value, 1.0)


def _boolean(name: str, value: object) -> bool:
    if type(value) is not bool:
        raise UserError(f"{name} is {value!r}; expected True or False")
    return value


# Of the options that say how large the area of a crop is, a variant takes one.
_AREAS: Mapping[str, Callable[..., Area]] = {
    "scale": lambda scale: boxes.UniformArea(scale=scale),
    "side": lambda side: boxes.InverseScaleArea(side=side),
    "rate": lambda rate: boxes.ExponentialArea(rate=rate),
    "b": lambda b: boxes.BetaArea(b=b),
    "k": lambda k: boxes.UniformArea(scale=((1 + 5 * k / 14) ** -2, 1.0)),
}


def _area(**options: Any) -> Area:
    ((option, value),) = options.items()
    return _AREAS[option](value)


_SAMPLERS: Mapping[str, Callable[..., CropSizes]] = MappingProxyType(
    {
        "torchvision": lambda ratio, **area: boxes.TorchvisionSize(area=_area(**area), ratio=ratio),
        "tf": boxes.TensorflowSize,
    }
)


def _sizes(
    sampler: Callable[..., CropSizes] = _SAMPLERS["torchvision"],
    ratio: tuple[float, float] = SQUARE,
    **area: Any,
) -> CropSizes:
    return sampler(ratio=ratio, **area)


# Each option's default, and its check: from name and value to what the makers below take.
_OPTIONS: Mapping[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "t": (0.3, _fraction),
    "scale": ((0.08, 1.0), _at_most_one),
    "ratio": ((3 / 4, 4 / 3), spec.check_interval),
    # 1 / s is uniform over 1 to 1 / .28.
    "side": ((0.28, 1.0), _at_most_one),
    "rate": (0.5, _positive),
    "b": (1.0, _positive),
    "k": (14, lambda name, value: spec.check_number(name, value, 0, 14, whole=True)),
    "sampler": ("torchvision", lambda name, value: lookup(_SAMPLERS, value, name)),
    "antialias": (True, _boolean),
    # It depends on the sizes: its maker checks it.
    "cropsize": (None, lambda _, value: value),
}

# A maker takes the output's size, the shorter side after a resize and whether that keeps no aspect
# (both of no effect on crops of the source itself), and its variant's options by keyword.


def _random_crop(size: int, resize: int, squash: bool, **sizes: Any) -> Boxes:
    return boxes.RandomResizedCrop(sizes=_sizes(**sizes))


def _center_crop(size: int, resize: int, squash: bool, *, t: float = 0.0, **sizes: Any) -> Boxes:
    return boxes.CenterCrop(sizes=_sizes(**sizes), t=t)


def _resized(size: int, resize: int, squash: bool, *, t: float = 0.0, **moved: str) -> Boxes:
    _check_margin(size, resize)
    return boxes.ResizedCenterCrop(size=size, resize=resize, t=t, squash=squash, **moved)


def _resized_random_crop(size: int, resize: int, squash: bool, *, cropsize: int | None) -> Boxes:
    cropsize = size if cropsize is None else cropsize
    expected = f"a whole number of resized pixels, 1 to resize, which is {resize}"
    spec.check_number("cropsize", cropsize, 1, resize, expected, whole=True)
    return boxes.ResizedRandomCrop(size=size, resize=resize, cropsize=cropsize, squash=squash)


def _crop_of_center_crop(
    size: int, resize: int, squash: bool, *, t: float = 0.0, **area: Any
) -> Boxes:
    _check_margin(size, resize)
    return boxes.CropOfCenterCrop(size=size, resize=resize, t=t, area=_area(**area), squash=squash)


def _check_margin(size: int, resize: int) -> None:
    if resize < size:
        raise UserError(f"resize is {resize}; expected at least size, which is {size}")


_CROP = ("scale", "ratio", "sampler")

# name: (maker of the box sampler, its options, flip probability), roughly from the least augmented
# to the most; the last is for testing.
_VARIANTS: Mapping[str, tuple[Callable[..., Boxes], tuple[str, ...], float]] = MappingProxyType(
    {
        "none": (_resized, (), 0.0),
        "flip": (_resized, (), 0.5),
        "random_crop": (_resized_random_crop, ("cropsize",), 0.0),
        "translate": (_resized, ("t",), 0.0),
        "translate_after_crop": (functools.partial(_resized, moved="crop"), ("t",), 0.0),
        "random_size_center_crop": (_center_crop, _CROP, 0.0),
        "translate_scale": (_center_crop, ("t", *_CROP, "antialias"), 0.0),
        "translate_scale_square": (_center_crop, ("t", "scale", "sampler", "antialias"), 0.0),
        "translate_inverse_scale": (_center_crop, ("t", "side", "antialias"), 0.0),
        "crop_translate_scale_square": (_crop_of_center_crop, ("t", "scale"), 0.0),
        "crop_translate_inverse_scale": (_crop_of_center_crop, ("t", "side"), 0.0),
        "exponential_crop": (_random_crop, ("rate", "ratio"), 0.0),
        "beta_crop": (_random_crop, ("b", "ratio"), 0.0),
        "random_resized_crop": (_random_crop, _CROP, 0.0),
        "random_resized_crop_flip": (_random_crop, _CROP, 0.5),
        "scaled_center_crop": (_crop_of_center_crop, ("k",), 0.0),
    }
)

NAMES: tuple[str, ...] = tuple(_VARIANTS)


def get(
    name: str,
    *,
    size: int = 224,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    squash: bool = False,
    **overrides: float | str | tuple[float, float],
) -> Augmentation:
    """Makes an augmentation variant.

    The paper's training variants; `scaled_center_crop` is for testing. Pixels agree with the
    paper's pipeline in Pillow, whole grey levels after each step, within .6 of a grey
    level on average and 1.5 for 99%; where it resizes twice, so do the weights.

    Args:
        name: One of `augment.NAMES`.
        size: Side of the output in pixels.
        resize: Shorter side before the centre crop in pixels, for the variants that resize
            first; the others crop the source itself. By default the paper's 256 for 224.
        interpolation: The filter of all resizing, Pillow's "bilinear" (the paper's) or "bicubic".
        squash: Whether the variants that resize first resize both sides to `resize`, whatever the
            aspect.
        **overrides: Numbers of the variant, by keyword:

            - `t` (every `translate`): largest translation as a fraction of the side, 0 to 1; .3.
            - `scale` (crops of random size): smallest and largest area fraction; (.08, 1).
            - `ratio` (crops of random aspect): smallest and largest aspect, width over height;
              (3/4, 4/3).
            - `sampler` (`random_resized_crop`, `random_resized_crop_flip`,
              `random_size_center_crop`, `translate_scale`, `translate_scale_square`): who draws
              the crop's size, "torchvision" (the paper's) or "tf", TensorFlow's
              `sample_distorted_bounding_box`, whose crops are smaller.
            - `side` (`translate_inverse_scale`, `crop_translate_inverse_scale`): smallest and
              largest side as a fraction of the image's; (.28, 1).
            - `rate` (`exponential_crop`): the higher, the rarer are small crops; .5.
            - `b` (`beta_crop`): 1, the default, is `random_resized_crop`; more is smaller crops.
            - `cropsize` (`random_crop`): side of the crop in resized pixels, at most `resize`; by
              default `size`.
            - `antialias` (`translate_scale`, `translate_scale_square`, `translate_inverse_scale`):
              False resizes without, as the published code does in these three (it crops and
              resizes tensors, in torchvision 0.9); True.
            - `k` (`scaled_center_crop`): 0 to 14 for areas down to 1 / m^2 of the centre crop,
              m = 1 + 5 k / 14; 14.

    Returns:
        The augmentation, frozen.

    Raises:
        UserError: Unknown name or override, or a number out of range.

    Examples:
        >>> get("translate", size=64, t=0.1).boxes.t
        0.1
    """
    make_boxes, known, flip_probability = lookup(_VARIANTS, name, "augmentation")
    if interpolation not in get_args(Interpolation):
        raise unknown_name("interpolation", interpolation, get_args(Interpolation))
    resize = round(size * _RESIZE_OVER_SIZE) if resize is None else resize
    for key, value in {"size": size, "resize": resize}.items():
        spec.check_number(key, value, 1, sys.maxsize, _PIXELS, whole=True)
    for key in overrides:
        if key not in known:
            choices = ", ".join(["size", "resize", *known])
            raise UserError(f"augmentation {name!r} has no option {key!r}; its options: {choices}")
    options = {
        option: check(option, overrides.get(option, default))
        for option, (default, check) in _OPTIONS.items()
        if option in known
    }
    antialias = options.pop("antialias", True)
    return Augmentation(
        name=name,
        size=size,
        boxes=make_boxes(size, resize, squash, **options),
        flip_probability=flip_probability,
        antialias=antialias,
        interpolation=interpolation,
    )


def parse(
    text: str,
    *,
    size: int,
    resize: int,
    field: str,
    interpolation: Interpolation = "bilinear",
    squash: bool = False,
) -> Augmentation:
    """Makes the augmentation that a config names.

    Args:
        text: One of `NAMES`, with options: `translate(t=0.1)`.
        size: Side of the output, pixels, unless the text has it.
        resize: Shorter side after a resize, likewise.
        field: Where the text came from, for error messages: "config.augment.name".
        interpolation: The filter of all resizing, likewise.
        squash: Whether a resize keeps no aspect, likewise.

    Returns:
        The augmentation.

    Raises:
        UserError: Unknown name or option, or a value out of range; the message starts with the
            field.

    Examples:
        >>> parse("flip", size=8, resize=8, field="name").flip_probability
        0.5
    """
    try:
        name, options = spec.parse(text)
        default = {"size": size, "resize": resize}
        default |= {"interpolation": interpolation, "squash": squash}
        return get(name, **(default | options))
    except (UserError, TypeError) as error:
        raise UserError(f"{field}: {error}") from error
