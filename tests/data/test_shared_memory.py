"""Memory for canvases: written once, lent, and filled again when nobody looks at it any more."""

import gc
import pickle
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from invariance_jax.data import DataError, batches
from invariance_jax.data.shared_memory import CanvasPool, check_shared_memory
from invariance_jax.errors import UserError

SHAPE = (2, 3, 4, 3)


def sent(lent):
    """What the main process gets."""
    return pickle.loads(pickle.dumps(lent))


def name_of(lent) -> str:
    _, (name, _) = lent.__reduce__()
    return name


def test_too_little(tmp_path):
    with pytest.raises(UserError, match=r"workers is 10000: .* GB of shared memory .*--shm-size"):
        check_shared_memory(10_000, 2**12, 2**12, tmp_path)
    check_shared_memory(1, 1, 8, tmp_path)
    check_shared_memory(10_000, 2**12, 2**12, tmp_path / "no such folder: nothing is known")


def test_what_a_worker_writes_arrives():
    pool = CanvasPool()
    lent = pool.take(SHAPE)
    lent.pixels[:] = np.arange(72).reshape(SHAPE)
    canvas = sent(lent).keep()
    np.testing.assert_array_equal(canvas, np.arange(72).reshape(SHAPE))
    # Its first pixel is 0, which must not say that the memory is free.
    assert name_of(pool.take(SHAPE)) != name_of(lent)
    lent.pixels[0] = 7  # the same memory, not a copy
    assert (canvas[0] == 7).all()


def test_memory_is_filled_again_when_it_is_let_go():
    pool = CanvasPool()
    first = pool.take(SHAPE)
    canvas = sent(first).keep()
    second = pool.take(SHAPE)
    assert name_of(second) != name_of(first)
    del canvas
    assert name_of(pool.take(SHAPE)) == name_of(first)
    assert len({name_of(pool.take(SHAPE)) for _ in range(3)} | {name_of(second)}) == 4


def test_a_view_keeps_the_memory():
    pool = CanvasPool()
    lent = pool.take(SHAPE)
    row = sent(lent).keep()[1, 1:]
    assert name_of(pool.take(SHAPE)) != name_of(lent)
    del row
    assert name_of(pool.take(SHAPE)) == name_of(lent)


def test_a_pool_travels_without_its_blocks():
    pool = CanvasPool()
    lent = pool.take(SHAPE)
    sent(lent).keep()  # and let go at once
    assert name_of(pickle.loads(pickle.dumps(pool)).take(SHAPE)) != name_of(lent)


def test_names_end_with_the_pool_and_memory_with_its_last_user():
    pool = CanvasPool()
    lent = pool.take(SHAPE)
    lent.pixels[:] = 5
    name, canvas, late = name_of(lent), sent(lent).keep(), pickle.dumps(lent)
    SharedMemory(name).close()  # it is there
    del pool, lent
    gc.collect()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    assert (canvas == 5).all()
    with pytest.raises(RuntimeError, match="the worker process that made this batch has ended"):
        pickle.loads(late).keep()


def test_memory_of_a_batch_that_failed_is_given_back(pixel_source):
    pool, names = CanvasPool(), []

    def take(shape):
        lent = pool.take(shape)
        names.append(name_of(lent))
        return lent

    with pytest.raises(DataError):
        batches._read(pixel_source(3, unreadable=[1]), 10, take, False, np.arange(3))
    (name,) = names
    SharedMemory(name).close()  # it is there
    del pool, take
    gc.collect()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
