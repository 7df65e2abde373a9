"""One model of `train.py` in its own process: the whole step, with and without augmentation.

Reads the case as JSON from its argument and prints the result as one line of JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invariance_jax import augment, host_memory, models
from invariance_jax.config import OptimizerConfig
from invariance_jax.training.losses import make_loss
from invariance_jax.training.optimizer import make_optimizer, make_schedule
from invariance_jax.training.performance import peak_flops, training_flops
from invariance_jax.training.state import init_state
from invariance_jax.training.step import TrainMetrics, make_train_step
from invariance_jax.transforms import normalize

CLASSES = 1000
AUGMENTATION = "random_resized_crop_flip"
# Photos of ImageNet are about 500 by 375 on a canvas of 512.
ASPECT = 375 / 512
OPTIMIZER = OptimizerConfig(
    name="sgd(momentum=0.9)",
    learning_rate=0.01,
    schedule="constant",
    warmup_steps=0,
    weight_decay=1e-4,
    weight_decay_on="all",
    grad_clip_norm=0.0,
)


def _as_it_is(key: Any, canvas: Any, height: Any, width: Any) -> Any:
    """The image that the canvas holds, which already has the model's size."""
    return canvas.astype(jnp.float32) / 255


def _unmixed(key: Any, images: Any, target: Any) -> Any:
    return images, target


def _batch(count: int, side: int, height: int, seed: int) -> dict[str, Any]:
    """Noise of full contrast on the device: what is computed does not depend on the pixels."""
    generator = np.random.default_rng(seed)
    return jax.device_put(
        {
            "canvas": generator.integers(0, 256, (count, side, side, 3), np.uint8),
            "height": np.full(count, height, np.int32),
            "width": np.full(count, side, np.int32),
            "label": generator.integers(0, CLASSES, count, np.int32),
            "index": np.arange(count, dtype=np.int32),
        }
    )


def _timed(case: dict[str, Any], augmentation: Callable[..., Any], batch: dict[str, Any]) -> Any:
    """Compiles one kind of step; gives a function that times some, and seconds of compiling."""
    model = models.create(case["model"], CLASSES, dtype=case["dtype"])
    optimizer = make_optimizer(OPTIMIZER, 1)
    key = jax.random.key(case["seed"])
    state = init_state(model, optimizer, key, case["size"])
    metrics = TrainMetrics.empty()
    step = make_train_step(
        model,
        jax.vmap(lambda *shown: augmentation(*shown[:4])),  # without the label
        _unmixed,
        optimizer,
        make_schedule(OPTIMIZER, 1),
        key,
        normalize=normalize,
        loss=make_loss("cross_entropy", 0.0),
        grad_accum_steps=1,
        ema_decay=0.0,
    )
    begun = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(state, metrics, batch).compile()
    compile_seconds = time.perf_counter() - begun

    def run(steps: int) -> float:
        nonlocal state, metrics
        begun = time.perf_counter()
        for _ in range(steps):
            state, metrics = compiled(state, metrics, batch)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - begun

    run(case["warmup"])
    return run, compile_seconds


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Times both steps in turn, so that what slows the machine slows both."""
    size, canvas, count = case["size"], case["canvas"], case["batch"]
    kinds = {
        "augmented": (
            augment.get(AUGMENTATION, size=size, resize=size),
            _batch(count, canvas, round(canvas * ASPECT), case["seed"]),
        ),
        "plain": (_as_it_is, _batch(count, size, size, case["seed"])),
    }
    prepared = {name: _timed(case, *kind) for name, kind in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(case["repeats"]):
        for name, (run, _) in prepared.items():
            seconds[name].append(run(case["steps"]))
    device = jax.devices()[0]
    image_flops = training_flops(models.create(case["model"], CLASSES), size)
    peak = peak_flops(device.device_kind, case["peak_flops"])
    stats = device.memory_stats() or {}
    result: dict[str, Any] = {
        "training_flops_of_an_image": image_flops,
        "peak_flops": peak,
        "device_peak_bytes": stats.get("peak_bytes_in_use"),
    }
    for name, (_, compile_seconds) in prepared.items():
        rate = case["steps"] * count / statistics.median(seconds[name])
        result[name] = {
            "images_per_second": rate,
            "model_flops_utilization": image_flops and peak and rate * image_flops / peak,
            "seconds": seconds[name],
            "compile_seconds": compile_seconds,
        }
    # Pair by pair, as they ran one after the other.
    ratios = [a / b for a, b in zip(seconds["augmented"], seconds["plain"], strict=True)]
    result["price_of_augmentation"] = statistics.median(ratios) - 1
    return result


if __name__ == "__main__":
    host_memory.keep()  # as the command `train` does
    print(json.dumps(measure(json.loads(sys.argv[1]))))
