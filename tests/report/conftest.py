"""Synthetic results: seeded, of plausible size, with an effect that the caller chooses."""

import hashlib

import numpy as np
import pytest
import xarray as xr

from invariance_jax.config import ExperimentConfig
from invariance_jax.transforms import TRANSFORMS


def _config(model, training, *, seed, steps, **changes):
    """`training` is the augmentation, or the label of imported weights."""
    base = ExperimentConfig().with_values(
        seed=seed,
        model={"name": model},
        data={"name": "digits", "image_size": 64, "resize_size": 73, "canvas_size": 64},
        train={"steps": steps or 500},
    )
    if training.startswith("weights "):
        base = base.with_values(model={"weights": training.removeprefix("weights ")})
    else:
        base = base.with_values(augment={"name": training})
    return base.with_values(**changes)


def _identity(config, *, steps, split, **attrs):
    known = config.to_json() if steps else f"{config.model} {config.seed}"
    return {
        "model": config.model.name,
        "augmentation": config.training_label(steps),
        "seed": config.seed,
        "steps": steps,
        "dataset": config.data.name,
        "split": split,
        "parameters_sha256": hashlib.sha256(f"{known} {steps}".encode()).hexdigest(),
        "config": config.to_json(),
        "versions": '{"jax": "1.2.3"}',
    } | attrs


def _invariance(attrs, *, level, images, noise):
    """`level` is the relative invariance at the middle magnitudes: a number or one a transform."""
    grid = np.asarray([transform.magnitudes for transform in TRANSFORMS.values()])
    level = np.broadcast_to(np.asarray(level, np.float64), (13,))
    # 1 at the identity, `level` from magnitude 1 on: medians are then easy to write by hand.
    mean = np.where(np.arange(10) == 0, 1.0, level[:, None])
    offsets = np.random.default_rng(len(attrs["model"])).uniform(-noise, noise, images)
    offsets -= np.median(offsets) if images else 0
    values = np.minimum(mean[:, :, None] + np.where(np.arange(10) == 0, 0, 1)[:, None] * offsets, 1)
    names = ("transform", "magnitude", "image")
    return xr.Dataset(
        {
            "relative_invariance_cosine": (names, values.astype(np.float32)),
            "relative_invariance_euclidean": (names, (values / 2).astype(np.float32)),
            # What the report does not show.
            "baseline_cosine": (names, np.ones_like(values, np.float32)),
        },
        coords={
            "transform": list(TRANSFORMS),
            "magnitude": np.arange(10),
            "magnitude_value": (("transform", "magnitude"), grid),
            "unit": ("transform", [transform.unit for transform in TRANSFORMS.values()]),
            "image": [f"image{i}" for i in range(images)],
            "permutation": ("image", np.roll(np.arange(images), 1)),
        },
        attrs=attrs,
    )


class Folder:
    """A folder of results that grows file by file."""

    def __init__(self, path):
        self.path = path

    def _place(self, kind):
        folder = self.path / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{len(list(folder.iterdir()))}.nc"

    def add(
        self,
        model,
        training,
        *,
        seed=0,
        steps=500,
        level=0.5,
        images=40,
        noise=0.1,
        attrs=(),
        **changes,
    ):
        """Adds the invariance of a network; `changes` are of its config."""
        config = _config(model, training, seed=seed, steps=steps, **changes)
        said = _identity(config, steps=steps, split="test", domain="pixel", padding_mode="constant")
        path = self._place("invariance")
        data = _invariance(said | dict(attrs), level=level, images=images, noise=noise)
        data.to_netcdf(path, engine="h5netcdf")
        return path

    def add_accuracy(
        self, model, training, top1, *, top5=1.0, seed=0, steps=500, attrs=(), **changes
    ):
        """Adds the accuracy of a network on 20 images."""
        config = _config(model, training, seed=seed, steps=steps, **changes)
        said = _identity(config, steps=steps, split="validation", seconds=0.02 * steps)
        hits = {
            name: np.arange(20) < 20 * share
            for name, share in (("correct_top1", top1), ("correct_top5", top5))
        }
        data = xr.Dataset(
            {name: ("image", values.astype(np.int8)) for name, values in hits.items()},
            {"image": [f"image{i}" for i in range(20)]},
            said | dict(attrs),
        )
        path = self._place("accuracy")
        data.to_netcdf(path, engine="h5netcdf")
        return path

    def add_table(self, *rows):
        """Writes accuracies as the first version did."""
        self.path.mkdir(parents=True, exist_ok=True)
        lines = [
            "model,augmentation,seed,top1,steps,seconds",
            *(",".join(map(str, r)) for r in rows),
        ]
        path = self.path / "accuracy.csv"
        path.write_text("\n".join(lines) + "\n")
        return path


@pytest.fixture(scope="session")
def make_folder():
    """From a path to a folder of results."""
    return Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "results")


@pytest.fixture
def other_folder(tmp_path):
    return Folder(tmp_path / "others")


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Two models, untrained and trained in two ways, with the accuracy of each."""
    folder = Folder(tmp_path_factory.mktemp("study"))
    for model, shift, top1 in (("resnet8", 0.0, 0.8), ("vit_mu8", 0.02, 0.7)):
        folder.add(model, "none", steps=0, level=0.2 + shift)
        folder.add(model, "none", level=0.6 + shift)
        folder.add(model, "translate", level=0.7 + shift)
        folder.add_accuracy(model, "none", 0.1, top5=0.5, steps=0)
        folder.add_accuracy(model, "none", top1)
        folder.add_accuracy(model, "translate", top1 + 0.1)
    return folder
