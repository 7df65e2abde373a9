"""ImageNet's 1000 classes: folders that are called by their wnids have its labels."""

import csv
import functools
from importlib import resources

import numpy as np
from jaxtyping import Int32

from invariance_jax.data.sources import Example, Source

_CLASSES = 1000


@functools.cache
def nouns() -> tuple[dict[str, str], ...]:
    """Reads the nouns of WordNet 3.0 above ImageNet's classes (made by benchmarks/make_wordnet.py).

    Returns:
        One row a synset: "synset" (its id, a class's wnid), "name", "hypernyms", "label" (0 to 999;
        empty for what is no class) and "first_sense".
    """
    file = resources.files("invariance_jax.data") / "wordnet/wordnet.csv"
    return tuple(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def in_words(class_name: str) -> str:
    """What people call a class.

    Args:
        class_name: A wnid, or any other name.

    Returns:
        Of a wnid the first noun of its synset in WordNet; else the name itself.

    Examples:
        >>> in_words("n02123045"), in_words("7")
        ('tabby', '7')
    """
    return _words().get(class_name, class_name)


@functools.cache
def _words() -> dict[str, str]:
    return {row["synset"]: row["name"].split(".")[0].replace("_", " ") for row in nouns()}


def with_imagenet_labels(source: Source, num_classes: int | None) -> Source:
    """Gives images the labels that a network of ImageNet's classes knows.

    Args:
        source: Images.
        num_classes: Of the network.

    Returns:
        The same images with ImageNet's labels, if the network has as many classes and the source's
        are some of them, by wnid; the source itself otherwise.
    """
    if not source.has_labels or num_classes != _CLASSES or source.num_classes == _CLASSES:
        return source
    labels = {row["synset"]: int(row["label"]) for row in nouns() if row["label"]}
    if not set(source.class_names) <= labels.keys():
        return source
    return _Relabelled(source, labels)


class _Relabelled:
    """Images of another source with ImageNet's labels."""

    def __init__(self, source: Source, labels: dict[str, int]) -> None:
        self._source = source
        self._new = np.array([labels[name] for name in source.class_names], np.int32)
        self.name, self.split, self.has_labels = source.name, source.split, True
        self.class_names = tuple(sorted(labels, key=labels.__getitem__))
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        return Example(**{**example, "label": int(self._new[example["label"]])})

    def labels(self) -> Int32[np.ndarray, " image"]:
        return self._new[self._source.labels()]

    def names(self) -> list[str]:
        return self._source.names()
