"""Measures the grid and the search: beside bare passes, beside a PyTorch loop, and their memory.

    python benchmarks/evaluate.py                                  # a GPU: bfloat16, 224 pixels
    python benchmarks/evaluate.py --size=96 --batch=2 --repeats=3  # two CPU cores, float32
    python benchmarks/evaluate.py --peer_python=OTHER/bin/python   # where torch is installed

Writes `benchmarks/results/evaluate_DEVICE.json` and prints tables; README.md explains both.
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
from augment_peers import core_count

# A case that hangs must not hang the rest.
CASE_SECONDS = 1800
# OpenMP's threads otherwise spin while they wait, which on a busy machine costs torch dear.
WAITING = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
# What is compared with bare forward passes.
KINDS = {"cost": "grid", "search": "search of 63 rows"}
MODELS = ("resnet18", "resnet50", "vit_b16")
# Enough images that the results, which must grow, are seen beside the rest, which must not.
MEMORY_IMAGES = (512, 1024, 2048, 4096)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="networks (three)")
    parser.add_argument("--size", type=int, default=224, help="side of the images (224)")
    parser.add_argument("--batch", type=int, default=128, help="images a forward pass (128)")
    parser.add_argument("--repeats", type=int, default=5, help="timed grids; the median counts (5)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default the device's")
    parser.add_argument("--seed", type=int, default=0, help="seed of images and weights (0)")
    parser.add_argument(
        "--memory_images", type=int, nargs="*", default=MEMORY_IMAGES, help="numbers of images"
    )
    parser.add_argument(
        "--cpu_devices", type=int, default=1, help="a CPU's cores as that many devices (1)"
    )
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument(
        "--resume", action="store_true", help="keep the cases that the file already has"
    )
    arguments = parser.parse_args()
    for field in ("size", "batch", "repeats", "cpu_devices"):
        if getattr(arguments, field) < 1:
            parser.error(f"--{field} is {getattr(arguments, field)}; expected at least 1")
    return arguments


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else form.format(value)


def _cost_table(cases: list[dict[str, Any]]) -> str:
    lines = [
        "| model | what | ours / bare forward passes | the same in core-seconds | ours, cells/s "
        "| PyTorch, cells/s | ours / PyTorch | the same in core-seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    peers = {case["model"]: case["result"] for case in cases if case["kind"] == "torch"}
    for case in cases:
        if case["kind"] not in KINDS:
            continue
        # PyTorch's loop is of the grid.
        ours, theirs = case["result"], peers[case["model"]] if case["kind"] == "cost" else {}
        rate, core_rate = ours.get("cells_per_second"), ours.get("cells_per_core_second")
        other, core_other = theirs.get("cells_per_second"), theirs.get("cells_per_core_second")
        cells = [
            _number(ours.get("over_forward"), "{:.3f}"),
            _number(ours.get("over_forward_core"), "{:.3f}"),
            _number(rate, "{:,.1f}"),
            _number(other, "{:,.1f}"),
            _number(rate / other if rate and other else None, "{:.2f}"),
            _number(core_rate / core_other if core_rate and core_other else None, "{:.2f}"),
        ]
        lines.append(f"| {case['model']} | {KINDS[case['kind']]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _memory_table(cases: list[dict[str, Any]]) -> str:
    lines = [
        "| images | process peak MB | device peak MB | results MB |",
        "|---|---|---|---|",
    ]
    for case in cases:
        if case["kind"] == "memory":
            result = case["result"]
            cells = [
                _number(result.get(key), "{:,.1f}")
                for key in ("process_peak_megabytes", "device_peak_megabytes", "results_megabytes")
            ]
            lines.append(f"| {case['images']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs every case, prints the tables and writes the file."""
    arguments = _arguments()
    device = fresh_process.device()
    dtype = arguments.dtype or ("float32" if device["platform"] == "cpu" else "bfloat16")
    shared = {"size": arguments.size, "batch": arguments.batch, "dtype": dtype}
    shared |= {"repeats": arguments.repeats, "seed": arguments.seed}
    shared["cpu_devices"] = arguments.cpu_devices
    cases = [
        {"kind": kind, "model": model, **shared}
        for model in arguments.models
        for kind in (*KINDS, "torch")
    ]
    cases += [
        {"kind": "memory", "model": "resnet8", "images": images, "seed": arguments.seed}
        for images in arguments.memory_images
    ]
    output = fresh_process.results_file("evaluate", device["device"], arguments.output)
    report = {
        **device,
        "processor": platform.processor() or platform.machine(),
        "cores": core_count(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cases": [],
    }
    known = json.loads(output.read_text())["cases"] if arguments.resume else []
    for number, case in enumerate(cases, 1):
        earlier = [each for each in known if {name: each.get(name) for name in case} == case]
        if earlier:
            report["cases"].append(case | earlier[0])
            continue
        executable = arguments.peer_python if case["kind"] == "torch" else sys.executable
        case["load_average_before"] = os.getloadavg()
        program = "evaluate_torch.py" if case["kind"] == "torch" else "evaluate_case.py"
        case["result"] = fresh_process.run_case(
            program,
            case,
            seconds=CASE_SECONDS,
            python=executable,
            extra=WAITING | {"JAX_NUM_CPU_DEVICES": str(arguments.cpu_devices)},
        )
        case["load_average_after"] = os.getloadavg()
        report["cases"].append(case)
        # After every case: a run cut short keeps what it has.
        output.write_text(json.dumps(report, indent=1) + "\n")
        said = case["result"].get("reason", "done")
        print(
            f"[{number}/{len(cases)}] {case['kind']} {case['model']}: {said}",
            file=sys.stderr,
            flush=True,
        )
    print(f"{_cost_table(report['cases'])}\n\n{_memory_table(report['cases'])}")
    print(f"wrote {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
