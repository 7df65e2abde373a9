"""A folder of finished shards, so that an evaluation that was killed goes on where it stopped."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from jaxtyping import Int

from invariance_jax import files
from invariance_jax.config import differing
from invariance_jax.errors import UserError

_IDENTITY = "identity.json"
_STAMP, _MATRICES = "identity", "matrices"
# The array of every shard that says which images it is of.
POSITIONS = "positions"


class Shards:
    """Arrays by number, each shard written whole or not at all.

    The folder is marked with the identity of one measurement and refuses any other; so does each
    file, because two evaluations at once may have written into it.
    """

    def __init__(self, folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
        """Names the folder; nothing is read or written.

        Args:
            folder: Where the shards are.
            identity: What must be equal for two measurements to be one, as JSON values.
        """
        self.folder = folder
        self._identity = identity
        self._text = json.dumps(identity, indent=2, sort_keys=True)
        self._stamp = hashlib.sha256(self._text.encode()).hexdigest()

    def claim(self, *, overwrite: bool) -> None:
        """Marks the folder as this measurement's, or checks that it is.

        Args:
            overwrite: Whether shards of another measurement are thrown away.

        Raises:
            UserError: They belong to another measurement and are kept, or nothing can be written.
        """
        path = self.folder / _IDENTITY
        if path.exists():
            different = differing(self._identity, _read_json(path))
            if not different:
                return
            if not overwrite:
                raise UserError(
                    f"{self.folder} holds the unfinished evaluation of another measurement (its "
                    f"{', '.join(different)} differ); finish that one, remove the folder or give "
                    "--overwrite"
                )
            shutil.rmtree(self.folder)
        files.write_text(path, self._text)

    def missing(self, positions: Sequence[Int[np.ndarray, " _"]]) -> list[int]:
        """Lists the shards that are still to be done.

        They are absent, damaged, of another measurement, or of other images: which ones a shard
        holds depends on what is measured along with it.

        Args:
            positions: Positions in the source of the images of each shard.

        Returns:
            The numbers of the shards, ascending.
        """
        return [shard for shard, wanted in enumerate(positions) if not self._holds(shard, wanted)]

    def save(
        self, shard: int, arrays: Mapping[str, np.ndarray], matrices: Set[str] = set()
    ) -> None:
        """Writes a shard.

        Args:
            shard: Its number.
            arrays: The arrays by name, `POSITIONS` among them.
            matrices: Those of them [image, row, length] that are later read row by row: each is a
                file of its own.

        Raises:
            UserError: The disk is full or cannot be written; nothing of the shard remains.
        """
        matrices = matrices & arrays.keys()
        for name in sorted(matrices):
            path = self._matrix(shard, name)
            with files.atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.moveaxis(arrays[name], 1, 0), allow_pickle=False)
        small = {name: value for name, value in arrays.items() if name not in matrices}
        small |= {_STAMP: np.array(self._stamp), _MATRICES: np.array(sorted(matrices), np.str_)}
        # Last: it stands for the whole shard.
        with files.atomic_path(self._path(shard)) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **small)

    def load(self, shard: int) -> dict[str, np.ndarray]:
        """Reads a shard.

        Args:
            shard: Its number.

        Returns:
            The arrays by name; matrices, [row, image, length], are mapped into memory.
        """
        return self._read(shard)

    def remove(self) -> None:
        """Removes the folder, if there is one: the whole result is written."""
        if self.folder.exists():
            # The identity goes last: what is left of a removal cut short is still claimed.
            for path in self.folder.glob("*.np*"):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _holds(self, shard: int, positions: Int[np.ndarray, " image"]) -> bool:
        try:
            return np.array_equal(self._read(shard)[POSITIONS], positions)
        except Exception:  # zipfile and numpy meet a damaged byte in many ways
            return False

    def _read(self, shard: int) -> dict[str, np.ndarray]:
        """The arrays; every byte but those of matrices is compared with the file's checksums."""
        with self._path(shard).open("rb") as file, np.load(file, allow_pickle=False) as opened:
            found = dict(opened)
        if str(found.pop(_STAMP)) != self._stamp:
            raise ValueError(f"{self._path(shard)} is of another measurement")
        for name in found.pop(_MATRICES).tolist():
            # Refuses a file that is shorter than it says.
            found[name] = np.lib.format.open_memmap(self._matrix(shard, name), mode="r")
        return found

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / f"{shard:05d}.npz"

    def _matrix(self, shard: int, name: str) -> pathlib.Path:
        return self.folder / f"{shard:05d}_{name}.npy"


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
