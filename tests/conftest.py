"""Fixtures and settings of every test: eight simulated CPU devices, no silent rank promotion.

Large libraries are imported here: what a module with checked annotations imports first is compiled
by Python each time anew.
"""

import inspect
import os
import pathlib
import signal

import hypothesis
import jax
import numpy as np
import optax  # noqa: F401
import prescribed
import pytest
import runtime_types
import xarray  # noqa: F401

# Commands that tests start leave nothing in the user's cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")

# Before the first use of a device: a mesh of 1 and a mesh of 8 run in the same process.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# In the background of a shell, or under `nohup`, these are ignored, by whatever is started too.
for number, default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

# No test asks for the time, and every run draws the same.
hypothesis.settings.register_profile("seeded", deadline=None, derandomize=True)
hypothesis.settings.load_profile("seeded")


# Where nearly all that tests do is compile. What is compared there is compiled alike on both sides.
_QUICKLY = {"commands", "evaluation", "factors", "faults", "launch", "report", "training"}
_QUICKLY |= {"test_config_files", "test_docs", "test_imports", "test_learned", "test_variants"}
_BUSY = {"test_photos"}  # these compute more than they compile


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lets XLA leave most optimizations out, here and in the processes that tests start.

    A hook and no fixture: the fixtures of a session are made first, and must be compiled alike.
    """
    path = item.path
    quickly = bool(_QUICKLY & {path.parent.name, path.stem}) and path.stem not in _BUSY
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quickly))
    jax.config.update("jax_disable_most_optimizations", quickly)
    # A test of mistakes passes on purpose what annotations forbid.
    source = inspect.getsource(getattr(item, "function", type(item)))
    runtime_types.enabled = "raises(" not in source and "mistakes" not in item.name


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


@pytest.fixture(scope="session")
def draw_weights():
    """Function from shapes to weights, drawn from their names as for the golden file."""
    return lambda shapes: {name: prescribed.draw(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """An uninterrupted run of `tiny()`: what it gave, and its workdir, which no test may change."""
    from tiny_runs import tiny

    from invariance_jax.training import experiment, loop

    workdir = tmp_path_factory.mktemp("finished") / "run"
    return loop.train(experiment.make(tiny()), workdir, announce=lambda _: None), workdir


@pytest.fixture
def goes_on(finished):
    """Trains on in a workdir, and compares all of it with the uninterrupted run, bit for bit."""

    from tiny_runs import tiny

    from invariance_jax.training import experiment, loop, metrics

    def go_on(workdir):
        said = []
        trained = loop.train(experiment.make(tiny()), workdir, announce=said.append)
        uninterrupted, expected = finished
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.device_get(trained.state),
            jax.device_get(uninterrupted.state),
        )
        assert (trained.top1, trained.top5) == (uninterrupted.top1, uninterrupted.top5)
        rows, expected_rows = metrics.read_metrics(workdir), metrics.read_metrics(expected)
        for name in ("step", "loss", "validation_top1"):
            assert [row.get(name) for row in rows] == [row.get(name) for row in expected_rows]
        return said

    return go_on
