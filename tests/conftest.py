"""Fixtures and settings of every test: eight simulated CPU devices, no silent rank promotion."""

import os
import pathlib

import jax
import pytest

# Commands that tests start leave nothing in the user's cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")

# Before the first use of a device: a mesh of 1 and a mesh of 8 run in the same process.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def golden_dir() -> pathlib.Path:
    """Small arrays that came from torchvision, Pillow and timm; see tests/golden/README.md."""
    return pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real ImageNet images, or a skip where it is absent."""
    folder = os.environ.get("INVARIANCE_JAX_DATA", "")
    if not folder:
        pytest.skip("INVARIANCE_JAX_DATA is not set")
    path = pathlib.Path(folder)
    if not path.is_dir():
        pytest.fail(f"INVARIANCE_JAX_DATA={folder} is not a folder")
    return path
