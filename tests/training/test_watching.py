"""What a run says about itself: speed, waiting, arithmetic, traces."""

import jax
import numpy as np
import pytest
from tiny_runs import tiny, with_

from invariance_jax import models
from invariance_jax.errors import UserError
from invariance_jax.training import experiment, loop, metrics, performance
from invariance_jax.training.performance import (
    PEAK_FLOPS,
    Throughput,
    parse_range,
    peak_flops,
    profile,
    training_flops,
)


class Clock:
    """Time that passes only when told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(performance.time, "perf_counter", lambda: self.now)

    def slow(self, seconds):
        """An endless input that takes so long for each batch."""
        while True:
            self.now += seconds
            yield "batch"


class Pending:
    """An array that is being computed, or is not."""

    def __init__(self, ready):
        self.is_ready = lambda: ready


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_rate_wait_and_utilization_by_hand(clock):
    counter = Throughput(batch_size=10, image_flops=3.0, peak_flops=200.0)
    counter.restart()
    batches = clock.slow(0.5)
    assert counter.take(batches, [Pending(True)]) == "batch"  # the devices waited
    counter.take(batches, [Pending(False)])  # they had work
    counter.take(batches, [Pending(True), Pending(False)])
    clock.now += 2.5
    found = counter.measure()
    assert found["images_per_second"] == pytest.approx(30 / 4)
    assert found["input_wait"] == pytest.approx(0.5 / 4)
    assert found["model_flops_utilization"] == pytest.approx(7.5 * 3 / 200)

    counter.restart()
    counter.take(batches, [Pending(False)])
    assert counter.measure()["images_per_second"] == pytest.approx(10 / 0.5)
    assert counter.measure()["input_wait"] == 0


@pytest.mark.parametrize(("image_flops", "peak"), [(None, 1.0), (1.0, None)])
def test_what_is_not_known_is_none(clock, image_flops, peak):
    counter = Throughput(batch_size=1, image_flops=image_flops, peak_flops=peak)
    counter.restart()
    counter.take(clock.slow(1.0), [Pending(True)])
    assert counter.measure()["model_flops_utilization"] is None


def test_memory_is_that_of_the_fullest_device(clock, monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    counter = Throughput(batch_size=1, image_flops=None, peak_flops=None)
    counter.restart()
    counter.take(clock.slow(1.0), [])
    for stats, expected in (
        ([{"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 9}], 9),
        ([None, {"bytes_in_use": 3}], None),
    ):
        monkeypatch.setattr(
            performance.jax, "local_devices", lambda stats=stats: [Device(each) for each in stats]
        )
        assert counter.measure()["peak_memory_bytes"] == expected


# Multiplications and additions of a forward pass at 224 pixels, from the papers: He et al.'s
# ResNets in torchvision's layout, 1.82 and 4.09 billion of each; ViT-S/16, 4.6.
@pytest.mark.parametrize(
    ("name", "forward"), [("resnet18", 2 * 1.82e9), ("resnet50", 2 * 4.09e9), ("vit_s16", 9.2e9)]
)
def test_training_takes_three_times_the_forward_pass(name, forward):
    # Less the gradient of the image itself, which nobody needs.
    assert training_flops(models.create(name, 1000), 224) == pytest.approx(3 * forward, rel=0.1)


def test_arithmetic_does_not_count_what_is_computed_twice():
    plain, again = (models.create("vit_mu8", 10, remat=remat) for remat in (False, True))
    assert training_flops(plain, 8) == training_flops(again, 8)


def test_peak_is_looked_up_unless_given():
    assert peak_flops("NVIDIA A100-SXM4-80GB", 0.0) == PEAK_FLOPS["NVIDIA A100-SXM4-80GB"] == 312e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", 5.0) == 5.0
    assert peak_flops("cpu", 0.0) is None


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A run with a peak, a trace of two steps and a table of parameters."""
    workdir = tmp_path_factory.mktemp("traced")
    config = with_(tiny(), mesh={"peak_flops": 1e12})
    loop.train(experiment.make(config), workdir, announce=lambda _: None, profile=(2, 4))
    return config, workdir


def test_the_metrics_hold_all_of_it(traced):
    config, workdir = traced
    rows = metrics.read_metrics(workdir)
    image_flops = training_flops(experiment.make(config).model, 8)
    for row in rows:
        assert row["model_flops_utilization"] == pytest.approx(
            row["images_per_second"] * image_flops / 1e12
        )
        assert 0 <= row["input_wait"] <= 1
        assert row["peak_memory_bytes"] is None  # CPUs do not say
    assert len(rows) == 4


def test_the_loop_refuses_arrays_that_are_still_on_the_host(tmp_path, monkeypatch):
    given = loop.training_input
    monkeypatch.setattr(
        loop, "training_input", lambda *args: (jax.device_get(batch) for batch in given(*args))
    )
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        loop.train(experiment.make(tiny()), tmp_path, announce=lambda _: None)


def test_the_trace_is_written(traced):
    _, workdir = traced
    assert len(list((workdir / "profile").rglob("*.xplane.pb"))) == 1


def test_the_trace_holds_its_steps_alone(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: said.append(folder.name))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: said.append("stop"))
    monkeypatch.setattr(jax, "block_until_ready", lambda pending: said.append(pending))
    with profile(tmp_path, (2, 4)) as before_step:
        for step in range(1, 7):
            before_step(step, f"after {step - 1}")
    assert said == ["after 1", "profile", "after 3", "stop"]
    said.clear()
    with profile(tmp_path, (2, 9)) as before_step:  # a run that ends before the range does
        before_step(2, "after 1")
    assert said == ["after 1", "profile", "stop"]
    said.clear()
    with profile(tmp_path, None) as before_step:
        before_step(0, "after -1")
    assert said == []


def test_the_table_lists_every_parameter_and_its_sharding(traced):
    config, workdir = traced
    text = (workdir / "parameters.txt").read_text()
    params = experiment.make(config).init_state().params
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    assert (
        "stage3_block1/conv2/kernel" in text and "Sharding" in text and f"Total: {total:,}" in text
    )


def test_ranges_of_steps():
    assert parse_range("10:15") == (10, 15) and parse_range("") is None
    for text in ("10", "5:5", "0:3", "a:b", "1:2:3"):
        with pytest.raises(UserError, match=r"--profile is .*START:STOP"):
            parse_range(text)
