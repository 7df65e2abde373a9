"""`report` and `compare` as commands: what they say, write and refuse."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from invariance_jax import data
from invariance_jax.__main__ import main
from invariance_jax.commands import report as command
from invariance_jax.report import examples, page


@pytest.fixture
def undrawn(monkeypatch):
    """Notes what the page is told instead of drawing it."""
    told = {}

    def write(results, output, **options):
        told.update(options, results=results, output=output)
        return output / "report.html"

    monkeypatch.setattr(command.page, "write", write)
    return told


def test_report_prints_tables_and_writes_the_page(folder, tmp_path, capsys, monkeypatch):
    # One figure, drawn as for users; the others are drawn in the tests of the page.
    save = page.save
    monkeypatch.setattr(
        page, "save", lambda each, to: save(each, to) if each.name == "accuracy" else None
    )
    folder.add("resnet8", "none")
    folder.add_accuracy("resnet8", "none", 0.5)
    assert main(["report", str(folder.path), f"--output={tmp_path / 'page'}"]) == 0
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["resnet8", "none", "1", "500", "10", "50.0", "100.0"] in lines
    assert ["resnet8", "none", "1", *["0.50"] * 5] in lines
    assert f"report: {tmp_path / 'page' / 'report.html'}" in shown.out and not shown.err
    source = (tmp_path / "page" / "report.html").read_text()
    assert f"invariance-jax report {folder.path} --output={tmp_path / 'page'}" in source
    assert "<h2>The transforms</h2>" in source
    names = {path.name for path in (tmp_path / "page" / "figures").iterdir()}
    assert names == {f"accuracy.{ending}" for ending in ("svg", "pdf", "png", "csv")}


def test_the_first_image_that_was_measured_is_the_example(folder, undrawn):
    folder.add("resnet8", "none", eval={"split": "validation[5:8]"})
    assert main(["report", str(folder.path)]) == 0
    config = undrawn["results"].runs[0].config.data
    example = data.from_config(config, "validation[5:6]", "eval.split")[0]
    np.testing.assert_array_equal(
        undrawn["example"], examples.transformed(examples.prepared(example, config))
    )
    assert undrawn["notes"] == [] and undrawn["command"].startswith("invariance-jax report ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "imagenet2012", "data_dir": "/nowhere"}, "/nowhere"),
        ({"classes": ("no such class",)}, "no such class"),
        ({"resize_size": 8}, "resize"),
    ],
)
def test_a_page_without_its_images_says_so(folder, undrawn, capsys, changes, reason):
    folder.add("resnet8", "none", data=changes)
    assert main(["report", str(folder.path)]) == 0
    assert undrawn["example"] is None and undrawn["output"] == folder.path
    (note,) = undrawn["notes"]
    assert note.startswith("no picture of the transforms: ") and reason in note
    assert f"invariance-jax: {note}\n" == capsys.readouterr().err


def test_the_example_is_of_the_classes_measured(folder, undrawn, monkeypatch):
    shown = []
    monkeypatch.setattr(command.examples, "prepared", lambda each, config: shown.append(each))
    folder.add("resnet8", "none", data={"classes": (7,)})
    assert main(["report", str(folder.path)]) == 0
    assert [each["label"] for each in shown] == [7] and undrawn["notes"] == []


def test_a_damaged_file_is_named_and_the_rest_is_shown(folder, undrawn, capsys, monkeypatch):
    monkeypatch.setattr(command.examples, "prepared", lambda each, config: None)
    folder.add("resnet8", "none")
    damaged = folder.add("resnet8", "translate")
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert main(["report", str(folder.path)]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith(f"invariance-jax: {damaged}") and shown.err.count("\n") == 1
    assert undrawn["results"].problems and len(undrawn["results"].runs) == 1

    assert main(["compare", str(folder.path)]) == 0
    shown = capsys.readouterr()
    assert "[1] resnet8, none, seed 0" in shown.out
    assert shown.err.startswith(f"invariance-jax: {damaged}") and shown.err.count("\n") == 1


def test_nothing_left_is_an_error(folder, capsys):
    path = folder.add("resnet8", "none")
    path.write_bytes(b"nothing")
    for arguments in (["report", folder.path], ["compare", folder.path], ["compare", path]):
        assert main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"invariance-jax: {path}") and error.count("\n") == 1


def test_compare_takes_files_and_folders(folder, capsys, tmp_path):
    path = folder.add("resnet8", "none", level=0.5, noise=0.0)
    folder.add("resnet8", "none", steps=0, level=0.25, noise=0.0)
    output = tmp_path / "table.csv"
    assert main(["compare", str(folder.path), f"--output={output}"]) == 0
    with output.open(newline="") as file:
        rows = {(row["quantity"], row["transform"]): row for row in csv.DictReader(file)}
    assert rows["invariance_gap", "rotate"]["resnet8, none, seed 0"] == "0.250000"
    assert rows["invariance_gap", "rotate"]["resnet8, untrained, seed 0"] == ""
    assert "[2] resnet8, untrained, seed 0" in capsys.readouterr().out
    assert main(["compare", str(path), "--distance=euclidean", f"--output={output}"]) == 0
    # Half of the cosine's here.
    assert "invariance,rotate,0.250000\n" in output.read_text()


def test_a_network_that_stands_twice_is_compared_once(folder, capsys, tmp_path):
    copy = shutil.copy(folder.add("resnet8", "none"), tmp_path / "copy.nc")
    assert main(["compare", str(folder.path), str(copy)]) == 0
    assert "[2]" not in capsys.readouterr().out


def test_mistakes_are_named(folder, capsys, tmp_path):
    path = folder.add("resnet8", "none")
    for arguments, message in (
        (["compare"], "no result file given"),
        (["compare", tmp_path / "absent.nc"], "absent.nc is not a readable result file"),
        (["compare", tmp_path], "nor a folder with invariance/*.nc"),
        (["compare", path, path], "0.nc is given twice; expected each network once"),
        (["compare", path, "--distance=manhattan"], "distance"),
        (["report"], "no folder given"),
        (["report", tmp_path / "absent"], "report's argument"),
        (["report", tmp_path], "holds no results"),
        (["reprot"], "unknown command 'reprot'; did you mean 'report'?"),
    ):
        assert main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_help(capsys):
    assert main(["compare", "--help"]) == 0
    assert "usage: invariance-jax compare" in capsys.readouterr().out


def test_report_needs_no_home(tmp_path):
    """A container's user may have none: neither HOME nor an entry in passwd."""
    code = """
import os, pathlib, pwd, sys
def nobody(*_): raise KeyError
pwd.getpwuid = nobody
from invariance_jax.__main__ import main
code = main(["report", sys.argv[1]])
assert "HOME" not in os.environ
sys.exit(code)
"""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and "holds no results" in done.stderr, done.stderr
