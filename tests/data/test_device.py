"""Batches on the devices: the same values in the same order, taken ahead of their use."""

import threading

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from invariance_jax.data import evaluation_batches, prefetch_to_device

# Only how long a broken test hangs.
PATIENCE_SECONDS = 30


def by_example(devices: int) -> NamedSharding:
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    return NamedSharding(mesh, PartitionSpec("data"))


class Numbers:
    """Batches that tell how many of them have been taken."""

    def __init__(self, count):
        self.taken, self.closed, self.threads = 0, False, set()
        self._count, self._changed = count, threading.Condition()

    def __iter__(self):
        try:
            for number in range(self._count):
                with self._changed:
                    self.taken += 1
                    self.threads.add(threading.get_ident())
                    self._changed.notify()
                yield {"number": np.full(8, number)}
        finally:
            self.closed = True

    def wait_for(self, taken):
        with self._changed:
            assert self._changed.wait_for(lambda: self.taken >= taken, PATIENCE_SECONDS)


@pytest.mark.parametrize("devices", [1, 8])
def test_values_and_sharding(pixel_source, devices):
    sharding = by_example(devices)
    expected = list(evaluation_batches(pixel_source(20), batch_size=8, canvas_size=10))
    result = list(prefetch_to_device(expected, sharding))
    assert len(result) == len(expected) == 3
    for ours, theirs in zip(result, expected, strict=True):
        assert set(ours) == set(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])
    canvas = result[0]["canvas"]
    assert canvas.sharding == sharding
    assert len(canvas.addressable_shards) == devices
    for shard in canvas.addressable_shards:
        np.testing.assert_array_equal(shard.data, expected[0]["canvas"][shard.index])


@pytest.mark.parametrize("size", [0, 1, 2])
def test_batches_are_taken_ahead_and_no_further(size):
    numbers = Numbers(6)
    moved = prefetch_to_device(numbers, by_example(1), size)
    assert numbers.taken == 0
    for step in range(6):
        assert int(next(moved)["number"][0]) == step
        numbers.wait_for(min(6, step + 1 + size))
        assert numbers.taken == min(6, step + 1 + size)
    assert next(moved, None) is None
    assert numbers.threads.isdisjoint({threading.get_ident()})


def test_source_is_closed_with_the_iterator():
    numbers = Numbers(6)
    batches = iter(numbers)
    moved = prefetch_to_device(batches, by_example(1))
    next(moved)
    moved.close()
    assert numbers.closed  # though `batches` is still here
    assert numbers.taken <= 3


def test_error_comes_after_the_batches_before_it():
    def broken():
        yield {"number": np.zeros(8)}
        raise ValueError("broken")

    moved = prefetch_to_device(broken(), by_example(1))
    assert next(moved)["number"].shape == (8,)
    with pytest.raises(ValueError, match="broken"):
        next(moved)
    assert next(moved, None) is None
