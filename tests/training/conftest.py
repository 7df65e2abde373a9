"""One finished run, for all tests of training."""

import jax
import numpy as np
import pytest
from tiny_runs import tiny

from invariance_jax.training import experiment, loop, metrics


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """An uninterrupted run of `tiny()`: what it gave, and its workdir, which no test may change."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return loop.train(experiment.make(tiny()), workdir, announce=lambda _: None), workdir


@pytest.fixture
def goes_on(finished):
    """Trains on in a workdir, and compares all of it with the uninterrupted run, bit for bit."""

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
