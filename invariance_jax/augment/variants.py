"""The one table of augmentation variants (paper, section 2; names of this project)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from invariance_jax.augment import options
from invariance_jax.augment.areas import (
    Area,
    BetaArea,
    ExponentialArea,
    InverseScaleArea,
    UniformArea,
)
from invariance_jax.augment.augmentation import Augmentation, Boxes
from invariance_jax.augment.crops import CenterCrop, RandomResizedCrop
from invariance_jax.augment.resized import (
    SQUARE,
    CropOfCenterCrop,
    ResizedCenterCrop,
    ResizedRandomCrop,
)
from invariance_jax.augment.sizes import CropSizes, TensorflowSize, TorchvisionSize
from invariance_jax.errors import UserError, lookup

# The paper resizes the shorter side to 256 and crops 224; other sizes keep the proportion.
_RESIZE_OVER_SIZE = 256 / 224

_Range = tuple[float, float]
_SCALE: _Range = (0.08, 1.0)
_RATIO: _Range = (3 / 4, 4 / 3)
# 1 / s is uniform over 1 to 1 / .28.
_SIDE: _Range = (0.28, 1.0)
_T = 0.3

# A maker takes the output's size, the shorter side after a resize (of no effect on crops of the
# source itself), and its variant's options by keyword.


def _center(size: int, resize: int) -> ResizedCenterCrop:
    return _translate(size, resize, t=0.0)


def _translate(size: int, resize: int, *, t: float = _T) -> ResizedCenterCrop:
    _check_margin(size, resize)
    return ResizedCenterCrop(size=size, resize=resize, t=options.fraction("t", t))


def _translate_after_crop(size: int, resize: int, *, t: float = _T) -> ResizedCenterCrop:
    return dataclasses.replace(_translate(size, resize, t=t), moved="crop")


def _random_crop(size: int, resize: int, *, cropsize: int | None = None) -> ResizedRandomCrop:
    cropsize = size if cropsize is None else cropsize
    what = f"a whole number of resized pixels, 1 to resize, which is {resize}"
    options.whole("cropsize", cropsize, 1, resize, what)
    return ResizedRandomCrop(size=size, resize=resize, cropsize=cropsize)


def _random_resized_crop(
    size: int,
    resize: int,
    *,
    scale: _Range = _SCALE,
    ratio: _Range = _RATIO,
    sampler: str = "torchvision",
) -> RandomResizedCrop:
    return RandomResizedCrop(sizes=_sizes(scale, ratio, sampler))


def _exponential_crop(
    size: int, resize: int, *, rate: float = 0.5, ratio: _Range = _RATIO
) -> RandomResizedCrop:
    return _crop_of_area(ExponentialArea(rate=options.positive("rate", rate)), ratio)


def _beta_crop(
    size: int, resize: int, *, b: float = 1.0, ratio: _Range = _RATIO
) -> RandomResizedCrop:
    return _crop_of_area(BetaArea(b=options.positive("b", b)), ratio)


def _random_size_center_crop(
    size: int,
    resize: int,
    *,
    scale: _Range = _SCALE,
    ratio: _Range = _RATIO,
    sampler: str = "torchvision",
) -> CenterCrop:
    return CenterCrop(sizes=_sizes(scale, ratio, sampler), t=0.0)


def _translate_scale(
    size: int,
    resize: int,
    *,
    t: float = _T,
    scale: _Range = _SCALE,
    ratio: _Range = _RATIO,
    sampler: str = "torchvision",
) -> CenterCrop:
    return CenterCrop(sizes=_sizes(scale, ratio, sampler), t=options.fraction("t", t))


def _translate_scale_square(
    size: int,
    resize: int,
    *,
    t: float = _T,
    scale: _Range = _SCALE,
    sampler: str = "torchvision",
) -> CenterCrop:
    return CenterCrop(sizes=_sizes(scale, SQUARE, sampler), t=options.fraction("t", t))


def _translate_inverse_scale(
    size: int, resize: int, *, t: float = _T, side: _Range = _SIDE
) -> CenterCrop:
    area = InverseScaleArea(side=options.interval("side", side, 1.0))
    return CenterCrop(sizes=TorchvisionSize(area=area, ratio=SQUARE), t=options.fraction("t", t))


def _crop_translate_scale_square(
    size: int, resize: int, *, t: float = _T, scale: _Range = _SCALE
) -> CropOfCenterCrop:
    area = UniformArea(scale=options.interval("scale", scale, 1.0))
    return _crop_of_center_crop(size, resize, t, area)


def _crop_translate_inverse_scale(
    size: int, resize: int, *, t: float = _T, side: _Range = _SIDE
) -> CropOfCenterCrop:
    area = InverseScaleArea(side=options.interval("side", side, 1.0))
    return _crop_of_center_crop(size, resize, t, area)


def _scaled_center_crop(size: int, resize: int, *, k: int = 14) -> CropOfCenterCrop:
    options.whole("k", k, 0, 14, "a whole number, 0 to 14")
    m = 1 + 5 * k / 14
    return _crop_of_center_crop(size, resize, 0.0, UniformArea(scale=(m**-2, 1.0)))


def _sizes(scale: _Range, ratio: _Range, sampler: str) -> CropSizes:
    scale = options.interval("scale", scale, 1.0)
    ratio = options.interval("ratio", ratio, math.inf)
    return lookup(_SAMPLERS, sampler, "sampler")(scale, ratio)


_SAMPLERS: Mapping[str, Callable[[_Range, _Range], CropSizes]] = MappingProxyType(
    {
        "torchvision": lambda scale, ratio: TorchvisionSize(
            area=UniformArea(scale=scale), ratio=ratio
        ),
        "tf": lambda scale, ratio: TensorflowSize(scale=scale, ratio=ratio),
    }
)


def _crop_of_area(area: Area, ratio: _Range) -> RandomResizedCrop:
    ratio = options.interval("ratio", ratio, math.inf)
    return RandomResizedCrop(sizes=TorchvisionSize(area=area, ratio=ratio))


def _crop_of_center_crop(size: int, resize: int, t: float, area: Area) -> CropOfCenterCrop:
    _check_margin(size, resize)
    return CropOfCenterCrop(size=size, resize=resize, t=options.fraction("t", t), area=area)


def _check_margin(size: int, resize: int) -> None:
    if resize < size:
        raise UserError(f"resize is {resize}; expected at least size, which is {size}")


# name: (maker of the box sampler, flip probability), roughly from the least augmented to the most;
# the last is for testing.
_VARIANTS: Mapping[str, tuple[Callable[..., Boxes], float]] = MappingProxyType(
    {
        "none": (_center, 0.0),
        "flip": (_center, 0.5),
        "random_crop": (_random_crop, 0.0),
        "translate": (_translate, 0.0),
        "translate_after_crop": (_translate_after_crop, 0.0),
        "random_size_center_crop": (_random_size_center_crop, 0.0),
        "translate_scale": (_translate_scale, 0.0),
        "translate_scale_square": (_translate_scale_square, 0.0),
        "translate_inverse_scale": (_translate_inverse_scale, 0.0),
        "crop_translate_scale_square": (_crop_translate_scale_square, 0.0),
        "crop_translate_inverse_scale": (_crop_translate_inverse_scale, 0.0),
        "exponential_crop": (_exponential_crop, 0.0),
        "beta_crop": (_beta_crop, 0.0),
        "random_resized_crop": (_random_resized_crop, 0.0),
        "random_resized_crop_flip": (_random_resized_crop, 0.5),
        "scaled_center_crop": (_scaled_center_crop, 0.0),
    }
)

NAMES: tuple[str, ...] = tuple(_VARIANTS)


def get(
    name: str,
    *,
    size: int = 224,
    resize: int | None = None,
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
    make_boxes, flip_probability = lookup(_VARIANTS, name, "augmentation")
    resize = round(size * _RESIZE_OVER_SIZE) if resize is None else resize
    for key, value in (("size", size), ("resize", resize)):
        if not (isinstance(value, int) and value > 0):
            raise UserError(f"{key} is {value!r}; expected a positive whole number of pixels")
    known = list(make_boxes.__kwdefaults__ or {})
    for key in overrides:
        if key not in known:
            choices = ", ".join(["size", "resize", *known])
            raise UserError(f"augmentation {name!r} has no option {key!r}; its options: {choices}")
    return Augmentation(
        name=name,
        size=size,
        boxes=make_boxes(size, resize, **overrides),
        flip_probability=flip_probability,
    )
