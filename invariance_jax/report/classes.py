"""Class by class: what operations of their own do to classes, and what others gain from them."""

import csv
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from invariance_jax.data.imagenet import in_words
from invariance_jax.errors import UserError
from invariance_jax.factors import rankings
from invariance_jax.factors.per_class import LIST
from invariance_jax.report.entries import Accuracy, Results, Run
from invariance_jax.report.rows import NO_AUGMENTATION, Row, standard_of, words
from invariance_jax.report.summaries import MIDDLE_MAGNITUDES
from invariance_jax.report.tables import Table
from invariance_jax.transforms import TRANSFORMS

# Half the width of a 95% interval of a mean, in standard errors.
_Z = 1.96
_DRAWS = 2000
SHOWN = 5
GROUPS = ("augmented", "other", "all")


class Rows(NamedTuple):
    """What a run did to one class.

    Attributes:
        name: The class.
        rows: Its operations; none for a class that was left as it is.
    """

    name: str
    rows: tuple[str, ...]


def rows_of(row: Row) -> Mapping[int, Rows]:
    """Reads the list that training left in a run's folder.

    Args:
        row: The run, one of its results lying in that folder.

    Returns:
        By label, for every class that was trained on.

    Raises:
        UserError: The list is not there, or damaged.
    """
    path = row.network.path.parents[1] / LIST
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [(int(x["class"]), x["class_name"], x["row"]) for x in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not list the operations of each class: {error!r}") from error
    found: dict[int, Rows] = {}
    for label, name, operation in lines:
        before = found.get(label, Rows(name, ()))
        found[label] = Rows(name, (*before.rows, *filter(None, (operation,))))
    return found


class Share(NamedTuple):
    """A mean over classes.

    Attributes:
        mean: The mean.
        low: Lower end of its 95% interval over classes.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


def _share(values: np.ndarray) -> Share:
    if not len(values):
        return Share(math.nan, math.nan, math.nan)
    return Share(float(values.mean()), *rankings.interval(values, draws=_DRAWS))


class Differences(NamedTuple):
    """Accuracy class by class, against the standard run.

    Attributes:
        row: The run.
        standard: The run that differs from it in `augment.per_class` alone.
        seeds: How many of each were averaged.
        classes: A line a class, index label: class_name, rows (joined by ", "), augmented (bool),
            images, top1, standard_top1, difference, low, high: the ends of its 95% interval over
            images, paired; NaN for a single image, or where all images changed alike.
        macro: The mean difference of the classes of each of `GROUPS`.
        standard_error: Of the mean over all classes, over seeds; NaN for one.
    """

    row: Row
    standard: Row
    seeds: tuple[int, int]
    classes: pd.DataFrame
    macro: Mapping[str, Share]
    standard_error: float


def differences(results: Results) -> list[Differences]:
    """Compares every run whose classes have operations of their own with its standard run.

    Args:
        results: From `load.read`; accuracies with labels.

    Returns:
        The comparisons.

    Raises:
        UserError: A run's list of operations is missing.
    """
    known = [each for each in results.accuracy if each.correct is not None]
    pairs = standard_of(dict.fromkeys(each.row for each in known))
    return [_difference(known, *pair) for pair in pairs.items()]


def _difference(entries: Sequence[Accuracy], row: Row, standard: Row) -> Differences:
    ours, theirs = (
        {each.network.seed: each.correct for each in entries if each.row == one}
        for one in (row, standard)
    )
    (first, *_) = ours.values()
    labels = pd.Index(first["label"].values, name="class")
    hits = pd.DataFrame(
        {
            "top1": np.mean([each.values for each in ours.values()], axis=0),
            "standard_top1": np.mean([each.values for each in theirs.values()], axis=0),
        },
        labels,
    )
    hits["difference"] = hits["top1"] - hits["standard_top1"]
    grouped = hits.groupby(level=0)
    table = grouped.mean()
    table.insert(0, "images", grouped.size())
    half = _Z * grouped["difference"].std() / np.sqrt(table["images"])
    half = half.where((half > 0) | (table["difference"] == 0))
    table["low"], table["high"] = table["difference"] - half, table["difference"] + half
    done = rows_of(row)
    every = [done.get(label, Rows(str(label), ())) for label in table.index]
    names = [in_words(each.name) for each in every]
    table.insert(0, "augmented", [bool(each.rows) for each in every])
    table.insert(0, "rows", [", ".join(each.rows) for each in every])
    table.insert(0, "class_name", names)
    values = table["difference"].to_numpy()
    chosen = table["augmented"].to_numpy()
    groups = zip(GROUPS, (chosen, ~chosen, np.ones_like(chosen)), strict=True)
    by_seed = [
        pd.Series(ours[seed].values * 1.0 - theirs[seed].values, labels).groupby(level=0).mean()
        for seed in ours.keys() & theirs.keys()
    ]
    means = [each.mean() for each in by_seed]
    error = np.std(means, ddof=1) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return Differences(
        row=row,
        standard=standard,
        seeds=(len(ours), len(theirs)),
        classes=table,
        macro={name: _share(values[each]) for name, each in groups},
        standard_error=float(error),
    )


class Transfer(NamedTuple):
    """What classes without operations gain in invariance from those of others.

    Attributes:
        row: The run.
        baseline: The run without augmentation, or where there is none the standard run.
        seeds: How many of each were averaged.
        classes: How many classes had operations and how many had not.
        gains: A line a transform: augmented, augmented_low, augmented_high, other, other_low,
            other_high, the gain in relative invariance over the baseline (mean over classes of the
            medians over their images, mean over magnitudes 3 to 7) with 95% intervals over classes;
            transfer, low, high: other / augmented, NaN where the gain of augmented classes is not
            clearly above 0.
    """

    row: Row
    baseline: Row
    seeds: tuple[int, int]
    classes: tuple[int, int]
    gains: pd.DataFrame


def transfers(results: Results, seed: int = 0) -> list[Transfer]:
    """Measures the transfer of invariance of every run that left classes as they are.

    Args:
        results: From `load.read`; invariances with labels.
        seed: Of the bootstrap.

    Returns:
        A comparison a run that has both kinds of classes and a baseline.

    Raises:
        UserError: A run's list of operations is missing.
    """
    known = [each for each in results.runs if "label" in each.data.coords]
    rows = list(dict.fromkeys(each.row for each in known))
    baselines, found = standard_of(rows) | standard_of(rows, NO_AUGMENTATION), []
    for row in filter(baselines.get, rows):
        baseline = baselines[row]
        gain = _by_class(known, row) - _by_class(known, baseline)
        done = rows_of(row)
        augmented = np.array([bool(label in done and done[label].rows) for label in gain.index])
        if augmented.any() and not augmented.all():
            parts = gain[augmented].to_numpy(), gain[~augmented].to_numpy()
            gains = _transfer(*parts, seed).set_index(gain.columns)
            seeds = tuple(sum(run.row == each for run in known) for each in (row, baseline))
            found.append(Transfer(row, baseline, seeds, tuple(map(len, parts)), gains))
    return found


def _by_class(runs: Sequence[Run], row: Row) -> pd.DataFrame:
    """Invariance of every class to every transform, [class, transform], mean over seeds."""
    found = []
    for run in (run for run in runs if run.row == row):
        values = run.data["relative_invariance_cosine"].isel(magnitude=list(MIDDLE_MAGNITUDES))
        values = values.transpose("image", "transform", "magnitude").values.astype(np.float64)
        flat = pd.DataFrame(values.reshape(len(values), -1), run.data["label"].values)
        medians = flat.groupby(level=0).median()
        means = medians.to_numpy().reshape(len(medians), len(TRANSFORMS), -1).mean(axis=2)
        found.append(pd.DataFrame(means, medians.index, pd.Index(TRANSFORMS, name="transform")))
    return sum(found) / len(found)


def _transfer(augmented: np.ndarray, other: np.ndarray, seed: int) -> pd.DataFrame:
    """Gains and their ratio, [transform]; classes of both kinds are drawn, each for itself."""
    columns: dict[str, np.ndarray] = {}
    draws = []
    for name, gain, number in (("augmented", augmented, seed), ("other", other, seed + 1)):
        means = rankings.resampled(len(gain), _DRAWS, number) @ gain / len(gain)
        draws.append(means)
        columns[name] = gain.mean(axis=0)
        columns[f"{name}_low"], columns[f"{name}_high"] = np.percentile(
            means, rankings.INTERVAL, axis=0
        )
    clear = columns["augmented_low"] > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing is clear
        columns["transfer"] = columns["other"] / columns["augmented"]
        ratios = draws[1] / draws[0]
    ratios[:, ~clear] = np.nan
    columns["transfer"][~clear] = np.nan
    columns["low"], columns["high"] = np.percentile(ratios, rankings.INTERVAL, axis=0)
    return pd.DataFrame(columns)


def points(share: Share) -> str:
    """Writes a difference of accuracies in points of percent."""
    return "-" if math.isnan(share.mean) else _interval(*(100 * each for each in share), 1)


def _interval(middle: float, low: float, high: float, digits: int = 2) -> str:
    text = f"{middle:+z.{digits}f}"
    return text if math.isnan(low) else f"{text} ({low:+z.{digits}f} to {high:+z.{digits}f})"


def summary(found: Differences) -> Table:
    """Accuracy of the groups of classes.

    Args:
        found: From `differences`.

    Returns:
        The table.
    """
    table = found.classes
    groups = [table[table["augmented"]], table[~table["augmented"]], table]
    columns = {
        "classes": list(GROUPS),
        "number": [f"{len(each):,}" for each in groups],
        "top-1 %": [_percent(each["top1"]) for each in groups],
        "standard top-1 %": [_percent(each["standard_top1"]) for each in groups],
        "difference, points": [points(found.macro[name]) for name in GROUPS],
        "clearly higher": [str((each["low"] > 0).sum()) for each in groups],
        "clearly lower": [str((each["high"] < 0).sum()) for each in groups],
    }
    return Table(columns, left=1)


def _percent(values: pd.Series) -> str:
    return f"{100 * values.mean():.1f}" if len(values) else "-"


def extremes(found: Differences) -> Table:
    """The classes that gain most and lose most.

    Args:
        found: From `differences`.

    Returns:
        The table.
    """
    table = found.classes.sort_values("difference", ascending=False, kind="stable")
    count = min(SHOWN, len(table) // 2) or 1
    shown = pd.concat([table.head(count), table.tail(len(table[count:][-count:]))])
    cells = zip(*(100 * shown[name] for name in ("difference", "low", "high")), strict=True)
    columns = {
        "class": shown["class_name"].tolist(),
        "operations": [_shortened(each) for each in shown["rows"]],
        "images": [str(each) for each in shown["images"]],
        "top-1 %": [f"{100 * each:.1f}" for each in shown["top1"]],
        "difference, points": [_interval(*each, 1) for each in cells],
    }
    return Table(columns)


def _shortened(rows: str) -> str:
    first, *others = rows.split(", ")
    return (words(first) or "none") + (f" and {len(others)} more" if others else "")


def transfer_table(found: Transfer) -> Table:
    """Gains in invariance, and how much of them is transferred.

    Args:
        found: From `transfers`.

    Returns:
        The table.
    """
    gains = found.gains

    def cells(name: str, low: str, high: str) -> list[str]:
        lines = gains[[name, low, high]].itertuples(index=False)
        return ["-" if math.isnan(line[0]) else _interval(*line) for line in lines]

    columns = {"transform": [words(name) for name in gains.index]}
    for name in ("augmented", "other"):
        columns[f"gain, {name}"] = cells(name, f"{name}_low", f"{name}_high")
    columns["transfer"] = cells("transfer", "low", "high")
    return Table(columns, left=1)


def sentence(found: Differences) -> str:
    """Says what operations of their own did to the accuracy of classes.

    Args:
        found: From `differences`.

    Returns:
        One or two sentences.
    """
    table, macro = found.classes, found.macro["all"]
    clear = macro.low > 0 or macro.high < 0
    error = found.standard_error
    seeds = "; one seed, whose noise is not in it"
    if not math.isnan(error):
        seeds = f"; one standard error over seeds is {100 * error:.1f}"
    text = (
        f"{found.row.label} against {found.standard.training}: per-class top-1 changes by "
        f"{points(macro)} points, mean over {len(table):,} classes with its 95% interval over "
        f"classes{seeds}: {'a' if clear else 'NO'} clear difference."
    )
    higher, lower = (table["low"] > 0).sum(), (table["high"] < 0).sum()
    return (
        f"{text} Of single classes {higher} are clearly higher and {lower} clearly lower (95% "
        f"intervals over images; by chance {0.025 * len(table):.1f} each)."
    )


def transfer_sentence(found: Transfer) -> str:
    """Says how much of the invariance is transferred.

    Args:
        found: From `transfers`.

    Returns:
        One sentence.
    """
    clear = found.gains.dropna(subset="transfer")
    head = (
        f"{found.row.label}: {found.classes[0]} classes had operations and {found.classes[1]} had "
        f"not; gains in invariance are over {found.baseline.training}, of {found.seeds[0]} and "
        f"{found.seeds[1]} seeds, with 95% intervals over classes, not over seeds."
    )
    if not len(clear):
        return f"{head} No transform gains clearly in augmented classes: transfer is not judged."
    listed = "; ".join(
        f"{words(line.Index)} {line.transfer:z.2f} ({line.low:z.2f} to {line.high:z.2f})"
        for line in clear.itertuples()
    )
    return f"{head} Transfer, the gain of the others over that of augmented ones: {listed}."
