"""Plain sentences that say what the data show, and what they do not: pure functions."""

from collections.abc import Sequence

import numpy as np

from invariance_jax.report import small_translations, summaries
from invariance_jax.report.effects import NO_AUGMENTATION, PARTS, Effect, Part, effects, part_sizes
from invariance_jax.report.load import Results
from invariance_jax.report.rows import UNTRAINED

# Two sizes nearer than what two printed decimals can show are called equal.
RESOLUTION = 0.01


def source_statements(results: Results) -> list[str]:
    """Which part moves invariance most: architecture, training data or augmentation?

    Args:
        results: From `load.read`, with invariance.

    Returns:
        The answer first, then one sentence a part with its comparisons.
    """
    comparisons = effects(summaries.invariance(results.runs))
    sizes = part_sizes(comparisons)
    if not sizes:
        return [
            "No two models differ in one part only, so the sources of invariance cannot be told "
            "apart."
        ]
    names = list(sizes)
    listed = "; ".join(_size(part, size, comparisons) for part, size in sizes.items())
    if len(names) == 1:
        first = f"Only {names[0]} can be judged from these models"
    elif sizes[names[0]] - sizes[names[1]] > RESOLUTION:
        first = f"In these models, {names[0]} moves invariance most"
    else:
        first = f"In these models, {names[0]} and {names[1]} move invariance about equally"
    sentences = [
        f"{first}. Mean absolute change of relative invariance over the 13 transforms: {listed}."
    ]
    for part in PARTS:
        chosen = [each for each in comparisons if each.part == part]
        if chosen:
            changes = "; ".join(f"{_subject(each)} {each.change:+z.2f}" for each in chosen)
            sentences.append(f"{part.capitalize()}, mean change: {changes}.")
        else:
            sentences.append(f"{part.capitalize()}: not judged; {_NEEDED[part]}.")
    return sentences


def _size(part: Part, size: float, comparisons: Sequence[Effect]) -> str:
    if part == "architecture":  # which of two architectures comes first means nothing
        return f"{part} {size:.2f}"
    change = np.mean([each.change for each in comparisons if each.part == part])
    return f"{part} {size:.2f} (mean change {change:+z.2f})"


def _subject(each: Effect) -> str:
    if each.part == "architecture":
        return f"{each.changed.model} against {each.reference.model}, {each.changed.training},"
    return f"{each.changed.model}, {each.changed.training} against {each.reference.training},"


_NEEDED = {
    "architecture": "it takes two architectures with the same training",
    "training data": "it takes one architecture both untrained and trained with none",
    "augmentation": "it takes one architecture trained with none and with an augmentation",
}


def accuracy_statements(results: Results) -> list[str]:
    """What augmentation does to accuracy, and how much of it translation alone recaptures.

    Args:
        results: From `load.read`, with accuracy.

    Returns:
        One sentence an architecture that was trained with none and with some augmentation.
    """
    table = summaries.accuracy(results.accuracy)
    sentences = []
    for model in dict.fromkeys(table["model"].values.tolist()):
        rows = table.isel(row=np.flatnonzero(table["model"].values == model))
        top1 = dict(zip(rows["training"].values.tolist(), rows["mean"].values, strict=True))
        augmented = [name for name in top1 if name not in (UNTRAINED, NO_AUGMENTATION)]
        if NO_AUGMENTATION not in top1 or not augmented:
            continue
        gains = {name: 100 * float(top1[name] - top1[NO_AUGMENTATION]) for name in augmented}
        listed = ", ".join(f"{name} {gain:+z.1f}" for name, gain in gains.items())
        sentence = (
            f"{model}: {100 * top1[NO_AUGMENTATION]:.1f}% without augmentation; "
            f"points of top-1 against that: {listed}."
        )
        if gains.get("random_resized_crop", 0.0) > 0 and "translate" in gains:
            share = gains["translate"] / gains["random_resized_crop"]
            sentence += (
                f" Translation alone gives {100 * share:.0f}% of the gain of random resized crop."
            )
        sentences.append(sentence)
    return sentences


def scope_statement(results: Results) -> str:
    """Says what everything rests on: images, models, seeds.

    Args:
        results: From `load.read`.

    Returns:
        One or two sentences.
    """
    entries = results.runs or results.accuracy
    rows = list(dict.fromkeys(entry.row for entry in entries))
    seeds = [sum(entry.row == row for entry in entries) for row in rows]
    count = f"{seeds[0]}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    text = f"{len(rows)} models, {count} seed{'s' if max(seeds) > 1 else ''} each"
    if results.runs:
        data = results.runs[0].data
        text += (
            f", measured on {data.sizes['image']} images of {data.attrs['dataset']} "
            f"({data.attrs['split']})"
        )
    if min(seeds) == 1:
        text += ". With one seed the spread over seeds is unknown: small differences may be noise"
    return text + "."


def answer(results: Results) -> Sequence[str]:
    """The one-paragraph answer: the first sentence of each question, and the scope.

    Args:
        results: From `load.read`.

    Returns:
        Sentences, to be read one after another.
    """
    sentences = []
    if results.runs:
        sentences.append(source_statements(results)[0])
        small = small_translations.compare(results)
        if small:
            sentences.append(small_translations.sentences(results)[0])
            no = [f"{each.model}, {each.training}" for each in small if each.verdict != 1]
            if no:
                sentences.append(f"NOT (or not clearly) more invariant: {'; '.join(no)}.")
    sentences.append(scope_statement(results))
    return sentences
