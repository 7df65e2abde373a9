"""One case of `benchmarks/input.py`, in its own process; prints one line of JSON.

Torch and this package are imported inside the case that needs them: they live in different
environments.
"""

import functools
import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

_TICKS = os.sysconf("SC_CLK_TCK")


def photos(folder: str) -> list[pathlib.Path]:
    """All photos, in a fixed order."""
    return sorted(pathlib.Path(folder).rglob("*.JPEG"))


class OnCanvas:
    """Torch's transform that does the same work as ours: the decoded photo on a canvas."""

    def __init__(self, size: int) -> None:
        """Fixes the canvas's side."""
        self._size = size

    def __call__(self, image: Image.Image) -> np.ndarray:
        """A photo shrunk to fit, at the top left of zeros."""
        longest = max(image.size)
        if longest > self._size:
            fitted = tuple(max(1, round(side * self._size / longest)) for side in image.size)
            image = image.resize(fitted, Image.Resampling.BILINEAR)
        canvas = np.zeros((self._size, self._size, 3), np.uint8)
        canvas[: image.height, : image.width] = np.asarray(image)
        return canvas


def _family() -> list[int]:
    """This process and all its descendants."""
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _processor_seconds() -> float:
    """Processor time of this process and its descendants, all threads."""
    total = 0
    for pid in _family():
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def _worker_peak_megabytes() -> float:
    """Largest resident memory of any descendant, shared pages included."""
    peaks = []
    for pid in _family()[1:]:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if "VmHWM" in line]
    return max(peaks)


def _pillow(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def _decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Every decoder that is installed; the whole photo unless a canvas is named."""
    from invariance_jax.data import decode

    found: dict[str, Callable[[bytes], np.ndarray]] = {"pillow": _pillow}
    for name, canvas in (("ours", 2**16), ("ours, canvas 512", 512), ("ours, canvas 128", 128)):
        found[name] = functools.partial(decode, canvas_size=canvas)
    try:
        import imagecodecs

        found["imagecodecs"] = lambda file: imagecodecs.jpeg8_decode(file, outcolorspace="RGB")
    except ImportError:
        pass
    try:
        import cv2

        cv2.setNumThreads(1)
        flag = cv2.IMREAD_COLOR_RGB
        found["opencv"] = lambda file: cv2.imdecode(np.frombuffer(file, np.uint8), flag)
    except ImportError:
        pass
    return found


def decode_rates(case: dict[str, Any]) -> dict[str, Any]:
    """Decodes files in memory, one thread; the decoders take turns."""
    files = [path.read_bytes() for path in photos(case["folder"])]
    decoders = _decoders()
    seconds = dict.fromkeys(decoders, 0.0)
    for number in range(0, case["timed"], len(files)):
        for name, decode in decoders.items():
            begun = time.process_time()
            for file in files[: case["timed"] - number]:
                decode(file)
            seconds[name] += time.process_time() - begun
    return {name: case["timed"] / each for name, each in seconds.items()}


def _our_batches(case: dict[str, Any]) -> Iterator[Any]:
    from invariance_jax.data import FolderSource, train_batches

    return train_batches(
        FolderSource(case["folder"]),
        batch_size=case["batch"],
        canvas_size=case["canvas"],
        seed=0,
        start_step=0,
        workers=case["workers"],
    )


def _torch_batches(case: dict[str, Any]) -> Iterator[Any]:
    import torch
    from torchvision import datasets, transforms

    if case["name"] == "torch_canvas":
        transform = OnCanvas(case["canvas"])
    else:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )
    dataset = datasets.ImageFolder(case["folder"], transform)
    # As many images as we take, so that no epoch ends inside the run.
    count = case["timed"] + 4 * case["batch"] * case["workers"] + len(dataset)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=2 * count)
    loader = torch.utils.data.DataLoader(
        dataset, case["batch"], sampler=sampler, num_workers=case["workers"], drop_last=True
    )
    return iter(loader)


def pipeline_rate(case: dict[str, Any]) -> dict[str, Any]:
    """Takes batches from worker processes as fast as they come."""
    batches = _our_batches(case) if case["name"] == "ours_canvas" else _torch_batches(case)
    # Until every worker has started and its queue is in its usual state.
    for _ in range(4 * case["workers"]):
        next(batches)
    steps = case["timed"] // case["batch"]
    begun, processor = time.perf_counter(), _processor_seconds()
    for _ in range(steps):
        next(batches)
    seconds, processor = time.perf_counter() - begun, _processor_seconds() - processor
    return {
        "images_per_second": steps * case["batch"] / seconds,
        "images_per_core_second": steps * case["batch"] / processor,
        "worker_peak_megabytes": _worker_peak_megabytes(),
    }


def main() -> None:
    """Runs the case."""
    case = json.loads(sys.argv[1])
    run = decode_rates if case["name"] == "decode" else pipeline_rate
    print(json.dumps(run(case)))


if __name__ == "__main__":
    main()
