"""Equivariance alignment of one cell, exact over all images (paper, section 3)."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float32, Int

from invariance_jax.evaluation import measures
from invariance_jax.evaluation.cells import Cells
from invariance_jax.evaluation.features import Layout
from invariance_jax.evaluation.shards import Shards

# Rows that are on the device at once.
_ROWS = 4096

_rows_alignment = jax.jit(measures.equivariance_alignment)


def alignment(
    difference: Float32[np.ndarray, "image features"],
    permutation: Int[np.ndarray, " image"],
    seed: int,
) -> Float32[np.ndarray, " image"]:
    """Measures how alike a transform moves different images.

    Args:
        difference: z_i - z_t,i of every image.
        permutation: pi, which pairs the images.
        seed: Of the columns' permutations; the same for every cell, so that cells can be
            compared.

    Returns:
        d(b_i, b_pi(i)) - d(d_i, d_pi(i)) for every image.
    """
    # Another stream of numbers than the permutation's, which is drawn from the seed alone.
    shuffled = np.random.default_rng((seed, 1)).permuted(difference, axis=0)
    found = []
    for start in range(0, len(difference), _ROWS):
        rows = slice(start, start + _ROWS)
        other = permutation[rows]
        found.append(
            np.asarray(
                _rows_alignment(
                    difference[rows], difference[other], shuffled[rows], shuffled[other]
                )
            )
        )
    return np.concatenate(found)


def by_cell(
    shards: Shards,
    count: int,
    cells: Cells,
    layout: Layout,
    permutation: Int[np.ndarray, " image"],
    seed: int,
) -> Iterator[Float32[np.ndarray, "feature image"]]:
    """Measures every cell, one after another: one cell's differences are in memory at a time.

    Args:
        shards: Where the matrices "difference" are, [cell, image, length].
        count: How many shards there are.
        cells: The computed cells.
        layout: Where each feature lies.
        permutation: pi.
        seed: Of the columns' permutations.

    Yields:
        The alignment of each feature and image.
    """
    matrices = [shards.open_matrix("difference", shard) for shard in range(count)]
    for cell in range(len(cells)):
        difference = np.concatenate([matrix[cell] for matrix in matrices])
        yield np.stack(
            [alignment(difference[:, part], permutation, seed) for part in layout.slices]
        )
