"""The same work by others: Pillow on every core, augmax, torchvision and kornia.

Each function returns seconds of every repeat, or raises `Unavailable` with the reason.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from augment_images import Setting, load_images
from PIL import Image

AREA, ASPECT, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10


class Unavailable(Exception):
    """The peer cannot do this here; the message says why."""


def timed(function: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Times a function, its first call apart.

    Args:
        function: Does one batch and waits for the result.
        repeats: How many times after the first.

    Returns:
        `first_seconds`, `seconds` and `core_seconds`: the processor time of the whole process,
        all threads together, which other programs on the machine change less than the clock's.
    """
    seconds, core_seconds = [], []
    for _ in range(repeats + 1):
        begin, core_begin = time.perf_counter(), time.process_time()
        function()
        seconds.append(time.perf_counter() - begin)
        core_seconds.append(time.process_time() - core_begin)
    return {
        "first_seconds": seconds[0],
        "seconds": seconds[1:],
        "core_seconds": core_seconds[1:],
    }


def _random_box(rng: np.random.Generator, height: int, width: int) -> tuple[int, ...]:
    """Pillow's (left, upper, right, lower) by torchvision's rule, without its rare fallback."""
    for _ in range(TRIES):
        area = rng.uniform(*AREA) * height * width
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            return int(left), int(top), int(left + w), int(top + h)
    return 0, 0, width, height


def _pillow_worker(case: dict[str, Any], number: int, workers: int, pipe: Any) -> None:
    """Loads its share of the batch, then crops it whenever it is told to."""
    setting = Setting(**case["setting"])
    count = len(range(number, case["batch"], workers))
    images = load_images(setting, count, case["seed"] + number, case["data_dir"])
    rng = np.random.default_rng(case["seed"] + number)
    size = (setting.size, setting.size)
    pipe.send("ready")
    while pipe.recv():
        core_begin = time.process_time()
        for image in images:
            box = _random_box(rng, *image.shape[:2])
            np.asarray(Image.fromarray(image).crop(box).resize(size, Image.BILINEAR))
        pipe.send(time.process_time() - core_begin)


def pillow(case: dict[str, Any]) -> dict[str, Any]:
    """Crops and resizes with Pillow, one process on each core; pixels stay in the processes."""
    context = multiprocessing.get_context("spawn")
    workers = min(case["cores"], case["batch"])
    pipes, processes = [], []
    for number in range(workers):
        ours, theirs = context.Pipe()
        arguments = (case, number, workers, theirs)
        process = context.Process(target=_pillow_worker, args=arguments, daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)

    core_seconds: list[float] = []

    def batch() -> None:
        for pipe in pipes:
            pipe.send(True)
        core_seconds.append(sum(pipe.recv() for pipe in pipes))

    for pipe in pipes:
        pipe.recv()
    result = {**timed(batch, case["repeats"]), "core_seconds": core_seconds[1:]}
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()
    return result


def augmax(case: dict[str, Any]) -> dict[str, Any]:
    """Augmax's `RandomSizedCrop`: bilinear without antialias, so less work than ours."""
    try:
        import augmax as library
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    import jax
    import jax.numpy as jnp

    setting = Setting(**case["setting"])
    images = load_images(setting, case["batch"], case["seed"], None)
    images = jnp.asarray(np.stack(images))
    chain = library.Chain(
        library.ByteToFloat(), library.RandomSizedCrop(setting.size, setting.size)
    )
    function = jax.jit(jax.vmap(chain))
    keys = jax.random.split(jax.random.key(case["seed"]), case["batch"])
    try:
        return timed(lambda: jax.block_until_ready(function(keys, images)), case["repeats"])
    except Exception as error:  # its internals may not fit this JAX: that is a finding
        raise Unavailable(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


def dm_pix(case: dict[str, Any]) -> dict[str, Any]:
    """dm_pix crops at a fixed size only."""
    raise Unavailable("dm_pix has no random resized crop")


def _cuda(case: dict[str, Any]) -> tuple[Any, Any]:
    """Torch and the batch on the GPU; [batch, 3, height, width] uint8."""
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    if not torch.cuda.is_available():
        raise Unavailable("torch sees no CUDA device")
    images = load_images(Setting(**case["setting"]), case["batch"], case["seed"], None)
    return torch, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().cuda()


def torchvision(case: dict[str, Any]) -> dict[str, Any]:
    """Torchvision's v2 `RandomResizedCrop` on the GPU, image by image: a batch shares one box."""
    torch, images = _cuda(case)
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    crop = v2.RandomResizedCrop(case["setting"]["size"], scale=AREA, ratio=ASPECT, antialias=True)

    def batch() -> None:
        torch.stack([crop(image) for image in images]).float().div_(255)
        torch.cuda.synchronize()

    return timed(batch, case["repeats"])


def kornia(case: dict[str, Any]) -> dict[str, Any]:
    """Kornia's `RandomResizedCrop` on the GPU: a box for each image, without antialias."""
    torch, images = _cuda(case)
    try:
        import kornia.augmentation as library
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    size = (case["setting"]["size"],) * 2
    crop = library.RandomResizedCrop(size, scale=AREA, ratio=ASPECT, cropping_mode="resample")

    def batch() -> None:
        crop(images.float().div(255))
        torch.cuda.synchronize()

    return timed(batch, case["repeats"])


PEERS = {
    "pillow": pillow,
    "augmax": augmax,
    "dm_pix": dm_pix,
    "torchvision": torchvision,
    "kornia": kornia,
}


def core_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
