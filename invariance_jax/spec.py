"""Named things with options, written as one string: `translate(t=0.1)`.

Models, augmentations, optimizers and schedules are chosen this way in configs, so that one flag
says all of an ablation and a table row can repeat it word for word.
"""

import ast
from typing import Any

from invariance_jax.errors import UserError


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
