"""Memory for canvases: written once, lent, and filled again when nobody looks at it any more."""

import gc
import os
import pickle

import numpy as np
import pytest

from invariance_jax.data import DataError, batches
from invariance_jax.data.shared_memory import Block, take

SHAPE = (2, 3, 4, 3)


def sent(block) -> np.ndarray:
    """What the main process gets."""
    return pickle.loads(pickle.dumps(block))


def memory_in_use() -> list[str]:
    """Blocks that this process holds open or looks at."""
    paths = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
    links = [os.readlink(path) for path in paths if os.path.lexists(path)]
    return sorted(each for each in links if each.startswith("/memfd:canvases"))


def test_what_a_worker_writes_arrives():
    blocks = []
    block = take(blocks, SHAPE)
    block.pixels[:] = np.arange(72).reshape(SHAPE)
    canvas = sent(block)
    assert canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas, np.arange(72).reshape(SHAPE))
    # Its first pixel is 0, which must not say that the memory is free.
    assert take(blocks, SHAPE) is not block
    block.pixels[0] = 7  # the same memory, not a copy
    assert (canvas[0] == 7).all()


def test_memory_is_filled_again_when_it_is_let_go():
    blocks = []
    first = take(blocks, SHAPE)
    canvas = sent(first)
    second = take(blocks, SHAPE)
    assert second is not first
    del canvas
    assert take(blocks, SHAPE) is first
    assert len({id(take(blocks, SHAPE)) for _ in range(3)} | {id(second)}) == 4
    assert len(blocks) == 5


def test_a_view_keeps_the_memory():
    blocks = []
    block = take(blocks, SHAPE)
    row = sent(block)[1, 1:]
    assert take(blocks, SHAPE) is not block
    del row
    assert take(blocks, SHAPE) is block


def test_memory_ends_with_its_last_user():
    """Without a name: no process has to be there to take it away."""
    before, files = memory_in_use(), sorted(os.listdir("/dev/shm"))
    block = Block(SHAPE)
    block.pixels[:] = 5
    canvas = sent(block)
    assert len(memory_in_use()) > len(before) and sorted(os.listdir("/dev/shm")) == files
    del block
    assert (canvas == 5).all()
    del canvas
    assert memory_in_use() == before


def test_memory_of_a_batch_that_failed_is_given_back(pixel_source):
    before, blocks = memory_in_use(), []
    with pytest.raises(DataError):
        batches._read(pixel_source(3, unreadable=[1]), 10, False, blocks, np.arange(3))
    assert len(blocks) == 1 and memory_in_use() != before
    del blocks
    gc.collect()
    assert memory_in_use() == before


def test_systems_without_such_memory_send_the_pixels(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    blocks = []
    block = take(blocks, SHAPE)
    block.pixels[:] = np.arange(72).reshape(SHAPE)
    canvas = sent(block)
    assert take(blocks, SHAPE) is block
    block.pixels[:] = 0
    np.testing.assert_array_equal(canvas, np.arange(72).reshape(SHAPE))
