"""SIGTERM and Ctrl-C: one ends a command in order from any moment, a second one at once."""

import os
import signal
import subprocess
import sys

import pytest

from invariance_jax import signals
from invariance_jax.__main__ import main
from invariance_jax.commands import train
from invariance_jax.signals import Interrupted
from invariance_jax.training import checkpoints, loop, metrics
from invariance_jax.training.checkpoints import CheckpointError, CheckpointWriter


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when told to; what would end the process is raised."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])

    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(signals.os, "_exit", end)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda seconds: now.__setitem__(0, now[0] + seconds)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_raised_and_the_second_ends_the_process(number, clock):
    installed = signals.install()
    with pytest.raises(Interrupted, match="the same command goes on"):
        os.kill(os.getpid(), number)
    assert installed.came == number
    clock(0.9)
    os.kill(os.getpid(), number)  # the same request, passed on by another
    clock(0.2)
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == 128 + number


def test_another_signal_ends_at_once(clock):
    signals.install()
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143


@pytest.mark.parametrize("known", [False, True])
def test_a_loop_asks_whether_one_came(known, clock):
    if known:
        signals.install()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with signals.deferred() as asked:
        assert asked.came is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.came == signal.SIGTERM
        clock(2)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
    after = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert after == before and (after[signal.SIGTERM] is asked) == known


def test_one_that_was_raised_where_nobody_heard_it_still_ends_the_loop(clock):
    class Deaf:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    signals.install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda _: None)  # Python says it, and goes on
        Deaf()
    with signals.deferred() as asked:
        assert asked.came == signal.SIGINT


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (Interrupted("stopped", signal.SIGTERM), 143, "stopped"),
        (Interrupted("stopped", signal.SIGINT), 130, "stopped"),
    ],
)
def test_the_command_ends_in_one_line_with_the_signals_code(
    error, code, message, monkeypatch, capsys
):
    def run(argv):
        raise error

    monkeypatch.setattr(train, "run", run)
    assert main(["train"]) == code
    assert capsys.readouterr().err.strip() == f"invariance-jax: {message}"


def test_a_second_signal_ends_a_process_that_hangs_without_a_word():
    # It hangs where Python waits for other threads before it exits.
    script = (
        "import signal, sys, threading\n"
        "from invariance_jax import signals\n"
        "signals._ONE_REQUEST_SECONDS = 0.0\n"
        "signals.install()\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
        "except signals.Interrupted:\n"
        "    print('in order', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in ("ready\n", "in order\n"):
            assert process.stdout.readline() == line
            process.terminate()
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 143


def test_sigterm_saves_the_step_and_ends_with_143(
    goes_on, tmp_path, monkeypatch, train_by_command, capsys
):
    # The signal comes while step 1 is logged; the checkpoint after that would be step 2's.
    before = signal.getsignal(signal.SIGTERM)
    write = metrics.MetricWriter.write

    def write_and_be_preempted(self, step, values):
        write(self, step, values)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricWriter, "write", write_and_be_preempted)
        assert train_by_command(tmp_path) == 143
    assert "stopped by SIGTERM after step 3, which is saved" in capsys.readouterr().err
    assert checkpoints.steps(tmp_path) == [2, 3]
    assert signal.getsignal(signal.SIGTERM) is before
    assert "going on from the checkpoint of step 3" in goes_on(tmp_path)[0]


def test_a_stopped_run_does_not_claim_a_save_that_failed(
    tmp_path, monkeypatch, train_by_command, capsys
):
    def fail(self):
        raise CheckpointError("full")

    monkeypatch.setattr(loop, "must_stop", lambda asked, step: step == 1)
    monkeypatch.setattr(CheckpointWriter, "wait", fail)
    assert train_by_command(tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "invariance-jax: full"
