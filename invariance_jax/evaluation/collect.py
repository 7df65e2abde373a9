"""Runs a step over a split's batches and puts what it says of each image in its place."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from invariance_jax import devices

Batch = Mapping[str, Array]


def per_image(
    run: Callable[[Batch], Mapping[str, Any]],
    batches: Iterable[Batch],
    *,
    images: int,
    progress: Callable[[int], object],
) -> dict[str, Any]:
    """Collects results of every image, exact on padded batches.

    Args:
        run: From a batch on the devices to a dict that every process can read (replicated):
            "index" and "mask" as the batch has them, and "values", a pytree of arrays
            [..., batch].
        batches: The split's batches; every process gives its part of the same ones.
        images: How many images the split has.
        progress: Called with the number of images just done.

    Returns:
        The pytree "values" as numpy arrays [..., image], in the split's order.
    """
    found: Any = None
    for host in devices.one_behind(map(run, batches)):
        keep = host["mask"]
        if found is None:
            found = jax.tree.map(
                lambda value: np.zeros((*value.shape[:-1], images), value.dtype), host["values"]
            )
        for whole, part in zip(
            jax.tree.leaves(found), jax.tree.leaves(host["values"]), strict=True
        ):
            whole[..., host["index"][keep]] = part[..., keep]
        progress(int(keep.sum()))
    return found
