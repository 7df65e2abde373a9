"""Named things with options, written as one string: `translate(t=0.1)`; checks of the options.

Models, augmentations, optimizers and schedules are chosen this way in configs, so that one flag
says all of an ablation and a table row can repeat it word for word.
"""

import ast
import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from invariance_jax.errors import UserError, lookup

T = TypeVar("T")


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Splits `name(option=value, ...)` into the name and its options.

    Args:
        text: A name, alone or with options in Python's keyword syntax; values are literals.

    Returns:
        The name and a dict of the options.

    Raises:
        UserError: The text has another form.

    Examples:
        >>> parse("translate(t=0.1)")
        ('translate', {'t': 0.1})
        >>> parse("resnet18")
        ('resnet18', {})
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        if isinstance(expression, ast.Name):
            return expression.id, {}
        if (
            isinstance(expression, ast.Call)
            and isinstance(expression.func, ast.Name)
            and not expression.args
            and all(keyword.arg for keyword in expression.keywords)
        ):
            options = {k.arg: ast.literal_eval(k.value) for k in expression.keywords}
            return expression.func.id, options
    except (SyntaxError, ValueError):
        pass
    raise UserError(f"cannot read {text!r}; expected a name or name(option=value, ...)")


def call(
    table: Mapping[str, Callable[..., T]], text: str, *arguments: Any, kind: str, field: str
) -> T:
    """Calls the function of a table that `name(option=value, ...)` names.

    Args:
        table: Functions by name. Their options are the keyword-only parameters and those that
            have a default.
        text: The name, with options.
        *arguments: What the function takes before its options.
        kind: What the table holds, for error messages: "schedule".
        field: Where the text came from, for error messages: "config.optimizer.schedule".

    Returns:
        What the function returned.

    Raises:
        UserError: Another form, unknown name or option, or a value that the function refuses; the
            message starts with the field.

    Examples:
        >>> call({"step": lambda *, every: every}, "step(every=3)", kind="schedule", field="f")
        3
    """
    try:
        name, options = parse(text)
        function = lookup(table, name, kind)
        known = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty
        ]
        for option in options:
            if option not in known:
                choices = ", ".join(known) or "none"
                raise UserError(f"{kind} {name!r} has no option {option!r}; its options: {choices}")
        return function(*arguments, **options)
    except TypeError as error:
        raise UserError(f"{field}: {text!r}: {error}") from error
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def check_number(
    name: str,
    value: object,
    low: float,
    high: float,
    expected: str | None = None,
    *,
    whole: bool = False,
) -> float:
    """Checks that an option is a number in its range, ends included.

    Args:
        name: The option, for the error message.
        value: What was given.
        low: The smallest allowed.
        high: The largest allowed.
        expected: What is expected, for the error message, where it is more than the range.
        whole: Whether the number must be whole.

    Returns:
        The value, a float unless it must be whole.

    Raises:
        UserError: It is no such number.

    Examples:
        >>> check_number("probability", 1, 0, 1)
        1.0
    """
    if not _is_number(value, int if whole else int | float) or not low <= value <= high:
        expected = expected or f"a {'whole ' * whole}number, {low:g} to {high:g}"
        raise UserError(f"{name} is {value!r}; expected {expected}")
    return value if whole else float(value)


def check_interval(name: str, value: object, highest: float = math.inf) -> tuple[float, float]:
    """Checks that an option is a (smallest, largest) pair of finite numbers above 0.

    Args:
        name: The option, for the error message.
        value: What was given.
        highest: The largest allowed.

    Returns:
        The pair.

    Raises:
        UserError: It is no such pair.

    Examples:
        >>> check_interval("scale", [0.5, 1], 1.0)
        (0.5, 1.0)
    """
    if not (isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))):
        raise UserError(f"{name} is {value!r}; expected two numbers, (smallest, largest)")
    if not 0 < value[0] <= value[1] <= highest or value[1] == math.inf:
        limit = "" if highest == math.inf else f" <= {highest:g}"
        raise UserError(f"{name} is {value}; expected 0 < smallest <= largest{limit}")
    return tuple(map(float, value))


def _is_number(value: object, kind: type | types.UnionType = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
