"""Measures runs that share a program and its input, beside the same runs one after another.

    python benchmarks/ablation.py --manual_dir=ILSVRC2012_SAMPLE
    python benchmarks/ablation.py --manual_dir=... --runs=4 --model=vit_mu8 --image_size=64

Photos are decoded by `--workers` processes for small networks, so that the input is the limit. All
runs are trained alone, each in a process, and then together in one; rates are images of all runs by
the time of all. Writes `benchmarks/results/ablation_DEVICE.json` and prints a table; README.md
explains it.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
from typing import Any

import fresh_process
from input import unpack

CASE_SECONDS = 1800
# What tells the runs apart; they have seeds of their own beside it.
OWN: tuple[dict[str, Any], ...] = (
    {"augment": {"name": "none"}},
    {"augment": {"name": "flip"}},
    {"augment": {"name": "translate(t=0.1)"}},
    {"augment": {"name": "random_resized_crop"}},
    {"augment": {"name": "random_resized_crop_flip"}},
    {"augment": {"name": "random_resized_crop_flip"}, "optimizer": {"learning_rate": 0.02}},
    {"augment": {"name": "random_resized_crop_flip", "mixing": ["mixup(alpha=0.2)"]}},
    {"augment": {"name": "random_resized_crop_flip"}, "train": {"label_smoothing": 0.1}},
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manual_dir", type=pathlib.Path, required=True, help="ImageNet's tars")
    parser.add_argument("--images", type=int, default=300, help="photos, repeated (300)")
    parser.add_argument("--runs", type=int, default=len(OWN), help=f"runs, at most {len(OWN)}")
    parser.add_argument("--model", default="resnet8", help="the network (resnet8)")
    parser.add_argument("--image_size", type=int, default=32, help="side that it sees (32)")
    parser.add_argument("--canvas", type=int, default=256, help="side of the canvas (256)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (64)")
    parser.add_argument("--steps", type=int, default=30, help="steps timed (30)")
    parser.add_argument("--warmup", type=int, default=15, help="steps before (15)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median counts (3)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(cores)")
    parser.add_argument("--devices", type=int, default=1, help="simulated, on a CPU (1)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    arguments = parser.parse_args()
    if not 2 <= arguments.runs <= len(OWN):
        parser.error(f"--runs is {arguments.runs}; expected 2 to {len(OWN)}")
    return arguments


def _config(number: int, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the config of one run sets."""
    size = arguments.image_size
    shared: dict[str, Any] = {
        "seed": number,
        "model": {"name": arguments.model},
        "data": {"name": "folder", "data_dir": folder, "train_split": "all", "shuffle_seed": 0},
        "train": {"batch_size": arguments.batch},
        "optimizer": {"learning_rate": 0.05},
    }
    sizes = {"image_size": size, "resize_size": size, "canvas_size": arguments.canvas}
    shared["data"] |= {**sizes, "workers": arguments.workers}
    return shared | {name: shared.get(name, {}) | each for name, each in OWN[number].items()}


def main() -> None:
    """Runs both ways in every round, prints the table and writes the file."""
    arguments = _arguments()
    versions = fresh_process.device("flax", "optax")
    load_before = os.getloadavg()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        count = unpack(arguments.manual_dir, pathlib.Path(folder), arguments.images)
        configs = [_config(number, folder, arguments) for number in range(arguments.runs)]
        shared = {name: getattr(arguments, name) for name in ("steps", "warmup", "devices")}
        # Round by round, so that another program's load meets both ways alike.
        for number in range(arguments.repeats):
            cases = [*([config] for config in configs), configs]
            found = [
                fresh_process.run_case(
                    "ablation_case.py", {"configs": case, **shared}, seconds=CASE_SECONDS
                )
                for case in cases
            ]
            if reasons := [each["reason"] for each in found if "reason" in each]:
                sys.exit(f"benchmarks/ablation.py: {reasons[0]}")
            *single, together = found
            images = arguments.steps * arguments.batch * arguments.runs
            one = {
                "alone": [each["seconds"] for each in single],
                "together": together["seconds"],
                "images_per_second_one_after_another": images
                / sum(each["seconds"] for each in single),
                "images_per_second_together": images / together["seconds"],
                "compile_seconds": [each["compile_seconds"] for each in found],
            }
            rounds.append(one)
            print(f"round {number + 1}: {json.dumps(one)}", file=sys.stderr, flush=True)
    names = ("images_per_second_one_after_another", "images_per_second_together")
    alone, together = (statistics.median(each[name] for each in rounds) for name in names)
    ratio = statistics.median(each[names[1]] / each[names[0]] for each in rounds)
    print("| runs | one after another, images/s | together, images/s | faster by |")
    print("|---|---|---|---|")
    print(f"| {arguments.runs} | {alone:,.0f} | {together:,.0f} | {ratio:.2f} |")
    report = {
        **versions,
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "photos": count,
        "settings": {
            name: value
            for name, value in vars(arguments).items()
            if name not in ("manual_dir", "output")
        },
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "faster_by": ratio,
        "rounds": rounds,
    }
    output = fresh_process.results_file("ablation", versions["device"], arguments.output)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
