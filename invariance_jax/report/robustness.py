"""Accuracy taken apart: by what makes an image unusual, by several right classes, class by class.

Each reads what an evaluation has written (accuracy/NAME.nc) and what others have annotated.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from invariance_jax.data.imagenet import in_words, nouns
from invariance_jax.errors import UserError
from invariance_jax.factors.rankings import INTERVAL, resampled
from invariance_jax.report.entries import Accuracy
from invariance_jax.report.rows import Row, differing_parts
from invariance_jax.report.tables import Table, intervals

STANDARD = ("random_resized_crop_flip", "random_resized_crop")
WORST = "worst factor"
EFFECT = "Top-1 of a class under the best other augmentation, minus that under this one"
# Columns of annotations that name the image.
_IMAGE = ("file_name", "image", "file", "filename")
_DRAWS = 200
_SHOWN = 10


def _stem(name: str) -> str:
    return pathlib.PurePosixPath(name).name.split(".", 1)[0]


def read_factors(path: pathlib.Path) -> pd.DataFrame:
    """Reads which factors are active in each image, as ImageNet-X lists them (arXiv 2211.01866).

    Args:
        path: CSV, or JSON lines (`.jsonl`), with a column `file_name`, `image`, `file` or
            `filename`, and a column of 0 and 1 for every factor. Other columns are left out.

    Returns:
        bool, a column a factor; the index is the image's name without folder and ending.

    Raises:
        UserError: It has no such columns, or names an image twice.
    """
    try:
        lines = path.suffix in (".jsonl", ".json")
        table = pd.read_json(path, lines=True) if lines else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of factors: {error}") from error
    names = [name for name in _IMAGE if name in table]
    # ImageNet-X has the class beside them, a number too.
    factors = [
        x for x in table.columns.drop([*names, "class"], errors="ignore") if _binary(table[x])
    ]
    if not (names and factors):
        raise UserError(
            f"{path} has the columns {', '.join(map(str, table.columns))}; expected one of "
            f"{', '.join(_IMAGE)}, and at least one factor with 0 and 1"
        )
    found = table[factors].astype(bool).set_axis(table[names[0]].astype(str).map(_stem))
    if found.index.has_duplicates:
        twice = found.index[found.index.duplicated()][0]
        raise UserError(f"{path} names {twice} twice; expected one line an image")
    return found


def _binary(column: pd.Series) -> bool:
    return column.isin([0, 1]).all()


def by_factor(entries: Sequence[Accuracy], factors: pd.DataFrame) -> pd.DataFrame:
    """How much likelier errors are where a factor is active.

    Args:
        entries: Accuracies with labels, of the same images.
        factors: From `read_factors`.

    Returns:
        A line for every network and factor, index (network, factor), most harmful factor first:
        images, top1 (0 to 1), error_ratio ((1 - accuracy with the factor) / (1 - accuracy of all
        annotated images); 1 where the factor does no harm), low, high: its 95% interval over
        images. Factors that no image has are left out. The last line of a network, `WORST`, is the
        ratio of its worst factor: the interval chooses the worst anew in every draw.

    Raises:
        UserError: No image is annotated.
    """
    known = _classified(entries)
    images = pd.Index([_stem(str(name)) for name in known[0].correct["image"].values])
    annotated = images.isin(factors.index)
    active = factors.reindex(images[annotated]).astype(bool)
    active = active.loc[:, active.any()]
    if active.empty:
        raise UserError(
            f"none of the {len(images)} images measured ({images[0]}, ...) has a factor among the "
            f"{len(factors)} annotated ones ({factors.index[0]}, ...)"
        )
    drawn = _draws(len(active))
    weights = active.to_numpy(np.float64)
    lines = {}
    for each in known:
        wrong = ~each.correct.values[annotated]
        # A draw without errors, or without an image of the factor, has no ratio.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = (drawn @ (weights * wrong[:, None])) / (drawn @ weights)
            ratios = ratios / (drawn @ wrong / len(wrong))[:, None]
        counts = active.sum().to_numpy()
        top1 = 1 - weights.T @ wrong / counts
        every = pd.DataFrame(ratios)
        every["worst"] = every.max(axis=1)
        low, high = every[1:].quantile([x / 100 for x in INTERVAL]).to_numpy()
        every = every.to_numpy()
        order = [*np.argsort(-every[0, :-1], kind="stable"), len(counts)]
        worst = order[0]
        columns = [
            np.append(counts, counts[worst]),
            np.append(top1, top1[worst]),
            *(every[0], low, high),
        ]
        for place in order:
            name = WORST if place == len(counts) else active.columns[place]
            lines[each.title, name] = [column[place] for column in columns]
    names = ["images", "top1", "error_ratio", "low", "high"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=names)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["network", "factor"])
    return table.astype({"images": int})


def read_real(path: pathlib.Path) -> Mapping[str, frozenset[int]]:
    """Reads all classes that are right for each image (ReaL, arXiv 2006.07159).

    Args:
        path: JSON: a list of classes for every image of ImageNet's validation split, in its
            order, as `real.json` has it; or such lists by the image's name.

    Returns:
        Classes by the image's name without folder and ending; images without a class too.

    Raises:
        UserError: It is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, list):
            found = {f"ILSVRC2012_val_{i:08d}": each for i, each in enumerate(found, start=1)}
        return {_stem(name): frozenset(map(int, classes)) for name, classes in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a list of classes for every image, nor such lists by name: {error}"
        ) from error


def real_accuracy(entries: Sequence[Accuracy], right: Mapping[str, frozenset[int]]) -> pd.DataFrame:
    """Accuracy where any of several classes is right.

    Args:
        entries: Accuracies with predictions, of the same images.
        right: From `read_real`.

    Returns:
        A line a network: images (those with at least one class), top1 (by the single label, of the
        same images), real, low, high: the share whose first guess is among the classes, with its
        95% interval over images.

    Raises:
        UserError: No image has a class.
    """
    known = _classified(entries)
    names = [_stem(str(name)) for name in known[0].correct["image"].values]
    chosen = np.array([bool(right.get(name)) for name in names])
    if not chosen.any():
        raise UserError(
            f"none of the {len(names)} images measured ({names[0]}, ...) has a class among the "
            f"{len(right)} annotated ones"
        )
    drawn, lines = _draws(int(chosen.sum())), {}
    for each in known:
        guesses = zip(names, each.predicted.values.tolist(), strict=True)
        hits = np.array([guess in right.get(name, ()) for name, guess in guesses])[chosen]
        value, *others = drawn @ hits / len(hits)
        low, high = np.percentile(others, INTERVAL)
        lines[each.title] = (len(hits), each.correct.values[chosen].mean(), value, low, high)
    names = ["images", "top1", "real", "low", "high"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=names).rename_axis("network")


def has_class_effects(entries: Sequence[Accuracy]) -> bool:
    """Whether `class_effects` has something to compare."""
    rows = {each.row for each in entries if each.predicted is not None}
    return any(_alternatives(row, rows) for row in rows if _is_standard(row))


def class_effects(entries: Sequence[Accuracy]) -> pd.DataFrame:
    """What standard augmentation costs each class (arXiv 2401.01764, section 3).

    Of every network that was trained with the standard augmentation: the accuracy of each class
    under the best of the other augmentations, minus that under the standard one. For runs that
    differ in the scale of their crops that is max over s of a_k(s), minus a_k(0.08). The best of
    many noisy numbers is too high; `unbiased` chooses the best on one half of the images and
    compares on the other, both ways, and takes the mean.

    Args:
        entries: Accuracies with predictions; means over seeds are compared.

    Returns:
        A line for every standard row and class, index (network, label), most harmed first:
        class_name, images, top1 (standard), best (name of the best other augmentation), effect and
        unbiased (0 to 1, above 0 where the standard augmentation does harm; unbiased is NaN for a
        class of one image), confused_with (the class that its images are taken for more often
        than under the best one, by name) and shift (by how much, share of the images).

    Raises:
        UserError: No two rows differ in the augmentation alone, one of them standard.
    """
    known = _classified(entries)
    rows = list(dict.fromkeys(each.row for each in known))
    labels = known[0].correct["label"].values
    name_of = _names(known[0])
    lines: dict[tuple[str, int], list[Any]] = {}
    for standard in filter(_is_standard, rows):
        others = _alternatives(standard, rows)
        if not others:
            continue
        hits = {row: _hits(known, row) for row in (standard, *others)}
        for label in np.unique(labels).tolist():
            of_class = np.flatnonzero(labels == label)
            values = np.array([hits[row][of_class] for row in others]) - hits[standard][of_class]
            best = int(values.mean(axis=1).argmax())
            more = _guesses(known, standard, of_class).sub(
                _guesses(known, others[best], of_class), fill_value=0
            )
            more = more.drop(label, errors="ignore")
            confused = len(more) > 0 and more.max() > 0
            lines[standard.label, label] = [
                *(name_of(label), len(of_class), hits[standard][of_class].mean()),
                *(others[best].head, values[best].mean(), _unbiased(values)),
                *((name_of(more.idxmax()), more.max()) if confused else ("", 0.0)),
            ]
    if not lines:
        raise UserError(
            "no two of the networks differ in the augmentation alone, one of them trained with "
            f"{' or '.join(STANDARD)}; expected such runs, each with accuracy/*.nc"
        )
    columns = ["class_name", "images", "top1", "best", "effect", "unbiased"]
    table = pd.DataFrame.from_dict(
        lines, orient="index", columns=[*columns, "confused_with", "shift"]
    )
    table.index = pd.MultiIndex.from_tuples(table.index, names=["network", "label"])
    return table.sort_values(
        ["network", "effect"], ascending=[True, False], kind="stable", key=_in_order
    )


def _names(entry: Accuracy) -> Callable[[int], str]:
    """What classes are called: ImageNet's by name, others by number."""
    measured = entry.measured
    if not str(measured.get("dataset")).startswith("imagenet2012"):
        return str
    names = {int(row["label"]): in_words(row["synset"]) for row in nouns() if row["label"]}
    return names.__getitem__


def _in_order(column: pd.Series) -> pd.Series:
    return column if column.name == "effect" else pd.Series(pd.factorize(column)[0], column.index)


def _is_standard(row: Row) -> bool:
    return row.augmentation[:1] in [(name,) for name in STANDARD] and not any(row.augmentation[1:])


def _alternatives(standard: Row, rows: Iterable[Row]) -> list[Row]:
    """Rows that differ from one in the augmentation alone."""
    return [x for x in rows if x.augmentation and differing_parts(x, standard) == {"augmentation"}]


def _hits(entries: Sequence[Accuracy], row: Row) -> np.ndarray:
    """How often each image is right, mean over seeds."""
    return np.mean([each.correct.values for each in entries if each.row == row], axis=0)


def _guesses(entries: Sequence[Accuracy], row: Row, places: np.ndarray) -> pd.Series:
    """How often images are taken for each class, by label."""
    found = [each.predicted.values[places] for each in entries if each.row == row]
    return pd.Series(np.concatenate(found)).value_counts(normalize=True)


def _unbiased(values: np.ndarray) -> float:
    """The best of [training, image] on other images than those by which it is chosen."""
    halves = values[:, ::2], values[:, 1::2]
    if not halves[1].shape[1]:
        return float("nan")
    ways = (halves, halves[::-1])
    return float(np.mean([b[a.mean(axis=1).argmax()].mean() for a, b in ways]))


def _draws(images: int) -> np.ndarray:
    """How often each image is in a draw of as many; the first draw is the images themselves."""
    return np.concatenate([np.ones((1, images)), resampled(images, _DRAWS, 0)])


def _classified(entries: Sequence[Accuracy]) -> list[Accuracy]:
    known = [each for each in entries if each.correct is not None and each.predicted is not None]
    if not known:
        raise UserError(
            "no result tells which images a network classified rightly; expected folders with "
            "accuracy/*.nc, of images with labels"
        )
    return known


def factors_text(table: pd.DataFrame) -> str:
    """Writes what `by_factor` returned for the terminal."""
    columns = _head(table, "factor")
    columns["images"] = [f"{x:,}" for x in table["images"]]
    columns["top-1 %"] = [f"{100 * x:.1f}" for x in table["top1"]]
    columns["error ratio"] = intervals(table[["error_ratio", "low", "high"]], "{:.2f}")
    title = "Errors where a factor is active, as a multiple of those of all annotated images"
    return f"{title}\n{Table(columns).to_text()}"


def real_text(table: pd.DataFrame) -> str:
    """Writes what `real_accuracy` returned for the terminal."""
    columns = {"network": list(table.index), "images": [f"{x:,}" for x in table["images"]]}
    columns["top-1 %"] = [f"{100 * x:.1f}" for x in table["top1"]]
    columns["any right class, %"] = intervals(100 * table[["real", "low", "high"]], "{:.1f}")
    title = "Accuracy by several right classes of an image, beside that by one"
    return f"{title}\n{Table(columns, left=1).to_text()}"


def class_effects_text(table: pd.DataFrame) -> str:
    """Writes what `class_effects` returned for the terminal: means, and the most harmed classes."""
    parts = [f"{EFFECT}, points\n{class_effects_means(table).to_text()}"]
    for network, lines in table.groupby(level="network", sort=False):
        shown = class_effects_table(lines.head(_SHOWN))
        columns = {name: cells for name, cells in shown.columns.items() if name != "network"}
        parts.append(f"{network}, most harmed\n{Table(columns).to_text()}")
    return "\n\n".join(parts)


def class_effects_means(table: pd.DataFrame) -> Table:
    """Means over classes of what `class_effects` returned, in points."""
    means = table.groupby(level="network", sort=False)[["effect", "unbiased"]].mean()
    columns = {
        "network": list(means.index),
        "classes": [f"{len(lines):,}" for _, lines in table.groupby(level="network", sort=False)],
        "mean": _points(means["effect"]),
        "mean, best chosen on other images": _points(means["unbiased"]),
    }
    return Table(columns, left=1)


def class_effects_table(table: pd.DataFrame) -> Table:
    """Every class of what `class_effects` returned, in points."""
    pairs = zip(table["confused_with"], table["shift"], strict=True)
    columns = {
        "network": list(map(str, table.index.get_level_values("network"))),
        "class": list(table["class_name"]),
        "best": list(table["best"]),
        "images": [f"{x:,}" for x in table["images"]],
        "top-1 %": [f"{100 * x:.1f}" for x in table["top1"]],
        "best gains": _points(table["effect"]),
        "unbiased": _points(table["unbiased"]),
        "more often taken for": [f"{x} {100 * share:+.1f}" if x else "-" for x, share in pairs],
    }
    return Table(columns, left=3)


def _points(values: pd.Series) -> list[str]:
    return ["-" if x != x else f"{100 * x:+z.1f}" for x in values]


def _head(table: pd.DataFrame, name: str) -> dict[str, list[str]]:
    levels = ("network", name)
    return {level: list(map(str, table.index.get_level_values(level))) for level in levels}
