"""Compiled programs kept on disk, so that a resumed run starts at once."""

import os
import pathlib
import tempfile

import jax


def enable() -> None:
    """Keeps compiled programs in the user's cache folder.

    Does nothing where `JAX_COMPILATION_CACHE_DIR` is set: it names another folder, or none if it
    is empty. Nor where there is no folder to write to: a cache is a help, not a need.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(cache) / "invariance_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # read-only, or a user without a home
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
