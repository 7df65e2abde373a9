"""Runs one evaluation as a process of its own, for tests that kill it or start two.

python one_process.py FOLDER OUTPUT.npz [--search] [--hang] [--process=I --port=P]
"""

import argparse
import pathlib
import sys
import threading

import jax
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from conftest import claimed, coloured, few, grid, linear, make_driver
else:
    from .conftest import claimed, coloured, few, grid, linear, make_driver

from invariance_jax import data
from invariance_jax.evaluation.accuracy import Accuracy
from invariance_jax.factors.rows import Row
from invariance_jax.factors.search import SimilaritySearch

IMAGES, SHARDS, SHARD, PROCESSES = 28, 7, 4, 2


class Hanging(data.SubsetSource):
    """Never gives one image."""

    def __init__(self, source, image):
        super().__init__(source, np.arange(len(source)))
        self._image = image

    def __getitem__(self, index):
        if index == self._image:
            threading.Event().wait()
        return super().__getitem__(index)


def measurements():
    """One that compares different images, with matrices that wait on disk, and one that doesn't."""
    transforms = few("translate_x", "posterize")
    return [Accuracy(), grid(transforms=transforms, features=("layer",), equivariance=True)]


def small_driver(source=None, **fields):
    """A driver over seven shards."""
    options = {"shard_size": SHARD, "description": "small"} | fields
    return make_driver(measurements(), source or coloured(IMAGES), linear(), **options)


def search_driver(source=None, **fields):
    """A driver of a similarity search, over five shards of a class's pair each."""
    rows = tuple(map(Row.parse, ("brightness 9", "rotate 9", "equalize 3")))
    search = SimilaritySearch(rows=rows, mode="named", batch=2)
    options = {"shard_size": 2, "description": "search"} | fields
    return make_driver([search], source or coloured(IMAGES), linear(), **options)


def arrays_of(driver, found):
    """All that was found, by measurement, group and variable."""
    return {
        f"{each.name} {group} {name}": variable.values
        for each, arrays in found
        for group, dataset in each.datasets(arrays, driver.images).items()
        for name, variable in dataset.variables.items()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--process", type=int)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    if arguments.port:
        jax.distributed.initialize(
            f"localhost:{arguments.port}", PROCESSES, arguments.process, local_device_ids=None
        )
    make = search_driver if arguments.search else small_driver
    driver = make(count=0)
    if arguments.hang:
        _, batches = driver.plan
        source = Hanging(driver.source, batches[-1][-1].positions[-1])
        driver = make(source, count=0)
    found = driver.run(shards=claimed(arguments.folder, driver.measurements))
    if found is not None:
        np.savez(arguments.output, **arrays_of(driver, found))
    if arguments.port:
        # The same without files: every process has all of it.
        path = arguments.output.with_suffix(f".{arguments.process}.npz")
        np.savez(path, **arrays_of(driver, driver.run()))
        driver = search_driver(count=0)
        np.savez(path.with_suffix(".search.npz"), **arrays_of(driver, driver.run()))


if __name__ == "__main__":
    main()
