"""Measures the CPU's own convolutions and max-pool beside `jax.lax`'s, and what a network gains.

    python benchmarks/convolution.py              # about five minutes on two cores
    python benchmarks/convolution.py --repeats=3

Every pair is timed in turn in this process, so that what slows the machine slows both. Writes
`benchmarks/results/convolution_DEVICE.json` and prints a table; README.md explains it.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import fresh_process
import jax
import jax.numpy as jnp
import optax
from jax import lax

from invariance_jax import models
from invariance_jax.models import convolution, resnet

HERE = pathlib.Path(__file__).parent

# Images, side, channels, features, kernel, stride: layers of ResNet-18 at 64 pixels, of ResNet-50
# at 224, and of the digits' network.
LAYERS = (
    (32, 64, 3, 64, 7, 2),
    (32, 32, 64, 64, 3, 1),
    (32, 16, 64, 64, 3, 1),
    (32, 16, 64, 128, 3, 2),
    (32, 8, 128, 128, 3, 1),
    (32, 4, 256, 256, 3, 1),
    (32, 4, 256, 512, 3, 2),
    (32, 2, 512, 512, 3, 1),
    (4, 56, 64, 64, 3, 1),
    (4, 28, 256, 128, 1, 1),
    (4, 14, 256, 1024, 1, 1),
    (4, 7, 512, 512, 3, 1),
    (64, 16, 16, 16, 3, 1),
)
NETWORKS = (("resnet18", 64, 64), ("resnet8", 32, 64), ("resnet18", 224, 4), ("resnet50", 224, 4))


def _plain_convolve(images: Any, kernel: Any, strides: Any, padding: Any, **options: Any) -> Any:
    return lax.conv_general_dilated(images, kernel, strides, padding, **options)


def _plain_max_pool(images: Any, window: int, stride: int, padding: int = 0) -> Any:
    sides = ((padding, padding), (padding, padding))
    return resnet.nn.max_pool(images, (window, window), (stride, stride), sides)


def _in_turn(programs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each program, the median of as many calls; the first is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program())
            if repeat:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _layer(layer: tuple[int, ...], repeats: int) -> dict[str, Any]:
    count, side, channels, features, kernel, stride = layer
    images = jax.random.normal(jax.random.key(0), (count, side, side, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels, features))
    padding = ((kernel // 2, kernel // 2),) * 2
    programs = {}
    for by, function in {"ours": convolution.convolve, "lax": _plain_convolve}.items():

        def whole(images: Any, weights: Any, function: Any = function) -> Any:
            names = ("NHWC", "HWIO", "NHWC")
            return function(images, weights, (stride, stride), padding, dimension_numbers=names)

        def backward(images: Any, weights: Any, cotangent: Any, by: int, whole: Any = whole) -> Any:
            def of_one(value: Any) -> Any:
                return whole(*((value, weights) if by == 0 else (images, value)))

            return jax.vjp(of_one, (images, weights)[by])[1](cotangent)[0]

        cotangent = jax.jit(whole)(images, weights)
        compiled = {
            "forward": jax.jit(whole).lower(images, weights).compile(),
            "by images": jax.jit(lambda i, w, c, f=backward: f(i, w, c, 0)),
            "by weights": jax.jit(lambda i, w, c, f=backward: f(i, w, c, 1)),
        }
        programs |= {
            f"{by} forward": lambda f=compiled["forward"]: f(images, weights),
            f"{by} by images": lambda f=compiled["by images"], c=cotangent: f(images, weights, c),
            f"{by} by weights": lambda f=compiled["by weights"], c=cotangent: f(images, weights, c),
        }
    seconds = _in_turn(programs, repeats)
    sides = (side + stride - 1) // stride
    billions = 2e-9 * count * sides**2 * channels * features * kernel**2
    return {
        "layer": dict(
            zip(("images", "side", "channels", "features", "kernel", "stride"), layer, strict=True)
        ),
        "billions_of_operations": billions,
        "billions_a_second": {name: billions / value for name, value in seconds.items()},
    }


def _network(name: str, size: int, count: int, repeats: int) -> dict[str, Any]:
    images = jax.random.normal(jax.random.key(0), (count, size, size, 3))
    labels = jnp.arange(count) % 100
    kinds = {
        "ours": (convolution.convolve, convolution.max_pool),
        "lax": (_plain_convolve, _plain_max_pool),
    }
    programs, compile_seconds = {}, {}
    for by, (resnet.convolve, resnet.max_pool) in kinds.items():
        model = models.create(name, 100)
        variables = jax.jit(lambda key, model=model: model.init(key, images, train=False))(
            jax.random.key(1)
        )

        def loss(variables: Any, model: Any = model) -> Any:
            (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        def forward(variables: Any, model: Any = model) -> Any:
            return model.apply(variables, images, train=False)[0]

        for kind, function in {"gradient": jax.grad(loss), "forward": forward}.items():
            begun = time.perf_counter()
            compiled = jax.jit(function).lower(variables).compile()
            compile_seconds[f"{by} {kind}"] = time.perf_counter() - begun
            programs[f"{by} {kind}"] = lambda f=compiled, v=variables: f(v)
    resnet.convolve, resnet.max_pool = kinds["ours"]
    seconds = _in_turn(programs, repeats)
    return {
        "network": name,
        "size": size,
        "batch": count,
        "images_per_second": {kind: count / value for kind, value in seconds.items()},
        "compile_seconds": compile_seconds,
    }


def main() -> None:
    """Measures all, prints a table, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="calls; the median counts (5)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    arguments = parser.parse_args()
    versions = fresh_process.device("flax")
    load = os.getloadavg()
    layers = []
    print("| images, side, channels, features, kernel, stride | forward | by images | by weights |")
    print("|---|---|---|---|")
    for layer in LAYERS:
        layers.append(_layer(layer, arguments.repeats))
        rate = layers[-1]["billions_a_second"]
        cells = (
            f"{rate[f'ours {kind}']:.0f} ({rate[f'ours {kind}'] / rate[f'lax {kind}']:.1f})"
            for kind in ("forward", "by images", "by weights")
        )
        print(f"| {', '.join(map(str, layer))} | {' | '.join(cells)} |", flush=True)
    networks = []
    print(
        "\n| network, pixels, batch | gradient, images/s | of lax | forward | of lax | compile s |"
    )
    print("|---|---|---|---|---|---|")
    for network in NETWORKS:
        networks.append(_network(*network, arguments.repeats))
        rate, compiling = networks[-1]["images_per_second"], networks[-1]["compile_seconds"]
        print(
            f"| {', '.join(map(str, network))} | {rate['ours gradient']:.1f} "
            f"| {rate['ours gradient'] / rate['lax gradient']:.2f} | {rate['ours forward']:.1f} "
            f"| {rate['ours forward'] / rate['lax forward']:.2f} "
            f"| {compiling['ours gradient']:.0f} (lax {compiling['lax gradient']:.0f}) |",
            flush=True,
        )
    result = {
        **versions,
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "repeats": arguments.repeats,
        "load_before": load,
        "load_after": os.getloadavg(),
        "layers": layers,
        "networks": networks,
    }
    output = arguments.output or HERE / "results" / f"convolution_{versions['platform']}.json"
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
