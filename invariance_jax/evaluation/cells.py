"""Which cells of the grid of transforms and magnitudes are worth a forward pass."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped

from invariance_jax.transforms import Domain, Transform


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """The cells to compute, in the grid's order.

    Attributes:
        transform: Position of each cell's transform in the table.
        magnitude: Each cell's magnitude.
        computed: The whole grid: False where the transform changes no image.
    """

    transform: Int32[np.ndarray, " cell"]
    magnitude: Float32[np.ndarray, " cell"]
    computed: Bool[np.ndarray, "transform magnitude"]

    def __len__(self) -> int:
        """Number of cells to compute."""
        return len(self.transform)

    def to_grid(
        self, values: Shaped[np.ndarray, "cell *rest"], unchanged: Shaped[np.ndarray, "*rest"]
    ) -> Shaped[np.ndarray, "transform magnitude *rest"]:
        """Lays values out over the whole grid.

        Args:
            values: One entry for each computed cell.
            unchanged: The entry of all others.

        Returns:
            The grid, of the dtype of `values`.
        """
        grid = np.empty((*self.computed.shape, *values.shape[1:]), values.dtype)
        grid[self.computed] = values
        grid[~self.computed] = unchanged
        return grid


def make_cells(transforms: Mapping[str, Transform], domain: Domain) -> Cells:
    """Lists the cells that need a forward pass.

    Args:
        transforms: The table; every transform has as many magnitudes.
        domain: An identity magnitude is one on "pixel" values; on "normalized" values it may
            clip, so that every cell counts.

    Returns:
        The cells.
    """
    table = list(transforms.values())
    computed = np.array(
        [[domain != "pixel" or m != t.identity for m in t.magnitudes] for t in table]
    )
    magnitudes = np.array([t.magnitudes for t in table], np.float32)
    return Cells(np.nonzero(computed)[0].astype(np.int32), magnitudes[computed], computed)
