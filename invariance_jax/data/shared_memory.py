"""Canvases in memory that worker processes share with the main process."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
from grain.multiprocessing import SharedMemoryArray
from jaxtyping import UInt8

from invariance_jax.errors import UserError

_SHARED_MEMORY = pathlib.Path("/dev/shm")
# Each worker fills one batch; one is about to be queued, one is, and one has left the queue.
_BATCHES_PER_WORKER = 4
# The consumer works on one; as many are moved to the devices.
_BATCHES_IN_USE = 3


def check_shared_memory(
    workers: int, batch_size: int, canvas_size: int, folder: pathlib.Path = _SHARED_MEMORY
) -> None:
    """Checks that the workers' batches fit, where the system says how much there is.

    Without the check a worker dies by a bus error once the memory is full.

    Args:
        workers: Processes that decode.
        batch_size: Images in one process's part of a batch.
        canvas_size: Side of the canvas, pixels.
        folder: Where the system keeps shared memory.

    Raises:
        UserError: It is too small.
    """
    if not folder.is_dir():
        return
    batches = workers * _BATCHES_PER_WORKER + _BATCHES_IN_USE
    needed = batches * batch_size * canvas_size**2 * 3
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"config.data.workers is {workers}: they need up to {needed / 1e9:.1f} GB of shared "
            f"memory for batches of {batch_size} canvases of {canvas_size} pixels, but {folder} "
            f"has {free / 1e9:.1f} GB free; give the container more (docker: --shm-size) or take "
            "fewer workers, a smaller batch or config.data.workers=0"
        )


@contextlib.contextmanager
def new_canvases(
    shape: tuple[int, int, int, int], shared: bool
) -> Iterator[UInt8[np.ndarray, "batch height width 3"]]:
    """Makes canvases of zeros, to be filled inside the block.

    Args:
        shape: Batch, height, width, 3.
        shared: Whether they go to another process. Grain then passes on their address; any other
            array it would copy into shared memory first.

    Yields:
        The canvases. If the block raises, their memory is given back.
    """
    if not shared:
        yield np.zeros(shape, np.uint8)
        return
    canvases = SharedMemoryArray(shape, np.uint8)  # zeros: the system clears new memory
    try:
        yield canvases
    except BaseException:
        canvases.shm.unlink()
        raise
