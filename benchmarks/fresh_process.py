"""Runs each case in a process of its own, so that memory, caches and devices are the case's."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

HERE = pathlib.Path(__file__).parent


def run_case(
    program: str,
    case: Mapping[str, Any],
    *,
    seconds: int,
    python: str = sys.executable,
    extra: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs one case.

    Args:
        program: A file beside this one; it takes the case as JSON in its argument, and the last
            line that it prints is the result as JSON.
        case: The case.
        seconds: A case that hangs must not hang the rest.
        python: Which Python.
        extra: Further environment variables; they win.

    Returns:
        The result, or `{"reason": why there is none}`.
    """
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [python, str(HERE / program), json.dumps(case)],
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": path, **(extra or {})},
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"took longer than {seconds} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"reason": f"exit code {done.returncode}: {last}"}
    return json.loads(done.stdout.splitlines()[-1])


def device(*packages: str) -> dict[str, Any]:
    """Names the device, asked for in another process so that this one holds none of its memory.

    Args:
        *packages: Importable packages whose versions are wanted beside JAX's.

    Returns:
        "platform", "device", "jax", and each package's version by name.
    """
    code = (
        f"import importlib, jax, json; d = jax.devices()[0]; names = {['jax', *packages]!r};"
        "found = {name: importlib.import_module(name).__version__ for name in names};"
        "print(json.dumps({'platform': d.platform, 'device': d.device_kind, **found}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def results_file(benchmark: str, device_name: str, given: pathlib.Path | None) -> pathlib.Path:
    """Names the file of a benchmark's results; its folder is made.

    Args:
        benchmark: Its name.
        device_name: As `device` gives it.
        given: The file that the user asked for; None for the usual one.

    Returns:
        `results/BENCHMARK_DEVICE.json` beside this file, or what was given.
    """
    name = device_name.lower().replace(" ", "_")
    path = given or HERE / "results" / f"{benchmark}_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
