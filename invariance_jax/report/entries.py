"""What a report shows: results of networks, each with what tells its network apart."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from invariance_jax.config import WEIGHTS_LABEL, ExperimentConfig, check, flatten
from invariance_jax.report.rows import UNTRAINED, Network, Row, network

VARIABLES = ("relative_invariance_cosine", "relative_invariance_euclidean")
# What a file may hold beside: whether the prediction under a transform is another than without
# it, and whether it is right; per image, 0 or 1.
HITS = ("flip", "correct")
DIMENSIONS = ("transform", "magnitude", "image")
MAGNITUDES = 10
_NAMES = ("model", "augmentation", "seed", "steps")

Name = tuple[str, str, int, int]
# Images [pair, 3, height, width, 3] in [0, 1], and what stands beside each.
Pairs = tuple[np.ndarray, Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What was measured of one network.

    Attributes:
        network: The network.
        row: What tells it from those that are shown beside it; None until these are known.
        name: What it is called in an accuracy table: model, training, seed, steps.
        measured: What must be equal for two results to be shown together, by name.
    """

    network: Network
    row: Row | None = None
    name: Name
    measured: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Row and seed in one line."""
        return f"{self.row.label}, seed {self.network.seed}"

    @property
    def steps(self) -> int:
        """Steps that the network was trained; 0 for untrained and imported ones."""
        return self.name[-1]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy(Result):
    """Validation accuracy of one network.

    Attributes:
        top1: Share of images whose first guess is right, 0 to 1.
        top5: Share of images with the right class among five guesses; NaN where it is not known.
        seconds: Time that training took.
        correct: Whether the first guess is right, bool [image] with the coordinate label and the
            attributes of the file; None where the result has no labels.
        predicted: The first guess, int32 [image]; None where the result does not say.
    """

    top1: float
    top5: float
    seconds: float
    correct: xr.DataArray | None = None
    predicted: xr.DataArray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run(Result):
    """Invariance of one network.

    Attributes:
        config: The run's config.
        data: Dims (transform, magnitude, image), variables `VARIABLES`, float32, at most 1 (packed
            results have the first alone), and those of `HITS` that the file has.
        by_feature: Relative invariance (cosine), median over images, float32 [feature, transform,
            magnitude], of features before the embedding; None where none was measured.
    """

    config: ExperimentConfig
    data: xr.Dataset
    by_feature: xr.DataArray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Local(Result):
    """Local equivariance of one network.

    Attributes:
        medians: Local equivariance error, median over images, float32 [output, generator], with
            the attributes of the file.
    """

    medians: xr.DataArray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All that a report shows; some part may be empty, not all.

    Attributes:
        accuracy: One entry a network, all measured on the same images.
        runs: One entry a network, all measured on the same images and grid.
        problems: Of every file that could not be read: which, and why.
        searches: Result files of similarity searches, not read.
        local: Local equivariance, one entry a network, all measured on the same images.
        example: Of packed results: an image as it was measured, float in [0, 1]; else None.
        pairs: Of packed results: pictures of pairs, as `factor_section.examples` makes them, by the
            name of the search's file.
    """

    accuracy: tuple[Accuracy, ...]
    runs: tuple[Run, ...]
    problems: tuple[str, ...]
    searches: tuple[pathlib.Path, ...] = ()
    local: tuple[Local, ...] = ()
    example: np.ndarray | None = None
    pairs: Mapping[str, Pairs] = dataclasses.field(default_factory=dict)


def described(data: xr.Dataset, path: pathlib.Path) -> tuple[ExperimentConfig, dict[str, Any]]:
    """What a result says of itself.

    Args:
        data: The result, with the attributes that the evaluation writes.
        path: Its file.

    Returns:
        Its config, and the fields of a `Result`.
    """
    config = check(ExperimentConfig, json.loads(data.attrs["config"]))
    name = name_of(*(data.attrs[each] for each in _NAMES))
    # A finished network may be measured on other images than it was trained on.
    trained_as = json.loads(data.attrs.get("training_config", "null"))
    trained = check(ExperimentConfig, trained_as) if trained_as else config
    values, parameters = flatten(trained.to_dict()), str(data.attrs["parameters_sha256"])
    identity = json.loads(data.attrs.get("measurement", "{}"))
    measured = {
        "dataset": data.attrs["dataset"],
        "split": data.attrs["split"],
        "label_feature": identity.get("config.data.label_feature", config.data.label_feature),
        "classes": tuple(identity.get("config.data.classes", config.data.classes)),
    }
    of = network(values, steps=name[-1], parameters=parameters, path=path)
    return config, {"network": of, "name": name, "measured": measured}


def name_of(model: str, training: str, seed: str | int, steps: str | int) -> Name:
    """Names a network in an accuracy table: an augmentation means nothing before the first step.

    Args:
        model: The network.
        training: The augmentation, or the label of imported weights.
        seed: Its seed.
        steps: Steps that it was trained.

    Returns:
        Model, training, seed and steps.
    """
    counts = int(steps) or training.startswith(WEIGHTS_LABEL)
    return model, training if counts else UNTRAINED, int(seed), int(steps)
