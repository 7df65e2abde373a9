"""Which parameter of torchvision or timm is which of ours.

A path is where a variable stands in ours, from the collection down; a key is its dotted name in a
state dict. Everything is listed in the order of torch's state dicts.
"""

from collections.abc import Iterator

import flax.linen as nn

from invariance_jax.models.resnet import ResNet

Path = tuple[str, ...]

_CONV = {"weight": ("params", "kernel")}
_DENSE = {"weight": ("params", "kernel"), "bias": ("params", "bias")}
_NORM = {"weight": ("params", "scale"), "bias": ("params", "bias")}
_BATCH_NORM = _NORM | {
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}

_RESNET_BLOCK = (
    ("conv1", "conv1", _CONV),
    ("bn1", "bn1", _BATCH_NORM),
    ("conv2", "conv2", _CONV),
    ("bn2", "bn2", _BATCH_NORM),
    ("conv3", "conv3", _CONV),
    ("bn3", "bn3", _BATCH_NORM),
    ("downsample.0", "conv_shortcut", _CONV),
    ("downsample.1", "bn_shortcut", _BATCH_NORM),
)
_VIT_BLOCK = (
    ("norm1", "norm1", _NORM),
    ("attn.qkv", "qkv", _DENSE),
    ("attn.proj", "proj", _DENSE),
    ("norm2", "norm2", _NORM),
    ("mlp.fc1", "fc1", _DENSE),
    ("mlp.fc2", "fc2", _DENSE),
)


def state_dict_paths(module: nn.Module) -> Iterator[tuple[str, Path]]:
    """Lists where each parameter of a state dict stands in ours.

    Args:
        module: What `create` made.

    Yields:
        Key and path; also those of convolutions and shortcuts that some blocks do without.
    """
    return _resnet(module) if isinstance(module, ResNet) else _vit(module)


def _resnet(module: nn.Module) -> Iterator[tuple[str, Path]]:
    yield from _layer("conv1", ("conv1",), _CONV)
    yield from _layer("bn1", ("bn1",), _BATCH_NORM)
    for stage, size in enumerate(module.stage_sizes, 1):
        for block in range(size):
            for theirs, ours, leaves in _RESNET_BLOCK:
                path = (f"stage{stage}_block{block + 1}", ours)
                yield from _layer(f"layer{stage}.{block}.{theirs}", path, leaves)
    yield from _layer("fc", ("head",), _DENSE)


def _vit(module: nn.Module) -> Iterator[tuple[str, Path]]:
    yield "cls_token", ("params", "cls_token")
    yield "pos_embed", ("params", "pos_embed")
    yield from _layer("patch_embed.proj", ("patch_embed",), _DENSE)
    for block in range(module.depth):
        for theirs, ours, leaves in _VIT_BLOCK:
            yield from _layer(f"blocks.{block}.{theirs}", (f"block{block + 1}", ours), leaves)
    yield from _layer("norm", ("norm",), _NORM)
    yield from _layer("head", ("head",), _DENSE)


def _layer(key: str, path: Path, leaves: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    for theirs, (collection, ours) in leaves.items():
        yield f"{key}.{theirs}", (collection, *path, ours)
