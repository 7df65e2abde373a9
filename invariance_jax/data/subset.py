"""Fewer images: some classes, or a share of every class."""

import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from invariance_jax.data.source import Example, Source
from invariance_jax.errors import UserError


class SubsetSource:
    """Some images of another source; the labels are the other source's own."""

    def __init__(self, source: Source, positions: Int[np.ndarray, " image"]) -> None:
        """Keeps the images at some positions.

        Args:
            source: The images.
            positions: Which of them, in this order.
        """
        self._source = source
        self._positions = positions
        self.name = source.name
        self.split = source.split
        self.num_classes = source.num_classes
        self.class_names = source.class_names

    def __len__(self) -> int:
        """Number of images."""
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        """The image at `index` of the subset."""
        return self._source[int(self._positions[index])]

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image."""
        return self._source.labels()[self._positions]


def of_classes(source: Source, classes: Sequence[int | str]) -> SubsetSource:
    """Keeps the images of some classes, in order.

    Args:
        source: The images.
        classes: Numbers or names of classes; labels keep these numbers.

    Returns:
        The images of these classes.

    Raises:
        UserError: No such class, or no image of it.
    """
    numbers = [_number(source, each) for each in classes]
    labels = source.labels()
    for number in numbers:
        if not np.any(labels == number):
            raise UserError(
                f"no image of class {number} ({source.class_names[number]}) in "
                f"{source.name} {source.split}"
            )
    return SubsetSource(source, np.flatnonzero(np.isin(labels, numbers)))


def share_of_each_class(source: Source, fraction: float, seed: int) -> SubsetSource:
    """Keeps the same share of every class, drawn at random.

    Every class is shuffled by its own seed and cut: so a smaller share is part of a larger one,
    and what a class keeps does not depend on which other classes there are.

    Args:
        source: The images.
        fraction: Share of each class, above 0, at most 1; at least one image of each stays.
        seed: Of the choice, at least 0.

    Returns:
        The images chosen, in their old order.

    Raises:
        UserError: `fraction` is out of range.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction is {fraction}; expected more than 0, at most 1")
    labels = source.labels()
    kept = []
    for label in np.unique(labels):
        # -1, "no label", is no seed.
        generator = np.random.default_rng([seed, int(label) + 1])
        positions = generator.permutation(np.flatnonzero(labels == label))
        kept.append(positions[: max(1, round(fraction * len(positions)))])
    return SubsetSource(source, np.sort(np.concatenate(kept)))


def _number(source: Source, wanted: int | str) -> int:
    """A class's number from its number or name."""
    if isinstance(wanted, int) and 0 <= wanted < source.num_classes:
        return wanted
    if wanted in source.class_names:
        return source.class_names.index(wanted)
    text = wanted if isinstance(wanted, str) else ""
    near = difflib.get_close_matches(text, source.class_names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown class {wanted!r} of {source.name}; {hint}expected a name or a number, 0 "
        f"({source.class_names[0]}) to {source.num_classes - 1} ({source.class_names[-1]})"
    )
