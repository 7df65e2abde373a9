"""How fast a run is, and what it waits for."""

import time
from collections.abc import Iterator
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class Throughput:
    """Counts between two lines of metrics: images, waiting, arithmetic, memory."""

    def __init__(
        self, *, batch_size: int, image_flops: float | None, peak_flops: float | None
    ) -> None:
        """Makes the counter; call `restart` where the first interval begins.

        Args:
            batch_size: Images a step.
            image_flops: Arithmetic that the model takes for one image; None if unknown.
            peak_flops: What all devices can do at best a second; None if unknown.
        """
        self._batch_size = batch_size
        known = image_flops is not None and peak_flops is not None
        self._utilization_of_a_rate = image_flops / peak_flops if known else None
        self._steps, self._waited, self._begun = 0, 0.0, 0.0

    def restart(self) -> None:
        """Begins an interval now."""
        self._steps, self._waited, self._begun = 0, 0.0, time.perf_counter()

    def take(self, batches: Iterator[T], pending: Any) -> T:
        """Takes the next batch and counts the wait if the devices had nothing else to do.

        Args:
            batches: The input.
            pending: Arrays that the last queued step will give out. If they are not ready when the
                batch has come, the devices were busy all the time, and nothing was lost.

        Returns:
            The batch.
        """
        asked = time.perf_counter()
        batch = next(batches)
        if all(leaf.is_ready() for leaf in jax.tree.leaves(pending)):
            self._waited += time.perf_counter() - asked
        self._steps += 1
        return batch

    def measure(self) -> dict[str, float | None]:
        """Measures the interval; call it when the steps are done, not only queued.

        Returns:
            `images_per_second`; `input_wait`, at most this share of the time the devices had no
            batch, 0 to 1; `model_flops_utilization`, 0 to 1, None where a count is unknown; and
            `peak_memory_bytes` of the fullest device of this process since the start, None where
            the device does not say.
        """
        seconds = time.perf_counter() - self._begun
        rate = self._steps * self._batch_size / seconds
        share = self._utilization_of_a_rate
        return {
            "images_per_second": rate,
            "input_wait": self._waited / seconds,
            "model_flops_utilization": None if share is None else rate * share,
            "peak_memory_bytes": _peak_memory(),
        }


def _peak_memory() -> int | None:
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(
        (each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each), default=None
    )
