"""Compiled programs kept on disk, so that a resumed run starts at once."""

import os
import pathlib

import jax


def enable() -> None:
    """Keeps compiled programs in the user's cache folder.

    Does nothing where JAX has been told what to do: `JAX_COMPILATION_CACHE_DIR` names another
    folder, and `JAX_ENABLE_COMPILATION_CACHE=false` keeps none.
    """
    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(cache) / "invariance_jax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
