"""Several processes on this machine: output, exit codes, signals, restarts."""

import pathlib
import signal
import subprocess
import sys

import pytest

LOCAL = pathlib.Path(__file__).parents[2] / "launch" / "local.py"
# Who am I, in the words of the shell.
ID = "$INVARIANCE_JAX_PROCESS_ID"


def launch(*arguments, timeout=60):
    return subprocess.run(
        [sys.executable, str(LOCAL), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_each_process_knows_its_number_and_devices(tmp_path):
    text = "of $INVARIANCE_JAX_NUM_PROCESSES at $INVARIANCE_JAX_COORDINATOR, $JAX_NUM_CPU_DEVICES"
    flags = ["-n", 2, "--devices=4", f"--log_dir={tmp_path}"]
    done = launch(*flags, "--", "sh", "-c", f"echo {ID} {text}")
    assert done.returncode == 0
    first, second = sorted(done.stdout.splitlines())
    address = first.split()[5].rstrip(",")
    assert first == f"[0] 0 of 2 at {address}, 4" and second == f"[1] 1 of 2 at {address}, 4"
    assert address.startswith("localhost:") and int(address.split(":")[1]) > 0
    assert (tmp_path / "process_0.log").read_text() == first.removeprefix("[0] ") + "\n"
    assert (tmp_path / "process_1.log").read_text() == second.removeprefix("[1] ") + "\n"


def test_the_first_failure_stops_the_others_and_gives_the_code(tmp_path):
    # Process 0 would wait forever; it says so when it is asked to stop, and then fails otherwise.
    script = (
        f"if [ {ID} = 0 ]; then trap 'touch {tmp_path}/stopped; exit 7' TERM; "
        f"touch {tmp_path}/ready; while :; do sleep 0.05; done; fi; "
        f"until [ -e {tmp_path}/ready ]; do sleep 0.05; done; exit 5"
    )
    done = launch("-n", 2, "--", "sh", "-c", script)
    assert done.returncode == 5
    assert (tmp_path / "stopped").exists()
    assert "process 1 ended with code 5; stopping the others" in done.stderr


def test_who_does_not_stop_is_killed_with_what_it_started():
    script = f"if [ {ID} = 1 ]; then exit 3; fi; trap '' TERM; sleep 1000 & wait; wait"
    done = launch("-n", 2, "--grace=0.2", "--", "sh", "-c", script)
    assert done.returncode == 3


def test_a_killed_process_counts_as_failed():
    done = launch("-n", 1, "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == 137 and "process 0 ended with code 137" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_end_the_launcher_without_a_restart(number):
    name = number.name.removeprefix("SIG")
    # 143 as after a saved checkpoint.
    script = f"trap 'echo got {name}; exit 143' {name}; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, str(LOCAL), "-n", "2", "--restarts=3", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert {launcher.stdout.readline() for _ in range(2)} == {"[0] ready\n", "[1] ready\n"}
        launcher.send_signal(number)
        try:
            rest = launcher.communicate(timeout=60)[0]
        finally:
            launcher.kill()
    assert sorted(rest.split("\n")) == ["", f"[0] got {name}", f"[1] got {name}"]
    assert launcher.returncode == 128 + number


def test_restarts_until_it_succeeds(tmp_path):
    # Every attempt leaves a mark; the third succeeds. 143 is what a preempted run exits with.
    script = f"echo x >> {tmp_path}/marks; [ $(wc -l < {tmp_path}/marks) = 3 ] || exit 143"
    done = launch("-n", 1, "--restarts=5", "--", "sh", "-c", script)
    assert done.returncode == 0
    assert (tmp_path / "marks").read_text() == "x\n" * 3
    assert "starting again (2 of 5)" in done.stderr


def test_restarts_end_and_mistakes_are_not_repeated(tmp_path):
    script = f"echo x >> {tmp_path}/marks; exit "
    assert launch("-n", 1, "--restarts=2", "--", "sh", "-c", script + "9").returncode == 9
    assert (tmp_path / "marks").read_text() == "x\n" * 3
    assert launch("-n", 1, "--restarts=2", "--", "sh", "-c", script + "2").returncode == 2
    assert (tmp_path / "marks").read_text() == "x\n" * 4


def test_dry_run_prints_the_commands():
    done = launch("-n", 2, "--devices=3", "--dry_run", "--", "echo", "two words")
    common = (
        "INVARIANCE_JAX_COORDINATOR=localhost:PORT INVARIANCE_JAX_NUM_PROCESSES=2 "
        "INVARIANCE_JAX_PROCESS_ID={} JAX_NUM_CPU_DEVICES=3 JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1 "
        "echo 'two words'\n"
    )
    assert done.stdout == common.format(0) + common.format(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0", "--", "true"], "--processes is 0; expected at least 1"),
        (["-n", "2"], "no command; expected one after --"),
        (["-n", "2", "--", "no-such-command"], "no-such-command"),
    ],
)
def test_mistakes_end_with_code_2(arguments, message):
    done = launch(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
