"""The one table of networks, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from invariance_jax.errors import UserError, lookup, unknown_name
from invariance_jax.models.resnet import ResNet
from invariance_jax.models.vit import VisionTransformer

DEFAULT_CLASSES = 1000
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table.

    Attributes:
        module: The Flax class.
        fields: What the name fixes.
        options: What the user may set: option to its valid values, the default first.
    """

    module: type[nn.Module]
    fields: Mapping[str, Any]
    options: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


def _resnet(
    sizes: tuple[int, ...],
    *,
    bottleneck: bool = False,
    width: int = 64,
    stems: tuple[str, ...] = ("imagenet", "cifar"),
    stem_strides: tuple[int, ...] = (1, 2),
    pools: tuple[str, ...] = (),
) -> Architecture:
    return Architecture(
        module=ResNet,
        fields={
            "stage_sizes": sizes,
            "stage_widths": tuple(width * 2**stage for stage in range(len(sizes))),
            "bottleneck": bottleneck,
        },
        options={"stem": stems, "stem_stride": stem_strides} | dict.fromkeys(pools, (True, False)),
    )


def _vit(patch: int, width: int, depth: int, heads: int) -> Architecture:
    fields = {"patch": patch, "width": width, "depth": depth, "heads": heads}
    return Architecture(module=VisionTransformer, fields=fields)


ARCHITECTURES: Mapping[str, Architecture] = {
    # For 32 and 64 pixels on a laptop, as vit_mu8: a stride of 2 in the stem is four times faster.
    "resnet8": _resnet((1, 1, 1), width=16, stems=("cifar", "imagenet"), stem_strides=(2, 1)),
    "resnet18": _resnet((2, 2, 2, 2)),
    "resnet34": _resnet((3, 4, 6, 3)),
    "resnet50": _resnet((3, 4, 6, 3), bottleneck=True),
    "resnet101": _resnet((3, 4, 23, 3), bottleneck=True),
    "resnet152": _resnet((3, 8, 36, 3), bottleneck=True),
    "modified_resnet18": _resnet((2, 2, 2, 2), pools=("stage2_pool", "stage3_pool", "stage4_pool")),
    "vit_mu8": _vit(8, 64, 3, 4),
    "vit_ti16": _vit(16, 192, 12, 3),
    "vit_s32": _vit(32, 384, 12, 6),
    "vit_s16": _vit(16, 384, 12, 6),
    "vit_b32": _vit(32, 768, 12, 12),
    "vit_b16": _vit(16, 768, 12, 12),
    "vit_l16": _vit(16, 1024, 24, 16),
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
        **options: Of ResNets: `stem` ("imagenet": 7x7 with stride 2 and a max-pool; "cifar":
            3x3) and `stem_stride` (1 or 2, of the cifar stem). Of `modified_resnet18` also
            `stage2_pool`, `stage3_pool`, `stage4_pool`: whether that stage halves by max-pool.

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
    chosen = {option: values[0] for option, values in architecture.options.items()}
    for option, value in options.items():
        if option not in chosen:
            if not chosen:
                raise UserError(f"model {name!r} has no options, but got {option!r}")
            raise unknown_name(f"option of model {name!r}", option, chosen)
        valid = architecture.options[option]
        # Types count too, as 1 == True.
        if not any(type(value) is type(other) and value == other for other in valid):
            raise UserError(
                f"option {option!r} of model {name!r} is {value!r}; "
                f"expected one of: {', '.join(map(repr, valid))}"
            )
        chosen[option] = value
    if chosen.get("stem") == "imagenet" and "stem_stride" in options:
        raise UserError(
            f"option 'stem_stride' of model {name!r} is {chosen['stem_stride']!r}, but the "
            "imagenet stem has its own strides; expected stem='cifar' with it"
        )
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
        num_classes=num_classes,
        dtype=lookup(_DTYPES, dtype, "dtype"),
        **architecture.fields,
        **chosen,
    )
