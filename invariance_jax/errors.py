"""Errors for people: they name the field, the value, what was expected and the choices."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A mistake that the user can mend.

    The command line prints its message as one line and exits with code 2; a library caller
    catches it as a `ValueError`.
    """


class NotWrittenError(UserError, OSError):
    """A file that cannot be written; `errno` says why.

    A full disk is no mistake of the user's: the command line exits with code 1 then.
    """

    def __init__(self, message: str, number: int | None) -> None:
        super().__init__(message)
        self.errno = number


class RunError(RuntimeError):
    """A run that failed for a reason that one line explains; nothing of the user's is wrong.

    The command line prints its message and exits with code 1.
    """


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> UserError:
    """Makes the error for a name that is in no table.

    Args:
        kind: What the name should have named, for example `"augmentation"`.
        name: What was given.
        choices: Every valid name, in the order in which they are to be listed.

    Returns:
        The error, not raised, with the nearest valid name if one is near.
    """
    choices = list(choices)
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}; {hint}one of: {', '.join(choices)}")


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """Reads one entry of a table of named things.

    Args:
        table: The named things.
        name: Which one.
        kind: What the table holds, for the error message.

    Returns:
        `table[name]`.

    Raises:
        UserError: No such name; the message holds the nearest one and all choices.
    """
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
