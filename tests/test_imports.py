"""Imports point one way, and a command loads what it runs."""

import ast
import graphlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "invariance_jax"
BASE = "what rooms share"
# Which rooms each may import, beside itself.
ORDER = {
    BASE: (),
    "transforms": (BASE,),
    "augment": (BASE, "transforms"),
    "models": (BASE, "transforms"),
    "data": (BASE,),
    "evaluation": (BASE, "transforms", "augment", "models", "data"),
    "factors": (BASE, "transforms", "augment", "models", "data", "evaluation"),
    "report": (BASE, "transforms", "augment", "data", "evaluation", "factors"),
    "training": (BASE, "transforms", "augment", "models", "data", "evaluation", "factors"),
}
ORDER["commands"] = tuple(ORDER)


def modules():
    """Dotted name to source of every module."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
        if "configs" not in path.parts
    }


def imported(path, known, *, everywhere):
    """The package's modules that a file imports: at its top, or in functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                name = f"{node.module}.{each.name}"
                found.add(name if name in known else node.module)
    return {name for name in found if name in known and name != "invariance_jax"}


def room_of(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else BASE


KNOWN = modules()


@pytest.mark.parametrize("name", [name for name in KNOWN if not name.endswith("__main__")])
def test_imports_point_one_way(name):
    if name == "invariance_jax":  # the front door names what it opens, and opens it when asked
        assert imported(KNOWN[name], KNOWN, everywhere=False) == set()
        return
    mine = room_of(name)
    for other in imported(KNOWN[name], KNOWN, everywhere=True):
        assert room_of(other) in (mine, *ORDER[mine]), f"{name} imports {other}"


def test_no_module_imports_itself_through_others():
    graph = {name: imported(path, KNOWN, everywhere=False) for name, path in KNOWN.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(KNOWN)


def test_a_report_without_a_search_loads_nothing_of_the_factors():
    wanted, found = {"invariance_jax.commands.report"}, set()
    while wanted:
        found |= wanted
        wanted = {
            other for name in wanted for other in imported(KNOWN[name], KNOWN, everywhere=False)
        } - found
    assert "invariance_jax.report.page" in found
    assert not [name for name in found if "factor" in name]


def test_functions_of_arrays_know_no_models_and_no_files():
    pure = [name for name in KNOWN if room_of(name) == "transforms"]
    for name in (*pure, "invariance_jax.evaluation.metrics"):
        source = KNOWN[name].read_text(encoding="utf-8")
        for library in ("flax", "pathlib", "orbax", "xarray"):
            assert f"import {library}" not in source and f"from {library}" not in source, name


def test_flax_lives_in_models_only():
    # clu's metrics are Flax dataclasses, and a network's type is named where it is passed on.
    allowed = {"invariance_jax.training.metrics", "invariance_jax.training.step"}
    allowed |= {"invariance_jax.training.state", "invariance_jax.training.experiment"}
    allowed |= {"invariance_jax.training.performance"}
    found = {
        name
        for name, path in KNOWN.items()
        if room_of(name) != "models" and "import flax" in path.read_text(encoding="utf-8")
    }
    assert found <= allowed


HEAVY = ("altair", "orbax", "tensorflow", "torch", "sklearn", "tensorflow_datasets")


def loaded_by(code):
    """Which heavy libraries a program has loaded at its end."""
    script = f"import sys\n{code}\nprint('loaded:', *(n for n in {HEAVY!r} if n in sys.modules))"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_loads_nothing():
    assert loaded_by("import invariance_jax\nassert 'jax' not in sys.modules") == []


def test_help_loads_nothing_heavy():
    def help_of(*commands):
        calls = [f"assert main([{name!r}, '--help']) == 0" for name in commands]
        return loaded_by("\n".join(["from invariance_jax.__main__ import main", *calls]))

    assert help_of("train", "evaluate", "export", "compare") == []
    # What draws and what prepares load what they do that with.
    assert help_of("report", "quickstart", "prepare") == ["altair", "tensorflow_datasets"]


def test_the_front_door_loads_what_it_needs():
    code = (
        "import numpy as np, invariance_jax as ij\n"
        "images = np.zeros((2, 4, 4, 3), np.uint8)\n"
        "images[1] = 200\n"
        "table = {'rotate': ij.TRANSFORMS['rotate']}\n"
        "ij.measure(lambda x: x.mean((1, 2)), images, transforms=table, progress=False)"
    )
    assert loaded_by(code) == []
