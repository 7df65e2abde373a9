"""Translations of another kind, local equivariance and other crops, through the command."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from invariance_jax.__main__ import main
from invariance_jax.commands import evaluate
from invariance_jax.config import ExperimentConfig
from invariance_jax.evaluation import results
from invariance_jax.evaluation.evaluate import read_table

ROOT = pathlib.Path(__file__).parents[2]
NAME = "resnet8_untrained_seed0"
COMMAND = [
    *("evaluate", f"--config={ROOT / 'configs' / 'digits.py'}:resnet8,none", "--untrained"),
    "--config.data.validation_split=validation[:10]",
    "--config.data.image_size=8",
    "--config.data.resize_size=10",
    "--config.eval.split=validation[:5]",
    "--config.eval.per_device_batch_size=8",
    "--config.mesh.data=1",
]
LIE = "--config.eval.local_equivariance=('rotate', 'brightness')"
TEST_TIME = "--config.eval.test_time=('none', 'scaled_center_crop(k=14)')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    feature = "--config.eval.features=('stage1_block1',)"
    assert main([*COMMAND, f"--workdir={folder}", LIE, TEST_TIME, feature]) == 0
    return folder


def test_local_equivariance_has_its_file(folder):
    found = results.read(folder / "local_equivariance" / f"{NAME}.nc")
    assert list(found.generator.values) == ["rotate", "brightness"]
    assert list(found.output.values) == ["logits", "probabilities", "embedding", "stage1_block1"]
    error = found.local_equivariance_error
    assert error.shape == (4, 2, 5) and float(error.min()) > 0 and np.isfinite(error).all()
    invariance = results.read(folder / "invariance" / f"{NAME}.nc")
    np.testing.assert_array_equal(found.image, invariance.image)
    np.testing.assert_array_equal(found.label, invariance.label)
    for name in ("parameters_sha256", "model", "seed", "steps", "split", "augmentation"):
        assert found.attrs[name] == invariance.attrs[name], name
    assert invariance.attrs["padding_mode"] == "constant"


def test_other_crops_have_their_files(folder):
    found = results.read(folder / "test_time" / f"{NAME}.nc")
    assert list(found.variant.values) == ["none", "scaled_center_crop(k=14)"]
    assert found.sizes["image"] == 10 and found.attrs["split"] == "validation[:10]"
    top1 = found.correct_top1.mean("image")
    (row,) = read_table(folder / "accuracy.csv")
    assert float(top1.sel(variant="none")) == pytest.approx(float(row["top1"]))
    with (folder / "test_time" / f"{NAME}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for variant in found.variant.values:
        mine = [each for each in rows if each["variant"] == variant]
        assert sum(int(each["images"]) for each in mine) == 10
        share = sum(int(each["images"]) * float(each["top1"]) for each in mine) / 10
        assert share == pytest.approx(float(top1.sel(variant=variant)), abs=1e-5)


def test_again_nothing_is_done_and_another_measurement_is_not_replaced(folder, capsys):
    paths = [folder / kind / f"{NAME}.nc" for kind in ("local_equivariance", "test_time")]
    before = [path.read_bytes() for path in paths]
    same = [*COMMAND, f"--workdir={folder}", "--config.eval.features=('stage1_block1',)"]
    assert main([*same, LIE, TEST_TIME]) == 0
    shown = capsys.readouterr().out
    assert "Local equivariance error" in shown and "scaled_center_crop(k=14)" in shown
    for flags, field in (
        (
            ["--config.eval.local_equivariance=('scale',)", TEST_TIME],
            "config.eval.local_equivariance",
        ),
        ([LIE, "--config.eval.test_time=('none',)"], "config.eval.test_time"),
    ):
        assert main([*same, *flags]) == 2
        assert f"(its {field} differ)" in capsys.readouterr().err
    assert [path.read_bytes() for path in paths] == before
    # Without them they are not asked for, and the invariance is the same measurement.
    assert main(same) == 0
    assert "Local equivariance error" not in capsys.readouterr().out


def test_the_kind_of_translation_changes_translations_alone(folder, tmp_path, capsys):
    context = "--config.eval.padding_mode=context"
    assert main([*COMMAND, f"--workdir={folder}", context]) == 2
    assert "config.eval.padding_mode" in capsys.readouterr().err
    assert main([*COMMAND, f"--workdir={tmp_path}", context]) == 0
    zero, other = (results.read(each / "invariance" / f"{NAME}.nc") for each in (folder, tmp_path))
    assert other.attrs["padding_mode"] == "context"
    assert json.loads(other.attrs["measurement"])["config.eval.padding_mode"] == "context"
    differs = np.abs(zero.transformed_cosine - other.transformed_cosine).max(("magnitude", "image"))
    changed = [
        str(name) for name, by in zip(zero.transform.values, differs, strict=True) if by > 1e-4
    ]
    assert changed == ["translate_x", "translate_y"]


def test_two_processes_find_what_one_finds(folder, tmp_path):
    launcher = [sys.executable, str(ROOT / "launch" / "local.py"), "-n2", "--devices=1", "--"]
    mesh = "--config.mesh.data=2"
    command = [sys.executable, "-m", "invariance_jax", *COMMAND, f"--workdir={tmp_path}", mesh]
    feature = "--config.eval.features=('stage1_block1',)"
    done = subprocess.run(
        [*launcher, *command, LIE, TEST_TIME, feature],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in ("local_equivariance", "test_time"):
        one, two = (results.read(each / kind / f"{NAME}.nc") for each in (folder, tmp_path))
        assert set(one.variables) == set(two.variables)
        for name in one.data_vars:
            if np.issubdtype(one[name].dtype, np.integer):
                np.testing.assert_array_equal(two[name], one[name], err_msg=name)
            else:
                np.testing.assert_allclose(two[name], one[name], rtol=1e-3, err_msg=name)
    ours, theirs = (each / "test_time" / f"{NAME}.csv" for each in (folder, tmp_path))
    assert ours.read_text() == theirs.read_text()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "local_equivariance=('rotat',)",
            "config.eval.local_equivariance[0]: unknown generator 'rotat'; did you mean 'rotate'?",
        ),
        (
            "local_equivariance=('scale', 'rotate(padding_mode=1)')",
            "config.eval.local_equivariance[1]: unknown padding mode 1; one of: reflect, wrap, "
            "constant",
        ),
        (
            "test_time=('none', 'scaled_center_crop(k=15)')",
            "config.eval.test_time[1]: k is 15; expected a whole number, 0 to 14",
        ),
        (
            "padding_mode=warp",
            "config.eval.padding_mode: unknown padding_mode 'warp'; did you mean 'wrap'?",
        ),
    ],
)
def test_mistakes_end_before_any_work(flag, message, tmp_path, capsys):
    assert main([*COMMAND, f"--workdir={tmp_path}", f"--config.eval.{flag}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_old_names_of_fields_are_read_and_said(tmp_path, capsys):
    old = ["--config.eval.lie=('rotat',)", "--config.eval.translation=cyclic"]
    assert main([*COMMAND, f"--workdir={tmp_path}", *old, "--config.eval.batch_size=8"]) == 2
    first, second, third, error = capsys.readouterr().err.splitlines()
    assert "config.eval.lie is now config.eval.local_equivariance" in first
    assert "config.eval.translation is now config.eval.padding_mode" in second
    assert "config.eval.batch_size has no meaning any more" in third
    assert "config.eval.local_equivariance[0]: unknown generator 'rotat'" in error


def test_long_names_of_result_files_are_cut_and_told_apart():
    texts = [f"searched(file='{'a' * 240}.nc', top={top})" for top in (3, 4)]
    configs = [ExperimentConfig().with_values(augment={"per_class": text}) for text in texts]
    names = [evaluate.result_name(config, 1) for config in configs]
    assert len(set(names)) == 2 and max(map(len, names)) < 220
    assert all(name.startswith("resnet18_random_resized_crop_flip_searched_file") for name in names)
    assert evaluate.result_name(ExperimentConfig(), 0) == "resnet18_untrained_seed0"
