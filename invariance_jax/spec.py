"""Named things with options, written as one string: `translate(t=0.1)`.

Models, augmentations, optimizers and schedules are chosen this way in configs, so that one flag
says all of an ablation and a table row can repeat it word for word.
"""

import ast
import inspect
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
