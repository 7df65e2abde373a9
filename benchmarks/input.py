"""Measures how fast images are read and decoded, beside a PyTorch DataLoader with Pillow.

    python benchmarks/input.py --manual_dir=ILSVRC2012_SAMPLE            # torch in this python
    python benchmarks/input.py --manual_dir=... --peer_python=PEERS/bin/python

Writes `benchmarks/results/input_CORES_cores.json` and prints two tables; README.md explains them.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys
import tarfile
import tempfile
from typing import Any

import fresh_process

HERE = pathlib.Path(__file__).parent
# A case that hangs must not hang the rest.
CASE_SECONDS = 600
OURS, TORCH_CANVAS, TORCH_CROP = "ours_canvas", "torch_canvas", "torch_crop"
PIPELINES = (OURS, TORCH_CANVAS, TORCH_CROP)
DECODE = "decode"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manual_dir", type=pathlib.Path, required=True, help="ImageNet's tars")
    parser.add_argument("--images", type=int, default=300, help="photos, repeated (300)")
    parser.add_argument("--timed", type=int, default=1200, help="images in a timed run (1200)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median counts (5)")
    parser.add_argument("--batch", type=int, default=64, help="images a batch (64)")
    parser.add_argument("--canvas", type=int, default=512, help="side of the canvas (512)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(cores)")
    parser.add_argument("--peer_python", default=sys.executable, help="a python that has torch")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    return parser.parse_args()


def unpack(manual_dir: pathlib.Path, folder: pathlib.Path, count: int) -> int:
    """Unpacks photos into one folder for each class, as torchvision's ImageFolder wants them.

    Args:
        manual_dir: Folder of ImageNet's two archives.
        folder: Where to.
        count: How many at most.

    Returns:
        How many there were.
    """
    done = 0

    def write(archive: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> None:
        nonlocal done
        path = folder / kind / pathlib.Path(member.name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.extractfile(member).read())
        done += 1

    with tarfile.open(manual_dir / "ILSVRC2012_img_train.tar") as outer:
        for synset in outer:
            with tarfile.open(fileobj=outer.extractfile(synset)) as inner:
                for member in inner:
                    if done < count:
                        write(inner, member, pathlib.Path(synset.name).stem)
    with tarfile.open(manual_dir / "ILSVRC2012_img_val.tar") as archive:
        for member in archive:
            if done < count:
                write(archive, member, "validation")
    return done


def _median(runs: list[dict[str, Any]], key: str) -> float | None:
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def _cell(value: float | None, form: str = ",.0f") -> str:
    return "—" if value is None else format(value, form)


def _table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The medians as two Markdown tables."""
    lines = ["| decode | images/core-second | of pillow | ms an image |", "|---|---|---|---|"]
    for name in results[DECODE][0]:
        rate, of = (_median(results[DECODE], each) for each in (name, "pillow"))
        ratio = rate / of if rate and of else None
        cost = 1000 / rate if rate else None
        lines.append(f"| {name} | {_cell(rate)} | {_cell(ratio, '.2f')} | {_cell(cost, '.2f')} |")
    per_core = {name: _median(results[name], "images_per_core_second") for name in PIPELINES}
    lines += [
        "",
        "| pipeline | images/s | images/core-second | ours is faster by | peak MB a worker |",
        "|---|---|---|---|---|",
    ]
    for name in PIPELINES:
        rate, ours = per_core[name], per_core[OURS]
        ratio = ours / rate if rate and ours else None
        lines.append(
            f"| {name} | {_cell(_median(results[name], 'images_per_second'))} | {_cell(rate)} "
            f"| {_cell(ratio, '.2f')} | {_cell(_median(results[name], 'worker_peak_megabytes'))} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs every case in every round, prints the tables and writes the file."""
    arguments = _arguments()
    load_before = os.getloadavg()
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        count = unpack(arguments.manual_dir, pathlib.Path(folder), arguments.images)
        shared = {"folder": folder, "batch": arguments.batch, "timed": arguments.timed}
        shared |= {"canvas": arguments.canvas, "workers": arguments.workers}
        # Round by round, so that another program's load meets all cases alike.
        for number in range(arguments.repeats):
            for name in (DECODE, *PIPELINES):
                ours = name not in (TORCH_CANVAS, TORCH_CROP)
                python = sys.executable if ours else arguments.peer_python
                run = fresh_process.run_case(
                    "input_case.py",
                    {"name": name, **shared},
                    seconds=CASE_SECONDS,
                    python=python,
                    extra={"OMP_NUM_THREADS": "1"},
                )
                results.setdefault(name, []).append(run)
                said = {key: round(each) if key != "reason" else each for key, each in run.items()}
                print(f"round {number + 1}: {name}: {said}", file=sys.stderr, flush=True)
    print(_table(results))
    cores = len(os.sched_getaffinity(0))
    output = arguments.output or HERE / "results" / f"input_{cores}_cores.json"
    report = {
        "processor": platform.processor() or platform.machine(),
        "cores": cores,
        "images": count,
        "settings": {k: v for k, v in shared.items() if k != "folder"},
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "runs": results,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
