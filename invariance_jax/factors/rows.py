"""The rows of the similarity search: operations of AutoAugment, each at one index (section 4).

A row is one operation, or a sub-policy of two in sequence. Always applied, never by chance; only
the sign is drawn, for each image and application, of the operations that have one.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from invariance_jax.augment.policy_tables import PUBLISHED_POLICIES
from invariance_jax.errors import UserError, lookup
from invariance_jax.transforms import AUTOAUGMENT

# What rows that change no image are copies of.
IDENTITY = "identity"
_INDICES = 10
_OPERATIONS = tuple(AUTOAUGMENT)
# The search turns counter-clockwise only. The row of `AUTOAUGMENT` is signed for the policies of
# training, where RandAugment's and AutoAugment's rotation goes both ways.
SIGNED = frozenset(name for name, each in AUTOAUGMENT.items() if each.signed) - {"rotate"}


class Step(NamedTuple):
    """One operation of `AUTOAUGMENT` at one index.

    Attributes:
        operation: Its name.
        index: Of the magnitude, 0 to 9.
    """

    operation: str
    index: int

    @property
    def magnitude(self) -> float:
        """The size of what it does, without sign; 0 where the operation has none."""
        return AUTOAUGMENT[self.operation].magnitudes[self.index]

    @property
    def signed(self) -> bool:
        """Whether the search draws a sign."""
        return self.operation in SIGNED

    @property
    def number(self) -> int:
        """The step among all steps that there are."""
        return _OPERATIONS.index(self.operation) * _INDICES + self.index


@dataclasses.dataclass(frozen=True)
class Row:
    """What is done to an image.

    Attributes:
        steps: One operation, or the two of a sub-policy, the first one first.

    Examples:
        >>> Row.parse("posterize 5 + rotate 4").kind
        'mixed'
    """

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> "Row":
        """Reads a row.

        Args:
            text: "rotate 4", or "posterize 5 + rotate 4".

        Returns:
            The row.

        Raises:
            UserError: Unknown operation, an index that is none, or more than two steps.
        """
        found = [re.fullmatch(r"\s*(\S+)\s+(\S+)\s*", each) for each in text.split("+")]
        if not all(found) or len(found) > 2:
            raise UserError(
                f"row is {text!r}; expected an operation and an index, 'rotate 4', or two of them, "
                "'posterize 5 + rotate 4'"
            )
        return cls(tuple(_step(*each.groups()) for each in found))

    @property
    def label(self) -> str:
        """Its name: "rotate 4", "posterize 5 + rotate 4"."""
        return " + ".join(f"{each.operation} {each.index}" for each in self.steps)

    @property
    def kind(self) -> str:
        """Whether it moves things, "geometric", or changes how they look, "appearance"; "mixed"."""
        kinds = {AUTOAUGMENT[each.operation].family for each in self.steps}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def number(self) -> int:
        """A number that no other row has, whichever rows are searched: it seeds the signs."""
        number = 0
        for each in self.steps:
            number = number * len(_OPERATIONS) * _INDICES + each.number + 1
        return number

    @property
    def effect(self) -> tuple[tuple[str, float], ...]:
        """Operation and magnitude of the steps that change anything: equal for copies."""
        return tuple(
            (each.operation, each.magnitude)
            for each in self.steps
            if each.magnitude != AUTOAUGMENT[each.operation].identity
        )

    def apply(
        self, image: Float[Array, "height width 3"], signs: Float[Array, "2"]
    ) -> Float[Array, "height width 3"]:
        """Does it to one image.

        Args:
            image: float32 [height, width, 3] in [0, 1], multiples of 1 / 255.
            signs: 1 or -1 for each step, as `signs` draws them; steps without a sign ignore it.

        Returns:
            The changed image, same shape and dtype.
        """
        for step, sign in zip(self.steps, signs, strict=False):
            magnitude = step.magnitude * (sign if step.signed else 1.0)
            image = AUTOAUGMENT[step.operation].apply(image, magnitude)
        return image


def signs(
    seed: int, image: Int[Array, ""] | int, number: Int[Array, ""] | int
) -> Float[Array, "2"]:
    """Draws the signs of one application.

    Args:
        seed: Of the search.
        image: Position of the image in the data set.
        number: That of the row, `Row.number`.

    Returns:
        1 or -1, float32, for the first and the second step.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), image), number)
    return jax.random.rademacher(key, (2,), jnp.float32)


def _step(operation: str, index: str) -> Step:
    lookup(AUTOAUGMENT, operation, "operation")
    if not (index.isascii() and index.isdecimal() and int(index) < _INDICES):
        raise UserError(
            f"index of {operation} is {index!r}; expected a whole number, 0 to {_INDICES - 1}"
        )
    return Step(operation, int(index))


def _published() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The 63 rows and the 49 sub-policies."""
    policies = [
        Row(tuple(Step(operation, index) for operation, _, index in pair))
        for name in ("imagenet", "svhn")
        for pair in PUBLISHED_POLICIES[name]
    ]
    zooms = [
        Row((Step("rescale", index), Step("rescale", index + 1))) for index in range(0, _INDICES, 2)
    ]
    sub_policies = tuple(dict.fromkeys([*policies, *zooms]))
    return tuple(Row((each,)) for each in sorted({x for y in sub_policies for x in y.steps})), (
        sub_policies
    )


# The unique rows of AutoAugment's policies for ImageNet and SVHN, and `rescale`; the unique
# sub-policies of both, and `rescale` in pairs.
ROWS, SUB_POLICIES = _published()


def copies(rows: Sequence[Row]) -> list[str]:
    """Says which rows do the same as others.

    Args:
        rows: What is searched.

    Returns:
        For each, the label of the first row that does the same, its own if it is the first;
        "identity" of rows that change no image, as `color 0`.
    """
    first: dict[Any, str] = {(): IDENTITY}
    return [first.setdefault(each.effect, each.label) for each in rows]


def distinct(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Keeps one of each that does the same, and none that changes no image.

    Args:
        rows: What is searched.

    Returns:
        Those that are no copies, in their order.
    """
    return tuple(
        each for each, original in zip(rows, copies(rows), strict=True) if each.label == original
    )


DISTINCT = distinct(ROWS)
SETS = {"all": ROWS, "distinct": DISTINCT, "sub_policies": SUB_POLICIES}


def parse(texts: Sequence[str], field: str) -> tuple[Row, ...]:
    """Reads which rows are searched.

    Args:
        texts: "all" (63), "distinct" (47 of them), "sub_policies" (49); an operation, for its ten
            indices; or a row, as `Row.parse` reads it.
        field: Where they came from, for error messages.

    Returns:
        The rows, each once.

    Raises:
        UserError: One is none of these, or there is none.
    """
    found: list[Row] = []
    for position, text in enumerate(texts):
        if text in SETS:
            found += SETS[text]
        elif text in AUTOAUGMENT:
            found += [Row((Step(text, index),)) for index in range(_INDICES)]
        else:
            try:
                if len(text.split()) == 1:
                    lookup({**SETS, **AUTOAUGMENT}, text, "operation or set of rows")
                found.append(Row.parse(text))
            except UserError as error:
                raise UserError(f"{field}[{position}]: {error}") from None
    if not found:
        raise UserError(f"{field} is empty; expected {', '.join(map(repr, SETS))} or rows")
    return tuple(dict.fromkeys(found))


def coordinates(rows: Sequence[Row]) -> dict[str, Any]:
    """Labels the dimension `row` of a dataset.

    Args:
        rows: What is searched.

    Returns:
        `row` (the label), `operation`, `index`, `kind` and `copy_of`; where there are sub-policies
        `operation2` and `index2` too, "" and -1 of rows without a second step.
    """
    found: dict[str, Any] = {
        "row": [each.label for each in rows],
        "operation": ("row", [each.steps[0].operation for each in rows]),
        "index": ("row", jnp.asarray([each.steps[0].index for each in rows], jnp.int32)),
        "kind": ("row", [each.kind for each in rows]),
        "copy_of": ("row", copies(rows)),
    }
    if any(len(each.steps) > 1 for each in rows):
        second = [each.steps[1] if len(each.steps) > 1 else Step("", -1) for each in rows]
        found["operation2"] = ("row", [each.operation for each in second])
        found["index2"] = ("row", np.array([each.index for each in second], np.int32))
    return found
