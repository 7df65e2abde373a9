"""How fast a run is: what it waits for, how busy the devices are, and a trace of its steps."""

import contextlib
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from invariance_jax.errors import UserError
from invariance_jax.models import init_variables

T = TypeVar("T")

# BatchNorm needs more than one value a channel.
_COUNTED = 2

# Dense bfloat16 operations per second of one JAX device, from the makers' data sheets. A device of
# TPU v2 and v3 is one of a chip's two cores.
PEAK_FLOPS: Mapping[str, float] = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "Tesla T4": 65e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str, configured: float) -> float | None:
    """What one device can do at best.

    Args:
        device_kind: `jax.Device.device_kind`.
        configured: `config.mesh.peak_flops`; it wins unless 0.

    Returns:
        Operations per second in bfloat16, or None for a device that the table lacks, such as a
        CPU.
    """
    return configured or PEAK_FLOPS.get(device_kind)


def training_flops(model: nn.Module, image_size: int) -> float | None:
    """Counts the arithmetic of one image's forward and backward pass.

    These are the model's operations: what augmentation, the optimizer and recomputed activations
    cost on top is not counted, as in PaLM's definition of model FLOPs utilisation (arXiv
    2204.02311, appendix B). XLA counts them in the program before it is optimised; its counts of
    an optimised one miss what became a library's kernel, and the body of a loop counts once.

    Args:
        model: The network.
        image_size: Side of the images, pixels.

    Returns:
        Multiplications and additions, about three times the forward pass; None where JAX was
        told to leave out the CPU, which alone can count before compiling.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    # How BatchNorm groups its images and what is computed twice changes no count.
    plain = {"ghost_batch_size": 0, "remat": False}
    model = model.clone(**{name: value for name, value in plain.items() if hasattr(model, name)})
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), image_size))

    def loss(variables: Any, images: jax.Array) -> jax.Array:
        (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jax.nn.log_softmax(logits))

    images = jax.ShapeDtypeStruct((_COUNTED, image_size, image_size, 3), jnp.float32)
    with jax.default_device(cpu):
        traced = jax.jit(jax.grad(loss)).trace(variables, images)
        # A CPU's own convolutions multiply zeros at the border too, which others do not count.
        counted = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    return counted["flops"] / _COUNTED


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


def parse_range(text: str) -> tuple[int, int] | None:
    """Reads `START:STOP`.

    Args:
        text: Two steps, or nothing.

    Returns:
        The first step that is traced and the first that is not; None for no text.

    Raises:
        UserError: The text has another form, or the range is empty.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 1 <= int(found[1]) < int(found[2]):
        raise UserError(
            f"--profile is {text!r}; expected START:STOP, the first step that is traced (at least "
            "1) and the first that is not: 10:15"
        )
    return int(found[1]), int(found[2])


@contextlib.contextmanager
def profile(
    workdir: pathlib.Path, steps: tuple[int, int] | None
) -> Iterator[Callable[[int, Any], None]]:
    """Traces the steps of one range into `WORKDIR/profile`.

    Args:
        workdir: The run's folder.
        steps: The first step that is traced and the first that is not; None for no trace.

    Yields:
        `before(step, pending)`, to be called before each step is queued, with what the step before
        returned. That is waited for where the trace starts and ends, so that the trace holds the
        range's steps and no others.
    """
    start, stop = steps or (0, 0)
    running = False

    def before(step: int, pending: Any) -> None:
        nonlocal running
        if running == (start <= step < stop):
            return
        jax.block_until_ready(pending)
        if running:
            jax.profiler.stop_trace()
        else:
            jax.profiler.start_trace(workdir / "profile")
        running = not running

    try:
        yield before
    finally:
        if running:
            jax.profiler.stop_trace()
