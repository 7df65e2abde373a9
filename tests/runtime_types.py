"""Checks the annotations of the package, shapes of arrays included, while tests run.

pyproject.toml hands `check` to jaxtyping, which puts it around every function of the package.
"""

import functools
from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# Type hints allow an int where a float is expected (PEP 484). What `Self` is, only a class knows
# that is decorated as a whole.
_beartype = beartype(
    conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: Any}))
)
# Off in tests of mistakes, which pass on purpose what annotations forbid.
enabled = True


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function so that its arguments and its result are checked."""
    if function.__name__ == "__init__":
        # JAX makes pytrees anew with whatever it keeps for arrays while it traces.
        return function
    checked = _beartype(function)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return (checked if enabled else function)(*args, **kwargs)

    return called
