"""The one table of networks, by name."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from invariance_jax.errors import UserError, lookup, unknown_name
from invariance_jax.models.resnet import ResNet
from invariance_jax.models.vit import ACTIVATIONS, VisionTransformer

DEFAULT_CLASSES = 1000
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table.

    Attributes:
        module: The Flax class.
        fields: What the name sets.
        options: What the user may set, to its valid values. Among these `int` stands for any whole
            number from 0, `float` for any number above 0.
    """

    module: type[nn.Module]
    fields: Mapping[str, Any]
    options: Mapping[str, tuple[Any, ...]]


_BOOLEAN = (False, True)


def _resnet(sizes: tuple[int, ...], *, width: int = 64, **fields: Any) -> Architecture:
    pools = [name for name in fields if name.endswith("_pool") and name != "blur_pool"]
    variants = ("avg_down",) if pools else ("avg_down", "blur_pool")
    return Architecture(
        module=ResNet,
        fields={
            "stage_sizes": sizes,
            "stage_widths": tuple(width * 2**stage for stage in range(len(sizes))),
            "bottleneck": False,
            "stem": "imagenet",
            "stem_stride": 1,
            **fields,
        },
        options={"stem": ("imagenet", "cifar", "deep"), "stem_stride": (1, 2)}
        | dict.fromkeys((*variants, *pools), _BOOLEAN),
    )


_bottlenecks = functools.partial(_resnet, bottleneck=True)
_50, _101, _152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_D = {"stem": "deep", "avg_down": True}

# Width, depth, heads.
_SIZES = {
    "mu": (64, 3, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1536, 40, 24),
}
_VIT_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "mlp_ratio": (float,),
    "activation": tuple(ACTIVATIONS),
    "qkv_bias": _BOOLEAN,
    "qk_norm": _BOOLEAN,
    "init_values": (None, float),
    "epsilon": (float,),
    "class_token": _BOOLEAN,
    "reg_tokens": (int,),
    "distilled": _BOOLEAN,
    "no_embed_class": _BOOLEAN,
    "pre_norm": _BOOLEAN,
    "global_pool": ("token", "avg"),
    "fc_norm": (None, False, True),
}


def _vit(size: str, patch: int, **fields: Any) -> Architecture:
    width, depth, heads = _SIZES[size]
    return Architecture(
        module=VisionTransformer,
        fields={"patch": patch, "width": width, "depth": depth, "heads": heads, **fields},
        options=_VIT_OPTIONS,
    )


_DEIT3 = {"no_embed_class": True, "init_values": 1e-6}
_DINOV2 = {"init_values": 1e-5}
_DINOV2_GIANT = {**_DINOV2, "activation": "swiglu", "mlp_ratio": 2.66667 * 2}
_REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
_CLIP = {"pre_norm": True, "epsilon": 1e-5}
_QUICK = {"activation": "quick_gelu"}
_GAP = {"class_token": False, "global_pool": "avg"}

# timm's names end in the size of the images that they were trained on, which changes nothing here.
_TIMM_VITS: tuple[tuple[str, str, Architecture], ...] = (
    ("vit_tiny_patch16", "224 384", _vit("tiny", 16)),
    ("vit_small_patch32", "224 384", _vit("small", 32)),
    ("vit_small_patch16", "224 384", _vit("small", 16)),
    ("vit_small_patch8", "224", _vit("small", 8)),
    ("vit_base_patch32", "224 384", _vit("base", 32)),
    ("vit_base_patch16", "224 384", _vit("base", 16)),
    ("vit_base_patch8", "224", _vit("base", 8)),
    ("vit_large_patch32", "224 384", _vit("large", 32)),
    ("vit_large_patch16", "224 384", _vit("large", 16)),
    ("vit_large_patch14", "224", _vit("large", 14)),
    ("vit_huge_patch14", "224", _vit("huge", 14)),
    ("vit_base_patch16_gap", "224", _vit("base", 16, heads=16, fc_norm=False, **_GAP)),
    ("vit_base_patch16_reg4_gap", "256", _vit("base", 16, **_GAP, **_REGISTERS)),
    ("deit_tiny_patch16", "224", _vit("tiny", 16)),
    ("deit_small_patch16", "224", _vit("small", 16)),
    ("deit_base_patch16", "224 384", _vit("base", 16)),
    ("deit_tiny_distilled_patch16", "224", _vit("tiny", 16, distilled=True)),
    ("deit_small_distilled_patch16", "224", _vit("small", 16, distilled=True)),
    ("deit_base_distilled_patch16", "224 384", _vit("base", 16, distilled=True)),
    ("deit3_small_patch16", "224 384", _vit("small", 16, **_DEIT3)),
    ("deit3_medium_patch16", "224", _vit("medium", 16, **_DEIT3)),
    ("deit3_base_patch16", "224 384", _vit("base", 16, **_DEIT3)),
    ("deit3_large_patch16", "224 384", _vit("large", 16, **_DEIT3)),
    ("deit3_huge_patch14", "224", _vit("huge", 14, **_DEIT3)),
    ("vit_small_patch14", "dinov2", _vit("small", 14, **_DINOV2)),
    ("vit_base_patch14", "dinov2", _vit("base", 14, **_DINOV2)),
    ("vit_large_patch14", "dinov2", _vit("large", 14, **_DINOV2)),
    ("vit_giant_patch14", "dinov2", _vit("giant", 14, **_DINOV2_GIANT)),
    ("vit_small_patch14_reg4", "dinov2", _vit("small", 14, **_DINOV2, **_REGISTERS)),
    ("vit_base_patch14_reg4", "dinov2", _vit("base", 14, **_DINOV2, **_REGISTERS)),
    ("vit_large_patch14_reg4", "dinov2", _vit("large", 14, **_DINOV2, **_REGISTERS)),
    ("vit_giant_patch14_reg4", "dinov2", _vit("giant", 14, **_DINOV2_GIANT, **_REGISTERS)),
    ("vit_base_patch32_clip", "224 256 384", _vit("base", 32, **_CLIP)),
    ("vit_base_patch16_clip", "224 384", _vit("base", 16, **_CLIP)),
    ("vit_large_patch14_clip", "224 336", _vit("large", 14, **_CLIP)),
    ("vit_huge_patch14_clip", "224 336", _vit("huge", 14, **_CLIP)),
    ("vit_base_patch32_clip_quickgelu", "224", _vit("base", 32, **_CLIP, **_QUICK)),
    ("vit_base_patch16_clip_quickgelu", "224", _vit("base", 16, **_CLIP, **_QUICK)),
    ("vit_large_patch14_clip_quickgelu", "224 336", _vit("large", 14, **_CLIP, **_QUICK)),
)

ARCHITECTURES: Mapping[str, Architecture] = {
    # For 32 and 64 pixels on a laptop, as vit_mu8: a stride of 2 in the stem is four times faster.
    "resnet8": _resnet((1, 1, 1), width=16, stem="cifar", stem_stride=2),
    "resnet18": _resnet((2, 2, 2, 2)),
    "resnet34": _resnet(_50),
    "resnet50": _bottlenecks(_50),
    "resnet101": _bottlenecks(_101),
    "resnet152": _bottlenecks(_152),
    "modified_resnet18": _resnet(
        (2, 2, 2, 2), stage2_pool=True, stage3_pool=True, stage4_pool=True
    ),
    "wide_resnet50_2": _bottlenecks(_50, base_width=128),
    "wide_resnet101_2": _bottlenecks(_101, base_width=128),
    "resnext50_32x4d": _bottlenecks(_50, cardinality=32, base_width=4),
    "resnext101_32x4d": _bottlenecks(_101, cardinality=32, base_width=4),
    "resnext101_32x8d": _bottlenecks(_101, cardinality=32, base_width=8),
    "resnext101_64x4d": _bottlenecks(_101, cardinality=64, base_width=4),
    "resnet18d": _resnet((2, 2, 2, 2), **_D),
    "resnet34d": _resnet(_50, **_D),
    "resnet50d": _bottlenecks(_50, **_D),
    "resnet101d": _bottlenecks(_101, **_D),
    "resnet152d": _bottlenecks(_152, **_D),
    "resnext50d_32x4d": _bottlenecks(_50, cardinality=32, base_width=4, **_D),
    "resnetblur18": _resnet((2, 2, 2, 2), blur_pool=True),
    "resnetblur50": _bottlenecks(_50, blur_pool=True),
    "resnetblur50d": _bottlenecks(_50, blur_pool=True, **_D),
    "resnetblur101d": _bottlenecks(_101, blur_pool=True, **_D),
    "vit_mu8": _vit("mu", 8),
    "vit_ti16": _vit("tiny", 16),
    "vit_s32": _vit("small", 32),
    "vit_s16": _vit("small", 16),
    "vit_b32": _vit("base", 32),
    "vit_b16": _vit("base", 16),
    "vit_l16": _vit("large", 16),
    # torchvision's
    "vit_b_32": _vit("base", 32),
    "vit_b_16": _vit("base", 16),
    "vit_l_32": _vit("large", 32),
    "vit_l_16": _vit("large", 16),
    "vit_h_14": _vit("huge", 14),
    **{f"{name}_{end}": row for name, ends, row in _TIMM_VITS for end in ends.split()},
}


def names() -> list[str]:
    """Lists the networks.

    Returns:
        Every name that `create` takes, small ones first in each family.
    """
    return list(ARCHITECTURES)


def create(
    name: str,
    num_classes: int = DEFAULT_CLASSES,
    *,
    dtype: str = "float32",
    ghost_batch_size: int = 0,
    remat: bool = False,
    **options: Any,
) -> nn.Module:
    """Makes a network.

    Use it as `module.init(key, images, train=False)` and
    `module.apply(variables, images, train=False) -> (logits, features)`; in training with
    `train=True, mutable=["batch_stats"]`. Images are float32 [N, H, W, 3], already normalised.
    Parameters, statistics, logits and features are float32 whatever `dtype` is.

    Args:
        name: One of `names()`.
        num_classes: Length of the logits; 0 for a network without a head, whose logits are None.
        dtype: What it computes in: "float32" or "bfloat16".
        ghost_batch_size: How many consecutive images of the batch share BatchNorm statistics in
            training (the original's batch per GPU); 0 for the whole batch. Without effect on
            vision transformers, which have no BatchNorm.
        remat: Compute each block's activations again in the backward pass instead of keeping
            them; of vision transformers.
        **options: Of ResNets: `stem` ("imagenet": 7x7 with stride 2 and a max-pool; "deep": three
            3x3 instead of the 7x7; "cifar": 3x3), `stem_stride` (1 or 2, of the cifar stem),
            `avg_down`, `blur_pool`. Of `modified_resnet18` also `stage2_pool`, `stage3_pool`,
            `stage4_pool`: whether that stage halves by max-pool. Of vision transformers: the
            attributes of `VisionTransformer` from `mlp_ratio` to `fc_norm`.

    Returns:
        The Flax module; it holds no parameters.

    Raises:
        UserError: A name or value is not one of the valid ones.

    Examples:
        >>> create("resnet8", 10).stem
        'cifar'
    """
    architecture = lookup(ARCHITECTURES, name, "model")
    for field, value in (("num_classes", num_classes), ("ghost_batch_size", ghost_batch_size)):
        if type(value) is not int or value < 0:
            raise UserError(
                f"{field} of model {name!r} is {value!r}; expected an integer of at least 0"
            )
    for option, value in options.items():
        if option not in architecture.options:
            raise unknown_name(f"option of model {name!r}", option, architecture.options)
        valid = architecture.options[option]
        if not any(_matches(value, one) for one in valid):
            expected = ", ".join(_NUMBERS.get(one) or repr(one) for one in valid)
            raise UserError(
                f"option {option!r} of model {name!r} is {value!r}; expected one of: {expected}"
            )
    chosen = {**architecture.fields, **options}
    _check_together(name, chosen, options)
    if architecture.module is ResNet:
        if remat:
            raise UserError(
                f"remat of model {name!r} is {remat!r}; expected False, because only vision "
                "transformers can compute blocks again"
            )
        chosen["ghost_batch_size"] = ghost_batch_size
    else:
        chosen["remat"] = remat
    return architecture.module(
        num_classes=num_classes, dtype=lookup(_DTYPES, dtype, "dtype"), **chosen
    )


_NUMBERS = {int: "a whole number", float: "a number above 0"}


def _matches(value: Any, valid: Any) -> bool:
    if valid is int:
        return type(value) is int and value >= 0
    if valid is float:
        return type(value) in (int, float) and 0 < value < math.inf
    # Types count too, as 1 == True.
    return type(value) is type(valid) and value == valid


def _check_together(name: str, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuses options that contradict each other."""
    if chosen.get("stem", "cifar") != "cifar" and "stem_stride" in options:
        raise UserError(
            f"option 'stem_stride' of model {name!r} is {chosen['stem_stride']!r}, but the "
            f"{chosen['stem']} stem has its own strides; expected stem='cifar' with it"
        )
    average = chosen.get("global_pool") == "avg"
    if not (average or chosen.get("class_token", True)):
        raise UserError(
            f"option 'class_token' of model {name!r} is False; expected global_pool='avg' with it"
        )
    if average and chosen.get("distilled"):
        raise UserError(
            f"option 'distilled' of model {name!r} is True; expected global_pool='token' with it, "
            "whose two heads see the class and the distillation token"
        )
    outputs = int(chosen.get("mlp_ratio", 4) * chosen.get("width", 1))
    if chosen.get("activation") == "swiglu" and outputs % 2:
        raise UserError(
            f"option 'mlp_ratio' of model {name!r} makes {outputs} outputs, of which 'swiglu' "
            "gates one half with the other; expected an even number"
        )
