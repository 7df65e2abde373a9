"""Statistics of searches, made by hand."""

import numpy as np
import pytest
import xarray as xr

from invariance_jax.transforms import AUTOAUGMENT


@pytest.fixture
def make_statistics():
    """From labels of rows and proportions boosted [class, row] to statistics."""

    def make(rows, boosted, percent=None, wnids=None, copies=None):
        boosted = np.asarray(boosted, float)
        steps = [label.split() for label in rows]
        coordinates = {
            "class": np.arange(len(boosted)),
            "class_name": ("class", [f"class {i}" for i in range(len(boosted))]),
            "row": list(rows),
            "operation": ("row", [each[0] for each in steps]),
            "index": ("row", [int(each[1]) for each in steps]),
            "kind": ("row", [AUTOAUGMENT[each[0]].family for each in steps]),
            "copy_of": ("row", [(copies or {}).get(each, each) for each in rows]),
        }
        if wnids is not None:
            coordinates["wnid"] = ("class", list(wnids))
        percent = np.zeros_like(boosted) if percent is None else np.asarray(percent, float)
        variables = {"proportion_boosted": boosted, "mean_percent_change": percent}
        return xr.Dataset(
            {name: (("class", "row"), values) for name, values in variables.items()}, coordinates
        )

    return make
