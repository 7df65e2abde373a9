"""Images that cannot be decoded: named and counted."""

from collections.abc import Callable
from typing import NamedTuple


class BadImage(NamedTuple):
    """An image that cannot be decoded.

    Attributes:
        name: Its id, as `Example` has it.
        reason: What is wrong with it.
    """

    name: str
    reason: str


class BadImageCounter:
    """Says each bad image once, with the number of bad images so far.

    Attributes:
        names: Ids of the bad images met.
    """

    def __init__(self, announce: Callable[[str], object]) -> None:
        """Counts from zero.

        Args:
            announce: Takes each message.
        """
        self.names: set[str] = set()
        self._announce = announce

    def __call__(self, bad: BadImage) -> None:
        """Counts an image; one that was met before, in an earlier epoch, is not counted again."""
        if bad.name in self.names:
            return
        self.names.add(bad.name)
        self._announce(
            f"skipped image {bad.name!r}: {bad.reason}; bad images so far: {len(self.names)}"
        )
