"""Parameters divided over two processes, and SIGTERM to one of them."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import jax
import numpy as np
from tiny_runs import take_steps, tiny, with_

from invariance_jax.training import checkpoints, experiment, metrics

LOCAL = pathlib.Path(__file__).parents[2] / "launch" / "local.py"
COMPARED = 20

# The command `train`; process 1 gets SIGTERM when it asks for batch 12, its sibling gets none.
PREEMPTED = textwrap.dedent(
    """
    import json, os, pathlib, signal, sys
    from invariance_jax import __main__, data, distributed
    from invariance_jax.commands import train
    from invariance_jax.config import ExperimentConfig
    from invariance_jax.fields import check
    from invariance_jax.training import experiment, loop
    prefetch = data.prefetch_to_device
    def preempted(batches, sharding):
        for number, batch in enumerate(prefetch(batches, sharding)):
            if number == 21 and os.environ["INVARIANCE_JAX_PROCESS_ID"] == "1":
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
    data.prefetch_to_device = preempted
    workdir, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    def run(argv):
        built = experiment.make(check(ExperimentConfig, config))
        loop.train(built, workdir, announce=distributed.say)
    train.run = run
    distributed.run_to_the_end(lambda: __main__.main(["train"]))
    """
)


def test_fsdp_over_two_processes_loses_the_same_and_stops_as_one(tmp_path):
    # Long enough that the notice, which JAX looks for once a second, comes long before the end.
    config = with_(
        tiny("vit_mu8", steps=100_000, checkpoint_every=100_000, evaluate_every=100_000),
        mesh={"data": 8, "parameters": "fsdp"},
    )
    workdir = tmp_path / "run"
    done = subprocess.run(
        [
            *(sys.executable, LOCAL, "-n", "2", "--devices=4", "--"),
            *(sys.executable, "-c", PREEMPTED, workdir, config.to_json()),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 143, done.stdout + done.stderr
    stopped = re.findall(r"stopped by SIGTERM after step (\d+)", done.stdout + done.stderr)
    assert len(stopped) == 2 and len(set(stopped)) == 1  # both say so, of the same step
    last = int(stopped[0])
    rows = metrics.read_metrics(workdir)
    assert rows[-1]["step"] == last

    alone = with_(config, mesh={"data": 1, "parameters": "replicated"})
    _, losses = take_steps(alone, COMPARED)
    np.testing.assert_allclose([row["loss"] for row in rows[:COMPARED]], losses, rtol=1e-4)

    # One device of one process goes on from what two processes have saved.
    state, _ = checkpoints.restore_state(workdir, experiment.make(alone).abstract_state, print)
    assert int(state.step) == last
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params)))
    state, (loss,) = take_steps(alone, 1, state)
    assert np.isfinite(loss) and int(state.step) == last + 1
