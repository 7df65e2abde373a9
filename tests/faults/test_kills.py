"""SIGKILL and power loss: what was written is whole, and goes on to the same end."""

import signal
import subprocess
import sys
import textwrap

from tiny_runs import tiny

from invariance_jax.training import checkpoints, metrics


def test_a_kill_in_the_middle_of_a_write_leaves_the_older_checkpoint(goes_on, tmp_path):
    # Orbax writes into a folder of another name and renames it: the process dies before that,
    # after two more steps were logged.
    script = textwrap.dedent(
        """
        import json, os, pathlib, signal, sys
        from invariance_jax.config import ExperimentConfig
        from invariance_jax.fields import check
        from invariance_jax.training import checkpoints, experiment, loop
        save = checkpoints.CheckpointWriter.save
        def save_and_die(self, step, *args, **options):
            if step == 4:
                from orbax.checkpoint._src.path import atomicity
                async def die(self):
                    os.kill(os.getpid(), signal.SIGKILL)
                atomicity.AtomicRenameTemporaryPath.finalize = die
            save(self, step, *args, **options)
            self.wait()
        checkpoints.CheckpointWriter.save = save_and_die
        config = check(ExperimentConfig, json.loads(sys.argv[2]))
        loop.train(experiment.make(config), pathlib.Path(sys.argv[1]))
        """
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), tiny().to_json()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["2", "4.orbax-checkpoint-tmp"]  # it did die in the middle
    assert checkpoints.steps(tmp_path) == [2]
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert "going on from the checkpoint of step 2" in goes_on(tmp_path)[0]
