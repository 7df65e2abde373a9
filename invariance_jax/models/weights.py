"""Weights of torchvision and timm, and how their names and axes become ours and back.

A path is where a variable stands in ours, from the collection down; a key is its dotted name in a
state dict. Everything is listed in the order of torch's state dicts.
"""

import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jax.typing import ArrayLike

from invariance_jax import files
from invariance_jax.errors import UserError
from invariance_jax.models.registry import DEFAULT_CLASSES, create
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


def load_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of named arrays.

    Args:
        path: A `.safetensors` or `.npz` file.

    Returns:
        Name to array, as `import_weights` takes it.

    Raises:
        UserError: The file is absent, has another suffix or cannot be read.
    """
    path = files.local_path(path, "weights")
    if path.suffix not in (".safetensors", ".npz"):
        raise UserError(f"weights {str(path)!r}: expected a .safetensors or .npz file")
    if not path.is_file():
        raise UserError(f"weights {str(path)!r}: no such file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        # Opened here, because `np.load` leaves a broken file open.
        with path.open("rb") as file, zipfile.ZipFile(file):
            file.seek(0)
            return dict(np.load(file, allow_pickle=False))
    except AttributeError as error:  # safetensors asks numpy for the type by its name
        raise UserError(
            f"weights {str(path)!r} hold numbers that numpy does not know ({error}); save them as "
            "float32 (with scales, multiply these first)"
        ) from error
    except (OSError, ValueError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise UserError(f"weights {str(path)!r} cannot be read: {error}") from error


def save_weights(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a `.safetensors` file: the same bytes for the same arrays and metadata.

    Args:
        path: Where.
        arrays: Arrays by name.
        metadata: What else the file says, by name.
    """
    data = safetensors.numpy.save(dict(arrays), dict(metadata))
    # The library writes the metadata in an order that it draws anew in every process.
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with (
        files.atomic_path(files.local_path(path, "the file")) as temporary,
        temporary.open("wb") as file,
    ):
        file.writelines((len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]))


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
    **options: Any,
) -> dict[str, Any]:
    """Turns weights of torchvision (ResNet) or timm (ViT) into variables.

    Position embeddings keep the size that they have. A prefix that all keys share, as training
    programs put it before them ("module.", "model."), is taken off.

    Args:
        name: One of `names()`.
        state_dict: Key to array, with torch's names and axes. `num_batches_tracked` is ignored.
        num_classes: Length of the logits that the weights must have; None to take any, or none.
        **options: As `create` takes them.

    Returns:
        What `module.apply` takes: {"params": ..., "batch_stats": ...} (the latter for ResNets
        only), float32, copied.

    Raises:
        UserError: No such network or option, or keys are missing, unexpected or of another
            shape; the message lists the first five, and says so of forms that are known.
    """
    arrays = {
        key: np.asarray(value)
        for key, value in _unwrapped(state_dict).items()
        if not key.endswith("num_batches_tracked")
    }
    given = {key: value.shape for key, value in arrays.items()}
    paths = _checked_paths(name, given, num_classes, options)
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
        forms = (text for sign, text in _FORMS.items() if any(re.match(sign, key) for key in given))
        form = next((f"{text}; " for text in forms), "")
        raise UserError(
            f"weights do not fit model {name!r} ({len(missing)} missing, {len(unexpected)} "
            f"unexpected, {len(wrong)} of another shape): {form}{'; '.join(faults[:_LISTED])}{more}"
        )
    return paths


# What else people have, by the beginning of a key that tells it.
_FORMS = {
    r"(state_dict|model_ema|optimizer)\w*\.": (
        "this is a whole training checkpoint with more than one state dict; save alone the one "
        "that is meant"
    ),
    r"dist_token|head_dist": (
        "this is a distilled DeiT, with a second token and head that no network here has; take the "
        "one that was not distilled"
    ),
    r"reg_token": (
        "this vision transformer has registers, which no network here has; ij.measure takes it as "
        "a function of PyTorch"
    ),
    r"Transformer/|embedding/kernel": (
        "this is the form of Google's own vision transformers; load it by timm "
        "(checkpoint_path=FILE) and save its state_dict() as .safetensors"
    ),
}


def _unwrapped(state_dict: Mapping[str, ArrayLike]) -> Mapping[str, ArrayLike]:
    """Takes off what stands before every key; no network has all its parameters below one name."""
    first = next(iter(state_dict), "").partition(".")[0] + "."
    if not state_dict or not all(key.startswith(first) for key in state_dict):
        return state_dict
    return _unwrapped({key.removeprefix(first): value for key, value in state_dict.items()})


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
    shape = given.get("pos_embed", ())
    if not isinstance(module, VisionTransformer) or len(shape) != 3 or shape[1] < 2:
        return _DEFAULT_IMAGE_SIZE
    grid = math.isqrt(shape[1] - 1)
    # Without a square grid nothing fits, and the check says so against the default.
    return grid * module.patch if grid**2 == shape[1] - 1 else _DEFAULT_IMAGE_SIZE


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
