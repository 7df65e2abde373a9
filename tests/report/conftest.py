"""Synthetic results: seeded, of plausible size, with an effect that the caller chooses."""

import json

import numpy as np
import pytest
import xarray as xr

from invariance_jax.transforms import TRANSFORMS


def _dataset(model, augmentation, *, seed=0, steps=500, level=0.5, images=40, noise=0.1, **attrs):
    """`level` is the relative invariance at the middle magnitudes: a number or one a transform."""
    grid = np.asarray([transform.magnitudes for transform in TRANSFORMS.values()])
    level = np.broadcast_to(np.asarray(level, np.float64), (13,))
    # 1 at the identity, `level` from magnitude 1 on: medians are then easy to write by hand.
    mean = np.where(np.arange(10) == 0, 1.0, level[:, None])
    random = np.random.default_rng([seed, steps, len(augmentation), len(model)])
    offsets = random.uniform(-noise, noise, images)
    offsets -= np.median(offsets)
    values = np.minimum(mean[:, :, None] + np.where(np.arange(10) == 0, 0, 1)[:, None] * offsets, 1)
    baseline = random.uniform(0.5, 1.0, values.shape)
    variables = {}
    for measure, array in (("cosine", values), ("euclidean", values / 2)):
        variables[f"relative_invariance_{measure}"] = array
        variables[f"baseline_{measure}"] = baseline
        variables[f"transformed_{measure}"] = baseline * (1 - array)
    names = ("transform", "magnitude", "image")
    return xr.Dataset(
        {name: (names, array.astype(np.float32)) for name, array in variables.items()},
        coords={
            "transform": list(TRANSFORMS),
            "magnitude": np.arange(10),
            "magnitude_value": (("transform", "magnitude"), grid),
            "unit": ("transform", [transform.unit for transform in TRANSFORMS.values()]),
            "family": ("transform", [transform.family for transform in TRANSFORMS.values()]),
            "image": [f"image{i}" for i in range(images)],
            "label": ("image", np.arange(images) % 10),
            "permutation": ("image", np.roll(np.arange(images), 1)),
        },
        attrs={
            "model": model,
            "augmentation": augmentation,
            "seed": seed,
            "steps": steps,
            "dataset": "digits",
            "split": "test",
            "domain": "pixel",
            "parameters_sha256": f"{model}-{augmentation if steps else ''}-{seed}-{steps}",
            "config": json.dumps({"seed": seed, "model": {"name": model}}),
            "versions": json.dumps({"jax": "1.2.3"}),
        }
        | attrs,
    )


def _accuracy(rows):
    lines = ["model,augmentation,seed,top1,steps,seconds", *(",".join(map(str, r)) for r in rows)]
    return "\n".join(lines) + "\n"


class Folder:
    """A folder of results that grows file by file."""

    def __init__(self, path):
        self.path = path

    def add(self, model, augmentation, **options):
        data = _dataset(model, augmentation, **options)
        (self.path / "invariance").mkdir(parents=True, exist_ok=True)
        number = len(list((self.path / "invariance").iterdir()))
        path = self.path / "invariance" / f"{number}.nc"
        data.to_netcdf(path, engine="h5netcdf")
        return path

    def add_accuracy(self, *rows):
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "accuracy.csv").write_text(_accuracy(rows))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "results")


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Two models, untrained and trained in two ways, with the accuracy of each."""
    folder = Folder(tmp_path_factory.mktemp("study"))
    for model, shift in (("resnet8", 0.0), ("vit_mu8", 0.02)):
        folder.add(model, "none", steps=0, level=0.2 + shift)
        folder.add(model, "none", level=0.6 + shift)
        folder.add(model, "translate", level=0.7 + shift)
    folder.add_accuracy(
        ("resnet8", "none", 0, 0.1, 0, 0.0),
        ("resnet8", "none", 0, 0.8, 500, 12.0),
        ("resnet8", "translate", 0, 0.9, 500, 13.0),
        ("vit_mu8", "none", 0, 0.1, 0, 0.0),
        ("vit_mu8", "none", 0, 0.7, 500, 14.0),
        ("vit_mu8", "translate", 0, 0.85, 500, 15.0),
    )
    return folder
