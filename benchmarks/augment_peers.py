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
DEGREES = 30


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


def _mapped(case: dict[str, Any], one: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """Times a JAX library's operation of (key, image uint8) over the batch, as one program."""
    import jax
    import jax.numpy as jnp

    images = load_images(Setting(**case["setting"]), case["batch"], case["seed"], None)
    images = jnp.asarray(np.stack(images))
    keys = jax.random.split(jax.random.key(case["seed"]), case["batch"])
    function = jax.jit(jax.vmap(one))
    try:
        return timed(lambda: jax.block_until_ready(function(keys, images)), case["repeats"])
    except Exception as error:  # its internals may not fit this JAX: that is a finding
        raise Unavailable(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


def augmax(case: dict[str, Any]) -> dict[str, Any]:
    """Augmax's `RandomSizedCrop` (no antialias, so less work than ours) and `Rotate`."""
    try:
        import augmax as library
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    size = case["setting"]["size"]
    makers = {
        "random_resized_crop": lambda: library.RandomSizedCrop(size, size),
        "rotate": lambda: library.Rotate((-DEGREES, DEGREES)),
    }
    return _mapped(case, library.Chain(library.ByteToFloat(), _of(makers, case)()))


def dm_pix(case: dict[str, Any]) -> dict[str, Any]:
    """dm_pix's `rotate`; it has no crop of random size."""
    try:
        import dm_pix as library
        import jax
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error

    def rotate(key: Any, image: Any) -> Any:
        angle = jax.random.uniform(key, minval=-DEGREES, maxval=DEGREES) * np.float32(np.pi / 180)
        return library.rotate(image.astype(np.float32) / 255, angle, mode="constant")

    return _mapped(case, _of({"rotate": rotate}, case))


def _of(makers: dict[str, Callable[..., Any]], case: dict[str, Any]) -> Callable[..., Any]:
    """The operation that the case names."""
    if case["name"] not in makers:
        raise Unavailable(f"{case['by']} has no {case['name']}")
    return makers[case["name"]]


def _torch(case: dict[str, Any]) -> tuple[Any, Any]:
    """Torch, and the batch on the GPU if there is one; [batch, 3, height, width] uint8."""
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    images = load_images(Setting(**case["setting"]), case["batch"], case["seed"], None)
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return torch, images.cuda() if torch.cuda.is_available() else images


def torchvision(case: dict[str, Any]) -> dict[str, Any]:
    """Torchvision's v2 transforms, image by image: it draws one box or angle for a batch."""
    torch, images = _torch(case)
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    size = case["setting"]["size"]
    makers = {
        "random_resized_crop": lambda: v2.RandomResizedCrop(
            size, scale=AREA, ratio=ASPECT, antialias=True
        ),
        "rotate": lambda: v2.RandomRotation(DEGREES, v2.InterpolationMode.BILINEAR),
        "rand_augment": v2.RandAugment,
    }
    operation = _of(makers, case)()

    def batch() -> None:
        torch.stack([operation(image) for image in images]).float().div_(255)
        _wait(torch)

    return timed(batch, case["repeats"])


def kornia(case: dict[str, Any]) -> dict[str, Any]:
    """Kornia's random crop (a box for each image, without antialias) and rotation, compiled."""
    torch, images = _torch(case)
    try:
        import kornia.augmentation as library
    except ImportError as error:
        raise Unavailable(f"not importable: {error}") from error
    size = (case["setting"]["size"],) * 2
    makers = {
        "random_resized_crop": lambda: library.RandomResizedCrop(
            size, scale=AREA, ratio=ASPECT, cropping_mode="resample"
        ),
        "rotate": lambda: library.RandomRotation(DEGREES, p=1.0, align_corners=False),
    }
    operation = _of(makers, case)()
    function = lambda x: operation(x.float().div(255))  # noqa: E731
    if torch.cuda.is_available():
        function = torch.compile(function)

    def batch() -> None:
        function(images)
        _wait(torch)

    return timed(batch, case["repeats"])


def _wait(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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
