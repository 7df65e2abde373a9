"""What a set of labelled images is to the rest of the package."""

from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

from invariance_jax.errors import UserError


class DataError(UserError):
    """An image or a label that cannot be used; the message names the image."""


class Example(TypedDict):
    """One labelled image.

    Attributes:
        image: The encoded file (JPEG, PNG, ...), or pixels already decoded.
        label: The class, 0 to `num_classes - 1`.
        name: An id that stays with the image over splits and runs: the original file name where
            there is one.
    """

    image: bytes | UInt8[np.ndarray, "height width 3"]
    label: int
    name: str


@runtime_checkable
class Source(Protocol):
    """Labelled images with random access. Reading is thread safe; the object can be pickled.

    Attributes:
        name: The data set.
        split: Which part of it, as it was asked for (`train[:10%]`).
        num_classes: How many classes there are, in the split or not.
        class_names: Their names, in the order of the labels.
    """

    name: str
    split: str
    num_classes: int
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, 0 to `len(self) - 1`."""
        ...

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image, in order."""
        ...
