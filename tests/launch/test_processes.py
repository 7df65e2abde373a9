"""Several processes train as one: same losses, one set of files, faults that end all of them."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tiny_runs import tiny

from invariance_jax.configs import imagenet64_resnet18
from invariance_jax.training import experiment, loop, metrics

ROOT = pathlib.Path(__file__).parents[2]
LOCAL = ROOT / "launch" / "local.py"
STEPS = 20

# The command `train`, with one addition: process 1 kills itself when it asks for the batch of
# step 8, after the checkpoint of step 5 is there; a second start goes through.
DEADLY = textwrap.dedent(
    """
    import os, pathlib, signal, sys, time
    from invariance_jax import __main__, data
    marker = pathlib.Path(sys.argv.pop(1))
    saved = pathlib.Path(sys.argv.pop(1))
    prefetch = data.prefetch_to_device
    def deadly(batches, sharding):
        for number, batch in enumerate(prefetch(batches, sharding)):
            if number == 7 and os.environ["INVARIANCE_JAX_PROCESS_ID"] == "1":
                if not marker.exists():
                    marker.touch()
                    deadline = time.monotonic() + 60
                    while not saved.exists() and time.monotonic() < deadline:
                        time.sleep(0.02)
                    os.kill(os.getpid(), signal.SIGKILL)
            yield batch
    data.prefetch_to_device = deadly
    __main__.console()
    """
)


# Twenty steps on one device, every step logged, every fifth saved; and on all that there are.
ALONE = tiny("vit_mu8", steps=STEPS, checkpoint_every=5)
CONFIG = ALONE.with_values(mesh={"data": 0})


def config_file(folder, values):
    """Writes a config, or what a config file returns, as a file that `--config` can read."""
    path = folder / "config.py"
    text = json.dumps(values.to_dict())
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({text!r}))\n"
    )
    return f"--config={path}"


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    """Compiled programs are shared by the starts of this module, if not by all tests."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or tmp_path_factory.mktemp("compiled")
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }


def launch(environ, *arguments):
    return subprocess.run(
        [sys.executable, str(LOCAL), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=400,
    )


def start_two(environ, *command):
    """Starts two processes that nobody watches."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {
        **environ,
        "INVARIANCE_JAX_COORDINATOR": f"localhost:{port}",
        "INVARIANCE_JAX_NUM_PROCESSES": "2",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
    }
    return [
        subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**shared, "INVARIANCE_JAX_PROCESS_ID": str(number)},
        )
        for number in range(2)
    ]


def losses(workdir):
    rows = metrics.read_metrics(workdir)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """The losses of one process with one device."""
    workdir = tmp_path_factory.mktemp("one_process")
    trained = loop.train(experiment.make(ALONE), workdir, announce=lambda _: None)
    return losses(workdir), trained


def test_killed_and_started_again_two_processes_equal_one(environ, one_process, tmp_path):
    expected, trained = one_process
    workdir = tmp_path / "run"
    done = launch(
        environ,
        *("-n", 2, "--devices=4", "--restarts=1", "--grace=40", "--"),
        *(sys.executable, "-c", DEADLY, tmp_path / "marker", workdir / "checkpoints" / "5"),
        *("train", config_file(tmp_path, CONFIG), f"--workdir={workdir}"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "process 1 ended with code 137; stopping the others" in done.stderr
    assert "starting again (1 of 1)" in done.stderr
    said = done.stdout
    assert said.count("going on from the checkpoint of step 5") == 1
    assert said.count("2 processes, 8 devices, mesh data=8") == 2  # once a start
    for number in range(2):
        line = rf"\[0\]   process {number} on {re.escape(socket.gethostname())}: 4 x cpu \("
        assert len(re.findall(line, said)) == 2
    # Each step once, those before the kill and those after the resume.
    np.testing.assert_allclose(losses(workdir), expected, rtol=1e-4)
    assert len(losses(workdir)) == STEPS
    assert f"validation top-1 {trained.top1:.2%}" in said


def test_one_of_two_killed_the_other_stops_and_one_process_goes_on(environ, one_process, tmp_path):
    workdir = tmp_path / "run"
    survivor, victim = start_two(
        environ,
        *(sys.executable, "-c", DEADLY, tmp_path / "marker", workdir / "checkpoints" / "5"),
        *("train", config_file(tmp_path, CONFIG), f"--workdir={workdir}"),
    )
    try:
        victim.communicate(timeout=300)
        assert victim.returncode == -9
        _, errors = survivor.communicate(timeout=60)
    finally:
        survivor.kill()
    assert survivor.returncode not in (0, -9)
    # Whoever notices first says so: the computation that breaks, or JAX's heartbeats.
    ours = "process 0 of 2 stops; if another stopped before it" in errors
    assert ours or "This most likely indicates that another task died" in errors, errors

    heard = []
    loop.train(experiment.make(ALONE), workdir, announce=heard.append)
    assert "going on from the checkpoint of step 5" in heard[0]
    np.testing.assert_allclose(losses(workdir), one_process[0], rtol=1e-4)
    assert len(losses(workdir)) == STEPS


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("train", "--config.train.stepz=4", "--config.train.stepz: unknown field 'stepz'"),
        ("evaluate", "--config.eval.split=trian", "config.eval.split: split 'trian'"),
    ],
)
def test_a_mistake_on_one_host_ends_all_with_code_2(command, flags, message, environ, tmp_path):
    script = (
        f'[ $INVARIANCE_JAX_PROCESS_ID = 0 ] || set -- "$@" {flags}; '
        f'exec {sys.executable} -m invariance_jax "$@"'
    )
    workdir = tmp_path / "run"
    words = [command, config_file(tmp_path, CONFIG), f"--workdir={workdir}"]
    if command == "evaluate":
        words.append("--untrained")
    both = start_two(environ, "sh", "-c", script, "sh", *words)
    errors = [each.communicate(timeout=120)[1] for each in both]
    assert [each.returncode for each in both] == [2, 2], errors
    assert f"invariance-jax: process 1: {message}" in errors[0]
    assert f"invariance-jax: {message}" in errors[1]
    assert not workdir.exists()


def test_processes_of_different_configs_or_folders_are_refused(environ, tmp_path):
    script = (
        '[ $INVARIANCE_JAX_PROCESS_ID = 0 ] || set -- "$@" $OTHER; '
        f'exec {sys.executable} -m invariance_jax "$@"'
    )
    command = ("sh", "-c", script, "sh", "train", config_file(tmp_path, CONFIG))
    for other, message in (
        ("--config.seed=7", "config.seed is 0 there and 7 here"),
        (f"--workdir={tmp_path / 'other'}", "is not the folder that process 0 sees"),
    ):
        both = start_two({**environ, "OTHER": other}, *command, f"--workdir={tmp_path / 'run'}")
        errors = [each.communicate(timeout=120)[1] for each in both]
        assert [each.returncode for each in both] == [2, 2], errors
        assert "invariance-jax: process 1: workdir" in errors[0] and message in errors[0]


def test_sigterm_ends_a_command_that_does_not_train(environ):
    script = (
        "import signal\nfrom invariance_jax import distributed\n"
        "distributed.initialize(agrees_on_sigterm=False)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    both = start_two(environ, sys.executable, "-c", script)
    try:
        assert [each.stdout.readline() for each in both] == ["ready\n"] * 2
        for each in both:
            each.terminate()
        assert [each.wait(timeout=60) for each in both] == [-signal.SIGTERM] * 2
    finally:
        for each in both:
            each.kill()
            each.communicate()


@pytest.mark.real_data
def test_two_processes_train_the_imagenet_sample(environ, real_data, tmp_path):
    values = imagenet64_resnet18.get_config()
    values.model.name = "vit_mu8"  # compiles fast
    values.data.data_dir = str(real_data / "tfds")
    values.data.validation_split = "validation[:50]"
    values.train.update({"batch_size": 16, "steps": 3, "log_every": 1, "checkpoint_every": 2})
    values.optimizer.warmup_steps = 1
    values.eval.per_device_batch_size = 20
    workdir = tmp_path / "run"
    flags = (config_file(tmp_path, values), f"--workdir={workdir}")
    done = launch(environ, "-n", 2, "--", sys.executable, "-m", "invariance_jax", "train", *flags)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = losses(workdir)
    # Before it has learned anything a network is near log(1000), ImageNet's classes.
    assert len(found) == 3 and found[0] == pytest.approx(np.log(1000), rel=0.2)
    assert (workdir / "checkpoints" / "3").is_dir()
    assert re.search(r"3 steps, validation top-1 \d+\.\d\d%", done.stdout)
