"""Weights from disk."""

import os
import pathlib
import zipfile

import numpy as np
import safetensors
import safetensors.numpy

from invariance_jax.errors import UserError


def load_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of named arrays.

    Args:
        path: A `.safetensors` or `.npz` file.

    Returns:
        Name to array, as `import_weights` takes it.

    Raises:
        UserError: The file is absent, has another suffix or cannot be read.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise UserError(f"weights {str(path)!r}: expected a .safetensors or .npz file")
    if not path.is_file():
        raise UserError(f"weights {str(path)!r}: no such file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        # Opened here, because `np.load` leaves a broken file open.
        with path.open("rb") as file, zipfile.ZipFile(file):
            file.seek(0)
            return dict(np.load(file, allow_pickle=False))
    except (OSError, ValueError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise UserError(f"weights {str(path)!r} cannot be read: {error}") from error
