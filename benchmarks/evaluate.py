"""Measures the invariance grid: beside bare forward passes, beside a PyTorch loop, and its memory.

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
import subprocess
import sys
from typing import Any

from augment_peers import core_count

HERE = pathlib.Path(__file__).parent
# A case that hangs must not hang the rest.
CASE_SECONDS = 1800
MODELS = ("resnet18", "resnet50", "vit_b16")
# Enough images that the results, which must grow, are seen beside the rest, which must not.
MEMORY_IMAGES = (512, 4096)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="networks (three)")
    parser.add_argument("--size", type=int, default=224, help="side of the images (224)")
    parser.add_argument("--batch", type=int, default=128, help="images a forward pass (128)")
    parser.add_argument("--repeats", type=int, default=5, help="timed grids; the median counts (5)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default the device's")
    parser.add_argument("--seed", type=int, default=0, help="seed of images and weights (0)")
    parser.add_argument(
        "--memory_images", type=int, nargs=2, default=MEMORY_IMAGES, help="two numbers of images"
    )
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument(
        "--resume", action="store_true", help="keep the cases that the file already has"
    )
    arguments = parser.parse_args()
    for field in ("size", "batch", "repeats"):
        if getattr(arguments, field) < 1:
            parser.error(f"--{field} is {getattr(arguments, field)}; expected at least 1")
    return arguments


def _python(executable: str, arguments: list[str], seconds: int) -> subprocess.CompletedProcess:
    """Runs Python with this checkout on its path."""
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    # OpenMP's threads otherwise spin while they wait, which on a busy machine costs torch dear.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [executable, *arguments], capture_output=True, text=True, timeout=seconds, env=environment
    )


def _device() -> dict[str, Any]:
    """Name of the device, asked for in another process so that this one holds no GPU memory."""
    code = (
        "import jax, json; d = jax.devices()[0];"
        "print(json.dumps([d.platform, d.device_kind, jax.__version__]))"
    )
    done = _python(sys.executable, ["-c", code], CASE_SECONDS)
    kind, name, version = json.loads(done.stdout.splitlines()[-1])
    return {"platform": kind, "device": name, "jax": version}


def _run(case: dict[str, Any], executable: str) -> dict[str, Any]:
    """One case in a fresh process."""
    program = "evaluate_torch.py" if case["kind"] == "torch" else "evaluate_case.py"
    try:
        done = _python(executable, [str(HERE / program), json.dumps(case)], CASE_SECONDS)
    except subprocess.TimeoutExpired:
        return {"reason": f"took longer than {CASE_SECONDS} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"reason": f"exit code {done.returncode}: {last}"}
    return json.loads(done.stdout.splitlines()[-1])


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else form.format(value)


def _cost_table(cases: list[dict[str, Any]]) -> str:
    lines = [
        "| model | grid / bare forward passes | the same in core-seconds | ours, cells/s "
        "| PyTorch, cells/s | ours / PyTorch | the same in core-seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    peers = {case["model"]: case["result"] for case in cases if case["kind"] == "torch"}
    for case in cases:
        if case["kind"] != "cost":
            continue
        ours, theirs = case["result"], peers[case["model"]]
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
        lines.append(f"| {case['model']} | " + " | ".join(cells) + " |")
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
    device = _device()
    dtype = arguments.dtype or ("float32" if device["platform"] == "cpu" else "bfloat16")
    shared = {"size": arguments.size, "batch": arguments.batch, "dtype": dtype}
    shared |= {"repeats": arguments.repeats, "seed": arguments.seed}
    cases = [
        {"kind": kind, "model": model, **shared}
        for model in arguments.models
        for kind in ("cost", "torch")
    ]
    cases += [
        {"kind": "memory", "model": "resnet8", "images": images, "seed": arguments.seed}
        for images in arguments.memory_images
    ]
    name = device["device"].lower().replace(" ", "_")
    output = arguments.output or HERE / "results" / f"evaluate_{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
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
        case["result"] = _run(case, executable)
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
