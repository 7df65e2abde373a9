"""Runs every command of configs/paper/README.md at reduced size: do they all work from end to end?

    python benchmarks/config_commands.py --root=/tmp/config_commands

Of a sweep a few runs are left, the first and the last of every list, of one step of eight digits of
16 pixels by a small network; where it compares networks, those, on 32 pixels. All else is done as
the README says: launch/sweep.py trains, evaluates and reports. What is finished is not done again.
Prints a line a command with its code and its seconds, and writes ROOT/commands.json; the exit code
is the number of commands that failed.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

from invariance_jax.commands import sweep as sweeps
from invariance_jax.fields import flatten

REPOSITORY = pathlib.Path(__file__).parents[1]
README = REPOSITORY / "configs" / "paper" / "README.md"
SMALL = {
    "data.name": "digits",
    "data.image_size": "16",
    "data.resize_size": "16",
    "data.canvas_size": "16",
    "data.classes": "()",
    "data.validation_split": "validation[:40]",
    "eval.split": "validation[:20]",
    "eval.per_device_batch_size": "20",
    "model.dtype": "float32",
    "mesh.data": "1",
}
SIDES = ("data.image_size", "data.resize_size", "data.canvas_size")
TRAINED = {
    "data.train_split": "train[:100]",
    "model.ghost_batch_size": "4",
    "optimizer.warmup_steps": "0",
    "train.batch_size": "8",
    "train.steps": "1",
}
SEARCHED = {
    "search.split": "train[:100]",
    "search.rows": "all",
    "search.batch_size": "2",
    "search.checks_split": "validation[:40]",
}
NETWORK = "resnet8"
REDUCED = '''"""{name}, small."""

import ml_collections


def get_config():
    return ml_collections.ConfigDict({values!r})
'''


def commands() -> list[str]:
    """The commands of the README, in its order, each once."""
    found = re.findall(r"`((?:launch/|invariance-jax )[^`]+)`", README.read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


def flags(values: dict[str, str]) -> list[str]:
    """Fields as flags of a command."""
    return [f"--config.{path}={value}" for path, value in values.items()]


def reduced(path: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes a sweep's file again, with a few runs, small.

    Args:
        path: The sweep's file, with its argument.
        folder: Where the new one goes.

    Returns:
        The new file.
    """
    sweep = sweeps.load(path)
    axes = flatten(sweep.axes)
    small = {**SMALL, **TRAINED}
    if "model.name" not in axes:
        small["model.name"] = NETWORK
    else:
        small |= dict.fromkeys(SIDES, "32")  # the least that all of these networks halve evenly
    lists = {"configs": sweep.configs, "variants": sweep.variants, **axes}
    first = {"seed": 1, "variants": 3}  # of variants `none`, the standard run, and one more
    kept = {
        name: tuple(dict.fromkeys((*each[: first.get(name, 1)], each[0 if name == "seed" else -1])))
        for name, each in lists.items()
        if each
    }
    nested: dict[str, dict] = {}
    for name in axes:
        section, _, field = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[field] = kept[name]
    values = {
        "configs": kept["configs"],
        # Digits have no goldfish.
        "variants": tuple(each.replace("n01443537", "1") for each in kept.get("variants", ())),
        "axes": nested,
        "overrides": (*sweep.overrides, *(shlex.quote(f"{k}={v}") for k, v in small.items())),
        "evaluate": sweep.evaluate,
    }
    file = folder / "sweep.py"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(REDUCED.format(name=path, values=values), encoding="utf-8")
    return file


def run(words: list[str], log: pathlib.Path) -> int:
    """Runs a command, its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(words)}\n".encode())
        file.flush()
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY)
    return done.returncode


def prepared(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Trains a network and searches with it: the files that commands of the README start from."""
    workdir, weights = root / "prepared", root / "weights.safetensors"
    small = flags({**SMALL, **TRAINED, **SEARCHED, "model.name": NETWORK})
    package = [sys.executable, "-m", "invariance_jax"]
    steps = [
        ["train", "--config=configs/paper/recipe.py:resnet18,none", f"--workdir={workdir}", *small],
        ["export", f"--workdir={workdir}", f"--output={weights}"],
        ["search", f"--workdir={workdir}"],
    ]
    for words in steps:
        if words[0] != "export" or not weights.exists():
            code = run([*package, *words], root / "prepared.log")
            if code:
                sys.exit(f"{words[0]} ended with code {code}; see {root / 'prepared.log'}")
    (search,) = (workdir / "similarity_search").glob("*.nc")
    return weights, search


def at_reduced_size(
    command: str, folder: pathlib.Path, weights: pathlib.Path, search: pathlib.Path
) -> list[str]:
    """The same command on digits.

    Args:
        command: As the README has it.
        folder: In place of DIR.
        weights: In place of resnet18.safetensors, of another network.
        search: In place of SEARCH.nc.

    Returns:
        Its words.
    """
    text = command.replace("resnet18,resnet18.safetensors", f"{NETWORK},{weights}")
    first, *words = shlex.split(text.replace("SEARCH.nc", str(search)).replace("DIR", str(folder)))
    if first == "launch/sweep.py":
        return [sys.executable, first, str(reduced(words[0], folder)), *words[1:]]
    name = words[0]
    small = {**SMALL, **SEARCHED} if name == "search" else SMALL
    small |= {"model.name": NETWORK} if "--untrained" in words else {}
    more = [] if name == "report" else flags(small)
    return [sys.executable, "-m", "invariance_jax", *words, *more]


def main() -> int:
    """Runs all commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("config_commands"))
    parser.add_argument("--only", default="", help="commands that hold this text")
    values = parser.parse_args()
    root = values.root.resolve()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    # Nearly all that is done is to compile.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    weights, search = prepared(root)
    said, failed = [], 0
    for number, command in enumerate(commands()):
        if values.only not in command:
            continue
        # A report is of the folder of the command before it.
        if not command.startswith("invariance-jax report"):
            folder = root / f"{number:02d}"
        words = at_reduced_size(command, folder, weights, search)
        begun = time.perf_counter()
        code = run(words, root / f"{number:02d}.log")
        failed += code != 0
        said.append({"command": command, "code": code, "seconds": time.perf_counter() - begun})
        print(f"{code:3d} {said[-1]['seconds']:6.0f} s  {command}", flush=True)
        (root / "commands.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
