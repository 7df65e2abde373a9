"""Sweeps: which runs there are, what is skipped, what failed, and one from end to end."""

import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from invariance_jax.commands import sweep as sweeps
from invariance_jax.commands.evaluate import result_name
from invariance_jax.config import SweepConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.evaluate import read_table
from invariance_jax.fields import check

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "sweep.py"
DIGITS = str(ROOT / "configs" / "digits.py")


def load_script():
    spec = importlib.util.spec_from_file_location("launch_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(**fields):
    """Two augmentations and two seeds, nothing evaluated."""
    values = {
        "configs": (f"{DIGITS}:vit_mu8",),
        "variants": ("augment.name=none train.steps=4", "augment.name='translate(t=0.1)'"),
        "axes": {"seed": (0, 1)},
        "evaluate": (),
        **fields,
    }
    return check(SweepConfig, values, "sweep")


def test_every_config_variant_and_seed_is_one_run(tmp_path):
    sweep = small(overrides=("optimizer.warmup_steps=1",))
    runs = sweeps.expand(sweep, tmp_path)
    assert [run.name for run in runs] == [
        "digits_vit_mu8_augment_name_none_train_steps_4_seed0",
        "digits_vit_mu8_augment_name_none_train_steps_4_seed1",
        "digits_vit_mu8_augment_name_translate_t_0_1_seed0",
        "digits_vit_mu8_augment_name_translate_t_0_1_seed1",
    ]
    second, third = runs[1:3]
    assert (second.config.augment.name, second.config.train.steps) == ("none", 4)
    assert (second.config.seed, second.config.model.name) == (1, "vit_mu8")
    assert (third.config.augment.name, third.config.seed) == ("translate(t=0.1)", 0)
    assert {run.config.optimizer.warmup_steps for run in runs} == {1}
    flags = ("optimizer.warmup_steps=1", "augment.name=none", "train.steps=4", "seed=1")
    assert second.commands() == [
        [
            *("train", f"--config={DIGITS}:vit_mu8", *(f"--config.{each}" for each in flags)),
            f"--workdir={tmp_path / second.name}",
        ]
    ]


def test_every_point_of_the_axes_is_one_run(tmp_path):
    axes = {"augment": {"name": ("none", "translate(t=0.1)")}, "train": {"steps": (4, 5)}}
    sweep = small(variants=(), axes=axes, evaluate=("trained", "untrained"))
    runs = sweeps.expand(sweep, tmp_path)
    assert [(run.config.augment.name, run.config.train.steps) for run in runs] == [
        *(("none", 4), ("none", 5), ("translate(t=0.1)", 4), ("translate(t=0.1)", 5))
    ]
    assert runs[3].name == "digits_vit_mu8_translate_t_0_1_steps5"
    # All begin with the same network.
    assert [run.evaluate for run in runs] == [("trained", "untrained"), *[("trained",)] * 3]


def test_long_names_are_cut_and_stay_different(tmp_path):
    same = "data.train_split='train[:20]' " + "data.validation_split='validation[:10]' " * 9
    variants = tuple(f"{same} train.steps={steps}" for steps in (1, 2))
    names = [run.name for run in sweeps.expand(small(variants=variants), tmp_path)]
    assert len(set(names)) == 4 and all(len(name) < 120 for name in names)
    assert names[0][:100] == names[2][:100]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"configs": ()}, "sweep.configs is empty; expected at least one"),
        ({"axes": {"seed": ()}}, r"sweep\.axes\.seed is \(\); expected a tuple of at least one"),
        ({"axes": {"seed": 3}}, r"sweep\.axes\.seed is 3; expected a tuple of at least one"),
        ({"axes": {"seed": (0, 0)}}, "two runs are called 'digits_vit_mu8_.*_seed0'"),
        ({"variants": ("augmnt.name=none",)}, r"run .*: --config\.augmnt: unknown field 'augmnt'"),
        ({"variants": ("train.steps=0",)}, r"run .*: config\.train\.steps is 0 \(int\); expected"),
        ({"configs": ("none.py",)}, "--config: unknown file 'none.py'"),
        ({"evaluate": ("trained", "untraned")}, "'untraned'; did you mean 'untrained'"),
    ],
)
def test_mistakes_are_found_before_the_first_run(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sweeps.expand(small(**fields), tmp_path)


def test_the_sweep_of_the_repository_is_spelled_out(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = sweeps.expand(sweeps.load("configs/sweeps/digits.py"), tmp_path)
    assert len(runs) == 8 and len({run.name for run in runs}) == 8
    assert "launch/sweep.py configs/sweeps/digits.py" in (
        ROOT / "configs" / "sweeps" / "digits.py"
    ).read_text(encoding="utf-8")


def test_the_sweeps_of_the_repository_are_made_to_share(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, sizes in (("digits", [4, 4]), ("imagenet64", [32])):
        runs = sweeps.expand(sweeps.load(f"configs/sweeps/{name}.py"), tmp_path)
        groups, alone = sweeps.grouped(runs)
        assert [len(group) for group in groups] == sizes and not alone
        for group in groups:
            assert len({run.config.model.name for run in group}) == 1


def pretend_finished(run):
    """What a finished training leaves."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / "config.json").write_text(run.config.to_json())
    (run.workdir / "checkpoints" / str(run.steps)).mkdir(parents=True)


def pretend_measured(run, steps):
    """What a finished evaluation leaves."""
    for measurement in ("accuracy", "invariance"):
        path = run.workdir / measurement / f"{result_name(run.config, steps)}.nc"
        path.parent.mkdir(exist_ok=True)
        path.touch()


def test_a_run_is_finished_when_every_part_is(tmp_path):
    run = sweeps.expand(small(evaluate=("trained", "untrained")), tmp_path)[0]
    assert run.state() == "waiting"
    assert [command[0] for command in run.commands()] == ["train", "evaluate", "evaluate"]
    pretend_finished(run)
    assert run.state() == "begun"
    assert run.commands() == [
        ["evaluate", f"--workdir={run.workdir}"],
        ["evaluate", f"--workdir={run.workdir}", "--untrained"],
    ]
    pretend_measured(run, 0)
    assert run.commands() == [["evaluate", f"--workdir={run.workdir}"]]
    pretend_measured(run, 4)
    assert run.state() == "finished"


def test_an_unfinished_checkpoint_is_not_the_end(tmp_path):
    run = sweeps.expand(small(), tmp_path)[0]
    pretend_finished(run)
    assert run.state() == "finished"
    (run.workdir / "checkpoints" / "4").rename(run.workdir / "checkpoints" / "3")
    assert run.state() == "begun"
    (run.workdir / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    assert run.state() == "begun"


def test_a_folder_of_another_config_is_refused(tmp_path):
    run, _, other, _ = sweeps.expand(small(), tmp_path)
    pretend_finished(run)
    (run.workdir / "config.json").write_text(other.config.to_json())
    with pytest.raises(UserError, match="belongs to another config"):
        run.commands()


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """The launcher with runs that take no time: each notes its call, and fails if told to."""
    script = load_script()
    sweep_file = tmp_path / "sweep.py"
    sweep_file.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({small().to_dict()!r})\n"
    )
    root = tmp_path / "runs"
    runs = sweeps.expand(small(), root)
    for run in runs:
        (tmp_path / f"{run.name}.json").write_text(run.config.to_json())
    shell = textwrap.dedent(
        f"""
        if [ $1 = ablate ]; then
          echo $* >> {tmp_path}/calls
          [ -e {tmp_path}/crash ] && exit 9
          for name in $(cat {tmp_path}/fused); do
            mkdir -p {root}/$name/checkpoints/1200
            cp {tmp_path}/$name.json {root}/$name/config.json
          done
          [ -e {tmp_path}/diverged ] && cp -r {tmp_path}/diverged/. {root} && exit 1
          exit 0
        fi
        for word; do case $word in --workdir=*) dir=${{word#*=}} ;; esac; done
        name=$(basename $dir)
        echo $name $CUDA_VISIBLE_DEVICES >> {tmp_path}/calls
        if [ -e {tmp_path}/fail_$name ]; then echo it broke; exit 1; fi
        if [ -e {tmp_path}/hang ]; then
          trap 'exit 143' TERM; touch {tmp_path}/hung_$name; while :; do sleep 0.05; done
        fi
        cp {tmp_path}/$name.json $dir/config.json
        mkdir -p $dir/checkpoints/4 $dir/checkpoints/1200
        case $name in *none*) rmdir $dir/checkpoints/1200 ;; esac
        """
    )
    monkeypatch.setattr(script, "program", lambda command: ["sh", "-c", shell, "sh", *command])
    monkeypatch.setattr(script, "_POLL_SECONDS", 0.05)

    def main(*flags):
        before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            return script.main([str(sweep_file), f"--root={root}", *flags])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    main.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    main.names = [run.name for run in runs]
    main.script = script
    return main


def test_what_failed_waits_for_retry_and_what_is_finished_is_skipped(pretended, tmp_path, capsys):
    failing = pretended.names[2]
    (tmp_path / f"fail_{failing}").touch()
    assert pretended("--jobs=2") == 1
    shown = capsys.readouterr()
    assert "4 runs: 3 finished, 1 failed" in shown.out
    assert "train ended with code 1: it broke" in shown.out and "--retry" in shown.err
    assert sorted(line.strip() for line in pretended.calls()) == sorted(pretended.names)

    assert pretended("--jobs=2") == 1  # nothing is left but what failed
    assert len(pretended.calls()) == 4
    assert pretended("--status") == 0
    assert "3 finished, 1 failed" in capsys.readouterr().out

    (tmp_path / f"fail_{failing}").unlink()
    assert pretended("--retry") == 0
    assert [line.strip() for line in pretended.calls()[4:]] == [failing]
    shown = capsys.readouterr().out
    assert "4 runs: 4 finished" in shown and "it broke" not in shown


def test_each_job_has_its_gpus(pretended):
    assert pretended("--jobs=2", "--gpus_per_job=2") == 0
    assert {line.split()[1] for line in pretended.calls()} <= {"0,1", "2,3"}


def test_dry_run_prints_what_is_left(pretended, tmp_path, capsys):
    pretended.script.program = lambda command: ["invariance-jax", *command]
    runs = sweeps.expand(small(), tmp_path / "runs")
    pretend_finished(runs[0])
    assert pretended("--dry_run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == [shlex.join(["invariance-jax", *run.commands()[0]]) for run in runs[1:]]
    folders = " ".join(str(run.workdir) for run in runs)
    assert shown[3] == f"invariance-jax report {folders} --output={tmp_path / 'runs'}"


def test_the_command_line_overrides_fields_of_all_runs(pretended, capfd):
    pretended.script.program = lambda command: ["invariance-jax", *command]
    flags = ("--override=data.data_dir=some dir", "--override=train.batch_size=32")
    assert pretended("--dry_run", *flags) == 0
    commands = [shlex.split(line) for line in capfd.readouterr().out.splitlines()[:4]]
    for words in commands:
        assert {"--config.data.data_dir=some dir", "--config.train.batch_size=32"} <= set(words)
    assert pretended("--slurm=--nodes=1 --gpus=1", "--dry_run", *flags) == 0
    assert "data.data_dir=some" in capfd.readouterr().out
    assert pretended("--dry_run", "--override=seed") == 2
    assert "--override is 'seed'; expected FIELD=VALUE" in capfd.readouterr().err


def test_a_slurm_array_of_what_is_left(pretended, tmp_path, capfd):
    runs = sweeps.expand(small(), tmp_path / "runs")
    pretend_finished(runs[1])
    assert pretended("--slurm=--nodes=2 --gpus=4", "--jobs=3", "--dry_run") == 0
    shown = capfd.readouterr().out
    assert "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --array=0\\,2\\,3%3 " in shown
    command = f"{SCRIPT} {tmp_path / 'sweep.py'} --root={tmp_path / 'runs'} --run=array"
    assert shown.rstrip().endswith(command)


def test_a_task_of_the_array_runs_its_run(pretended, monkeypatch, tmp_path, capsys):
    (tmp_path / "runs" / pretended.names[2]).mkdir(parents=True)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert pretended("--run=array") == 0
    assert [line.strip() for line in pretended.calls()] == [pretended.names[2]]
    assert pretended("--run=4") == 2
    assert "--run is '4'; expected a whole number, 0 to 3" in capsys.readouterr().err


@pytest.fixture
def fused(pretended, tmp_path):
    """Two runs that share a program: those of translations, whose seeds share an order."""
    sweep = small(overrides=("data.shuffle_seed=0",))
    (tmp_path / "sweep.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({sweep.to_dict()!r})\n"
    )
    runs = sweeps.expand(sweep, tmp_path / "runs")
    for run in runs:
        (tmp_path / f"{run.name}.json").write_text(run.config.to_json())
    (tmp_path / "fused").write_text(" ".join(run.name for run in runs[2:]))
    return pretended, runs


def test_groups_of_runs_are_one_process_each(fused, tmp_path, capsys, monkeypatch):
    main, runs = fused
    flags = f"ablate --config={tmp_path}/sweep.py --root={tmp_path}/runs --group="
    with monkeypatch.context() as patch:
        patch.setattr(main.script, "program", lambda command: command)
        assert main("--fused", "--jobs=2", "--dry_run") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [f"{flags}0", f"{flags}1"]
    for run in runs[:2]:  # four steps, and not 1200
        pretend_finished(run)
    assert main("--fused") == 0
    assert main.calls() == [f"{flags}1"]
    shown = capsys.readouterr()
    assert "4 runs: 4 finished" in shown.out and "alone" not in shown.err


def test_overrides_reach_runs_that_share_a_program(fused, capsys):
    main, _ = fused
    main.script.program = lambda command: ["invariance-jax", *command]
    assert main("--fused", "--dry_run", "--override=model.dtype=bfloat16") == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[0])
    (overrides,) = [word for word in words if word.startswith("--config.overrides=")]
    assert overrides == "--config.overrides=('data.shuffle_seed=0', 'model.dtype=bfloat16')"


def test_a_run_that_cannot_share_is_trained_alone_and_told_why(pretended, tmp_path, capsys):
    # Without a seed of the order each seed has its own; two augmentations differ in steps.
    (tmp_path / "fused").write_text("")
    assert pretended("--fused", "--jobs=2") == 0
    told = capsys.readouterr().err
    first = pretended.names[0]
    assert f"{first} is trained alone: config.data.shuffle_seed is 0, not 1; without" in told
    assert sorted(line.strip() for line in pretended.calls()) == sorted(pretended.names)


def test_one_that_diverged_waits_for_retry_and_the_others_are_finished(fused, tmp_path, capsys):
    main, runs = fused
    for run in runs[:2]:
        pretend_finished(run)
    (tmp_path / "fused").write_text(runs[2].name)
    marked = tmp_path / "diverged" / runs[3].name
    marked.mkdir(parents=True)
    (marked / "failed.txt").write_text("at step 3 the loss is not finite")
    assert main("--fused") == 1
    shown = capsys.readouterr()
    assert "4 runs: 3 finished, 1 failed" in shown.out and "at step 3 the loss" in shown.err
    assert main("--fused") == 1 and len(main.calls()) == 1  # it is left alone
    (tmp_path / "fused").write_text(runs[3].name)
    shutil.rmtree(tmp_path / "diverged")
    (tmp_path / "runs" / runs[3].name / "failed.txt").unlink()  # as the command does
    assert main("--fused", "--retry") == 0
    assert main.calls()[1].endswith("--group=1 --retry")


def test_a_group_that_breaks_marks_what_is_not_trained(fused, tmp_path, capsys):
    main, runs = fused
    for run in runs[:3]:
        pretend_finished(run)
    (tmp_path / "crash").touch()
    assert main("--fused") == 1
    assert "3 finished, 1 failed" in capsys.readouterr().out
    assert runs[3].failure().startswith("ablate ended with code 9: ")
    assert not runs[2].failure()


def test_groups_are_tasks_of_a_slurm_array(fused, tmp_path, capfd):
    main, runs = fused
    for run in runs[:2]:
        pretend_finished(run)
    assert main("--fused", "--slurm=--gpus=1", "--dry_run") == 0
    shown = capfd.readouterr().out.rstrip()
    assert "--array=1%1 " in shown and shown.endswith("/runs --fused --run=array")
    assert main("--fused", "--run=1") == 0
    assert [line.split()[0] for line in main.calls()] == ["ablate"]


def test_sigterm_stops_the_runs_and_marks_none_as_failed(pretended, tmp_path, capsys):
    (tmp_path / "hang").touch()
    script = pretended.script
    wait = script.concurrent.futures.wait

    def wait_and_stop(waiting, timeout):
        if len(list(tmp_path.glob("hung_*"))) == 2:
            (tmp_path / "hang").unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGTERM)
        return wait(waiting, timeout)

    script.concurrent.futures.wait = wait_and_stop
    try:
        assert pretended("--jobs=2") == 143
    finally:
        script.concurrent.futures.wait = wait
    assert len(pretended.calls()) == 2  # no other run was begun
    assert "4 runs: 2 begun, 2 waiting" in capsys.readouterr().out
    assert pretended() == 0


def test_from_end_to_end_with_a_report(tmp_path):
    fields = (
        "train.steps=2 train.batch_size=8 optimizer.warmup_steps=1 data.image_size=8 "
        "data.resize_size=8 data.train_split='train[:20]' data.validation_split='validation[:10]' "
        "eval.split='validation[:4]' eval.per_device_batch_size=8 mesh.data=1"
    )
    values = {"configs": [f"{DIGITS}:vit_mu8"], "axes": {"seed": [0, 1]}, "evaluate": ["trained"]}
    values["overrides"] = [fields]
    sweep_file = tmp_path / "sweep.py"
    sweep_file.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({json.dumps(values)!r}))\n"
    )
    command = [
        sys.executable,
        str(SCRIPT),
        str(sweep_file),
        f"--root={tmp_path / 'runs'}",
        "--jobs=2",
    ]
    environ = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR")
        or str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=550)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "2 runs: 2 finished" in done.stdout
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "vit_mu8" in page
    for run in sweeps.expand(sweeps.load(str(sweep_file)), tmp_path / "runs"):
        assert run.state() == "finished"
        (row,) = read_table(run.workdir / "accuracy.csv")
        assert (row["seed"], row["steps"]) == (str(run.config.seed), "2")
