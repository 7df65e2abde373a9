"""The study: its steps in order, each of runs that there are."""

import importlib.util
import pathlib
import shlex

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """All commands of a study that has not begun, but for Python and its flags."""
    spec = importlib.util.spec_from_file_location("study", ROOT / "launch" / "study.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    root = tmp_path_factory.mktemp("study")
    words = [f"--root={root}", "--data_dir=images", f"--pack={root / 'packed'}"]
    words += ["--override=train.steps=8"]
    return root, list(script.commands(script.parse(words)))


def of(steps, name):
    return [
        words[3:] for words in steps if words[1:3] == ["-m", "invariance_jax"] and words[3] == name
    ]


def test_sweeps_come_before_what_measures_their_runs(steps):
    _, found = steps
    names = [words[2] if words[1].endswith("sweep.py") else words[3] for words in found]
    for model in ("resnet8", "vit_mu8"):
        ablation = names.index(f"configs/study/sweep.py:ablation,{model}")
        half = names.index(f"configs/study/sweep.py:half_of_classes,{model}")
        per_class = names.index(f"configs/study/sweep.py:per_class,{model},SEARCH.nc")
        assert ablation < half < names.index("search", half) < per_class
        sweep = found[ablation]
        assert {"--override=data.data_dir=images", "--override=train.steps=8"} <= set(sweep)
    assert names[-2:] == ["report", "report"] and names.count("search") == 2


def test_half_of_the_classes_is_measured_on_all_and_some_runs_on_training_images(steps):
    root, found = steps
    evaluations = of(found, "evaluate")
    on_all = [words for words in evaluations if any("on_all_classes" in word for word in words)]
    on_training = [words for words in evaluations if words not in on_all]
    assert len(on_all) == 12 and len(on_training) == 2 * (2 * 3 + 3)
    for words in on_all:
        (classes,) = [word for word in words if word.startswith("--config.data.classes=")]
        assert classes.count(",") == 19
    assert all("--config.eval.split=train[:1000]" in words for words in on_training)
    assert sum("--untrained" in words for words in on_training) == 6
    assert {shlex.split(words[1])[0].startswith(f"--workdir={root}") for words in evaluations} == {
        True
    }


def test_the_report_is_of_all_runs_once(steps):
    root, found = steps
    report, _ = of(found, "report")
    folders = [word for word in report[1:] if not word.startswith("--")]
    assert len(folders) == len(set(folders)) == 108 + 12 + 12
    assert not any("data_classes" in pathlib.Path(each).name for each in folders if "runs" in each)
    assert f"--pack={root / 'packed' / 'results'}" in report
