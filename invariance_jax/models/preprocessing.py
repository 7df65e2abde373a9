"""What a network wants of its images, as what lies beside its weights or a table says."""

import csv
import dataclasses
import importlib.resources
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from jaxtyping import Array, Float

from invariance_jax import files
from invariance_jax.errors import UserError
from invariance_jax.transforms import Colour
from invariance_jax.transforms.resize import Interpolation
from invariance_jax.transforms.transform import MEAN, STANDARD_DEVIATION, normalize

# Pillow's numbers of filters, as Hugging Face's files have them.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a photo becomes a network's input: resize, centre crop, mean and standard deviation.

    Attributes:
        image_size: Side of the centre crop, which the network sees, pixels.
        resize_size: Shorter side before the crop, pixels.
        interpolation: The filter of the resize, antialiased as Pillow's.
        squash: Whether both sides are resized to `resize_size`, whatever the aspect.
        mean: What is subtracted from red, green and blue in [0, 1].
        std: What is then divided by.
        source: Who says so, in words; empty for who trains the network.
    """

    image_size: int = 224
    resize_size: int = 256
    interpolation: Interpolation = "bilinear"
    squash: bool = False
    mean: Colour = MEAN
    std: Colour = STANDARD_DEVIATION
    source: str = "ImageNet's, as torchvision has it, because nothing beside the weights says more"

    @classmethod
    def of_config(cls, config: Any) -> "Preprocessing":
        """What a config says.

        Args:
            config: Its `DataConfig`.

        Returns:
            The preprocessing, without a source.
        """
        names = ("image_size", "resize_size", "interpolation", "squash", "mean", "std")
        return cls(**{name: getattr(config, name) for name in names}, source="")

    def normalize(
        self, images: Float[Array | np.ndarray, "*batch height width 3"]
    ) -> Float[Array | np.ndarray, "*batch height width 3"]:
        """Makes of images in [0, 1] what the network takes.

        Args:
            images: Floating point in [0, 1].

        Returns:
            The same shape and dtype, normalised.
        """
        return normalize(images, mean=self.mean, std=self.std)

    def __str__(self) -> str:
        """All of it in one line, for people."""
        colours = (" ".join(f"{value:g}" for value in each) for each in (self.mean, self.std))
        mean, std = colours
        said = f" ({self.source})" if self.source else ""
        sides = "both sides" if self.squash else "shorter side"
        return (
            f"{sides} to {self.resize_size} pixels, {self.interpolation}, centre of "
            f"{self.image_size}, mean {mean}, standard deviation {std}{said}"
        )

    def replaced(self, **given: Any) -> "Preprocessing":
        """The same but for what is known better.

        Args:
            **given: Fields; None for those that stay. Without a `resize_size` of its own another
                `image_size` keeps its share of the resized side.

        Returns:
            The preprocessing; its source says what was given.
        """
        given = {
            name: value
            for name, value in given.items()
            if value is not None and value != getattr(self, name)
        }
        if not given:
            return self
        source = f"{self.source}; {', '.join(given)} as given"
        if "image_size" in given and "resize_size" not in given:
            given["resize_size"] = round(self.resize_size * given["image_size"] / self.image_size)
        return dataclasses.replace(self, **given, source=source)


def preprocessing_of(name: str, weights: str | os.PathLike[str] = "") -> Preprocessing:
    """Finds out what a network wants of its images.

    In this order: the file `config.json` of timm or `preprocessor_config.json` of Hugging Face in
    the folder of the weights; a table of what timm and torchvision publish, by the name of the
    file, of its folder or of the network, with its tag; and else ImageNet's, as torchvision has it.

    Args:
        name: The network's name, with or without options.
        weights: The file of its weights, or the folder.

    Returns:
        The preprocessing.

    Raises:
        UserError: A file beside the weights cannot be read, or asks for what is not there.

    Examples:
        >>> preprocessing_of("vit_base_patch16_224.augreg_in21k").mean
        (0.5, 0.5, 0.5)
    """
    library, _, published = name.partition(":")
    if library.endswith(".py"):
        return _OF_FUNCTIONS
    if not weights and library in _LIBRARIES:
        return _LIBRARIES[library](published)
    path = files.local_path(weights, "weights") if weights else None
    kind = name.rpartition(":")[2].partition("(")[0]
    names = [kind]
    if path is not None:
        folder = path if path.is_dir() else path.parent
        for file, read in _FILES.items():
            if (folder / file).is_file():
                found = _read(folder / file, read)
                if found:
                    return found
        names = [path.stem, folder.resolve().name, kind]
    table = _table()
    # A folder of Hugging Face's cache is called `models--timm--NAME`.
    for each in (text.rpartition("--")[2] for text in names):
        # A name without a tag says enough where all tags want the same.
        found = [table[each]] if each in table else _with_tags(each, table)
        if len({dataclasses.replace(one, source="") for one in found}) == 1:
            return found[0]
    return Preprocessing()


def _with_tags(name: str, table: Mapping[str, Preprocessing]) -> list[Preprocessing]:
    return [value for key, value in table.items() if key.startswith(f"{name}.")]


def _read(path: pathlib.Path, read: Any) -> Preprocessing | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, Mapping):
            return None
        values = read(found)
    except (OSError, ArithmeticError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{str(path)!r}, which lies beside the weights, does not say how images are prepared "
            f"({type(error).__name__}: {error}); mend it, or move the weights elsewhere and give "
            "config.data.mean, std, interpolation, image_size and resize_size"
        ) from error
    if values is None:
        return None
    if values["interpolation"] not in get_args(Interpolation):
        raise UserError(
            f"{str(path)!r}, which lies beside the weights, asks for the filter "
            f"{values['interpolation']!r}; expected one of: {', '.join(get_args(Interpolation))}"
        )
    return Preprocessing(**values, source=f"{path.name} beside the weights")


def _of_timm(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of `config.json` as timm writes it; others' have no such fields."""
    cfg = found.get("pretrained_cfg", found)
    if not {"mean", "std", "input_size"} <= cfg.keys():
        return None
    size = cfg["input_size"][-1]
    return {
        "image_size": int(size),
        "resize_size": math.floor(size / cfg.get("crop_pct", 0.875)),
        "interpolation": cfg.get("interpolation", "bilinear"),
        "squash": cfg.get("crop_mode") == "squash",
        "mean": _colour(cfg["mean"]),
        "std": _colour(cfg["std"]),
    }


def _of_hugging_face(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of `preprocessor_config.json`."""
    if not found.get("image_mean"):
        return None

    def side(size: Any) -> int | None:
        if isinstance(size, Mapping):
            size = size.get("shortest_edge", size.get("height"))
        return size if size is None else int(size)

    resize = side(found.get("size"))
    crop = side(found.get("crop_size")) if found.get("do_center_crop", True) else None
    if resize is None and crop is None:
        return None
    # A height and a width keep no aspect. What one number means, the kind of processor says.
    size = found.get("size")
    kind = found.get("image_processor_type", found.get("feature_extractor_type", ""))
    by_edge = ("CLIP", "ChineseCLIP", "Bit", "ConvNext")
    squash = "height" in size if isinstance(size, Mapping) else not kind.startswith(by_edge)
    resample = found.get("resample", 2)
    return {
        "image_size": crop or resize,
        "resize_size": max(resize or 0, crop or 0),
        "interpolation": _RESAMPLE.get(resample, resample),
        "squash": squash,
        "mean": _colour(found["image_mean"]),
        "std": _colour(found["image_std"]),
    }


def _asked_timm(name: str) -> Preprocessing:
    try:
        import timm

        cfg = timm.get_pretrained_cfg(name)
    except (ImportError, RuntimeError):  # loading the network says what is wrong
        return Preprocessing()
    values = _of_timm(cfg.to_dict()) if cfg else None
    return Preprocessing(**values, source="timm") if values else Preprocessing()


def _asked_torchvision(name: str) -> Preprocessing:
    try:
        import torchvision

        images = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    except (ImportError, ValueError):
        return Preprocessing()
    return Preprocessing(
        image_size=images.crop_size[0],
        resize_size=images.resize_size[0],
        interpolation=images.interpolation.value,
        mean=_colour(images.mean),
        std=_colour(images.std),
        source="torchvision",
    )


# Whatever else it does to images, it does itself.
_OF_FUNCTIONS = Preprocessing(
    mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), source="a function of images in [0, 1]"
)
_LIBRARIES = {"timm": _asked_timm, "torchvision": _asked_torchvision}
_FILES = {"config.json": _of_timm, "preprocessor_config.json": _of_hugging_face}


def _colour(values: Any) -> Colour:
    red, green, blue = map(float, values)
    return red, green, blue


def _table() -> dict[str, Preprocessing]:
    """What is published, by name; made by benchmarks/make_preprocessing.py."""
    text = importlib.resources.files(__package__) / "data" / "preprocessing.csv"
    return {
        row["name"]: Preprocessing(
            image_size=int(row["image_size"]),
            resize_size=int(row["resize_size"]),
            interpolation=row["interpolation"],
            squash=bool(int(row["squash"])),
            mean=_colour(row["mean"].split()),
            std=_colour(row["std"].split()),
            source=f"a table of what is published, at {row['name']}",
        )
        for row in csv.DictReader(text.read_text(encoding="utf-8").splitlines())
    }
