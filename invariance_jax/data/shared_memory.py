"""Memory that worker processes fill with canvases and the main process looks at without a copy.

To hand out new pages costs the system half as much time as decoding a photo. So a worker keeps its
blocks of memory, and fills one again when the main process has let go of the batch in it. The
blocks have no names: they are gone when no process uses them any more, however it ended, and no
limit of `/dev/shm` holds for them.
"""

import mmap
import os
import weakref
from typing import Any

import numpy as np
from jaxtyping import UInt8

# A block's first byte says whether a batch in it is still wanted; pixels begin on the next page.
_HEADER_BYTES = 4096
_FREE, _WANTED = 0, 1

Shape = tuple[int, int, int, int]


class Block:
    """Memory for one batch of canvases; pickled by its place, and an array when it arrives.

    Only Linux has such memory; elsewhere the pixels are pickled.

    Attributes:
        pixels: The canvases, uint8 [batch, height, width, 3].
    """

    pixels: UInt8[np.ndarray, "batch height width 3"]

    def __init__(self, shape: Shape) -> None:
        """Takes memory from the system.

        Args:
            shape: Batch, height, width, 3.
        """
        size = _HEADER_BYTES + int(np.prod(shape))
        self._file = os.memfd_create("canvases") if hasattr(os, "memfd_create") else -1
        if self._file >= 0:
            weakref.finalize(self, os.close, self._file)
            os.ftruncate(self._file, size)
        self.memory = mmap.mmap(self._file, size)
        self.pixels = np.ndarray(shape, np.uint8, self.memory, _HEADER_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        """Lends the canvases to whoever unpickles this."""
        if self._file < 0:
            self.memory[0] = _FREE
            return np.asarray, (self.pixels,)
        return _attached, (os.getpid(), self._file, self.pixels.shape)


def _attached(process: int, file: int, shape: Shape) -> UInt8[np.ndarray, "batch height width 3"]:
    """The canvases; when nobody refers to them or to a view of them, the block is free again."""
    with open(f"/proc/{process}/fd/{file}", "r+b", buffering=0) as opened:
        memory = mmap.mmap(opened.fileno(), 0)
    pixels = np.ndarray(shape, np.uint8, memory, _HEADER_BYTES)
    # Left alone at exit: a device may still read.
    weakref.finalize(pixels, memory.__setitem__, 0, _FREE).atexit = False
    return pixels


def take(blocks: list[Block], shape: Shape) -> Block:
    """Takes a block that is free, or a new one: nobody waits.

    Args:
        blocks: This process's; a new one is added.
        shape: Batch, height, width, 3; the same at every call.

    Returns:
        The block, with whatever pixels were there before.
    """
    block = next((each for each in blocks if each.memory[0] == _FREE), None)
    if block is None:
        block = Block(shape)
        blocks.append(block)
    block.memory[0] = _WANTED
    return block
