"""Checks of the numbers that a variant takes: each returns its value or says what it should be."""

from invariance_jax.errors import UserError


def whole(name: str, value: object, lowest: int, highest: int, what: str) -> int:
    """Checks a whole number.

    Args:
        name: The option, for the message.
        value: What was given.
        lowest: Smallest that is allowed.
        highest: Largest that is allowed.
        what: What is expected, for the message.

    Returns:
        The value.

    Raises:
        UserError: Another type, or out of range.
    """
    if not _is_number(value, int) or not lowest <= value <= highest:
        raise UserError(f"{name} is {value!r}; expected {what}")
    return value


def fraction(name: str, value: object) -> float:
    """Checks a fraction of a side, 0 to 1; see `whole`."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{name} is {value!r}; expected a fraction of the side, 0 to 1")
    return value


def positive(name: str, value: object) -> float:
    """Checks a finite number above 0; see `whole`."""
    if not _is_number(value) or not 0 < value < float("inf"):
        raise UserError(f"{name} is {value!r}; expected a finite number above 0")
    return value


def interval(name: str, value: object, highest: float) -> tuple[float, float]:
    """Checks (smallest, largest) within (0, `highest`]; see `whole`."""
    if not (isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))):
        raise UserError(f"{name} is {value!r}; expected two numbers, (smallest, largest)")
    if not 0 < value[0] <= value[1] <= highest or value[1] == float("inf"):
        limit = "" if highest == float("inf") else f" <= {highest:g}"
        raise UserError(f"{name} is {value}; expected 0 < smallest <= largest{limit}")
    return tuple(value)


def _is_number(value: object, kind: type = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
