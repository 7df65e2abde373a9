"""Batches on the devices before they are needed."""

import collections
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np


def prefetch_to_device(
    batches: Iterable[Mapping[str, np.ndarray]], sharding: jax.sharding.NamedSharding, size: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Moves batches to the devices ahead of their use.

    Args:
        batches: This process's part of every global batch, arrays [local batch, ...].
        sharding: How the leading axis is divided: `NamedSharding(mesh, PartitionSpec("data"))`.
        size: How many batches are on their way while the consumer works on one.

    Yields:
        Global arrays [batch, ...], in order.
    """
    queue: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in batches:
        # Returns at once; the copy runs while the consumer works.
        queue.append(
            {
                name: jax.make_array_from_process_local_data(sharding, array)
                for name, array in batch.items()
            }
        )
        if len(queue) > size:
            yield queue.popleft()
    while queue:
        yield queue.popleft()
