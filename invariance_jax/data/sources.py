"""Labelled images with random access: what a source is, and the ways to one."""

import difflib
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int32, UInt8

from invariance_jax import files
from invariance_jax.config import DataConfig
from invariance_jax.errors import UserError, unknown_name

NO_LABEL = -1
# What `config.data.name` calls a folder of images, and one of tables with images.
FOLDER, ARROW = "folder", "arrow"
# The TFDS feature that holds the class in nearly every data set.
DEFAULT_LABEL = "label"
# What stands for `all` while TFDS reads a split.
_ALL = "all_images"


class DataError(UserError):
    """An image or a label that cannot be used; the message names the image."""


class SplitError(UserError):
    """A split that cannot be read or is not there."""


class Example(TypedDict):
    """One labelled image.

    Attributes:
        image: The encoded file (JPEG, PNG, ...), or pixels already decoded.
        label: The class, 0 to `num_classes - 1`; -1 in a source without labels.
        name: An id that stays with the image over splits and runs: the original file name where
            there is one.
    """

    image: bytes | UInt8[np.ndarray, "height width 3"]
    label: int
    name: str


@runtime_checkable
class Source(Protocol):
    """Images with random access. Reading is thread safe; the object can be pickled.

    Attributes:
        name: The data set.
        split: Which part of it, as it was asked for (`train[:10%]`).
        num_classes: How many classes there are, in the split or not; 0 if nothing is known of
            classes.
        class_names: Their names, in the order of the labels.
        has_labels: Whether the images are labelled. If not, every label is -1; such images can be
            measured, but neither trained on nor scored.
    """

    name: str
    split: str
    num_classes: int
    class_names: tuple[str, ...]
    has_labels: bool

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, 0 to `len(self) - 1`."""
        ...

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image, in order; no image is decoded."""
        ...

    def names(self) -> list[str]:
        """The id of every image, in order; no image is decoded."""
        ...


def load_source(
    name: str, split: str, *, data_dir: str = "", label_feature: str = DEFAULT_LABEL
) -> Source:
    """Opens a data set; no image is read.

    Args:
        name: "digits" (embedded, needs nothing), "folder" (image files, see `FolderSource`),
            "arrow" (tables of Hugging Face's `datasets`, see `arrow.ArrowSource`), or an image
            classification data set prepared by TensorFlow Datasets as ArrayRecord:
            `name[/config][:version]`.
        split: In TFDS notation: `train`, `train[:10%]`, `validation[:64]`.
        data_dir: The folder of image files or tables, or the TFDS folder; not read for digits.
        label_feature: The TFDS feature or the column that holds the class.

    Returns:
        The images, in the data set's own order.

    Raises:
        UserError: The data set, the folder or the split is not there or cannot be used.

    Examples:
        >>> load_source("digits", "train[:3]")[0]["name"]
        'digits_0000'
    """
    # Each is imported by who asks for it: TFDS and scikit-learn take seconds.
    if name == "digits":
        from invariance_jax.data.digits import DigitsSource

        return DigitsSource(split)
    if name == FOLDER:
        from invariance_jax.data.folder import FolderSource

        return FolderSource(data_dir, split)
    if name == ARROW:
        from invariance_jax.data.arrow import ArrowSource

        return ArrowSource(data_dir, split, label_feature)
    from invariance_jax.data.tfds import TfdsSource

    return TfdsSource(name, split, data_dir, label_feature)


def local_folder(path: str | os.PathLike[str], field: str) -> pathlib.Path:
    """Finds a folder on this machine.

    Args:
        path: The folder; `~` is the user's home.
        field: What the user knows it by, for the error message.

    Returns:
        Its path.

    Raises:
        UserError: It is not there, or something else is.
    """
    text, folder = os.fspath(path), files.local_path(path, field)
    if not text or not folder.is_dir():
        found = " but a file" if folder.is_file() else ""
        raise UserError(
            f"{field} {text!r} is not a folder here{found}; expected one on this machine's file "
            "system (mount a bucket first)"
        )
    return folder


def check_labels(
    labels: Int32[np.ndarray, " image"], names: Sequence[str], mixed: Callable[[str, str], str]
) -> bool:
    """Says whether images have labels: all of them, or none.

    Args:
        labels: The class of every image, or `NO_LABEL`.
        names: Their ids.
        mixed: The message where some have one: of an image with a class and of one without.

    Returns:
        Whether they have.

    Raises:
        UserError: Some have a class and others have none.
    """
    labelled = labels != NO_LABEL
    if labelled.any() and not labelled.all():
        raise UserError(mixed(names[labelled.argmax()], names[labelled.argmin()]))
    return bool(labelled.all())


class Span(NamedTuple):
    """Consecutive images of one whole split.

    Attributes:
        split: The whole split's name.
        positions: Where they are in it.
    """

    split: str
    positions: range


def resolve(split: str, files: Mapping[str, Sequence[int]]) -> tuple[Span, ...]:
    """Says which images a split stands for.

    Args:
        split: In TFDS notation; percentages are rounded as TFDS does.
        files: Number of images in each file of every whole split (`train[:2shard]` counts them).

    Returns:
        The spans, in order; together they hold at least one image.

    Raises:
        SplitError: The notation cannot be read, no such split, out of range, or empty.
    """
    sizes = {name: sum(lengths) for name, lengths in files.items()}
    choices = ", ".join(f"{name} ({size} images)" for name, size in sizes.items())
    expected = f"expected a part of: {choices}; for example '{next(iter(sizes))}[:10%]'"
    try:
        # A whole split needs no notation, and then nobody waits for TFDS's import.
        spans = (Span(split, range(sizes[split])),) if split in sizes else _parse(split, files)
    # TFDS raises NotImplementedError for a part of all splits, `all[:10%]`.
    except (ValueError, NotImplementedError) as error:
        base = split.partition("[")[0]
        if base.isidentifier() and base not in sizes and base != "all":
            raise SplitError(f"split {split!r}: {unknown_name('split', base, sizes)}") from None
        reason = str(error).splitlines()[-1].rstrip(".")
        raise SplitError(f"split {split!r}: {reason}; {expected}") from error
    spans = tuple(span for span in spans if span.positions)
    if not spans:
        raise SplitError(f"split {split!r} holds no image; {expected}")
    return spans


def _parse(split: str, files: Mapping[str, Sequence[int]]) -> tuple[Span, ...]:
    import tensorflow_datasets as tfds

    # To TFDS `all` is the sum of all splits, of which it can read no part.
    alias = {name: _ALL if name == "all" else name for name in files}
    infos = {
        alias[name]: tfds.core.SplitInfo(
            name=alias[name], shard_lengths=list(lengths), num_bytes=0, filename_template=None
        )
        for name, lengths in files.items()
    }
    text = re.sub(r"\ball\b", alias.get("all", "all"), split)
    names = {there: here for here, there in alias.items()}
    return tuple(
        # TFDS writes None for an end of the whole split.
        Span(names[each.splitname], range(infos[each.splitname].num_examples)[each.from_ : each.to])
        for each in tfds.core.ReadInstruction.from_spec(text).to_absolute(infos)
    )


class ArraySource:
    """Images in memory.

    Examples:
        >>> source = ArraySource(np.zeros((2, 8, 8, 3)), labels=[1, 0], names=["a", "b"])
        >>> source[1]["image"].shape, source[1]["label"], source.names()
        ((8, 8, 3), 0, ['a', 'b'])
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "image height width 3"]
        | Float[np.ndarray, "image height width 3"]
        | Sequence[np.ndarray],
        labels: Int[np.ndarray, " image"] | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Checks the images; they are not copied.

        Args:
            images: RGB pixels, uint8, or float in [0, 1], which is rounded to 8 bits when it is
                read; one array, or an array for each image where sizes differ.
            labels: The class of every image, from 0; by default the images have no labels.
            names: Their ids; `image_00000` and so on by default.
            class_names: Names of the classes; by default their numbers, up to the largest label.

        Raises:
            UserError: There is no image, an image has another shape, dtype or range, or there are
                not as many labels or names as images.
        """
        whole = hasattr(images, "shape")
        self._images = np.asarray(images) if whole else [np.asarray(each) for each in images]
        count = len(self._images)
        if not count:
            raise UserError("there are no images; expected at least one")
        for index, image in enumerate(self._images):
            _check_pixels(image, index)
        self._names = [f"image_{i:05d}" for i in range(count)] if names is None else list(names)
        if len(self._names) != count:
            raise UserError(f"there are {len(self._names)} names for {count} images")
        self.has_labels = labels is not None
        self._labels = np.asarray(labels) if self.has_labels else np.full(count, NO_LABEL)
        if self._labels.dtype.kind not in "iu" or self._labels.shape != (count,):
            raise UserError(
                f"labels are {self._labels.dtype} {list(self._labels.shape)}; expected a whole "
                f"number for each of {count} images"
            )
        if class_names is None:
            class_names = map(str, range(int(self._labels.max()) + 1))
        self.name, self.split = "arrays", "all"
        self.class_names = tuple(class_names)
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, pixels uint8 [height, width, 3]."""
        image = self._images[index]
        if image.dtype != np.uint8:
            image = np.rint(255 * image.astype(np.float32)).astype(np.uint8)
        return Example(image=image, label=int(self._labels[index]), name=self._names[index])

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image; -1 if there are none."""
        return self._labels.astype(np.int32)

    def names(self) -> list[str]:
        """The id of every image."""
        return list(self._names)


def _check_pixels(image: np.ndarray, index: int) -> None:
    what, is_float = f"{image.dtype} {list(image.shape)}", image.dtype.kind == "f"
    fits = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    fits = fits and (is_float or image.dtype == np.uint8)
    if fits and is_float:
        low, high = image.min(), image.max()
        # False for what is not a number.
        fits = bool(low >= 0 and high <= 1)
        what += f" with values from {low:.3g} to {high:.3g}"
    if not fits:
        raise UserError(
            f"images[{index}] is {what}; expected [height, width, 3], uint8 or float from 0 to 1"
        )


class SubsetSource:
    """Some images of another source; the labels are the other source's own."""

    def __init__(self, source: Source, positions: Int[np.ndarray, " image"]) -> None:
        """Keeps the images at some positions.

        Args:
            source: The images.
            positions: Which of them, in this order.
        """
        self._source, self._positions = source, positions
        self.name, self.split, self.has_labels = source.name, source.split, source.has_labels
        self.num_classes, self.class_names = source.num_classes, source.class_names

    def __len__(self) -> int:
        """Number of images."""
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        """The image at `index` of the subset."""
        return self._source[int(self._positions[index])]

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image."""
        return self._source.labels()[self._positions]

    def names(self) -> list[str]:
        """The id of every image; the source reads all of its own."""
        names = self._source.names()
        return [names[position] for position in self._positions]


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
    if not source.has_labels:
        raise UserError(f"unknown class {wanted!r}: {source.name} {source.split} has no labels")
    text = wanted if isinstance(wanted, str) else ""
    near = difflib.get_close_matches(text, source.class_names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown class {wanted!r} of {source.name}; {hint}expected a name or a number, 0 "
        f"({source.class_names[0]}) to {source.num_classes - 1} ({source.class_names[-1]})"
    )


def from_config(config: DataConfig, split: str, field: str) -> Source:
    """Opens a split of the data set that a config names, with its classes only.

    Args:
        config: The data set.
        split: In TFDS notation.
        field: The field that holds the split, for error messages, without "config.".

    Returns:
        The images.

    Raises:
        UserError: The data set, the split or a class is not there or cannot be used.
    """
    try:
        source = load_source(
            config.name, split, data_dir=config.data_dir, label_feature=config.label_feature
        )
    except SplitError as error:
        raise UserError(f"config.{field}: {error}") from error
    if not config.classes:
        return source
    try:
        return of_classes(source, config.classes)
    except UserError as error:
        raise UserError(f"config.data.classes with config.{field} {split!r}: {error}") from error
