"""The search as a command."""

import csv
import json
import pathlib

import numpy as np
import pytest

from invariance_jax.__main__ import main
from invariance_jax.evaluation import results

ROOT = pathlib.Path(__file__).parents[2]
NAME = "resnet8_untrained_seed0"
COMMAND = [
    *("search", f"--config={ROOT / 'configs' / 'digits.py'}:resnet8,none", "--untrained"),
    "--config.data.image_size=8",
    "--config.data.resize_size=10",
    "--config.search.split=train[:60]",
    "--config.search.checks_split=validation[:20]",
    "--config.search.rows=('brightness 9', 'rotate 4', 'invert 3', 'invert 5')",
    "--config.search.batch_size=4",
    "--config.eval.per_device_batch_size=16",
    "--config.mesh.data=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    assert main([*COMMAND, f"--workdir={folder}"]) == 0
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_writes_pairs_statistics_and_checks(folder):
    names = [f"{kind}/{NAME}.{end}" for kind in KINDS for end in ("csv", "nc")]
    assert sorted(contents(folder)) == sorted(names)
    path = folder / "similarity_search" / f"{NAME}.nc"
    found, summed = results.read(path), results.read(path, "statistics")
    assert found.row.values.tolist() == ["brightness 9", "rotate 4", "invert 3", "invert 5"]
    assert found.change.dims == ("pair", "row") and np.isfinite(found.change).all()
    np.testing.assert_array_equal(found.change[:, 2], found.change[:, 3])
    assert found.attrs["split"] == "train[:60]" and found.attrs["features"] == "embedding"
    assert found.attrs["model"] == "resnet8" and found.attrs["mode"] == "named"
    measured = json.loads(found.attrs["measurement"])
    assert measured["config.search.batch_size"] == 4 and measured["rows"]["rotate 4"]
    assert "config.search.checks_split" not in measured and "config.eval.split" not in measured
    checks = results.read(folder / "similarity_checks" / f"{NAME}.nc")
    assert checks.sizes["check"] == 8 and checks.attrs["split"] == "validation[:20]"
    assert checks.attrs["parameters_sha256"] == found.attrs["parameters_sha256"]
    with path.with_suffix(".csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * summed.sizes["class"]
    boosts = (found.change > 0).groupby("label").sum("pair")
    for line in lines:
        of = {"label": int(line["class"]), "row": line["row"]}
        assert int(line["boosts"]) == int(boosts.sel(of))


KINDS = ("similarity_search", "similarity_checks")


def test_again_nothing_is_done_and_another_search_is_not_replaced(folder, capsys):
    before = contents(folder)
    assert main([*COMMAND, f"--workdir={folder}"]) == 0
    shown = capsys.readouterr().out
    assert "Most boosted of 4 rows, mean of " in shown and "Cosine similarity of images" in shown
    assert f"{folder / 'similarity_search' / NAME}.nc and {NAME}.csv" in shown
    for flag in ("search.features=logits", "search.seed=1", "search.pairs_per_class=2"):
        assert main([*COMMAND, f"--workdir={folder}", f"--config.{flag}"]) == 2
        field = flag.partition("=")[0]
        assert f"(its config.{field} differ)" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("search.rows=('rotat 3',)", "config.search.rows[0]: unknown operation 'rotat'; did you"),
        ("search.rows=('rotate 30',)", "index of rotate is '30'; expected a whole number, 0 to 9"),
        ("search.batch_size=64", "config.search.batch_size is 64, but no class of digits"),
        ("search.batch_size=5", "config.search.batch_size is 5; expected an even number"),
        ("search.split=trian", "config.search.split: split 'trian': unknown split"),
        ("search.checks_split=valid", "config.search.checks_split: split 'valid'"),
        ("data.classes=('eleven',)", "unknown class 'eleven' of digits"),
    ],
)
def test_mistakes_are_one_line_before_any_work(tmp_path, capsys, flag, message):
    assert main([*COMMAND, f"--workdir={tmp_path}", f"--config.{flag}"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
