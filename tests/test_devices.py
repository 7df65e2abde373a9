"""What a loop holds on the devices while it runs ahead of them."""

import collections

import numpy as np

from invariance_jax import devices


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
