"""The paper's five claims as questions that results answer; each says before how it is judged."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from invariance_jax.report import answers, frames
from invariance_jax.report.intervals import LEVELS, Drawn, Interval
from invariance_jax.report.rows import NO_AUGMENTATION, Row
from invariance_jax.report.summaries import GROUPS
from invariance_jax.transforms import TRANSFORMS

Verdict = Literal["yes", "no", "mixed", "unclear", "not judged"]
_MOST = 0.5


class Part(NamedTuple):
    """One judgement that a claim's answer rests on.

    Attributes:
        of: What was judged: networks, data, transforms.
        verdict: Whether the claim holds there.
        numbers: What was found, in words.
    """

    of: str
    verdict: Verdict
    numbers: str


class Claim(NamedTuple):
    """A claim of the paper, and what these results say of it.

    Attributes:
        number: Its number in the paper's order.
        question: The claim as a question.
        test: What confirms it and what refutes it.
        needs: What it takes to be judged.
        parts: The judgements; none where it cannot be judged.
    """

    number: int
    question: str
    test: str
    needs: str
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> Verdict:
        """The answer: that of all parts, or "mixed" where some say yes and some no."""
        found = {part.verdict for part in self.parts}
        if {"yes", "no"} <= found:
            return "mixed"
        return next((each for each in ("unclear", "yes", "no") if each in found), "not judged")


def claims(
    invariance: Drawn | None, accuracy: Drawn | None, factors: Mapping[str, Mapping[str, Any]]
) -> list[Claim]:
    """Asks all five questions.

    Args:
        invariance: From `intervals.invariance`; None where nothing was measured.
        accuracy: From `intervals.accuracy`; None where nothing was measured.
        factors: By the title of a search: "alignment" (`alignment.Alignment`), "appearance"
            (`rankings.AppearanceShare`) and "specificity" (difference, low, high: of rankings that
            similar classes share beyond different ones), as far as they are known.

    Returns:
        The claims, by number.
    """
    return [
        _translation(accuracy),
        _architectures(invariance),
        _sources(invariance),
        _alignment(factors),
        _factors(factors),
    ]


def _interval(each: Interval, form: str = "{:+z.2f}") -> str:
    low, high = (form.format(x) for x in (each.low, each.high))
    return f"{form.format(each.value)} ({low} to {high})"


def _judged(each: Interval, threshold: float = 0.0) -> Verdict:
    if each.low > threshold:
        return "yes"
    return "no" if each.high < threshold else "unclear"


def _translation(accuracy: Drawn | None) -> Claim:
    parts = []
    if accuracy:
        table = frames.ablation(accuracy)
        shown = table[(table["augmentation"] == "translate") & table["share"].notna()]
        for _, line in shown.iterrows():
            share = Interval(*(float(line[x]) for x in ("share", "share_low", "share_high")))
            of = ", ".join(filter(None, (line["model"], line["details"] or "all images")))
            numbers = f"{_interval(share, '{:z.0%}')} of the gain of standard augmentation"
            parts.append(Part(of, _judged(share, _MOST), numbers))
    return Claim(
        number=1,
        question="Does translation alone recapture most of the accuracy that standard "
        "augmentation gains?",
        test="Share = (translate - none) / (random resized crop with flip - none), top-1, wherever "
        "the latter is clearly above 0. Yes: its 95% interval lies above one half. No: below.",
        needs="accuracy of none, translate and random_resized_crop_flip, where that gains",
        parts=tuple(parts),
    )


def _architectures(invariance: Drawn | None) -> Claim:
    parts = []
    if invariance:
        pairs = answers.pairs(invariance.rows)
        trained = [(a, b) for part, a, b in pairs if part == "architecture" and a.augmentation]
        training = [(a, b) for part, a, b in pairs if part == "training" and a.augmentation]
        for name in ("scale", "translate") if trained and training else ():
            places = [list(TRANSFORMS).index(x) for x in GROUPS[name]]
            by_model: dict[tuple[str, str], list[tuple[Row, Row]]] = {}
            for a, b in trained:
                by_model.setdefault((a.model, b.model), []).append((a, b))
            for models, rows in by_model.items():
                between = _size(invariance, rows, places)
                taught = _size(invariance, [x for x in training if x[0].model in models], places)
                more = _difference(taught, between)
                numbers = (
                    f"difference between them {between[0]:.2f}, change by training "
                    f"{taught[0]:.2f}; the latter minus the former {_interval(more)}"
                )
                parts.append(Part(f"{name}, {' and '.join(models)}", _judged(more), numbers))
    return Claim(
        number=2,
        question="Are architectures alike in their invariance to scale and translation?",
        test="Mean absolute difference between two architectures that are trained alike, beside "
        "the mean absolute change that training without augmentation makes. Yes: the difference "
        "is clearly the smaller. No: clearly the larger.",
        needs="two architectures, untrained and trained alike",
        parts=tuple(parts),
    )


def _size(
    drawn: Drawn, pairs: Sequence[tuple[Row, Row]], places: Sequence[int]
) -> tuple[float, np.ndarray]:
    """The mean absolute difference over pairs and transforms: as measured, and as drawn."""
    ours, theirs = ([drawn.at(pair[i]) for pair in pairs] for i in (0, 1))
    chosen = list(places)

    def of(values: np.ndarray) -> np.ndarray:
        gaps = values[..., ours, :][..., chosen] - values[..., theirs, :][..., chosen]
        return np.abs(gaps).mean(axis=(-2, -1))

    return float(of(drawn.values)), of(drawn.draws)


def _difference(one: tuple[float, np.ndarray], other: tuple[float, np.ndarray]) -> Interval:
    low, high = np.percentile(one[1] - other[1], LEVELS)
    return Interval(one[0] - other[0], float(low), float(high))


def _sources(invariance: Drawn | None) -> Claim:
    parts = []
    if invariance:
        groups: dict[str, list[tuple[Row, Row]]] = {}
        for part, a, b in answers.pairs(invariance.rows):
            if part != "training" or a.augmentation == NO_AUGMENTATION:
                groups.setdefault(part, []).append((a, b))
        every = range(len(TRANSFORMS))
        sizes = {part: _size(invariance, pairs, every) for part, pairs in groups.items()}
        for part in ("architecture", "augmentation"):
            if "training" in sizes and part in sizes:
                more = _difference(sizes["training"], sizes[part])
                numbers = (
                    f"training without augmentation {sizes['training'][0]:.2f}, {part} "
                    f"{sizes[part][0]:.2f}; difference {_interval(more)}"
                )
                parts.append(Part(f"data against {part}", _judged(more), numbers))
    return Claim(
        number=3,
        question="Is training data the main source of invariance?",
        test="Mean absolute change of relative invariance over the 13 transforms that goes with "
        "training without augmentation, against that of architecture and of augmentation. Yes: "
        "the former is clearly larger than both. No: clearly smaller than one.",
        needs="untrained networks, and none beside an augmentation or another architecture",
        parts=tuple(parts),
    )


def _of_searches(
    factors: Mapping[str, Mapping[str, Any]], name: str, of: Callable[[Any], Part]
) -> list[Part]:
    known = {title: each[name] for title, each in factors.items() if name in each}
    return [of(each)._replace(of=title) for title, each in known.items()]


def _alignment(factors: Mapping[str, Mapping[str, Any]]) -> Claim:
    def judge(found: Any) -> Part:
        more = Interval(found.share, found.low, found.high)
        numbers = f"{_interval(more, '{:.0%}')} of the slots, by chance {found.chance:.0%}"
        return Part("", _judged(more, found.chance), numbers)

    return Claim(
        number=4,
        question="Do invariances that training gains go with the factors of variation of the data?",
        test="Of the five operations that boost most pairs of a class, the share whose transform "
        "the network became more invariant to by training. Yes: its 95% interval over classes lies "
        "above the share by chance. No: below.",
        needs="a search, and the invariance of that network trained and untrained",
        parts=tuple(_of_searches(factors, "alignment", judge)),
    )


def _factors(factors: Mapping[str, Mapping[str, Any]]) -> Claim:
    def appearance(found: Any) -> Part:
        share = Interval(found.share, found.low, found.high)
        numbers = (
            f"appearance {_interval(share, '{:.0%}')} of the first {found.top} operations of a "
            f"class, {found.base_rate:.0%} of those searched"
        )
        return Part("", _judged(share, found.base_rate), numbers)

    def specific(found: Any) -> Part:
        more = Interval(*found)
        numbers = f"similar classes share {_interval(more)} more of their first operations"
        if math.isnan(more.value):
            numbers = "too few similar or different classes"
        return Part("", _judged(more), numbers)

    first = _of_searches(factors, "appearance", appearance)
    second = _of_searches(factors, "specificity", specific)
    parts = [part._replace(of=f"appearance, {part.of}") for part in first]
    parts += [part._replace(of=f"specific to classes, {part.of}") for part in second]
    return Claim(
        number=5,
        question="Are the factors of variation mostly appearance, and specific to classes?",
        test="Share of appearance among the five operations that boost most pairs of a class "
        "against that among all that were searched; and how many more of their first operations "
        "classes share that are near in WordNet than those that are distant. Yes: the 95% interval "
        "over classes lies above. No: below.",
        needs="a search",
        parts=tuple(parts),
    )
