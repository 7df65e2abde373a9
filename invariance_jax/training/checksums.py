"""Checksums of a state's arrays, which tell whether a checkpoint's data are what was written.

Orbax and TensorStore keep none: Zarr's zstd frames have no checksum, and version 3's CRC covers
the index of a shard alone. These are sums of integers, so that no mesh and no order changes them.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def of_tree(tree: Any) -> dict[str, int]:
    """Sums the bits of each array, as unsigned numbers modulo 2**32.

    One flipped bit changes the sum whatever its place; noise leaves it alone once in 4e9.

    Args:
        tree: Arrays of JAX, divided in any way, or of numpy.

    Returns:
        A sum for each leaf, by its path, for example `params/stem_conv/kernel`.
    """
    named, _ = jax.tree.flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named]
    leaves = [leaf for _, leaf in named]
    on_devices = all(isinstance(leaf, jax.Array) for leaf in leaves)
    sums = _on_devices(leaves) if on_devices else map(_on_host, leaves)
    return {path: int(each) for path, each in zip(paths, sums, strict=True)}


def differing(expected: dict[str, int], found: dict[str, int]) -> list[str]:
    """Paths whose arrays are not what was written; those without a checksum are believed."""
    return [path for path, each in found.items() if expected.get(path, each) != each]


def _on_devices(leaves: list[jax.Array]) -> Iterable[int]:
    return np.asarray(_sums(leaves)) if leaves else []


@jax.jit
def _sums(leaves: list[jax.Array]) -> jax.Array:
    def total(leaf: jax.Array) -> jax.Array:
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = (
            leaf.astype(unsigned)
            if leaf.dtype == bool
            else lax.bitcast_convert_type(leaf, unsigned)
        )
        return jnp.sum(bits, dtype=jnp.uint32)

    return jnp.stack([total(leaf) for leaf in leaves])


def _on_host(leaf: Any) -> int:
    array = np.ascontiguousarray(leaf)
    bits = array.view(f"uint{8 * array.dtype.itemsize}")
    return int(np.sum(bits, dtype=np.uint64) & np.uint64(2**32 - 1))
