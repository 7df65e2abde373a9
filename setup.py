"""Package metadata of invariance_jax: the only place where it is written."""

import pathlib
import re

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "invariance_jax/__init__.py").read_text(), re.MULTILINE
).group(1)

# `configs/` stands at the top level because people edit it there; it is installed as
# `invariance_jax.configs` so that `invariance-jax quickstart` works without a checkout.
PACKAGES = ["invariance_jax"] + [
    "invariance_jax." + room
    for room in (
        "transforms",
        "augment",
        "models",
        "data",
        "training",
        "evaluation",
        "report",
        "commands",
        "configs",
    )
]

setup(
    name="invariance_jax",
    version=VERSION,
    description="Where does invariance come from: architecture, data or augmentation? In JAX.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=PACKAGES,
    package_dir={"invariance_jax.configs": "configs"},
    package_data={"invariance_jax.report": ["*.html", "*.css"]},
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "clu>=0.0.12",
        "flax>=0.12",
        "grain>=0.2.12",
        "h5netcdf>=1.4",
        "h5py>=3.11",
        "jax>=0.8",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.25",
        "pillow>=11.0",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.8",
        "tqdm>=4.66",
        "xarray>=2024.9",
    ],
    extras_require={
        "test": ["hypothesis>=6.100", "pytest>=8.0", "pytest-xdist>=3.5", "ruff>=0.11"],
        "parity": ["timm>=1.0", "torch>=2.5"],
        "prepare": ["importlib_resources>=6.0", "tensorflow-cpu>=2.18"],
    },
    entry_points={"console_scripts": ["invariance-jax = invariance_jax.__main__:console"]},
)
