"""Weights with torchvision's and timm's names, and how names and axes become ours and back.

Other forms get these names first (`forms.py`). A path is where a variable stands in ours, from the
collection down; a key is its dotted name in a state dict. Everything is listed in the order of
torch's state dicts.
"""

import collections
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from invariance_jax.errors import UserError
from invariance_jax.models import forms
from invariance_jax.models.registry import ARCHITECTURES, DEFAULT_CLASSES, create
from invariance_jax.models.resnet import ResNet
from invariance_jax.models.vit import VisionTransformer

Path = tuple[str, ...]
Shape = tuple[int, ...]

_DEFAULT_IMAGE_SIZE = 224
_LISTED = 5  # wrong keys that an error message lists

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
)
_VIT_BLOCK = (
    ("norm1", ("norm1",), _NORM),
    ("attn.qkv", ("qkv",), _DENSE),
    ("attn.q_norm", ("q_norm",), _NORM),
    ("attn.k_norm", ("k_norm",), _NORM),
    ("attn.proj", ("proj",), _DENSE),
    ("ls1", (), {"gamma": ("params", "ls1")}),
    ("norm2", ("norm2",), _NORM),
    ("mlp.fc1", ("fc1",), _DENSE),
    ("mlp.fc2", ("fc2",), _DENSE),
    ("ls2", (), {"gamma": ("params", "ls2")}),
)


def weight_shapes(
    name: str,
    num_classes: int = DEFAULT_CLASSES,
    *,
    image_size: int = _DEFAULT_IMAGE_SIZE,
    **options: Any,
) -> dict[str, Shape]:
    """Lists what torchvision's or timm's state dict of a network holds.

    Args:
        name: One of `names()`.
        num_classes: Length of the logits.
        image_size: Side of the images, pixels; position embeddings depend on it.
        **options: As `create` takes them.

    Returns:
        Key to shape, in torch's order and torch's axes, without `num_batches_tracked`.

    Raises:
        UserError: No such network or option, or the size does not fit it.
    """
    paths, shapes = _layout(create(name, num_classes, **options), image_size)
    return {key: _torch_shape(shapes[path].shape) for key, path in paths.items()}


def import_weights(
    name: str,
    state_dict: Mapping[str, ArrayLike],
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    which_weights: str = "auto",
    announce: Callable[[str], object] = lambda sentence: None,
    **options: Any,
) -> dict[str, Any]:
    """Turns weights of torchvision (ResNet) or timm (ViT) into variables.

    So are those of the other forms in `forms.FORMS`, whatever stands before their names; what else
    a file holds, as a decoder, is left out.

    Args:
        name: One of `names()`.
        state_dict: Key to array, with torch's names and axes.
        num_classes: Length of the logits that the weights must have; None to take any, or none.
        image_size: Side of the images that position embeddings are resampled to, pixels; None to
            keep their size.
        which_weights: Of weights and their moving average: "auto", "plain" or "ema"; see
            `forms.to_timm`.
        announce: Takes each sentence about what was chosen and left out.
        **options: As `create` takes them.

    Returns:
        What `module.apply` takes: {"params": ..., "batch_stats": ...} (the latter for ResNets
        only), float32, copied.

    Raises:
        UserError: No such network or option, or keys are missing, unexpected or of another
            shape; the message lists the first five, and says which network would fit, or what the
            weights are.
    """
    module = create(name, **options)
    arrays, said = forms.to_timm(state_dict, which_weights)
    for sentence in said:
        announce(sentence)
    if image_size is not None and isinstance(module, VisionTransformer):
        arrays = _resampled(arrays, module, image_size)
    given = {key: value.shape for key, value in arrays.items()}
    paths = _checked_paths(name, given, num_classes, options, said)
    flat = {path: jnp.array(_from_torch(arrays[key]), jnp.float32) for key, path in paths.items()}
    return flax.traverse_util.unflatten_dict(flat)


def export_weights(
    name: str, variables: Mapping[str, Any], *, num_classes: int | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """Turns variables into weights of torchvision (ResNet) or timm (ViT).

    Args:
        name: One of `names()`.
        variables: What `module.init` or `import_weights` returned, trained or not.
        num_classes: Length of the logits that the variables must have; None to take any.
        **options: As `create` takes them.

    Returns:
        Key to float32 array, with torch's names, order and axes, without `num_batches_tracked`
        (torch's `load_state_dict` does not need it).

    Raises:
        UserError: No such network or option, or the variables are not of this network; the
            message lists the first five differences.
    """
    keys = {path: key for key, path in _state_dict_paths(create(name, **options))}
    arrays = {
        # What has no key keeps its path: the check then names it as unexpected.
        keys.get(path, "/".join(path)): _to_torch(np.asarray(value, np.float32))
        for path, value in flax.traverse_util.flatten_dict(variables).items()
    }
    given = {key: value.shape for key, value in arrays.items()}
    return {key: arrays[key] for key in _checked_paths(name, given, num_classes, options)}


def _checked_paths(
    name: str,
    given: Mapping[str, Shape],
    num_classes: int | None,
    options: Mapping[str, Any],
    said: tuple[str, ...] = (),
) -> dict[str, Path]:
    """Key to path of the network that has these weights; refuses weights that do not fit it."""
    kind = create(name, **options)
    classes = _num_classes(kind, given) if num_classes is None else num_classes
    paths, shapes = _layout(create(name, classes, **options), _image_size(kind, given))
    expected = {key: _torch_shape(shapes[path].shape) for key, path in paths.items()}
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    wrong = [key for key in expected if key in given and given[key] != expected[key]]
    faults = (
        [f"missing {key!r}" for key in missing]
        + [f"unexpected {key!r}" for key in unexpected]
        + [f"{key!r} has shape {given[key]}, expected {expected[key]}" for key in wrong]
    )
    if faults:
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        what = forms.other_form(given) or _fitting(name, kind, options, given)
        told = "; ".join([each for each in (what, *said) if each] + faults[:_LISTED])
        raise UserError(
            f"weights do not fit model {name!r} ({len(missing)} missing, {len(unexpected)} "
            f"unexpected, {len(wrong)} of another shape): {told}{more}"
        )
    return paths


def _fitting(
    name: str, module: nn.Module, options: Mapping[str, Any], given: Mapping[str, Shape]
) -> str:
    """Says which networks have these weights; nothing if none has, or this one."""
    of_vit, of_resnet = _vit_fields(given), _resnet_fields(given)
    needs = {}
    for other, row in ({each: create(each) for each in ARCHITECTURES} | {name: module}).items():
        if isinstance(row, VisionTransformer) and of_vit:
            needs[other] = _vit_needs(row, of_vit)
        elif isinstance(row, ResNet) and of_resnet:
            needs[other] = _resnet_needs(row, of_resnet)
    if not needs and not {"patch_embed.proj.weight", "layer1.0.conv1.weight"} & given.keys():
        return "their names are of no form that is known (docs/models.md lists those that are)"
    exact = [other for other, wanted in needs.items() if not wanted]
    if exact:
        return "" if name in exact else f"they fit {', '.join(exact[:_LISTED])}"
    near = [other for other in needs if needs[other].keys() <= ARCHITECTURES[other].options.keys()]
    if not near:
        return ""
    best = min(near, key=lambda other: (len(needs[other]), other != name))
    wanted = (options if best == name else {}) | needs[best]
    return f"they fit {best}({', '.join(f'{key}={value!r}' for key, value in wanted.items())})"


def _vit_fields(given: Mapping[str, Shape]) -> dict[str, Any]:
    """What a vision transformer with these weights is like; nothing if it is none."""
    keys = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight")
    patch, fc1, fc2, positions = (given.get(key, ()) for key in (*keys, "pos_embed"))
    if (len(patch), len(fc1), len(fc2), len(positions)) != (4, 2, 2, 3):
        return {}
    registers = given.get("reg_token", (0, 0))[1]
    class_token, distilled = "cls_token" in given, "dist_token" in given
    square = math.isqrt(positions[1]) ** 2 == positions[1]
    return {
        "patch": patch[-1],
        "width": patch[0],
        "depth": len({key.split(".")[1] for key in given if key.startswith("blocks.")}),
        "mlp_ratio": fc1[0] / patch[0],
        "activation": "swiglu" if fc1[0] == 2 * fc2[1] else "gelu",
        "qkv_bias": "blocks.0.attn.qkv.bias" in given,
        "qk_norm": "blocks.0.attn.q_norm.weight" in given,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in given else None,
        "class_token": class_token,
        "reg_tokens": registers,
        "distilled": distilled,
        "no_embed_class": square and bool(class_token + distilled + registers),
        "pre_norm": "norm_pre.weight" in given,
        "global_pool": "token" if class_token and "fc_norm.weight" not in given else "avg",
        "fc_norm": "fc_norm.weight" in given,
    }


def _vit_needs(module: VisionTransformer, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that would have to be others for a network to have such weights."""
    pool, after, width = fields["global_pool"], fields["fc_norm"], fields["width"]
    needs = {
        name: value
        for name, value in fields.items()
        if getattr(module, name) != value and name not in ("global_pool", "fc_norm")
    }
    # Where other values have the same names and shapes, they will do.
    if int(module.mlp_ratio * width) == round(fields["mlp_ratio"] * width):
        needs.pop("mlp_ratio", None)
    if (module.activation == "swiglu") == (fields["activation"] == "swiglu"):
        needs.pop("activation", None)
    if (module.init_values is None) == (fields["init_values"] is None):
        needs.pop("init_values", None)
    if not (fields["class_token"] or fields["distilled"] or fields["reg_tokens"]):
        needs.pop("no_embed_class", None)
    pooled = fields["class_token"] or module.global_pool == "avg"
    if module.norm_after_pool != after or not pooled:
        needs["global_pool"] = pool
        if pool == "avg" and (not after or module.fc_norm is not None):
            needs["fc_norm"] = after
    return needs


def _resnet_fields(given: Mapping[str, Shape]) -> dict[str, Any]:
    """What a ResNet with these weights is like; nothing if it is none."""
    blocks = [re.fullmatch(r"layer(\d+)\.\d+\.conv2\.weight", key) for key in given]
    sizes = collections.Counter(int(found[1]) for found in blocks if found)
    inner = given.get("layer1.0.conv2.weight", ())
    if len(inner) != 4 or sorted(sizes) != list(range(1, len(sizes) + 1)):
        return {}
    bottleneck = "layer1.0.conv3.weight" in given
    last = "conv3" if bottleneck else "conv2"
    outputs = [given.get(f"layer{stage}.0.{last}.weight", (0,))[0] for stage in sorted(sizes)]
    kernel = given.get("conv1.weight", (0,))[-1]
    stem = "deep" if "conv1.0.weight" in given else {3: "cifar", 7: "imagenet"}.get(kernel)
    return {
        "stage_sizes": tuple(sizes[stage] for stage in sorted(sizes)),
        "stage_widths": tuple(width // (4 if bottleneck else 1) for width in outputs),
        "bottleneck": bottleneck,
        "inner": inner[:2],
        "avg_down": "layer2.0.downsample.2.weight" in given,
    } | ({"stem": stem} if stem else {})


def _resnet_needs(module: ResNet, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that would have to be others for a network to have such weights."""
    inner = module.stage_widths[0] * module.base_width // 64 * module.cardinality
    here = vars(module) | {"inner": (inner, inner // module.cardinality)}
    return {name: value for name, value in fields.items() if here[name] != value}


def _layout(
    module: nn.Module, image_size: int
) -> tuple[dict[str, Path], dict[Path, jax.ShapeDtypeStruct]]:
    """Key to path and path to shape of a network's variables, from its own initialisation."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    init = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    shapes = flax.traverse_util.flatten_dict(init)
    return {key: path for key, path in _state_dict_paths(module) if path in shapes}, shapes


def _num_classes(module: nn.Module, given: Mapping[str, Shape]) -> int:
    head = "head" if isinstance(module, VisionTransformer) else "fc"
    if not any(key.startswith(f"{head}.") for key in given):
        return 0
    shape = given.get(f"{head}.weight", ())
    return shape[0] if len(shape) == 2 and shape[0] else DEFAULT_CLASSES


def _image_size(module: nn.Module, given: Mapping[str, Shape]) -> int:
    """The side of the images that position embeddings were made for."""
    if not isinstance(module, VisionTransformer):
        return _DEFAULT_IMAGE_SIZE
    shape = given.get("pos_embed", ())
    patches = shape[1] - module.embedded_prefix if len(shape) == 3 else 0
    grid = math.isqrt(max(patches, 0))
    # Without a square grid nothing fits, and the check says so against the default.
    default = _DEFAULT_IMAGE_SIZE - _DEFAULT_IMAGE_SIZE % module.patch
    return grid * module.patch if grid and grid**2 == patches else default


def _resampled(
    arrays: Mapping[str, np.ndarray], module: VisionTransformer, image_size: int
) -> dict[str, np.ndarray]:
    """Position embeddings for images of another size, bicubic and antialiased, as timm does it."""
    grid = image_size // module.patch
    side = _image_size(module, {key: value.shape for key, value in arrays.items()}) // module.patch
    before = module.embedded_prefix
    positions = np.asarray(arrays.get("pos_embed", ()), np.float32)
    if image_size % module.patch or grid == side or positions.shape[:2] != (1, before + side**2):
        return dict(arrays)
    image = positions[0, before:].reshape(side, side, -1)
    image = jax.image.resize(image, (grid, grid, image.shape[2]), "cubic", antialias=True)
    patches = np.asarray(image).reshape(1, grid**2, -1)
    return {**arrays, "pos_embed": np.concatenate([positions[:, :before], patches], axis=1)}


# Flax's kernels end in (..., in, out), torch's start with (out, in, ...); arrays of one or three
# dimensions (norms, biases, tokens, position embeddings) are the same in both.
_TO_TORCH = {1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (3, 2, 0, 1)}


def _torch_shape(shape: Shape) -> Shape:
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)])


def _to_torch(array: np.ndarray) -> np.ndarray:
    # No network has arrays of other ranks: those pass, for the check to refuse. A mere view would
    # be written in the order of its memory by safetensors.
    return np.ascontiguousarray(array.transpose(_TO_TORCH.get(array.ndim, range(array.ndim))))


def _from_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(np.argsort(_TO_TORCH[array.ndim]))


def _state_dict_paths(module: nn.Module) -> Iterator[tuple[str, Path]]:
    """Lists where each parameter of a state dict stands in ours.

    Args:
        module: What `create` made.

    Yields:
        Key and path; also those of convolutions and shortcuts that some blocks do without.
    """
    return _resnet(module) if isinstance(module, ResNet) else _vit(module)


def _resnet(module: nn.Module) -> Iterator[tuple[str, Path]]:
    if module.stem == "deep":
        for number, letter in ((0, "a"), (3, "b")):
            yield from _layer(f"conv1.{number}", (f"conv1{letter}",), _CONV)
            yield from _layer(f"conv1.{number + 1}", (f"bn1{letter}",), _BATCH_NORM)
    yield from _layer("conv1.6" if module.stem == "deep" else "conv1", ("conv1",), _CONV)
    yield from _layer("bn1", ("bn1",), _BATCH_NORM)
    # A pool stands before the shortcut's convolution and is counted.
    first = int(module.avg_down)
    shortcut = (
        (f"downsample.{first}", "conv_shortcut", _CONV),
        (f"downsample.{first + 1}", "bn_shortcut", _BATCH_NORM),
    )
    for stage, size in enumerate(module.stage_sizes, 1):
        for block in range(size):
            for theirs, ours, leaves in (*_RESNET_BLOCK, *shortcut):
                path = (f"stage{stage}_block{block + 1}", ours)
                yield from _layer(f"layer{stage}.{block}.{theirs}", path, leaves)
    yield from _layer("fc", ("head",), _DENSE)


def _vit(module: nn.Module) -> Iterator[tuple[str, Path]]:
    for token in ("cls_token", "reg_token", "pos_embed", "dist_token"):
        yield token, ("params", token)
    yield from _layer("patch_embed.proj", ("patch_embed",), _DENSE)
    yield from _layer("norm_pre", ("norm_pre",), _NORM)
    for block in range(module.depth):
        for theirs, ours, leaves in _VIT_BLOCK:
            yield from _layer(f"blocks.{block}.{theirs}", (f"block{block + 1}", *ours), leaves)
    yield from _layer("norm", ("norm",), _NORM)
    yield from _layer("fc_norm", ("fc_norm",), _NORM)
    yield from _layer("head", ("head",), _DENSE)
    yield from _layer("head_dist", ("head_dist",), _DENSE)


def _layer(key: str, path: Path, leaves: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    for theirs, (collection, ours) in leaves.items():
        yield f"{key}.{theirs}", (collection, *path, ours)
