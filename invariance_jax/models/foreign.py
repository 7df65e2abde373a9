"""Networks of timm and torchvision in PyTorch, and functions of a user's file, as models.

They run on the host, through a callback of the one program that also transforms the images.
"""

import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from invariance_jax import files
from invariance_jax.errors import RunError, UserError
from invariance_jax.models.model import Model, can_be_traced, from_function
from invariance_jax.models.preprocessing import Preprocessing, preprocessing_of

_FILE = re.compile(r"(?P<file>.+\.py):(?P<function>\w+)")


def is_foreign(name: str) -> bool:
    """Whether a name is of a network that is not ours.

    Args:
        name: As in `config.model.name`.

    Returns:
        Whether it is `timm:NAME`, `torchvision:NAME` or `FILE.py:FUNCTION`.
    """
    return name.startswith(("timm:", "torchvision:")) or bool(_FILE.fullmatch(name))


def load_foreign(name: str, weights: str | os.PathLike[str] | None = None, **given: Any) -> Model:
    """Makes a model of a network that is not ours; it can be measured, not trained.

    Args:
        name: `timm:NAME` or `torchvision:NAME`, a network of these libraries in PyTorch, with the
            weights that they publish (which they download) or those of a file; or
            `FILE.py:FUNCTION`, a function from float32 images in [0, 1], [N, H, W, 3], to vectors.
        weights: A file of weights that the library can read; None for what it publishes.
        **given: Fields of `Preprocessing` that are known better; None for others.

    Returns:
        The model. Its embedding is what the network's last layer takes.

    Raises:
        UserError: No such name or file, PyTorch or the library is not installed, or the weights
            cannot be read.
        RunError: The library cannot download its weights.
    """
    if found := _FILE.fullmatch(name):
        return _of_file(name, found["file"], found["function"], **given)
    library, _, kind = name.partition(":")
    wanted = preprocessing_of(name, weights or "").replaced(**given)
    make = {"timm": _of_timm, "torchvision": _of_torchvision}[library]
    try:
        network, call = make(kind, files.local_path(weights, "weights") if weights else None)
    except ImportError as error:
        raise UserError(
            f"model {name!r} runs in PyTorch, which cannot be imported ({error}); pip install "
            f"torch {library}"
        ) from error
    except UserError:
        raise
    # Libraries say in many ways that there is no such name, file or connection.
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise RunError(
            f"model {name!r}: {library} cannot make it with weights "
            f"{str(weights) if weights else 'as published'!r}: {type(error).__name__}: "
            f"{reason[0] if reason else ''}"
        ) from error
    return _of_torch(name, network, call, wanted)


def _of_timm(kind: str, weights: pathlib.Path | None) -> tuple[Any, Callable[[Any], Any]]:
    import timm

    if not timm.is_model(kind):
        near = timm.list_models(f"*{kind.partition('.')[0]}*")[:5]
        raise UserError(f"timm has no model {kind!r}; near are: {', '.join(near) or 'none'}")
    network = timm.create_model(
        kind, pretrained=weights is None, checkpoint_path=str(weights or "")
    )

    def call(images: Any) -> tuple[Any, Any]:
        features = network.forward_features(images)
        embedding = network.forward_head(features, pre_logits=True)
        return network.forward_head(features), embedding.flatten(1)

    return network, call


def _of_torchvision(kind: str, weights: pathlib.Path | None) -> tuple[Any, Callable[[Any], Any]]:
    import torch
    import torchvision

    known = torchvision.models.list_models(torchvision.models)
    if kind not in known:
        raise UserError(f"torchvision has no model {kind!r}; it has: {', '.join(known)}")
    network = torchvision.models.get_model(kind, weights=None if weights else "DEFAULT")
    if weights:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    last = [each for each in network.modules() if isinstance(each, torch.nn.Linear)][-1]
    seen = []
    last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    def call(images: Any) -> tuple[Any, Any]:
        logits = network(images)
        return logits, seen.pop().flatten(1)

    return network, call


def _of_torch(
    name: str, network: Any, call: Callable[[Any], Any], preprocessing: Preprocessing
) -> Model:
    """A network of PyTorch from normalised images to scores and embedding."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.eval().to(device)

    def both(images: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        with torch.inference_mode():
            logits, embedding = call(torch.from_numpy(images).permute(0, 3, 1, 2).to(device))
            return torch.cat([logits, embedding], dim=1).float().cpu().numpy()

    side = preprocessing.image_size
    with torch.inference_mode():
        scores = call(torch.zeros((1, 3, side, side), device=device))[0]
    classes = scores.shape[1]
    joined = from_function(both, name=name, on_host=True, image_size=side)

    def apply(_: Any, images: Array) -> tuple[Array, dict[str, Array]]:
        found = joined.apply({}, images)[1]["embedding"]
        return found[:, :classes], {"embedding": found[:, classes:]}

    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return dataclasses.replace(
        joined,
        apply=apply,
        normalize=preprocessing.normalize,
        num_classes=classes,
        preprocessing=preprocessing,
        fingerprint=digest.hexdigest(),
        differentiable=False,
        runs_on=f"PyTorch {torch.__version__} on {device}, {torch.get_num_threads()} threads",
    )


def _of_file(name: str, file: str, function: str, **given: Any) -> Model:
    path = files.local_path(file, "the model's file")
    try:
        source = path.read_bytes()
        module_spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        call = getattr(module, function)
    except OSError as error:
        raise UserError(f"model {name!r}: cannot read {path}: {error.strerror}") from error
    except AttributeError as error:
        raise UserError(f"model {name!r}: {error}") from error
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"model {name!r}: {type(error).__name__}: {error}") from error
    resize = ("image_size", "resize_size", "interpolation", "squash")
    wanted = preprocessing_of(name).replaced(**{key: given.get(key) for key in resize})
    side = wanted.image_size
    traced = can_be_traced(call, (side, side, 3))
    return dataclasses.replace(
        from_function(call, name=name, image_size=side, on_host=not traced),
        preprocessing=wanted,
        fingerprint=hashlib.sha256(source + function.encode()).hexdigest(),
        differentiable=traced,
        runs_on="JAX" if traced else "the host",
    )
