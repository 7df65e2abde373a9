"""Handwritten digits that come with scikit-learn: real images without a download."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, UInt8
from PIL import Image

from invariance_jax.data.sources import ArraySource, Example, resolve

_SIDE = 32
_SIZES = {"train": 1438, "validation": 359}
_TRAIN_SHARE = 0.8
_SPLIT_SEED = 0
# scikit-learn's images hold counts of dark pixels, 0 to 16.
_LARGEST_COUNT = 16


class DigitsSource:
    """1,797 scans of handwritten digits, 8x8, enlarged to 32x32 RGB.

    The data are those of `sklearn.datasets.load_digits`. The image ids count in its order.
    """

    def __init__(self, split: str) -> None:
        """Reads nothing yet.

        Args:
            split: "train" (1,438 images), "validation" (359), or a part, as in `train[:10%]`.

        Raises:
            SplitError: No such split.
        """
        self._spans = resolve(split, {name: [size] for name, size in _SIZES.items()})
        self.name, self.split, self.has_labels = "digits", split, True
        self.num_classes = 10
        self.class_names = tuple(map(str, range(self.num_classes)))

    @functools.cached_property
    def _images(self) -> ArraySource:
        # Importing scikit-learn takes seconds.
        from sklearn.datasets import load_digits

        digits = load_digits()
        parts = _split_positions(digits.target)
        positions = np.concatenate([parts[span.split][span.positions] for span in self._spans])
        grey = np.round(digits.images[positions] * (255 / _LARGEST_COUNT)).astype(np.uint8)
        return ArraySource(
            # Enlarged once: in training every image is read hundreds of times.
            np.stack([_enlarged(image) for image in grey]),
            digits.target[positions],
            [f"digits_{position:04d}" for position in positions],
        )

    def __getstate__(self) -> dict[str, Any]:
        """Takes the images along: a worker process need not import scikit-learn."""
        return vars(self) | {"_images": self._images}

    def __len__(self) -> int:
        """Number of images."""
        return sum(len(span.positions) for span in self._spans)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, pixels uint8 [32, 32, 3]."""
        return self._images[index]

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The digit in every image."""
        return self._images.labels()

    def names(self) -> list[str]:
        """The id of every image."""
        return self._images.names()


def _split_positions(labels: Int[np.ndarray, " image"]) -> dict[str, Int[np.ndarray, " part"]]:
    """Divides the images into training and validation, class by class; both in ascending order."""
    generator = np.random.default_rng(_SPLIT_SEED)
    parts: dict[str, list[Int[np.ndarray, " part"]]] = {name: [] for name in _SIZES}
    for label in np.unique(labels):
        positions = generator.permutation(np.flatnonzero(labels == label))
        count = round(_TRAIN_SHARE * len(positions))
        parts["train"].append(positions[:count])
        parts["validation"].append(positions[count:])
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def _enlarged(grey: UInt8[np.ndarray, "8 8"]) -> UInt8[np.ndarray, "32 32 3"]:
    image = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))
