"""What the tests of training share: runs so small that compiling is most of the work."""

import contextlib

import jax
import pytest

from invariance_jax.config import ExperimentConfig
from invariance_jax.configs import digits
from invariance_jax.fields import check
from invariance_jax.training import experiment, loop, metrics, program


def tiny(model="resnet8", **train):
    """Four steps of eight digits at 8 pixels on one device, every step logged and saved by two.

    The rate is constant and gentle: so the compiled step does not depend on how many there are, and
    no rounding error grows.
    """
    values = digits.get_config(f"{model},random_resized_crop_flip")
    values.data.train_split = "train[:20]"
    values.data.validation_split = "validation[:10]"
    values.data.image_size = values.data.resize_size = 8
    values.eval.split = "validation[:10]"
    values.eval.per_device_batch_size = 8
    values.optimizer.update({"warmup_steps": 0, "schedule": "constant", "learning_rate": 1e-3})
    values.mesh = {"data": 1}
    values.train.update(
        {"batch_size": 8, "steps": 4, "log_every": 1, "checkpoint_every": 2, "ema_decay": 0.5}
        | train
    )
    return check(ExperimentConfig, values)


def with_(config, **sections):
    """The config with fields of some sections replaced."""
    return config.with_values(**sections)


@contextlib.contextmanager
def stopped_after(step):
    """Lets what is trained within end in an error right after a step's line of metrics."""

    class Stop(Exception):
        pass

    write = metrics.MetricWriter.write

    def stop(self, at, values):
        write(self, at, values)
        if at == step:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(metrics.MetricWriter, "write", stop)
        yield


def take_steps(config, steps, state=None):
    """Takes some steps without validation or files; the last state and each step's loss."""
    built = experiment.make(config)
    state = built.init_state() if state is None else state
    run_step, batches = program.compile_step(built), loop.training_input(built, int(state.step))
    losses = []
    for _ in range(steps):
        state, metrics = run_step(state, program.no_metrics(built), next(batches))
        losses.append(float(jax.device_get(metrics).compute()["loss"]))
    return state, losses
