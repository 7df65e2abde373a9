"""Rows: what a line of a table and a colour of a figure stand for."""

import dataclasses

from invariance_jax.augment import NAMES
from invariance_jax.config import WEIGHTS_LABEL

UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True)
class Row:
    """A network and how it was trained; its seeds are averaged.

    Attributes:
        model: Architecture, `resnet8`.
        training: Augmentation it was trained with, or "untrained".
    """

    model: str
    training: str

    @property
    def label(self) -> str:
        """The row's name in tables; no two rows share one."""
        return f"{self.model}, {self.training}"

    @property
    def sort_key(self) -> tuple[str, int, str]:
        """By architecture; within one, untrained first, then the order of `augment.NAMES`."""
        return self.model, training_rank(self.training), self.training


def make_row(model: str, augmentation: str, steps: int) -> Row:
    """Makes the row that a result belongs to.

    Args:
        model: Architecture.
        augmentation: What the config says; of no effect before the first step.
        steps: Training steps done; 0 for a network that is untrained here.

    Returns:
        The row. Weights from a file were trained elsewhere: they keep their label.
    """
    trained = steps or augmentation.startswith(WEIGHTS_LABEL)
    return Row(model, augmentation if trained else UNTRAINED)


def training_rank(training: str) -> int:
    """Where a training stands among others, from the least to the most augmented.

    Args:
        training: "untrained" or an augmentation, with or without options.

    Returns:
        0 for untrained, then the position in `augment.NAMES`; unknown names come last.
    """
    order = (UNTRAINED, *NAMES)
    name = training.split("(")[0]
    return order.index(name) if name in order else len(order)
