"""What an evaluation found, as a table for the terminal."""

import numpy as np
import xarray as xr

from invariance_jax.evaluation.measures import GAP_MAGNITUDES

_SHOWN = (1, 3, 5, 7, 9)


def table(dataset: xr.Dataset) -> str:
    """Sums a result file up, one line a transform.

    Args:
        dataset: From `results.to_dataset` or `results.read`.

    Returns:
        Median relative invariance (cosine) at some magnitudes, and means over magnitudes 3 to 7
        of that, of the share of flipped predictions and of top-1.
    """
    medians = np.median(dataset["relative_invariance_cosine"].values, axis=-1)
    middle = f"{GAP_MAGNITUDES.start}-{GAP_MAGNITUDES.stop - 1}"
    width = max(len(str(name)) for name in dataset["transform"].values)
    lines = [
        f"Relative invariance (cosine), median of {dataset.sizes['image']} images, at magnitude",
        f"{'':{width}} "
        + "".join(f"{magnitude:>7}" for magnitude in _SHOWN)
        + f"{middle:>7}   flips {middle}   top-1 {middle}",
    ]
    for row, name in enumerate(dataset["transform"].values):
        values = [*medians[row, list(_SHOWN)], medians[row, GAP_MAGNITUDES].mean()]
        shares = [
            float(dataset[share].values[row, GAP_MAGNITUDES].mean())
            for share in ("flip", "correct")
        ]
        lines.append(
            f"{name:{width}} "
            + "".join(f"{value:z7.2f}" for value in values)
            + "".join(f"{share:12.1%}" for share in shares)
        )
    return "\n".join(lines)
