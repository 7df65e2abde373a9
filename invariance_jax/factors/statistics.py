"""What a similarity search says of each class and row, as functions of arrays (section 4)."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from invariance_jax.errors import UserError

# Images of a class that are paired at a time, first half with second, and most pairs of a class.
BATCH, LIMIT = 32, 1000
STATISTICS = (
    *("mean_change", "std_change", "mean_boost", "std_boost", "mean_decrease", "std_decrease"),
    *("mean_percent_change", "mean_percent_boost", "proportion_boosted"),
)
COUNTS = ("boosts", "decreases")
# torch's cosine_similarity: a vector shorter than this has no direction.
_SHORTEST = 1e-8
_WNID = re.compile(r"n\d{8}")


def pairs(
    labels: Int[np.ndarray, " image"], *, batch: int = BATCH, limit: int = LIMIT
) -> Int[np.ndarray, "pair 2"]:
    """Pairs the images of each class.

    Within a class, in their order, batches are taken: image i of a batch goes with image
    i + batch / 2. What is left over for an incomplete last batch has no pair. So pairs are
    disjoint, and small classes want a batch of 2, which pairs neighbours.

    Args:
        labels: Class of each image.
        batch: Images of a batch, even.
        limit: Most pairs of a class, rounded up to whole batches.

    Returns:
        Positions of the first and the second image, class by class in order of their labels.

    Raises:
        UserError: `batch` is not even, or a number is too small.
    """
    if batch < 2 or batch % 2:
        raise UserError(f"batch is {batch}; expected an even number of images, at least 2")
    if limit < 1:
        raise UserError(f"limit is {limit}; expected at least 1 pair of a class")
    half = batch // 2
    found = [np.empty((0, 2), np.int64)]
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        batches = min(len(images) // batch, -(-limit // half))
        halves = images[: batches * batch].reshape(batches, 2, half)
        found.append(halves.swapaxes(1, 2).reshape(-1, 2))
    return np.concatenate(found)


def changes(
    first: Float[np.ndarray, "pair feature"],
    second: Float[np.ndarray, "pair feature"],
    transformed: Float[np.ndarray, "row pair feature"],
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, "pair row"]]:
    """Measures how much a row brings the images of each pair together.

    Args:
        first: Embeddings of the first image of each pair.
        second: Those of the second.
        transformed: Those of the second after each row.

    Returns:
        The similarity, cos(z1, z2), and the change, cos(z1, z(T x2)) - cos(z1, z2); above 0 the
        row is a boost. float64. A zero vector has similarity 0 to everything.
    """
    first, second, transformed = (_unit(np.asarray(x)) for x in (first, second, transformed))
    similarity = np.sum(first * second, axis=-1)
    return similarity, np.sum(first * transformed, axis=-1).T - similarity[:, None]


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _SHORTEST)


def statistics(
    change: Float[np.ndarray, "pair row"],
    similarity: Float[np.ndarray, " pair"],
    labels: Int[np.ndarray, " pair"],
    *,
    rows: Sequence[str],
    class_names: Sequence[str] = (),
) -> xr.Dataset:
    """Sums pairs up for each class and row.

    A pair is boosted where its change is above 0; where it is 0, it is neither a boost nor a
    decrease. Standard deviations are those of the pairs themselves (ddof 0).

    Args:
        change: cos(z1, z(T x2)) - cos(z1, z2).
        similarity: cos(z1, z2), signed.
        labels: Class of each pair.
        rows: Names of the rows.
        class_names: Names of all classes, in the order of the labels; their numbers by default.

    Returns:
        float64, dims (class, row): `mean_change`, `std_change`; `mean_boost`, `std_boost`,
        `mean_decrease`, `std_decrease`, of boosts and of decreases alone, NaN where there is none;
        `mean_percent_change`, of change / similarity (a fraction, not times 100);
        `mean_percent_boost`, the same of boosts alone; `proportion_boosted`. Counts, int32:
        `boosts`, `decreases` (class, row) and `pairs` (class,). Coordinates: `class`, the label;
        `class_name`; `wnid`, where names are WordNet's; `row`. Only classes with a pair.

    Raises:
        UserError: The arrays do not fit each other.
    """
    change, similarity = np.asarray(change, np.float64), np.asarray(similarity, np.float64)
    labels = np.asarray(labels)
    expected = (len(labels), len(rows))
    if change.shape != expected or similarity.shape != expected[:1]:
        raise UserError(
            f"change has shape {change.shape} and similarity {similarity.shape}; expected "
            f"{expected} and {expected[:1]} for {len(labels)} labels and {len(rows)} rows"
        )
    classes = np.unique(labels)
    found = [
        _of_class(change[labels == each], similarity[labels == each, None]) for each in classes
    ]
    variables: dict[str, Any] = {
        name: (("class", "row"), np.array([each[name] for each in found]).reshape(-1, len(rows)))
        for name in (*STATISTICS, *COUNTS)
    }
    for name in COUNTS:
        variables[name] = variables[name][0], variables[name][1].astype(np.int32)
    variables["pairs"] = "class", np.array([np.sum(labels == each) for each in classes], np.int32)
    names = [class_names[each] if class_names else str(each) for each in classes]
    coordinates: dict[str, Any] = {
        "class": classes.astype(np.int32),
        "class_name": ("class", np.array(names, np.str_)),
        "row": list(rows),
    }
    if names and all(map(_WNID.fullmatch, names)):
        coordinates["wnid"] = "class", np.array(names, np.str_)
    return xr.Dataset(variables, coordinates)


def _of_class(
    change: Float[np.ndarray, "pair row"], similarity: Float[np.ndarray, "pair 1"]
) -> dict[str, Any]:
    """Every statistic of one class, [row]."""
    boosted, decreased = change > 0, change < 0
    with np.errstate(divide="ignore", invalid="ignore"):  # what a similarity of 0 gives is no error
        percent = change / similarity
    found: dict[str, Any] = {"boosts": boosted.sum(0), "decreases": decreased.sum(0)}
    every = np.ones_like(boosted)
    for name, chosen in (("change", every), ("boost", boosted), ("decrease", decreased)):
        found[f"mean_{name}"] = mean = _mean(change, chosen)
        found[f"std_{name}"] = np.sqrt(_mean((change - mean) ** 2, chosen))
    found["mean_percent_change"] = _mean(percent, every)
    found["mean_percent_boost"] = _mean(percent, boosted)
    found["proportion_boosted"] = boosted.mean(0)
    return found


def _mean(
    values: Float[np.ndarray, "pair row"], chosen: Bool[np.ndarray, "pair row"]
) -> Float[np.ndarray, " row"]:
    """The mean over chosen pairs; NaN of none."""
    with np.errstate(invalid="ignore"):
        return np.where(chosen, values, 0.0).sum(0) / chosen.sum(0)


def of_search(search: xr.Dataset) -> xr.Dataset:
    """Sums up a search.

    Args:
        search: The main dataset of a search's result file.

    Returns:
        As `statistics`, with the rows' coordinates.
    """
    labels = search["label"].values
    names: list[str] = []
    if len(labels):
        of_label = dict(zip(labels.tolist(), search["class_name"].values.tolist(), strict=True))
        names = [of_label.get(each, "") for each in range(max(of_label) + 1)]
    found = statistics(
        search["change"].transpose("pair", "row").values,
        search["similarity"].values,
        labels,
        rows=search["row"].values.tolist(),
        class_names=names,
    )
    return found.assign_coords({name: search[name] for name in search["row"].coords})


def tidy(found: xr.Dataset) -> str:
    """Tables statistics.

    Args:
        found: From `statistics`.

    Returns:
        CSV text, a line for each class and row: the coordinates, the counts, every statistic.
    """
    table = found.to_dataframe().reset_index()
    order = [*found.coords, "pairs", *COUNTS, *STATISTICS]
    return table[order].to_csv(index=False, float_format="%.9g")
