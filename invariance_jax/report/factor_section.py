"""The report's section on factors of variation: sentences, figures, and pairs of images."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from invariance_jax import data
from invariance_jax.config import ExperimentConfig, check
from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import prepare_one, preprocessing
from invariance_jax.factors import alignment, foreground, rankings, rows, wordnet
from invariance_jax.factors.alignment import Alignment
from invariance_jax.report import factor_charts as charts
from invariance_jax.report import factors
from invariance_jax.report.entries import Run
from invariance_jax.report.examples import Sheet, Shown, shown
from invariance_jax.report.factors import TOPS, Search, interval
from invariance_jax.report.page import Block, Picture
from invariance_jax.report.rows import words


def examples(search: Search) -> tuple[np.ndarray, list[str]]:
    """Shows pairs that the most and the least boosted operations changed most.

    Args:
        search: The search; its data set is read.

    Returns:
        float32 [row, 3, size, size, 3] in [0, 1]: x1, x2 and the transformed x2; and titles.

    Raises:
        UserError: The data set cannot be read, or is another one.
    """
    config = check(ExperimentConfig, json.loads(search.data.attrs["config"]))
    source = data.from_config(config.data, search.data.attrs["split"], "search.split")
    positions = {name: position for position, name in enumerate(source.names())}
    table = rankings.distinct(search.statistics)
    names = rankings.operations(table)
    order = rankings.order(table, over_classes=True)[0]
    once = [next(i for i in order if names[i] == name) for name in dict.fromkeys(names[order])]
    count = min(3, len(once) // 2) or 1
    preprocess, images, titles = preprocessing(config), [], []

    def prepared(position: int) -> jnp.ndarray:
        return prepare_one(preprocess, source[position], config.data.canvas_size)

    for place, chosen in enumerate((*once[:count], *once[-count:])):
        label = table["row"].values[chosen].item()
        change = search.data["change"].sel(row=label).values
        pair = int(change.argmax() if place < count else change.argmin())
        names_of_pair = [search.data[each].values[pair].item() for each in ("image1", "image2")]
        for name in names_of_pair:
            if name not in positions:
                raise UserError(
                    f"{search.path} knows the image {name!r}, which {source.name} {source.split} "
                    "does not have"
                )
        first, second = (positions[name] for name in names_of_pair)
        row, image = rows.Row.parse(label), prepared(second)
        signs = rows.signs(config.search.seed, second, row.number)
        images.append([prepared(first), image, row.apply(image, signs)])
        number = f"{change[pair]:+z.2f}".replace("-", "\N{MINUS SIGN}")
        titles.append(f"{words(label)} ({number})")
    return np.clip(np.asarray(images, np.float32), 0, 1), titles


def blocks(
    searches: Sequence[Search],
    runs: Sequence[Run] = (),
    *,
    pairs: Mapping[str, tuple[np.ndarray, Sequence[str]]] = {},
    boxes: tuple[str, pd.DataFrame] | None = None,
) -> Iterator[Block]:
    """Says and shows all that is known of the factors of variation.

    Args:
        searches: The searches.
        runs: Networks whose invariance is known.
        pairs: From `examples`, by the title of a search; those without are left out.
        boxes: Where boxes came from, and the boxes of `foreground.collect`.

    Yields:
        The parts of the section.
    """
    for search in searches:
        yield _of_search(search, pairs.get(search.title))
    found, sentences = {}, []
    for search in searches:
        try:
            found[search.title] = factors.align(search, runs)
            sentences.append(_alignment_sentence(search.title, found[search.title]))
        except UserError as error:
            sentences.append(f"{search.title}: not judged. {error}.")
    if searches:
        yield _of_alignment(found, sentences, searches)
    for search in searches:
        if "wnid" in search.statistics.coords and search.statistics.sizes["class"] > 1:
            yield _of_specificity(search)
    if boxes:
        yield _of_boxes(*boxes)


def judged(searches: Sequence[Search], runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """What the paper's claims ask of searches.

    Args:
        searches: The searches.
        runs: Networks whose invariance is known.

    Returns:
        By title, as `claims.claims` takes it.
    """
    found: dict[str, dict[str, Any]] = {}
    for search in searches:
        top = min(TOPS[0], search.statistics.sizes["row"])
        distinct = rankings.distinct(search.statistics)
        known: dict[str, Any] = {"appearance": rankings.appearance_share(distinct, top)}
        with contextlib.suppress(UserError):  # networks that were not measured
            known["alignment"] = factors.align(search, runs)
        if "wnid" in search.statistics.coords and search.statistics.sizes["class"] > 1:
            table = wordnet.summary(wordnet.specificity(search.statistics))
            line = table[table["compared_by"] == "iou_5"].iloc[0]
            known["specificity"] = tuple(float(line[x]) for x in ("difference", "low", "high"))
        found[search.title] = known
    return found


def _of_search(search: Search, pairs: tuple[np.ndarray, Sequence[str]] | None) -> Block:
    scope, statistics = search.scope, search.statistics
    top = min(TOPS[0], statistics.sizes["row"])
    counts = rankings.counts(statistics, top)
    slots = top * statistics.sizes["class"]
    frequent = ", ".join(
        f"{words(name)} {count / slots:.0%} (chance {expected / slots:.0%})"
        for name, count, expected in zip(
            counts["operation"].values[:3], counts.values, counts["expected"].values, strict=False
        )
    )
    pictures = [
        Picture(
            f"factors_{search.name}",
            f"Heat map of the proportion of pairs boosted. Most boosted: {_most(search)}.",
            charts.heat,
            charts.heat_frame(statistics, search.class_names),
            caption=f"Proportion of pairs of a class (downwards) that a row (across) boosts; rows "
            f"by their mean over classes, classes by their mean over rows; copies are left out. "
            f"{scope}.",
        ),
        Picture(
            f"first_rows_{search.name}",
            f"Bars. Most frequent: {frequent}.",
            charts.first_rows,
            charts.first_rows_frame(statistics, top),
            caption=f"Share of each operation among the {top} rows of a class with the highest "
            f"proportion of pairs boosted, all classes together; the line is the share of the "
            f"operation among all {statistics.sizes['row']} rows searched. {scope}.",
        ),
    ]
    images = {}
    if pairs is not None:
        caption = (
            "What a boost is: pairs of one class, and the second image transformed. First the most "
            "boosted operations, each with the pair that it brings together most; then the least "
            "boosted, with the pair that they drive apart most. The number is the change of cosine "
            f"similarity. {scope}."
        )
        images[caption] = Sheet(pairs[1], [_shown(each) for each in pairs[0]])
    tables = {
        "Rows that boost most pairs, mean over classes": factors.ranking(search),
        "Share of appearance among the first rows of a class, 95% intervals over classes; p: how "
        "often kinds dealt to operations at random exceed the base rate as much": (
            factors.appearance(search)
        ),
    }
    if search.checks is not None:
        split = search.checks.attrs["split"]
        name = f"The similarity itself: cosine, means over classes of mean and deviation ({split})"
        tables[name] = factors.checked(search.checks)
    sentences = [f"Searched: {scope}.", *_appearance_sentences(search)]
    return Block(search.title, sentences, pictures, tables, images)


def _shown(images: np.ndarray) -> list[Shown]:
    captions = ("first", "second", "second, transformed")
    return [shown(image, text) for image, text in zip(images, captions, strict=True)]


def _most(search: Search) -> str:
    table = factors.ranking(search, shown=3)
    return ", ".join(f"{row[0]} {row[2]}" for row in table.rows)


def _appearance_sentences(search: Search) -> list[str]:
    said = []
    for name, by, each in factors.shares(search):
        if by == "proportion_boosted" and each.top == min(TOPS):
            said.append(
                f"Of the {each.top} rows of a class that boost most pairs, "
                f"{interval(each.share, each.low, each.high)} change appearance; chance, the share "
                f"of {each.rows} {name} rows, is {each.base_rate:.0%}: {each.verdict}. Were kinds "
                "dealt to operations at random, as much would be seen with probability "
                f"{each.p_value:.2f}."
            )
    return said


def _alignment_sentence(title: str, each: Alignment) -> str:
    return (
        f"{title}: {interval(each.share, each.low, each.high)} of the {alignment.TOP} most "
        f"boosted comparable rows of a class are transforms to which training made the network "
        f"more invariant; by chance {each.chance:.0%}: {each.verdict}."
    )


def _of_alignment(
    found: Mapping[str, Alignment], sentences: Sequence[str], searches: Sequence[Search]
) -> Block:
    pictures, tables = [], {}
    if found:
        scope = "; ".join(search.scope for search in searches if search.title in found)
        caption = (
            f"Which transforms are among the {alignment.TOP} most boosted rows of a class (of "
            "index 3 to 7, with a transform of the invariance grid). Green: its invariance gap "
            "(trained minus untrained, mean over magnitudes 3 to 7) is above 0. Lines: the share "
            "of its rows. On top the share of all those rows with a gap above 0, with its 95% "
            f"interval over classes. {scope}."
        )
        what = f"Bars. {' '.join(sentences)}"
        pictures.append(
            Picture("alignment", what, charts.alignment, charts.alignment_frame(found), caption)
        )
        tables["Most boosted rows whose invariance gap is positive"] = factors.aligned(found)
    return Block("Did training make networks invariant to them?", sentences, pictures, tables)


def _of_specificity(search: Search) -> Block:
    found = wordnet.specificity(search.statistics)
    table = factors.specific(found)
    lines = [f"{row[0]}: {row[-1]}" for row in table.rows]
    pairs = found.sizes["class_pair"]
    sentence = (
        f"Similar classes (Wu-Palmer similarity above {wordnet.SIMILAR}) minus different ones "
        f"(below {wordnet.DIFFERENT}), with 95% intervals over classes: {'; '.join(lines)}."
    )
    caption = (
        f"How alike the rankings of two classes are, by how alike the classes are in WordNet: "
        f"{pairs:,} random pairs of different classes; below each violin their number, the line is "
        f"the median. Rows are ranked by percent change. {search.scope}."
    )
    picture = Picture(
        f"specificity_{search.name}",
        f"Violins. {sentence}",
        charts.specificity,
        charts.specificity_frame(found),
        caption,
    )
    title = f"Are they specific to a class? {search.title}"
    return Block(title, [sentence], [picture], {"Similar and different classes": table})


def _of_boxes(source: str, boxes: pd.DataFrame) -> Block:
    found = foreground.spread(boxes)
    skipped = boxes.attrs["skipped"]
    scope = f"{source}; {len(boxes):,} objects of {len(found) - 1:,} classes"
    scope += f"; {skipped} masks without an object left out" if skipped else ""
    table = factors.spread(found)
    caption = (
        "Ends, area and center of the objects relative to their image: boxes hold the middle half "
        f"of the objects, whiskers reach from 5% to 95%. {scope}."
    )
    median = found.iloc[1:].median()
    sentence = (
        f"The object takes {found.iloc[0]['area_50']:.0%} of the image (median; the middle half "
        f"{found.iloc[0]['area_25']:.0%} to {found.iloc[0]['area_75']:.0%}). Within the median "
        f"class its center varies by {median['std_center_x']:.2f} of the width and "
        f"{median['std_center_y']:.2f} of the height (standard deviation)."
    )
    classes = found.iloc[1:].rename_axis("class").reset_index()
    pictures = [
        Picture(
            "foreground",
            f"Box plots. {sentence}",
            charts.foreground,
            charts.foreground_frame(boxes),
            caption,
        ),
        Picture(
            "foreground_centers",
            f"Points. {sentence}",
            charts.centers,
            classes[["class", "std_center_x", "std_center_y"]],
            f"How much the center of the objects varies within a class, a point a class. {scope}.",
        ),
    ]
    return Block("Where the object is", [sentence], pictures, {"Foreground": table})
