"""Files of weights: every container that people have, read into named arrays; one is written."""

import argparse
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from invariance_jax import files
from invariance_jax.errors import UserError

_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_INDEX = ".index.json"
# In a folder, as Hugging Face's hub, timm and open_clip name them, the best first.
_IN_FOLDERS = tuple(
    stem + suffix
    for suffix in (".safetensors", ".bin")
    for stem in ("model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")
)
# What to do with other containers.
_ADVICE = {
    ".h5": "this is Keras's form; load it by the library that made it (transformers: from_tf=True) "
    "and save its state_dict() as .safetensors",
    ".msgpack": "this is Flax's form; load it by the library that made it (transformers: "
    "from_flax=True) and save its state_dict() as .safetensors",
    ".onnx": "this is a compiled graph; run it by onnxruntime as a function: ij.measure(f, images)",
    ".pkl": "a pickle can run code when it is opened and is not read; save its arrays as .npz",
}
# By safetensors' names.
_NUMBERS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


def load_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads named arrays from a file, or from the parts that an index or a folder lists.

    Files of PyTorch (`.pth`, `.pt`, `.bin`, `.ckpt`) are read by `torch.load(weights_only=True)`,
    so that nothing in them is run; of what they hold only tensors are taken, optimizers' left out.

    Args:
        path: A `.safetensors`, `.npz` or PyTorch file; `model.safetensors.index.json`; or a folder
            with one of these, as Hugging Face's hub has them.

    Returns:
        Name to array, as `import_weights` takes it; names of nested dicts are joined by dots.

    Raises:
        UserError: The file is absent, of another kind, or cannot be read, or is PyTorch's and torch
            is not installed.
    """
    path = files.local_path(path, "weights")
    if path.is_dir():
        path = _in_folder(path)
    advice = _ADVICE.get(path.suffix)
    if advice:
        raise UserError(f"weights {str(path)!r} are not read: {advice}")
    if not path.name.endswith((".safetensors", ".npz", _INDEX, *_TORCH)):
        raise UserError(
            f"weights {str(path)!r}: expected a .safetensors or .npz file, PyTorch's .pth, .pt, "
            f".bin or .ckpt, *{_INDEX}, or a folder with one of these"
        )
    if not path.is_file():
        raise UserError(f"weights {str(path)!r}: no such file")
    try:
        if path.name.endswith(_INDEX):
            return _of_parts(path)
        if path.suffix == ".safetensors":
            return _of_safetensors(path)
        if path.suffix == ".npz":
            return _of_numpy(path)
    except (OSError, ValueError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"weights {str(path)!r} cannot be read: {error}") from error
    return _of_torch(path)


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


def _in_folder(folder: pathlib.Path) -> pathlib.Path:
    """The file of weights in a folder: one with a usual name, or the only one."""
    usual = (folder / (name + end) for name in _IN_FOLDERS for end in ("", _INDEX))
    ends = (".safetensors", ".npz", *_TORCH)
    others = sorted(each for each in folder.iterdir() if each.name.endswith(ends))
    found = next((each for each in usual if each.is_file()), None)
    if found or len(others) == 1:
        return found or others[0]
    names = ", ".join(each.name for each in others) or "none"
    raise UserError(f"weights {str(folder)!r}: expected one file of weights in it, found: {names}")


def _of_parts(index: pathlib.Path) -> dict[str, np.ndarray]:
    """Every file that an index lists; they lie beside it."""
    found = json.loads(index.read_text())
    where = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(where, dict) or not all(isinstance(part, str) for part in where.values()):
        raise ValueError("expected 'weight_map', the file of each array")
    names = sorted(set(where.values()))
    if any(pathlib.PurePath(name).name != name or name.endswith(_INDEX) for name in names):
        raise ValueError(f"expected files beside it, found: {', '.join(names)}")
    parts = [load_weights(index.with_name(name)) for name in names]
    return {key: array for part in parts for key, array in part.items()}


def _of_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except AttributeError:  # the library asks numpy for the type by its name
        pass
    arrays = {}
    for key, view in safetensors.deserialize(path.read_bytes()):
        kind = _NUMBERS.get(view["dtype"])
        if kind is None:
            raise ValueError(f"{key!r} has numbers of type {view['dtype']}; save it as float32")
        arrays[key] = np.frombuffer(view["data"], kind).reshape(view["shape"])
    return arrays


def _of_numpy(path: pathlib.Path) -> dict[str, np.ndarray]:
    # Opened here, because `np.load` leaves a broken file open.
    with path.open("rb") as file, zipfile.ZipFile(file):
        file.seek(0)
        arrays = dict(np.load(file, allow_pickle=False))
    # numpy writes bfloat16 as two bytes without a meaning.
    bare = np.dtype("V2")
    return {
        key: value.view(ml_dtypes.bfloat16) if value.dtype == bare else value
        for key, value in arrays.items()
    }


def _of_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"weights {str(path)!r} are PyTorch's, and torch is not installed; pip install torch, "
            "or convert them where it is: safetensors.torch.save_file(torch.load(FILE), OUTPUT)"
        ) from error
    try:
        # Training programs keep their options beside the weights; a Namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch fails in many ways on what is damaged or no checkpoint
        reason = str(error).strip().partition("\n")[0]
        if "TorchScript" in str(error):
            reason = (
                "this is a TorchScript archive, which holds code; save its weights alone, by "
                "safetensors.torch.save_file(torch.jit.load(FILE).state_dict(), OUTPUT)"
            )
        elif "WeightsUnpickler" in str(error) or "weights_only" in str(error):
            reason = (
                "it holds Python objects beside tensors, and opening these could run code; where "
                "you trust it, save its state dict alone, by safetensors.torch.save_file("
                "torch.load(FILE, weights_only=False)['state_dict'], OUTPUT)"
            )
        raise UserError(f"weights {str(path)!r} cannot be read: {reason}") from error
    return {
        key: (x.detach().float() if x.is_floating_point() else x.detach()).numpy()
        for key, x in _flat(found)
        if torch.is_tensor(x)
    }


def _flat(tree: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts, by the names on the way to them; optimizers' are left out."""
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, Mapping):
            if not str(name).startswith("optim"):
                yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
