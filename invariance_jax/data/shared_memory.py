"""Memory for canvases: this process's own, or shared between workers and the main process.

To hand out new pages costs the system half as much time as decoding a photo. So a worker keeps its
blocks of shared memory, and fills one again when the main process has let go of the batch in it.
"""

import multiprocessing.util
import pathlib
import shutil
import weakref
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8

from invariance_jax.errors import UserError

_SHARED_MEMORY = pathlib.Path("/dev/shm")
# Each worker fills one batch; one is about to be queued, one is, and one has left the queue.
_BATCHES_PER_WORKER = 4
# The consumer works on one; as many are moved to the devices.
_BATCHES_IN_USE = 3
# A block's first byte says whether a batch in it is still wanted; pixels begin on the next page.
_HEADER_BYTES = 4096
_FREE, _WANTED = 0, 1

Shape = tuple[int, int, int, int]


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
    # The workers take turns, so those in use are spread over them.
    batches = workers * (_BATCHES_PER_WORKER + -(-_BATCHES_IN_USE // workers))
    needed = batches * batch_size * canvas_size**2 * 3
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"config.data.workers is {workers}: they need up to {needed / 1e9:.1f} GB of shared "
            f"memory for batches of {batch_size} canvases of {canvas_size} pixels, but {folder} "
            f"has {free / 1e9:.1f} GB free; give the container more (docker: --shm-size) or take "
            "fewer workers, a smaller batch or config.data.workers=0"
        )


class OwnCanvases:
    """A batch's canvases for threads of this process; used as `LentCanvases` are.

    Attributes:
        pixels: The canvases, uint8 [batch, height, width, 3].
    """

    pixels: UInt8[np.ndarray, "batch height width 3"]

    def __init__(self, shape: Shape) -> None:
        """Makes canvases whose pixels are whatever was there before.

        Args:
            shape: Batch, height, width, 3.
        """
        self.pixels = np.empty(shape, np.uint8)

    def keep(self) -> UInt8[np.ndarray, "batch height width 3"]:
        """Gives the canvases away.

        Returns:
            The canvases.
        """
        return self.pixels


class LentCanvases:
    """A batch's canvases in shared memory; pickled by name, and attached when unpickled.

    Attributes:
        pixels: The canvases, uint8 [batch, height, width, 3]; valid while this object is.
    """

    pixels: UInt8[np.ndarray, "batch height width 3"]

    def __init__(self, memory: SharedMemory, shape: Shape) -> None:
        """Looks at a block of memory as canvases.

        Args:
            memory: The block.
            shape: Batch, height, width, 3.
        """
        self._memory, self._shape = memory, shape
        self.pixels = np.ndarray(shape, np.uint8, buffer=memory.buf, offset=_HEADER_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        """Only the name travels: the last batches of a worker are attached before it ends."""
        return _attached, (self._memory.name, self._shape)

    def keep(self) -> UInt8[np.ndarray, "batch height width 3"]:
        """Gives the canvases to whom they were lent.

        Returns:
            The canvases. When neither they nor a view of them are referred to any more, their
            worker may fill the memory again.
        """
        # Left alone at exit: a device may still read.
        weakref.finalize(self.pixels, _let_go, self._memory).atexit = False
        return self.pixels


class _Gone:
    """Takes the place of a batch whose worker ended before anyone looked at it."""

    def keep(self) -> UInt8[np.ndarray, "batch height width 3"]:
        raise RuntimeError("the worker process that made this batch has ended")


def _attached(name: str, shape: Shape) -> LentCanvases | _Gone:
    try:
        return LentCanvases(SharedMemory(name), shape)
    except FileNotFoundError:
        # When an iterator is closed Grain empties its queues, where this is no error.
        return _Gone()


def _let_go(memory: SharedMemory) -> None:
    memory.buf[0] = _FREE
    memory.close()


class CanvasPool:
    """A worker's blocks of shared memory. A pickled pool arrives empty."""

    def __init__(self) -> None:
        """Begins without blocks; what there will be is unlinked when the process ends."""
        self._blocks: list[SharedMemory] = []
        multiprocessing.util.Finalize(self, _unlink, (self._blocks,), exitpriority=0)

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """Blocks stay with the process that made them."""
        return type(self), ()

    def take(self, shape: Shape) -> LentCanvases:
        """Takes a block that is free, or a new one: nobody waits.

        Args:
            shape: Batch, height, width, 3; the same at every call.

        Returns:
            Canvases whose pixels are whatever was there before.
        """
        block = next((each for each in self._blocks if each.buf[0] == _FREE), None)
        if block is None:
            block = SharedMemory(create=True, size=_HEADER_BYTES + int(np.prod(shape)))
            self._blocks.append(block)
        block.buf[0] = _WANTED
        return LentCanvases(block, shape)


def _unlink(blocks: list[SharedMemory]) -> None:
    """Takes the names away; whoever has attached a block keeps it."""
    for block in blocks:
        block.unlink()
    blocks.clear()
