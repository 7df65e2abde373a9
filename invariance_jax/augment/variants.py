"""The one table of augmentation variants (paper, section 2; names of this project)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from invariance_jax.augment.augmentation import Augmentation
from invariance_jax.augment.boxes import RandomResizedCrop, ResizedCenterCrop
from invariance_jax.errors import UserError, lookup

# The paper resizes the shorter side to 256 and crops 224; other sizes keep the proportion.
_RESIZE_OVER_SIZE = 256 / 224


def _resized_center_crop(size: int, resize: int, *, t: float = 0.3) -> ResizedCenterCrop:
    if resize < size:
        raise UserError(f"resize is {resize}; expected at least size, which is {size}")
    if not 0 <= t <= 1:
        raise UserError(f"t is {t}; expected a fraction of the side, 0 to 1")
    return ResizedCenterCrop(size=size, resize=resize, t=t)


def _center_crop(size: int, resize: int) -> ResizedCenterCrop:
    return _resized_center_crop(size, resize, t=0.0)


def _random_resized_crop(
    size: int,  # neither size changes the distribution of boxes in the source
    resize: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> RandomResizedCrop:
    for name, value, top in (("scale", scale, 1.0), ("ratio", ratio, float("inf"))):
        if not (isinstance(value, tuple | list) and len(value) == 2):
            raise UserError(f"{name} is {value!r}; expected two numbers, (smallest, largest)")
        if not 0 < value[0] <= value[1] <= top:
            limit = "" if top == float("inf") else f" <= {top:g}"
            raise UserError(f"{name} is {value}; expected 0 < smallest <= largest{limit}")
    return RandomResizedCrop(scale=tuple(scale), ratio=tuple(ratio))


# name: (maker of the box sampler, flip probability)
_VARIANTS: Mapping[str, tuple[Callable[..., ResizedCenterCrop | RandomResizedCrop], float]] = (
    MappingProxyType(
        {
            "none": (_center_crop, 0.0),
            "flip": (_center_crop, 0.5),
            "translate": (_resized_center_crop, 0.0),
            "random_resized_crop": (_random_resized_crop, 0.0),
            "random_resized_crop_flip": (_random_resized_crop, 0.5),
        }
    )
)

NAMES: tuple[str, ...] = tuple(_VARIANTS)


def get(
    name: str,
    *,
    size: int = 224,
    resize: int | None = None,
    **overrides: float | tuple[float, float],
) -> Augmentation:
    """Makes an augmentation variant.

    Args:
        name: One of `augment.NAMES`.
        size: Side of the output in pixels.
        resize: Shorter side before the centre crop in pixels, for the variants that resize
            first; the others crop the source itself. By default the paper's 256 for 224.
        **overrides: Numbers of the variant: `t` (`translate`: largest translation as a fraction
            of the side), `scale` and `ratio` (`random_resized_crop`,
            `random_resized_crop_flip`: smallest and largest area fraction and aspect).

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
