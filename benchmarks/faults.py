"""Kills training and evaluation at random moments, resumes them, and counts equal results.

    python benchmarks/faults.py                       # 50 kills of each, about an hour on 2 cores
    python benchmarks/faults.py --kills=5 --runs=1    # quicker

A run is killed by SIGKILL several times, `kills / runs`, and started again each time. A fifth of
the moments lie while the program starts, the rest while it works: training saves after every step,
so that many kills come in the middle of a write. After each kill every whole checkpoint and every
line of metrics must be those of an uninterrupted run, bit for bit; at the end so must be the last
state, or all result files. A kill counts as survived if both hold. First, uninterrupted runs are
compared with each other.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from fresh_process import device

from invariance_jax.evaluation import results
from invariance_jax.evaluation.evaluate import read_table
from invariance_jax.training import checkpoints, metrics

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 12
_STARTING = 0.2  # share of the moments that lie before the first step or shard
_POLL_SECONDS = 0.002
TRAIN = [
    "train",
    f"--config={ROOT / 'configs' / 'digits.py'}:resnet8,random_resized_crop_flip",
    "--config.data.image_size=8",
    "--config.data.resize_size=8",
    "--config.data.train_split=train[:200]",
    "--config.data.validation_split=validation[:40]",
    "--config.eval.split=validation[:40]",
    "--config.train.batch_size=16",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=1",
    "--config.train.evaluate_every=5",
    "--config.train.ema_decay=0.9",
    "--config.optimizer.warmup_steps=5",
]
EVALUATE = ["evaluate", "--config.eval.shard_size=2"]


class Way:
    """One of the two commands: how it is called, how far it is, and what it has left.

    Attributes:
        name: "training" or "evaluation".
    """

    def __init__(self, name: str, trained: pathlib.Path | None = None) -> None:
        self.name = name
        self._trained = trained

    def command(self, folder: pathlib.Path) -> list[str]:
        """The command line that works in a folder, and is the same after each kill."""
        words = EVALUATE if self._trained else TRAIN
        keep = ["--config.train.keep_checkpoints=100"] if folder.name == "reference" else []
        return [sys.executable, "-m", "invariance_jax", *words, *keep, f"--workdir={folder}"]

    def prepare(self, folder: pathlib.Path) -> None:
        """Makes the folder that the command works in."""
        folder.mkdir(parents=True)
        if self._trained:
            shutil.copy(self._trained / "config.json", folder)
            step = str(checkpoints.steps(self._trained)[-1])
            shutil.copytree(self._trained / "checkpoints" / step, folder / "checkpoints" / step)

    def done(self, folder: pathlib.Path) -> int:
        """How far it is: bytes of metrics, or shards."""
        if self._trained:
            # Folders go while they are looked through: shards are put together at the end.
            with contextlib.suppress(FileNotFoundError):
                return sum(1 for _ in folder.glob("*/*.parts/*.npz"))
            return 0
        path = folder / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def left(self, folder: pathlib.Path) -> dict[str, Any]:
        """What is there, by name: what two uninterrupted runs have alike."""
        if self._trained:
            found: dict[str, Any] = {
                str(path.relative_to(folder)): {
                    f"{group}/{name}": array.values
                    for group in ("", *results.groups(path))
                    for name, array in results.read(path, group).variables.items()
                }
                for path in sorted(folder.glob("*/*.nc"))
            }
            rows = read_table(folder / "accuracy.csv")
            found |= {f"accuracy.csv {n}": dict(row, seconds="") for n, row in enumerate(rows)}
            return found
        found = {
            f"metrics {row['step']}": {
                name: row.get(name) for name in ("loss", "top1", "learning_rate", "validation_top1")
            }
            for row in metrics.read_metrics(folder)
        }
        handler = ocp.PyTreeCheckpointHandler()
        steps = checkpoints.steps(folder)
        for step in steps:
            path = folder.absolute() / "checkpoints" / str(step)
            try:
                state = handler.restore(path / "state")
                told = json.loads((path / "progress" / "metadata").read_text())["progress"]
            except (OSError, ValueError):
                # An old one, killed while it was removed; nobody reads it before the newest.
                if step == steps[-1]:
                    raise
                continue
            found[f"checkpoint {step}"] = state
            found[f"progress {step}"] = {**told, "seconds": 0}
        return found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Names of what is not the same, bit for bit; what `theirs` alone has is not counted."""
    return [
        f"{name}{path}"
        for name, value in ours.items()
        for path in _differing_leaves(value, theirs.get(name))
    ]


def _differing_leaves(ours: Any, theirs: Any) -> list[str]:
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        return [" (another structure)"]
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    return [
        jax.tree_util.keystr(path)
        for (path, x), y in pairs
        if np.asarray(x).dtype != np.asarray(y).dtype
        or np.asarray(x).tobytes() != np.asarray(y).tobytes()
    ]


def run(command: list[str], log: pathlib.Path) -> float:
    """Runs a command to its end; the seconds that it took."""
    begun = time.perf_counter()
    with log.open("ab") as file:
        subprocess.run(command, check=True, stdout=file, stderr=file, cwd=ROOT, env=environment())
    return time.perf_counter() - begun


def environment() -> dict[str, str]:
    """The environment in which this checkout is what is imported."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def kill(way: Way, folder: pathlib.Path, log: pathlib.Path, moment: float) -> bool:
    """Starts a command and kills it.

    Args:
        way: The command.
        folder: Where it works.
        log: Takes its output.
        moment: Seconds after it has got on with its work; below 0, before that.

    Returns:
        Whether it was still running.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            way.command(folder), stdout=file, stderr=file, cwd=ROOT, env=environment()
        )
    begun, least = time.perf_counter(), way.done(folder)
    # What is to be repeated is taken back first.
    while moment >= 0 and process.poll() is None and way.done(folder) <= least:
        least = min(least, way.done(folder))
        time.sleep(_POLL_SECONDS)
    time.sleep(moment if moment >= 0 else max(0.0, begun - moment - time.perf_counter()))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def measure(way: Way, place: pathlib.Path, kills: int, runs: int, seed: int) -> dict[str, Any]:
    """Kills one command; the counts and what differed."""
    random = np.random.default_rng(seed)
    seconds, uninterrupted = 0.0, []
    for name in ("reference", "again"):
        way.prepare(place / name)
        seconds = run(way.command(place / name), place / "log")
        uninterrupted.append(way.left(place / name))
    expected = uninterrupted[0]
    found: dict[str, Any] = {
        "uninterrupted_runs_differ_in": differences(uninterrupted[1], expected),
        "seconds_of_an_uninterrupted_run": seconds,
        "moments": [],
        "kills": 0,
        "kills_survived": 0,
        "kills_while_starting": 0,
        "kills_that_left_an_unfinished_checkpoint": 0,
        "differences": [],
    }
    for number in range(runs):
        folder = place / f"run{number}"
        way.prepare(folder)
        equal: list[bool] = []
        for killed in range(kills // runs):
            while True:
                if random.uniform() < _STARTING:
                    moment = -random.uniform(0, seconds / 2)
                else:
                    moment = random.uniform(0, seconds / (kills // runs))
                if kill(way, folder, place / "log", moment):
                    break
                # It was faster than the first: what it was killed at so far ends here.
                found["kills_survived"] += _ended(way, folder, uninterrupted, equal, found)
                shutil.rmtree(folder)
                way.prepare(folder)
                equal = []
            found["kills"] += 1
            found["moments"].append(round(moment, 3))
            found["kills_while_starting"] += moment < 0
            unfinished = list((folder / "checkpoints").glob("*.orbax-checkpoint-tmp"))
            found["kills_that_left_an_unfinished_checkpoint"] += bool(unfinished)
            different = differences(way.left(folder), expected)
            equal.append(not different)
            found["differences"] += different
            print(way.name, number, killed, f"{moment:.2f} s", different, flush=True)
        run(way.command(folder), place / "log")
        found["kills_survived"] += _ended(way, folder, uninterrupted, equal, found)
    return found


def _ended(
    way: Way,
    folder: pathlib.Path,
    uninterrupted: list[dict[str, Any]],
    equal: list[bool],
    found: dict[str, Any],
) -> int:
    """Compares a run that has come to its end; how many of its kills left nothing different."""
    left = way.left(folder)
    different = differences(left, uninterrupted[0])
    different += [f"{name} (missing)" for name in sorted(uninterrupted[1].keys() - left.keys())]
    found["differences"] += different
    print(way.name, folder.name, "at its end", different, flush=True)
    return 0 if different else sum(equal)


def main() -> None:
    """Writes `results/faults.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of each command (default: 50)")
    parser.add_argument("--runs", type=int, default=5, help="that share them (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", choices=["training", "evaluation"], help="one of the two")
    parser.add_argument(
        "--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results" / "faults.json"
    )
    values = parser.parse_args()
    found: dict[str, Any] = {
        "settings": {**vars(values), "output": ""},
        **device("orbax.checkpoint"),
    }
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        ways = [Way("training"), Way("evaluation", place / "training" / "reference")]
        for way in ways:
            if values.only == "evaluation" and way.name == "training":
                way.prepare(place / "training" / "reference")
                run(way.command(place / "training" / "reference"), place / "log")
            elif values.only in (None, way.name):
                folder = place / way.name
                found[way.name] = measure(way, folder, values.kills, values.runs, values.seed)
                values.output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
