"""Batches on the devices before they are needed."""

import collections
import gc
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np


def prefetch_to_device(
    batches: Iterable[Mapping[str, np.ndarray]], sharding: jax.sharding.NamedSharding, size: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Moves batches to the devices ahead of their use, in a thread of its own.

    Neither waiting for a batch nor copying it, 200 MB for 256 canvases of 512 pixels, then keeps
    the consumer from giving the devices their next step.

    Args:
        batches: This process's part of every global batch, arrays [local batch, ...].
        sharding: How the leading axis is divided: `NamedSharding(mesh, PartitionSpec("data"))`.
        size: How many batches are moved while the consumer works on one; 0 moves each only when
            it is asked for.

    Yields:
        Global arrays [batch, ...], in order. What `batches` raises is raised here, in its place.
    """
    iterator = iter(batches)

    def move() -> dict[str, jax.Array] | None:
        batch = next(iterator, None)
        if batch is None:
            return None
        return {
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in batch.items()
        }

    # One thread only: it keeps the order.
    executor = ThreadPoolExecutor(1, "prefetch_to_device")
    queue: collections.deque[Future[dict[str, jax.Array] | None]] = collections.deque()
    try:
        while True:
            while len(queue) <= size:
                queue.append(executor.submit(move))
            moved = queue.popleft().result()
            if moved is None:
                return
            yield moved
    finally:
        # What is running must end before the iterator under it can be closed.
        executor.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()
        # The last batches hang in reference cycles of Grain's and in JAX's list of host memory to
        # free: hundreds of MB, shared memory among them, until Python happens to look.
        queue.clear()
        moved = iterator = None
        gc.collect()
