"""Measures the training step beside PyTorch, and what augmentation inside it costs.

    python benchmarks/train.py                                # one GPU or TPU core, at 224 pixels
    python benchmarks/train.py --models=resnet18 --size=64 --canvas=64 --batch=16 --dtype=float32
    python benchmarks/train.py --torch_python=PEERS/bin/python # torch from another environment

Writes `benchmarks/results/train_DEVICE.json` and prints a table; README.md explains both.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import sys
from typing import Any

import fresh_process

CASE_SECONDS = 1800
# Batches that fit an 80 GB device with room to spare.
BATCHES = {"resnet18": 1024, "resnet50": 256, "vit_s16": 512, "vit_b16": 256}
# What laptops train, and the batch of configs/digits.py.
SMALL = {"resnet8": 64, "vit_mu8": 64}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(BATCHES), help="which, with commas between")
    parser.add_argument("--batch", type=int, default=0, help="images a step (by model)")
    parser.add_argument("--size", type=int, default=224, help="side of the images (224)")
    parser.add_argument("--canvas", type=int, default=512, help="side of the canvas (512)")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--steps", type=int, default=20, help="steps timed at once (20)")
    parser.add_argument("--warmup", type=int, default=5, help="steps before (5)")
    parser.add_argument("--repeats", type=int, default=7, help="times; the median counts (7)")
    parser.add_argument("--seed", type=int, default=0, help="seed of images and parameters (0)")
    parser.add_argument("--peak_flops", type=float, default=0.0, help="of the device (by its name)")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    arguments = parser.parse_args()
    for field in ("steps", "warmup", "repeats", "size", "canvas"):
        if getattr(arguments, field) < 1:
            parser.error(f"--{field} is {getattr(arguments, field)}; expected at least 1")
    known = BATCHES | SMALL
    unknown = set(arguments.models.split(",")) - set(known)
    if unknown:
        parser.error(f"--models: unknown {sorted(unknown)}; expected of {', '.join(known)}")
    return arguments


def _cells(case: dict[str, Any]) -> list[str]:
    ours, torch = case["ours"], case["torch"]
    if "reason" in ours:
        return [ours["reason"]] + ["—"] * 5
    used = ours["augmented"]["model_flops_utilization"]
    ratio = case["plain_to_torch"]
    return [
        f"{ours['augmented']['images_per_second']:,.1f}",
        "—" if used is None else f"{used:.1%}",
        f"{ours['plain']['images_per_second']:,.1f}",
        f"{ours['price_of_augmentation']:+.1%}",
        f"{torch['images_per_second']:,.1f}" if "reason" not in torch else torch["reason"],
        "—" if ratio is None else f"{ratio:.2f}",
    ]


def main() -> None:
    """Runs every model by both, prints the table and writes the file."""
    arguments = _arguments()
    versions = fresh_process.device("flax", "optax")
    shared = {
        name: getattr(arguments, name)
        for name in ("size", "canvas", "dtype", "steps", "warmup", "repeats", "seed", "peak_flops")
    }
    load_before = os.getloadavg()
    cases = []
    for model in arguments.models.split(","):
        case = {"model": model, "batch": arguments.batch or (BATCHES | SMALL)[model], **shared}
        print(f"{model}, {case['batch']} images of {case['size']} pixels", file=sys.stderr)
        # Compile times are those of a first run.
        options = {"seconds": CASE_SECONDS, "extra": {"JAX_ENABLE_COMPILATION_CACHE": "false"}}
        case["ours"] = fresh_process.run_case("train_case.py", case, **options)
        case["torch"] = fresh_process.run_case(
            "train_torch.py", case, python=arguments.torch_python, **options
        )
        both = "reason" not in case["ours"] and "reason" not in case["torch"]
        case["plain_to_torch"] = (
            case["ours"]["plain"]["images_per_second"] / case["torch"]["images_per_second"]
            if both
            else None
        )
        cases.append(case)
    print(
        "| model | batch | with augmentation, images/s | MFU | without, images/s "
        "| price of augmentation | PyTorch, images/s | without ÷ PyTorch |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for case in cases:
        print(f"| {case['model']} | {case['batch']} | " + " | ".join(_cells(case)) + " |")
    report = {
        **versions,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cases": cases,
    }
    output = fresh_process.results_file("train", versions["device"], arguments.output)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
