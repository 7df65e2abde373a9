"""A folder of finished shards, so that an evaluation that was killed goes on where it stopped."""

import contextlib
import errno
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from invariance_jax import files
from invariance_jax.errors import UserError

_IDENTITY = "identity.json"


class Shards:
    """Arrays by kind and number, each written whole or not at all.

    The folder is marked with the identity of one measurement and refuses any other.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Names the folder; nothing is read or written.

        Args:
            folder: Where the shards are.
        """
        self.folder = folder

    def claim(self, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        """Marks the folder as this measurement's, or checks that it is.

        Args:
            identity: What must be equal for two measurements to be one, as JSON values.
            overwrite: Whether shards of another measurement are thrown away.

        Raises:
            UserError: They belong to another measurement and are kept.
        """
        path = self.folder / _IDENTITY
        text = json.dumps(identity, indent=2, sort_keys=True)
        # Without an identity there are no shards: it is written first and removed last.
        if path.exists():
            different = differing(json.loads(text), _read_json(path))
            if not different:
                return
            if not overwrite:
                raise UserError(
                    f"{self.folder} holds the unfinished evaluation of another measurement (its "
                    f"{', '.join(different)} differ); finish that one, remove the folder or give "
                    "--overwrite"
                )
            shutil.rmtree(self.folder)
        with explained(path):
            files.write_text(path, text)

    def missing(self, kind: str, count: int) -> list[int]:
        """Lists the shards that are still to be done.

        Args:
            kind: What they hold.
            count: How many there will be.

        Returns:
            Their numbers, ascending.
        """
        return [shard for shard in range(count) if not self._path(kind, shard).exists()]

    def save(self, kind: str, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes a shard.

        Args:
            kind: What it holds.
            shard: Its number.
            arrays: The arrays by name.

        Raises:
            UserError: The disk is full or cannot be written; nothing of the shard remains.
        """
        path = self._path(kind, shard)
        with explained(path), files.atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load(self, kind: str, shard: int) -> dict[str, np.ndarray]:
        """Reads a shard.

        Args:
            kind: What it holds.
            shard: Its number.

        Returns:
            The arrays by name.
        """
        with np.load(self._path(kind, shard), allow_pickle=False) as file:
            return dict(file)

    def save_matrix(self, kind: str, shard: int, matrix: np.ndarray) -> None:
        """Writes one large array that is later read in parts.

        Args:
            kind: What it holds.
            shard: Its number.
            matrix: The array.

        Raises:
            UserError: As `save`.
        """
        path = self._path(kind, shard).with_suffix(".npy")
        with explained(path), files.atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, matrix, allow_pickle=False)

    def open_matrix(self, kind: str, shard: int) -> np.ndarray:
        """Opens an array of `save_matrix`; what is not looked at is not read.

        Args:
            kind: What it holds.
            shard: Its number.

        Returns:
            The array, mapped into memory.
        """
        return np.load(self._path(kind, shard).with_suffix(".npy"), mmap_mode="r")

    def remove(self) -> None:
        """Removes the folder, if there is one: the whole result is written."""
        if not self.folder.exists():
            return
        # The identity goes last: what is left of a removal cut short is still claimed.
        for path in self.folder.iterdir():
            if path.name != _IDENTITY:
                path.unlink()
        shutil.rmtree(self.folder)

    def _path(self, kind: str, shard: int) -> pathlib.Path:
        return self.folder / f"{kind}_{shard:05d}.npz"


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names the entries in which two identities differ.

    Args:
        ours: One identity.
        theirs: The other; entries may be missing.

    Returns:
        Names, in our order.
    """
    return [name for name in ours if name not in theirs or ours[name] != theirs[name]]


@contextlib.contextmanager
def explained(path: pathlib.Path) -> Iterator[None]:
    """Turns a failed write into one line for people.

    Args:
        path: What is being written.

    Raises:
        UserError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; make room and give the same command: it goes on" if full else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{advice}") from error


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
