"""What the results say, in numbers and in plain sentences: pure functions.

Which part moves invariance most? Are trained networks more invariant to small translations? The
opposite results give the opposite sentences.
"""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from invariance_jax.report import summaries
from invariance_jax.report.entries import Results, Run
from invariance_jax.report.rows import (
    NO_AUGMENTATION,
    UNTRAINED,
    Part,
    Row,
    differing_parts,
    untrained_of,
)

PARTS: tuple[Part, ...] = ("architecture", "training", "data", "augmentation", "recipe")
# Two sizes nearer than what two printed decimals can show are called equal.
RESOLUTION = 0.01
# A share of images further than this many standard errors from one half is no coin flip, and a
# difference larger than this many of its standard errors is not seed noise.
STANDARD_ERRORS = 2.0
# More models than this are counted in an answer, not named.
_NAMED = 3


class Effect(NamedTuple):
    """Two rows that differ in one part only.

    Attributes:
        part: What differs.
        changed: One row.
        reference: The row it is compared with.
        change: Mean over the 13 transforms of (changed - reference) relative invariance.
        size: Mean over the transforms of the absolute differences, so that gains and losses do
            not cancel.
        raised: On how many transforms `changed` is above `reference`.
    """

    part: Part
    changed: Row
    reference: Row
    change: float
    size: float
    raised: int


def pairs(rows: Iterable[Row]) -> list[tuple[Part, Row, Row]]:
    """Finds all pairs of rows that differ in one part only.

    Args:
        rows: The rows, each once.

    Returns:
        Part, changed row, reference, in the order of `PARTS`. "training": trained with no
        augmentation, or elsewhere, against untrained. "augmentation": with one against without.
        "architecture" (both untrained, or trained alike), "data" and "recipe": the others, of
        those that were trained here.
    """
    ordered = sorted(set(rows), key=lambda row: row.sort_key)
    found: list[tuple[Part, Row, Row]] = [
        ("training", row, before)
        for row, before in untrained_of(ordered).items()
        if row.augmentation in ((), NO_AUGMENTATION)
    ]
    for first, second in itertools.combinations(ordered, 2):
        parts = differing_parts(first, second)
        # How imported networks were trained is not known.
        if len(parts) != 1 or not first.network.kind == second.network.kind != "imported":
            continue
        (part,) = parts
        if part == "architecture":
            found.append((part, first, second))
        elif part in ("data", "recipe") or first.augmentation == NO_AUGMENTATION:
            found.append((part, second, first))
    return [pair for part in PARTS for pair in found if pair[0] == part]


def effects(runs: Sequence[Run]) -> list[Effect]:
    """Compares all pairs of rows that differ in one part only.

    Args:
        runs: One entry a network; at least one.

    Returns:
        The comparisons, as `pairs` has them.
    """
    table = summaries.invariance(runs)["mean"]
    found = []
    for part, changed, reference in pairs(run.row for run in runs):
        change = table.sel(row=changed.label).values - table.sel(row=reference.label).values
        numbers = float(change.mean()), float(np.abs(change).mean()), int((change > 0).sum())
        found.append(Effect(part, changed, reference, *numbers))
    return found


def part_sizes(comparisons: Sequence[Effect]) -> dict[Part, float]:
    """Mean size of the comparisons of each part.

    Args:
        comparisons: From `effects`.

    Returns:
        Size by part, the largest first; parts without a comparison are left out.
    """
    sizes = {part: [each.size for each in comparisons if each.part == part] for part in PARTS}
    means = {part: float(np.mean(values)) for part, values in sizes.items() if values}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def source_statement(runs: Sequence[Run]) -> str:
    """Which part moves invariance most?

    Args:
        runs: One entry a network; at least one.

    Returns:
        The answer, with the size of every part's effect.
    """
    comparisons = effects(runs)
    sizes = part_sizes(comparisons)
    if not sizes:
        return (
            "No two models differ in one part only, so the sources of invariance cannot be told "
            "apart."
        )
    names = list(sizes)
    listed = ", ".join(f"{part} {size:.2f}" for part, size in sizes.items())
    if len(names) == 1:
        first = f"Only {names[0]} can be judged from these models"
    elif sizes[names[0]] - sizes[names[1]] > RESOLUTION:
        first = f"In these models, {names[0]} moves invariance most"
    else:
        first = f"In these models, {names[0]} and {names[1]} move invariance about equally"
    return f"{first}. Mean absolute change of relative invariance over the 13 transforms: {listed}."


class Comparison(NamedTuple):
    """A trained row against the untrained row of its architecture, at small translations.

    Attributes:
        row: The trained row.
        trained: Its relative invariance, at most 1: median over images, mean over seeds.
        untrained: That of the untrained row.
        standard_error: Of the difference over seeds; NaN if either row has one seed.
        share: Share of images, 0 to 1, on which the trained row is the more invariant.
        images: How many images.
    """

    row: Row
    trained: float
    untrained: float
    standard_error: float
    share: float
    images: int

    @property
    def verdict(self) -> int:
        """1 more invariant, -1 less invariant, 0 no clear difference.

        Clear is a difference whose sign most images share (more than chance alone explains) and
        which exceeds the noise of the seeds where that is known.
        """
        difference = self.trained - self.untrained
        if abs(difference) <= STANDARD_ERRORS * self.standard_error:  # never where that is NaN
            return 0
        sign, chance = int(np.sign(difference)), STANDARD_ERRORS * math.sqrt(0.25 / self.images)
        return sign if sign * (self.share - 0.5) > chance else 0

    @property
    def sentence(self) -> str:
        """The comparison in words, with its numbers."""
        row, model = self.row, self.row.model
        what = {1: "is more", 0: "is NOT clearly more", -1: "is NOT more but less"}[self.verdict]
        how = f"with {row.training}"
        if row.augmentation == NO_AUGMENTATION:
            how = f"without augmentation{_beside(row)}"
        trained = "" if row.network.kind == "imported" else "trained "
        error = "" if math.isnan(self.standard_error) else f" ±{self.standard_error:.2f}"
        return (
            f"{model} {trained}{how} {what} invariant to small translations than untrained "
            f"{model}: {self.trained:z.2f} against {self.untrained:z.2f} "
            f"({self.trained - self.untrained:+z.2f}{error}; the higher of the two on "
            f"{100 * self.share:.0f}% of {self.images} images)."
        )


def _beside(row: Row) -> str:
    """What tells a row without augmentation apart beside that."""
    return row.training.removeprefix("none")


def small_translations(runs: Sequence[Run]) -> list[Comparison]:
    """Compares every trained row with the untrained row of its architecture.

    Args:
        runs: One entry a network; at least one.

    Returns:
        One comparison a trained row whose architecture has an untrained row.
    """
    by_run = summaries.small_translation_by_image(runs)
    table = summaries.over_seeds(by_run.median("image"))
    by_image = summaries.over_seeds(by_run)["mean"]
    found = []
    for row, before in untrained_of(run.row for run in runs).items():
        both = table.sel(row=[row.label, before.label])
        ours, theirs = by_image.sel(row=both["row"]).values
        error = float(np.hypot(*both["standard_error"].values))
        share = float((ours > theirs).mean())
        found.append(Comparison(row, *both["mean"].values.tolist(), error, share, len(ours)))
    return found


def small_translation_statements(runs: Sequence[Run]) -> list[str]:
    """Are trained networks more invariant to small translations than untrained ones?

    Args:
        runs: One entry a network; at least one.

    Returns:
        A count first, then one sentence a trained row, naming plainly where the answer is no.
    """
    comparisons = small_translations(runs)
    found = [each.sentence for each in comparisons]
    if comparisons:
        more = sum(each.verdict == 1 for each in comparisons)
        values = runs[0].data["magnitude_value"].sel(transform="translate_x").values
        first, second = values[list(summaries.SMALL_MAGNITUDES)]
        count = (
            f"{more} of {len(comparisons)} trained models {'is' if more == 1 else 'are'} more "
            f"invariant to small translations ({first:.0f} and {second:.0f} pixels of 224, in x "
            "and in y) than the untrained network of the same architecture."
        )
        no = [each.row.label for each in comparisons if each.verdict != 1]
        if 0 < len(no) <= _NAMED:
            count += f" NOT (or not clearly) more invariant: {'; '.join(no)}."
        found.insert(0, count)
    alone = dict.fromkeys(run.row.model for run in runs).keys() - {x.row.model for x in comparisons}
    return found + [
        f"{model}: trained and untrained are not both measured, so nothing can be said about "
        "training."
        for model in sorted(alone)
    ]


def scope_statement(results: Results) -> str:
    """Says what everything rests on: images, models, seeds.

    Args:
        results: From `load.read`.

    Returns:
        One or two sentences.
    """
    rows = [entry.row for entry in results.runs or results.accuracy]
    seeds = [rows.count(row) for row in dict.fromkeys(rows)]
    count = f"{seeds[0]}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    text = f"{len(seeds)} models, {count} seed{'s' if max(seeds) > 1 else ''} each"
    if results.runs:
        data = results.runs[0].data
        text += (
            f", measured on {data.sizes['image']} images of {data.attrs['dataset']} "
            f"({data.attrs['split']})"
        )
        said = {json.loads(run.data.attrs["versions"]).get("commit") for run in results.runs}
        commits = sorted(said - {None})
        if commits:
            text += f", with commit{'s' if len(commits) > 1 else ''} {', '.join(commits[:3])}"
            text += f" and {len(commits) - 3} more" if len(commits) > 3 else ""
    if min(seeds) == 1:
        text += ". With one seed the spread over seeds is unknown: small differences may be noise"
    return text + "."


def missing(results: Results, factors: Sequence[object], widths: bool) -> list[tuple[str, str]]:
    """Lists the sections that stay empty, and what would fill them.

    Args:
        results: From `load.read`.
        factors: The section on factors of variation.
        widths: Whether there is a section on learned augmentation.

    Returns:
        What is missing, and the command.
    """
    evaluate = "invariance-jax evaluate --workdir=DIR"
    parts = {part for part, *_ in pairs(run.row for run in results.runs)}
    untrained = any(run.network.kind == UNTRAINED for run in results.runs)
    rows = [each.row for each in results.runs]
    wanted = {
        "invariance": (bool(results.runs), evaluate),
        "untrained networks": (untrained or not results.runs, f"{evaluate} --untrained"),
        "accuracy": (bool(results.accuracy), evaluate),
        "more images against fewer": (
            "data" in parts or not rows,
            "invariance-jax train ... --config.data.fraction=0.1",
        ),
        "several seeds": (
            len(rows) > len(set(rows)) or not rows,
            "launch/sweep.py, axes of seed",
        ),
        "learned augmentation": (
            widths,
            "invariance-jax train ... --config.augment.learned=augerino",
        ),
        "augmentation by class": (
            any(each.network.per_class for each in (*rows, *(x.row for x in results.accuracy))),
            """invariance-jax train ... --config.augment.per_class="searched(file='SEARCH.nc')\"""",
        ),
        "factors of variation": (bool(factors), "invariance-jax search --workdir=DIR"),
    }
    return [(what, how) for what, (there, how) in wanted.items() if not there]
