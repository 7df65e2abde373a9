"""What surrounds a command: proxies, old shells, given GPUs, notebooks, launchers that are gone."""

import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from invariance_jax import signals

ROOT = pathlib.Path(__file__).parents[2]
# Takes the end of its launcher as SIGTERM, and says so where the launcher's output is gone.
ENDS_IN_ORDER = """
import pathlib, signal, sys
from invariance_jax import signals
signals.install()
signals.end_with_launcher()
try:
    print("ready", flush=True)
    signal.pause()
except signals.Interrupted as error:
    pathlib.Path(sys.argv[1]).write_text(str(error.number))
"""


@pytest.fixture
def sweep():
    """The launcher of sweeps, as a module."""
    spec = importlib.util.spec_from_file_location("launch_sweep", ROOT / "launch" / "sweep.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("4,5,6,7", ["4,5", "6,7"]),
        ("GPU-8932f937, GPU-11112222,GPU-3,GPU-4", ["GPU-8932f937,GPU-11112222", "GPU-3,GPU-4"]),
        (None, ["0,1", "2,3"]),
    ],
)
def test_a_sweep_hands_out_the_gpus_that_it_was_given(
    given, expected, sweep, tmp_path, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    queue, log = sweep.Queue(2, 2), tmp_path / "log"
    for slot in (0, 1):
        queue._one(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"], log, slot)
    assert [line for line in log.read_text().splitlines() if line[0] != "$"] == expected


def test_more_gpus_than_were_given_are_refused(sweep, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    with pytest.raises(SystemExit) as ended:
        sweep.parse(["s.py", "--root=x", "--jobs=2", "--gpus_per_job=2"])
    assert ended.value.code == 2
    assert "more GPUs than CUDA_VISIBLE_DEVICES=4,5,6 lists" in capsys.readouterr().err
    assert sweep.parse(["s.py", "--root=x", "--jobs=3", "--gpus_per_job=1"]).jobs == 3


LAUNCHERS = {
    "local": [sys.executable, str(ROOT / "launch" / "local.py"), "-n", "1", "--"],
    "sweep": [
        *(sys.executable, "-c"),
        "import pathlib, runpy, sys\n"
        f"sweep = runpy.run_path({str(ROOT / 'launch' / 'sweep.py')!r})\n"
        "sweep['Queue'](1, 0)._one(sys.argv[1:], pathlib.Path('/dev/stdout'), 0)\n",
    ],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_a_killed_launcher_started_ends_in_order(launcher, tmp_path):
    os.mkfifo(tmp_path / "end")
    command = [sys.executable, "-c", ENDS_IN_ORDER, str(tmp_path / "end")]
    with subprocess.Popen([*LAUNCHERS[launcher], *command], stdout=subprocess.PIPE) as process:
        while (line := process.stdout.readline()) not in (b"ready\n", b"[0] ready\n"):
            assert line, "it ended before"
        process.kill()
    assert int((tmp_path / "end").read_text()) == signal.SIGTERM


def test_a_number_that_means_another_file_here_is_passed_over(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(signals.threading, "Thread", lambda **options: started.append(options))
    with (tmp_path / "file").open("w") as file:
        for text in ("", "nothing", "7", f"{file.fileno()}:1", "987654:1"):
            signals.end_with_launcher({signals.LAUNCHER: text})
    assert started == []


def test_a_closed_terminal_ends_in_order_unless_nohup_asks_otherwise():
    script = (
        "import signal\n"
        "from invariance_jax import signals\n"
        "signals.install()\n"
        "print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM))\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "except signals.Interrupted as error:\n"
        "    print(error.number)\n"
    )
    for prefix, expected in (([], ["1"]), (["nohup"], [])):
        done = subprocess.run(
            [*prefix, sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[1:] == expected


def test_processes_find_each_other_whatever_proxy_there_is():
    script = (
        "from invariance_jax import distributed\n"
        "distributed.initialize()\n"
        "import jax\n"
        "print(jax.process_count())\n"
    )
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, ROOT / "launch/local.py", "-n2", "--", sys.executable, "-c", script],
        env={**os.environ, **proxies},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert sorted(line for line in done.stdout.splitlines() if line[4:] == "2") == [
        "[0] 2",
        "[1] 2",
    ]


def test_old_shells_bear_empty_arrays():
    # bash before 4.4 calls an empty array unset, which `set -u` refuses.
    for path in [*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch")]:
        text = path.read_text(encoding="utf-8")
        empty = re.findall(r"(\w+)=\(\)", text)
        for name in empty:
            bare = re.findall(rf'(?<!\+)"\$\{{{name}\[@\]\}}"', text)
            assert not bare, f"{path.name}: {name}"
    assert 'prefix[@]+"${prefix[@]}"' in (ROOT / "launch" / "slurm.sh").read_text()
