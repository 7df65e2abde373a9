"""Are trained networks more invariant to small translations than untrained ones?"""

import dataclasses
import itertools
import math

import numpy as np
import xarray as xr

from invariance_jax.report import summaries
from invariance_jax.report.effects import NO_AUGMENTATION
from invariance_jax.report.load import Results
from invariance_jax.report.rows import UNTRAINED

# A share of images further than this many standard errors from one half is no coin flip, and a
# difference larger than this many of its standard errors is not seed noise.
STANDARD_ERRORS = 2.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A trained row against the untrained row of its architecture, at small translations.

    Attributes:
        model: Architecture.
        training: Augmentation of the trained row.
        trained: Its relative invariance, at most 1: median over images, mean over seeds.
        untrained: That of the untrained row.
        standard_error: Of the difference over seeds; NaN if either row has one seed.
        share: Share of images, 0 to 1, on which the trained row is the more invariant.
        images: How many images.
    """

    model: str
    training: str
    trained: float
    untrained: float
    standard_error: float
    share: float
    images: int

    @property
    def difference(self) -> float:
        """Trained minus untrained."""
        return self.trained - self.untrained

    @property
    def verdict(self) -> int:
        """1 more invariant, -1 less invariant, 0 no clear difference.

        Clear is a difference whose sign most images share (more than chance alone explains) and
        which exceeds the noise of the seeds where that is known.
        """
        chance = STANDARD_ERRORS * math.sqrt(0.25 / self.images)
        known = not math.isnan(self.standard_error)
        if known and abs(self.difference) <= STANDARD_ERRORS * self.standard_error:
            return 0
        if self.difference > 0 and self.share > 0.5 + chance:
            return 1
        if self.difference < 0 and self.share < 0.5 - chance:
            return -1
        return 0

    @property
    def sentence(self) -> str:
        """The comparison in words, with its numbers."""
        what = {
            1: "is more invariant to small translations than",
            0: "is NOT clearly more invariant to small translations than",
            -1: "is NOT more but less invariant to small translations than",
        }[self.verdict]
        plain = self.training == NO_AUGMENTATION
        how = "without augmentation" if plain else f"with {self.training}"
        return (
            f"{self.model} trained {how} {what} untrained {self.model}: "
            f"{self.trained:z.2f} against {self.untrained:z.2f} "
            f"({_signed(self.difference, self.standard_error)}; the higher of the two on "
            f"{100 * self.share:.0f}% of {self.images} images)."
        )


def compare(results: Results) -> list[Comparison]:
    """Compares every trained row with the untrained row of its architecture.

    Args:
        results: From `load.read`, with invariance.

    Returns:
        One comparison a trained row whose architecture has an untrained row.
    """
    by_run = summaries.small_translation_by_image(results.runs)
    table = summaries.over_seeds(by_run.median("image"))
    by_image = summaries.over_seeds(by_run)["mean"]
    found = []
    for trained, untrained in _pairs(table):
        ours, theirs = (by_image.sel(row=row).values for row in (trained, untrained))
        errors = table["standard_error"].sel(row=[trained, untrained]).values
        found.append(
            Comparison(
                model=str(table["model"].sel(row=trained).item()),
                training=str(table["training"].sel(row=trained).item()),
                trained=table["mean"].sel(row=trained).item(),
                untrained=table["mean"].sel(row=untrained).item(),
                standard_error=float(np.hypot(*errors)),
                share=float((ours > theirs).mean()),
                images=len(ours),
            )
        )
    return found


def sentences(results: Results) -> list[str]:
    """Are trained networks more invariant to small translations than untrained ones?

    Args:
        results: From `load.read`, with invariance.

    Returns:
        A count first, then one sentence a trained row, naming plainly where the answer is no.
    """
    comparisons = compare(results)
    found = [each.sentence for each in comparisons]
    if comparisons:
        more = sum(each.verdict == 1 for each in comparisons)
        values = results.runs[0].data["magnitude_value"].sel(transform="translate_x").values
        first, second = (values[i] for i in summaries.SMALL_MAGNITUDES)
        found.insert(
            0,
            f"{more} of {len(comparisons)} trained models {_be(more)} more invariant to small "
            f"translations ({first:.0f} and {second:.0f} pixels of 224, in x and in y) than the "
            "untrained network of the same architecture.",
        )
    compared = {each.model for each in comparisons}
    for model in dict.fromkeys(run.row.model for run in results.runs):
        if model not in compared:
            found.append(
                f"{model}: trained and untrained are not both measured, so nothing can be said "
                "about training."
            )
    return found


def _pairs(table: xr.Dataset) -> list[tuple[str, str]]:
    """Labels of (trained, untrained) rows of one architecture."""
    model = dict(zip(table["row"].values.tolist(), table["model"].values.tolist(), strict=True))
    training = dict(
        zip(table["row"].values.tolist(), table["training"].values.tolist(), strict=True)
    )
    return [
        (trained, untrained)
        for trained, untrained in itertools.permutations(model, 2)
        if model[trained] == model[untrained]
        and training[untrained] == UNTRAINED != training[trained]
    ]


def _signed(value: float, standard_error: float) -> str:
    return f"{value:+z.2f}" + ("" if math.isnan(standard_error) else f" ±{standard_error:.2f}")


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
