"""Checks of the numbers that augmentations are made with."""

from invariance_jax.errors import UserError


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Checks that a number lies in its range, ends included.

    Args:
        name: How the error calls it.
        value: The number.
        low: The smallest allowed.
        high: The largest allowed.

    Raises:
        UserError: It does not, or is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{name} is {value!r}; expected a number, {low:g} to {high:g}")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Checks that a whole number lies in its range, ends included.

    Args:
        name: How the error calls it.
        value: The number.
        low: The smallest allowed.
        high: The largest allowed.

    Raises:
        UserError: It does not, or is no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name} is {value!r}; expected a whole number, {low} to {high}")


def check_pair(name: str, value: tuple[float, float], highest: float) -> None:
    """Checks a (smallest, largest) pair of positive numbers.

    Args:
        name: How the error calls it.
        value: The pair.
        highest: The largest allowed.

    Raises:
        UserError: It is no pair, or not 0 < smallest <= largest <= highest.
    """
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise UserError(f"{name} is {value!r}; expected two numbers, (smallest, largest)")
    if not 0 < value[0] <= value[1] <= highest:
        raise UserError(f"{name} is {value}; expected 0 < smallest <= largest <= {highest:g}")
