"""Measures every augmentation beside Pillow and other libraries, in images per second.

    python benchmarks/augment.py                      # all cores, or the GPU that JAX sees
    python benchmarks/augment.py --batch=64 --repeats=3

Writes `benchmarks/results/augment_DEVICE.json` and prints a table; README.md explains both.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import sys
from typing import Any

import fresh_process
from augment_case import FORMS, OPERATIONS, OURS
from augment_images import OPERATION_SETTING, SETTINGS
from augment_peers import PEERS, core_count

# A case that hangs must not hang the rest.
CASE_SECONDS = 600
_RATES = ("images_per_second", "images_per_core_second")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images a call (256)")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls; the median counts (7)")
    parser.add_argument("--seed", type=int, default=0, help="seed of images and boxes (0)")
    parser.add_argument("--data_dir", help="folder of real photos; synthetic images by default")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    arguments = parser.parse_args()
    for field in ("batch", "repeats"):
        if getattr(arguments, field) < 1:
            parser.error(f"--{field} is {getattr(arguments, field)}; expected at least 1")
    return arguments


def _cases(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from invariance_jax import augment

    shared = {"batch": arguments.batch, "repeats": arguments.repeats, "seed": arguments.seed}
    shared |= {"data_dir": arguments.data_dir, "cores": core_count()}
    who = [("pillow", "random_resized_crop")]
    who += [(OURS, name) for name in (*augment.NAMES, *FORMS)]
    who += [(peer, "random_resized_crop") for peer in PEERS if peer not in ("pillow", "dm_pix")]
    operations = [(OURS, name) for name in OPERATIONS]
    operations += [(peer, "rotate") for peer in PEERS if peer != "pillow"]
    operations += [("torchvision", "rand_augment")]
    settings = [*((setting, who) for setting in SETTINGS), (OPERATION_SETTING, operations)]
    return [
        {"setting": dataclasses.asdict(setting), "by": by, "name": name, **shared}
        for setting, pairs in settings
        for by, name in pairs
    ]


def _ratio(rate: float | None, of: float | None) -> float | None:
    """Quotient of two rates, None if one is missing."""
    return None if rate is None or of is None else rate / of


def _table(cases: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, with ratios to Pillow at the same size."""
    lines = [
        "| canvas → output | by | augmentation | images/s | of Pillow "
        "| images/core-second | of Pillow | compile s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        setting, result = case["setting"], case["result"]
        size = f"{setting['canvas']} → {setting['size']}"
        if result["images_per_second"] is None:
            cells = ["—"] * 6
        else:
            ratios = case["ratio_to_pillow"]
            of_pillow = ["—" if ratio is None else f"{ratio:.2f}" for ratio in ratios.values()]
            seconds = result.get("compile_seconds")
            memory = result.get("device_peak_megabytes", result.get("process_peak_megabytes"))
            cells = [
                f"{result['images_per_second']:,.0f}",
                of_pillow[0],
                f"{result['images_per_core_second']:,.0f}",
                of_pillow[1],
                "—" if seconds is None else f"{seconds:.1f}",
                "—" if memory is None else f"{memory:,.0f}",
            ]
        lines.append(f"| {size} | {case['by']} | {case['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs every case, prints the table and writes the file."""
    arguments = _arguments()
    device = fresh_process.device()
    load_before = os.getloadavg()
    cases = _cases(arguments)
    pillow: dict[int, dict[str, Any]] = {}
    for number, case in enumerate(cases, 1):
        canvas = case["setting"]["canvas"]
        found = fresh_process.run_case("augment_case.py", case, seconds=CASE_SECONDS)
        case["result"] = {"images_per_second": None} | found
        rate = case["result"]["images_per_second"]
        if case["by"] == "pillow":
            pillow[canvas] = case["result"]
        case["ratio_to_pillow"] = {
            key: _ratio(case["result"].get(key), pillow.get(canvas, {}).get(key)) for key in _RATES
        }
        said = f"{rate:,.0f} images/s" if rate is not None else case["result"]["reason"]
        progress = f"[{number}/{len(cases)}] canvas {canvas}, {case['by']} {case['name']}: {said}"
        print(progress, file=sys.stderr, flush=True)
    print(_table(cases))

    output = fresh_process.results_file("augment", device["device"], arguments.output)
    report = {
        **device,
        "processor": platform.processor() or platform.machine(),
        "cores": core_count(),
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cases": cases,
    }
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
