"""`ablate`: a sweep from its file to folders as `train` leaves them; mistakes in one line."""

import json

import pytest
from tiny_runs import tiny, with_

from invariance_jax.__main__ import main
from invariance_jax.training import ablation, checkpoints, loop
from invariance_jax.training.checkpoints import Progress


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep over the tiny run; gives the flags that name it and a root."""

    def write(axes, **fields):
        config = tmp_path / "config.py"
        config.write_text(
            "import json, ml_collections\n"
            f"get_config = lambda: ml_collections.ConfigDict(json.loads({tiny().to_json()!r}))\n"
        )
        values = {"configs": [str(config)], "axes": axes, "evaluate": [], **fields}
        (tmp_path / "sweep.py").write_text(
            "import json, ml_collections\n"
            f"get_config = lambda: ml_collections.ConfigDict(json.loads({json.dumps(values)!r}))\n"
        )
        return [f"--config={tmp_path}/sweep.py", f"--root={tmp_path}/runs"]

    return write


SEEDS = {"seed": [0, 1], "train": {"steps": [4, 5]}}
ORDER = ["data.shuffle_seed=0"]


@pytest.fixture
def pretended(monkeypatch):
    """Training that takes no time; gives what would have been trained together."""
    trained, fail = [], set()

    def train(configs, workdirs, *, announce, failed):
        trained.append([each.name for each in workdirs])
        lost = [number for number, each in enumerate(workdirs) if each.name in fail]
        for number in lost:
            failed(number, f"{workdirs[number]}: at step 3")
        if len(lost) == len(workdirs):
            raise loop.NonFiniteLossError("all of them")
        for config, workdir in zip(configs, workdirs, strict=True):
            if workdir.name not in fail:
                (workdir / "checkpoints" / str(config.train.steps)).mkdir(parents=True)
                (workdir / "config.json").write_text(config.to_json())
        return [None if n in lost else Progress(top1=0.5) for n in range(len(workdirs))]

    monkeypatch.setattr(ablation, "train", train)
    return trained, fail


def test_each_group_is_trained_and_nothing_twice(sweep, pretended, capsys):
    flags, (trained, _) = sweep(SEEDS, overrides=ORDER), pretended
    names = [[f"config_steps{steps}_seed{seed}" for seed in (0, 1)] for steps in (4, 5)]
    assert main(["ablate", *flags, "--group=1"]) == 0
    assert trained == names[1:]
    assert "config_steps5_seed0: 5 steps, validation top-1 50.00%" in capsys.readouterr().out
    assert main(["ablate", *flags]) == 0
    assert trained == names[::-1]


def test_one_that_failed_is_left_out_until_retry(sweep, pretended, capsys):
    flags, (trained, fail) = sweep({"seed": [0, 1, 2]}, overrides=ORDER), pretended
    fail.add("config_seed1")
    assert main(["ablate", *flags]) == 1
    assert "1 of 3 runs did not come to their end: config_seed1; " in capsys.readouterr().err
    assert main(["ablate", *flags]) == 1 and len(trained) == 1
    assert main(["ablate", *flags, "--retry"]) == 1 and trained[1:] == [["config_seed1"]]
    fail.clear()
    assert main(["ablate", *flags, "--retry"]) == 0 and trained[2:] == [["config_seed1"]]


def test_who_is_far_ahead_is_not_thrown_back(sweep, pretended, tmp_path):
    flags, (trained, _) = sweep({"seed": [0, 1, 2]}, overrides=ORDER), pretended
    ahead = tmp_path / "runs" / "config_seed1"
    (ahead / "checkpoints" / "3").mkdir(parents=True)
    (ahead / "config.json").write_text(with_(tiny(), data={"shuffle_seed": 0}, seed=1).to_json())
    assert checkpoints.steps(ahead) == [3]
    assert main(["ablate", *flags]) == 0
    assert trained == [["config_seed1"], ["config_seed0", "config_seed2"]]


def test_mistakes_end_in_one_line(sweep, capsys):
    flags = sweep(SEEDS, overrides=ORDER)
    for more, message in (
        ([], "--root is missing; give it as --root=DIR"),
        ([flags[1], "--group=2"], "--group is 2; expected less: the sweep has 2 groups of runs"),
        ([flags[1], "--config.axes={'seed': ()}"], "sweep.axes.seed is (); expected a tuple"),
    ):
        assert main(["ablate", flags[0], *more]) == 2
        assert message in capsys.readouterr().err
    flags = sweep({"seed": [0, 1]})
    assert main(["ablate", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no two runs of the sweep can share a program; config_seed0: config.data.shu" in line
    flags = sweep({"seed": [0]})
    assert main(["ablate", *flags]) == 2
    assert "config_seed0: it is the only run" in capsys.readouterr().err
