"""Meshes of runs, and what a loop holds on the devices while it runs ahead of them."""

import collections

import jax
import numpy as np
import pytest

from invariance_jax import devices
from invariance_jax.errors import UserError


class Result:
    """An array that a device is computing; it is there when someone has waited for it."""

    def __init__(self, number, events):
        self._number, self._events = number, events

    def block_until_ready(self):
        self._events.append(f"waited for {self._number}")
        return self

    def __array__(self, dtype=None, copy=None):
        self._events.append(f"fetched {self._number}")
        return np.asarray(self._number, dtype)


def test_a_loop_runs_ahead_by_as_many_results_as_it_may():
    events, queued = [], collections.deque()
    for number in range(5):
        events.append(f"queued {number}")
        devices.wait_for_all_but(2, queued, {"loss": Result(number, events)})
    assert events == [
        *("queued 0", "queued 1", "queued 2", "waited for 0"),
        *("queued 3", "waited for 1", "queued 4", "waited for 2"),
    ]
    assert len(queued) == 2


def test_results_are_fetched_one_behind():
    events = []

    def results():
        for number in range(3):
            events.append(f"queued {number}")
            yield Result(number, events)

    assert [int(each) for each in devices.one_behind(results())] == [0, 1, 2]
    assert events == [
        *("queued 0", "queued 1", "fetched 0", "queued 2", "fetched 1", "fetched 2"),
    ]
    assert list(devices.one_behind([])) == []


@pytest.mark.parametrize(
    ("count", "run", "data", "shape"),
    [
        (8, 0, 0, (8, 1)),
        (6, 0, 0, (2, 4)),  # as three turns of two leave nobody idle
        (7, 0, 0, (1, 8)),
        (32, 0, 0, (8, 1)),
        (8, 0, 2, (4, 2)),
        (3, 2, 1, (2, 1)),
        (8, 1, 0, (1, 8)),
    ],
)
def test_runs_are_divided_over_devices(count, run, data, shape):
    mesh = devices.make_mesh_of_runs(count, run, data)
    assert dict(mesh.shape) == {"run": shape[0], "data": shape[1], "model": 1}
    # One after another: a run's devices are neighbours.
    assert [each.id for each in mesh.devices.flat] == list(range(mesh.size))


@pytest.mark.parametrize(("run", "data"), [(9, 0), (4, 4), (0, 9)])
def test_mistakes_of_a_mesh_of_runs(run, data):
    with pytest.raises(UserError, match=r"config\.mesh\.run is .* config\.mesh\.data .* at most 8"):
        devices.make_mesh_of_runs(8, run, data)


class Device:
    def __init__(self, number, process):
        self.id, self.process_index = number, process


class Mesh:
    axis_names = ("run", "data", "model")

    def __init__(self, run, data):
        """Eight devices of two processes."""
        places = [Device(number, number // 4) for number in range(8)]
        self.devices = np.array(places).reshape(run, data, 1)
        self.shape = {"run": run, "data": data, "model": 1}


@pytest.mark.parametrize(
    ("run", "data", "parts"),
    [
        (1, 8, [(0, 2), (1, 2)]),  # each process has half of the batch
        (2, 4, [(0, 1), (0, 1)]),  # each has a run, and all of the batch
        (8, 1, [(0, 1), (0, 1)]),
    ],
)
def test_a_process_reads_what_its_devices_hold(run, data, parts, monkeypatch):
    mesh = Mesh(run, data)
    for process, part in enumerate(parts):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert devices.part_of_input(mesh) == part == devices.part_of_input(mesh, process)
