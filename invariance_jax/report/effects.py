"""How much of the invariance each part moves: architecture, training data, augmentation."""

import dataclasses
import itertools
from typing import Literal

import numpy as np
import xarray as xr

from invariance_jax.report.rows import UNTRAINED, Row

Part = Literal["architecture", "training data", "augmentation"]
PARTS: tuple[Part, ...] = ("architecture", "training data", "augmentation")
NO_AUGMENTATION = "none"


@dataclasses.dataclass(frozen=True)
class Effect:
    """Two rows that differ in one part only.

    Attributes:
        part: What differs.
        changed: One row.
        reference: The row it is compared with.
        change: Mean over the 13 transforms of (changed - reference) relative invariance.
        size: Mean over the transforms of the absolute differences, so that gains and losses do
            not cancel.
        raised: On how many transforms `changed` is above `reference`.
    """

    part: Part
    changed: Row
    reference: Row
    change: float
    size: float
    raised: int


def effects(table: xr.Dataset) -> list[Effect]:
    """Compares all pairs of rows that differ in one part only.

    Training data: trained with no augmentation against untrained, same architecture.
    Augmentation: trained with it against trained without, same architecture.
    Architecture: two architectures with the same training (or both untrained).

    Args:
        table: From `summaries.invariance`.

    Returns:
        The comparisons, in the order of `PARTS`; pairs of which one row is absent are left out.
    """
    values = {
        Row(str(model), str(training)): row
        for model, training, row in zip(
            table["model"].values, table["training"].values, table["mean"].values, strict=True
        )
    }
    pairs: list[tuple[Part, Row, Row]] = []
    for first, second in itertools.combinations(values, 2):
        if first.training == second.training:
            pairs.append(("architecture", first, second))
    for row in values:
        plain = Row(row.model, NO_AUGMENTATION)
        untrained = Row(row.model, UNTRAINED)
        if row == plain:
            pairs.append(("training data", row, untrained))
        elif row != untrained:
            pairs.append(("augmentation", row, plain))
    return [
        _effect(part, changed, reference, values[changed] - values[reference])
        for wanted in PARTS
        for part, changed, reference in pairs
        if part == wanted and changed in values and reference in values
    ]


def part_sizes(comparisons: list[Effect]) -> dict[Part, float]:
    """Mean size of the comparisons of each part.

    Args:
        comparisons: From `effects`.

    Returns:
        Size by part, the largest first; parts without a comparison are left out.
    """
    sizes = {
        part: float(np.mean([each.size for each in comparisons if each.part == part]))
        for part in PARTS
        if any(each.part == part for each in comparisons)
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _effect(part: Part, changed: Row, reference: Row, difference: np.ndarray) -> Effect:
    return Effect(
        part=part,
        changed=changed,
        reference=reference,
        change=float(difference.mean()),
        size=float(np.abs(difference).mean()),
        raised=int((difference > 0).sum()),
    )
