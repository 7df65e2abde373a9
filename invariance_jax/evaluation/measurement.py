"""What a measurement is: what it asks of a batch, and how its answers become a labelled dataset.

A new one is one file with a subclass of `Measurement` and a row in `table.MEASUREMENTS`; the driver
does the rest: reading, devices, processes, memory, resuming, progress.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, UInt8

from invariance_jax import augment, data
from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError

# In grey levels: more than float32 errs, and less than anyone sees.
_SLACK = 1e-3
# The key of the main dataset; others are groups of the same file.
MAIN = ""

Inputs = Float[Array, "batch height width 3"]
Apply = Callable[[Inputs], tuple[Array | None, dict[str, Array]]]


class Seen(NamedTuple):
    """One device's part of a batch, as every measurement is shown it.

    Attributes:
        canvas: uint8 pixels with the whole image in the upper left corner of zeros.
        height: Height of the image on its canvas, pixels.
        width: Width likewise.
        image: The image after the preprocessing, float32 in [0, 1], multiples of 1 / 255.
        label: Class of each image; -1 where the source has no labels.
        index: Position of each image in the source.
        logits: The network's scores of the image as it is; None if it does not classify.
        features: The network's features of the image as it is, by name.
    """

    canvas: UInt8[Array, "batch canvas canvas 3"]
    height: Int[Array, " batch"]
    width: Int[Array, " batch"]
    image: Float[Array, "batch size size 3"]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]
    logits: Float[Array, "batch classes"] | None
    features: dict[str, Float[Array, "batch ..."]]


class Network(NamedTuple):
    """The network, as a measurement's step uses it while it is traced.

    Attributes:
        variables: Its parameters and running statistics, and what a learned augmentation learned.
        apply: From normalised images to (scores or None, features by name).
        normalize: From images in [0, 1] to normalised ones.
        dtype: To which `apply` rounds these at first.
        largest_pass: Images that one forward pass may take.
        platform: What the program is made for, "cpu", say.
    """

    variables: Any
    apply: Apply
    normalize: Callable[[Inputs], Inputs]
    dtype: str
    largest_pass: int
    platform: str


@dataclasses.dataclass(frozen=True)
class Images:
    """What is known of the measured images beside their pixels, in the source's order.

    Attributes:
        names: Their ids.
        labels: Their classes; None if the source has none.
        class_names: Names of all classes, in the order of the labels.
    """

    names: Sequence[str]
    labels: Int[np.ndarray, " image"] | None
    class_names: Sequence[str] = ()

    def coordinates(self) -> dict[str, Any]:
        """The coordinates of the dimension `image`: `image`, and `label` where there are labels."""
        found: dict[str, Any] = {"image": list(self.names)}
        if self.labels is not None:
            found["label"] = ("image", np.asarray(self.labels, np.int32))
        return found


class Measurement(abc.ABC):
    """Something that is measured of every image.

    Attributes:
        name: Its name: that of the folder of its results.
        needs_labels: Whether it is left out where images have no labels.
        needs_scores: Whether it is left out where the network does not classify.
        needs_derivatives: Whether it is left out where JAX cannot differentiate the network.
        split_field: The config's field that says on which images, without "config.".
        least_images: How many images it takes.
        together: How many images are a group, and measured as one; see `GroupMeasurement`.
        matrices: Names of arrays [batch, row, length] of `step` that are too large for memory; the
            dataset is given `Matrix` objects instead.
    """

    name: str
    needs_labels: bool = False
    needs_scores: bool = False
    needs_derivatives: bool = False
    split_field: str = "eval.split"
    least_images: int = 1
    together: int = 1
    matrices: frozenset[str] = frozenset()

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """Makes the measurement that a config asks for.

        What the config has no field for are keyword options of a subclass's own, which the user
        writes behind the name: `prediction_consistency(samples=4)`.

        Args:
            config: The config.

        Returns:
            The measurement.

        Raises:
            UserError: A value is wrong; the message names the field.
        """

    def identity(self) -> dict[str, Any]:
        """What identifies the result beside the network and the config's fields, as JSON values."""
        return {}

    def split_of(self, config: ExperimentConfig) -> str:
        """The split that is measured.

        Args:
            config: The config.

        Returns:
            The split, in TFDS notation.
        """
        section, field = self.split_field.split(".")
        return getattr(getattr(config, section), field)

    def permutation(self, images: int) -> Int[np.ndarray, " image"] | None:
        """Pairs the images, if the measurement compares different ones.

        Args:
            images: How many there are.

        Returns:
            pi, without fixed points: `step` is shown image pi(i) together with what `carry` kept
            of image i. None if every image is measured by itself.
        """
        return None

    def carry(self, seen: Seen) -> Any:
        """What of each image is shown with the image that follows it; see `permutation`.

        Args:
            seen: The images.

        Returns:
            A pytree of arrays [batch, ...].
        """
        return ()

    @abc.abstractmethod
    def step(self, network: Network, seen: Seen, previous: Any) -> dict[str, Array]:
        """Measures one device's part of a batch; it is traced into the one program.

        Args:
            network: The network.
            seen: The images.
            previous: What `carry` kept of the images that come before them.

        Returns:
            Arrays [batch, ...] by name.
        """

    @abc.abstractmethod
    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found.

        Args:
            found: The arrays of `step` over all images, in the source's order; or over all groups.
            images: The images of the source.

        Returns:
            The dataset of the result file, under `MAIN`, and those of its groups by name.
        """

    def summary(self, dataset: xr.Dataset) -> str:
        """Sums a result up for the terminal.

        Args:
            dataset: The main dataset.

        Returns:
            A few lines, without a newline at the end; empty for nothing to say.
        """
        return ""

    def sidecar(self, dataset: xr.Dataset) -> str | None:
        """A table that is written beside the result, for other programs.

        Args:
            dataset: The main dataset.

        Returns:
            CSV text; None for none.
        """
        return None

    def check(self, found: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """Refuses what is not a number, before it is saved.

        Args:
            found: The arrays of `step` over some images.
            names: Ids of these images.

        Raises:
            UserError: Something is not finite; the image is named.
        """
        for key, values in found.items():
            if np.issubdtype(values.dtype, np.floating):
                refuse_not_finite(f"{self.name}: {key}", values, names)


class GroupMeasurement(Measurement):
    """Something that is measured of groups of `together` images; it takes a run of its own."""

    @abc.abstractmethod
    def order(self, source: data.Source) -> Int[np.ndarray, " image"]:
        """Says which images are looked at.

        Args:
            source: The images.

        Returns:
            Positions, group after group, `together` of them each. `step` is shown whole groups,
            and what it gives for the last image of a group is the group's.

        Raises:
            UserError: The source has no such groups.
        """


def augmentation_of(config: ExperimentConfig, text: str, field: str) -> Augmentation:
    """Makes an augmentation at the sizes of a config's images.

    Args:
        config: The config.
        text: One of `augment.NAMES`, with options.
        field: Where the text came from, for error messages.

    Returns:
        The augmentation.

    Raises:
        UserError: Unknown name or option, or a value out of range.
    """
    sizes = {"size": config.data.image_size, "resize": config.data.resize_size}
    if sizes["resize"] < sizes["size"]:
        raise UserError(
            f"config.data.image_size is {sizes['size']} and config.data.resize_size "
            f"{sizes['resize']}; expected resize_size to be at least image_size, the side of the "
            "centre crop that is measured"
        )
    how = {"interpolation": config.data.interpolation, "squash": config.data.squash}
    return augment.parse(text, field=field, **how, **sizes)


def preprocessing(config: ExperimentConfig) -> Augmentation:
    """Makes what happens to every image that is measured: `none`, as in the paper.

    Args:
        config: The config.

    Returns:
        Canvas to image.

    Raises:
        UserError: The sizes do not fit each other.
    """
    return augmentation_of(config, "none", "config.data.resize_size")


def refuse_not_finite(
    what: str, values: Float[np.ndarray, "image ..."], names: Sequence[str]
) -> None:
    """Refuses what is not a number.

    Args:
        what: What the values are, for the message.
        values: One or more for each image.
        names: Ids of the images.

    Raises:
        UserError: A value is not finite; the first image is named and the others are counted.
    """
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    rows = np.flatnonzero(~finite)
    if len(rows):
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise UserError(
            f"{what} of image {names[rows[0]]!r}{more} are not finite; did training diverge, or "
            "does config.model.dtype overflow?"
        )


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A large array [image, row, length] in parts that lie on disk, or in memory.

    Attributes:
        parts: Arrays [row, image, length], one for each shard.
        positions: Positions in the source of the images of each part.
    """

    parts: Sequence[np.ndarray]
    positions: Sequence[Int[np.ndarray, " part"]]

    def row(self, number: int) -> np.ndarray:
        """Reads one row of all images.

        Args:
            number: Which.

        Returns:
            [image, length], in the source's order.
        """
        order = np.concatenate(self.positions)
        found = np.empty((len(order), self.parts[0].shape[2]), self.parts[0].dtype)
        found[order] = np.concatenate([part[number] for part in self.parts])
        return found


def in_passes(points: Any, images: int, largest_pass: int) -> Any:
    """Divides what is done to a batch of images one after another into forward passes.

    Where the images are fewer than a pass bears, it takes several points of each.

    Args:
        points: A pytree of arrays [point, ...], at least one point.
        images: Images of the batch.
        largest_pass: Images that one pass may take.

    Returns:
        The same as [pass, points at once, ...]; the last point is repeated to fill the last pass.
    """
    count = len(jax.tree.leaves(points)[0])
    passes = -(-count // max(1, largest_pass // images))
    at_once = -(-count // passes)
    padded = np.minimum(np.arange(passes * at_once), count - 1)
    return jax.tree.map(
        lambda x: jnp.asarray(x[padded]).reshape(passes, at_once, *x.shape[1:]), points
    )


def to_bytes(images: Float[Array, "*batch height width 3"]) -> Float[Array, "..."]:
    """Rounds preprocessed images to grey levels.

    Pillow gives bytes, and so do we: solarize and posterize compare pixels with thresholds, where a
    white pixel that is 1 - 1e-7 would be another one than 1. Halves go up, as in Pillow; many are
    exact, because sizes are in simple ratios, and a rounding error must not choose.

    Args:
        images: float32 in [0, 1].

    Returns:
        Multiples of 1 / 255 in [0, 1], same shape and dtype.
    """
    return jnp.floor(images * 255 + (0.5 + _SLACK)) / 255


def prepare(
    preprocess: Augmentation, batch: Mapping[str, Array]
) -> Float[Array, "batch size size 3"]:
    """Turns canvases into what a network takes but for its normalisation, without randomness.

    Args:
        preprocess: One that draws nothing, as `none`.
        batch: canvas, height and width, as `data.Batch` has them.

    Returns:
        float32, multiples of 1 / 255 in [0, 1].
    """
    images = jax.vmap(preprocess, (None, 0, 0, 0))(
        jax.random.key(0), batch["canvas"], batch["height"], batch["width"]
    )
    return to_bytes(images)


def prepare_one(
    preprocess: Augmentation, example: data.Example, canvas_size: int
) -> Float[Array, "size size 3"]:
    """Decodes and prepares one image, as the driver does batches.

    Args:
        preprocess: As `prepare` takes it.
        example: The image.
        canvas_size: Side of the canvas that it is decoded to, pixels.

    Returns:
        As of `prepare`.
    """
    canvas, height, width = data.to_canvas(example["image"], canvas_size)
    sides = {"height": jnp.asarray([height]), "width": jnp.asarray([width])}
    (image,) = _prepare(preprocess, {"canvas": jnp.asarray(canvas)[None], **sides})
    return image


_prepare = jax.jit(prepare)
