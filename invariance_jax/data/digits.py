"""Handwritten digits that come with scikit-learn: real images without a download."""

import numpy as np
from jaxtyping import Int, Int32, UInt8
from PIL import Image

from invariance_jax.data.source import Example
from invariance_jax.data.splits import resolve

NAME = "digits"
SIDE = 32
_TRAIN_SHARE = 0.8
_SPLIT_SEED = 0
# scikit-learn's images hold counts of dark pixels, 0 to 16.
_LARGEST_COUNT = 16


def split_positions(labels: Int[np.ndarray, " image"]) -> dict[str, Int[np.ndarray, " part"]]:
    """Divides the images into training and validation, class by class.

    Args:
        labels: The class of every image.

    Returns:
        Positions in `labels`, ascending, for "train" (80% of every class) and "validation".
    """
    generator = np.random.default_rng(_SPLIT_SEED)
    train, validation = [], []
    for label in np.unique(labels):
        positions = generator.permutation(np.flatnonzero(labels == label))
        count = round(_TRAIN_SHARE * len(positions))
        train.append(positions[:count])
        validation.append(positions[count:])
    return {
        "train": np.sort(np.concatenate(train)),
        "validation": np.sort(np.concatenate(validation)),
    }


class DigitsSource:
    """1,797 scans of handwritten digits, 8x8, enlarged to 32x32 RGB.

    The data are those of `sklearn.datasets.load_digits`. The image ids count in its order.
    """

    def __init__(self, split: str) -> None:
        """Reads the images.

        Args:
            split: "train" (1,438 images), "validation" (359), or a part, as in `train[:10%]`.

        Raises:
            UserError: No such split.
        """
        # Importing scikit-learn takes seconds: only who asks for digits waits.
        from sklearn.datasets import load_digits

        digits = load_digits()
        parts = split_positions(digits.target)
        spans = resolve(split, {name: [len(part)] for name, part in parts.items()})
        self.name = NAME
        self.split = split
        self.num_classes = 10
        self.class_names = tuple(str(label) for label in range(10))
        self._positions = np.concatenate([parts[s.split][s.start : s.stop] for s in spans])
        self._labels = digits.target[self._positions]
        grey = np.round(digits.images[self._positions] * (255 / _LARGEST_COUNT))
        # Enlarged once: in training every image is read hundreds of times.
        self._images = np.stack([_enlarged(image) for image in grey.astype(np.uint8)])

    def __len__(self) -> int:
        """Number of images."""
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, pixels uint8 [32, 32, 3]."""
        return Example(
            image=self._images[index],
            label=int(self._labels[index]),
            name=f"digits_{self._positions[index]:04d}",
        )

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The digit in every image."""
        return self._labels.astype(np.int32)


def _enlarged(grey: UInt8[np.ndarray, "8 8"]) -> UInt8[np.ndarray, "32 32 3"]:
    image = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))
