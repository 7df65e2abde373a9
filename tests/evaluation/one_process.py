"""Runs one measurement as a process of its own, for tests that kill it or start two.

python one_process.py FOLDER OUTPUT.npz [--hang] [--process=I --port=P]
"""

import argparse
import pathlib
import sys
import threading

import jax
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from conftest import Coloured, Linear, run_measure
else:
    from .conftest import Coloured, Linear, run_measure

IMAGES, SHARD, PROCESSES = 28, 4, 2
# Each image is read for its pixels and its name before the grid reads it again.
READS_BEFORE_THE_GRID = 2


class Hanging(Coloured):
    """Never gives the last image to the grid."""

    def __init__(self, images):
        super().__init__(images)
        self._reads, self._lock = 0, threading.Lock()

    def __getitem__(self, index):
        if index == len(self) - 1:
            with self._lock:
                self._reads += 1
            if self._reads > READS_BEFORE_THE_GRID:
                threading.Event().wait()
        return super().__getitem__(index)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--process", type=int)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    if arguments.port:
        jax.distributed.initialize(
            f"localhost:{arguments.port}", PROCESSES, arguments.process, local_device_ids=None
        )
    variables = jax.device_get(Linear().init(jax.random.key(1), np.zeros((1, 8, 8, 3))))
    source = (Hanging if arguments.hang else Coloured)(IMAGES)
    found = run_measure(
        source,
        variables,
        arguments.folder,
        count=0,
        shard_size=SHARD,
        features=("layer",),
        equivariance=True,
        seed=5,
    )
    if found is None:
        return
    arrays = {name: getattr(found, name) for name in ("flip", "correct", "prediction", "label")}
    for feature in found.transformed:
        arrays[f"alignment {feature}"] = found.alignment[feature]
        for kind in ("cosine", "euclidean"):
            arrays[f"transformed {feature} {kind}"] = found.transformed[feature][kind]
            arrays[f"baseline {feature} {kind}"] = found.baseline[feature][kind]
    np.savez(arguments.output, names=np.array(found.names), **arrays)


if __name__ == "__main__":
    main()
