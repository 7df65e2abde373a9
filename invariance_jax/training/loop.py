"""The training loop: feeds the step, logs, validates, saves and resumes."""

import collections
import contextlib
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from clu import parameter_overview

from invariance_jax import data, devices, distributed, files, progress
from invariance_jax.evaluation import accuracy
from invariance_jax.experiment import Experiment
from invariance_jax.training import flops
from invariance_jax.training import workdir as workdirs
from invariance_jax.training.checkpoints import Checkpoints
from invariance_jax.training.metrics import TrainMetrics
from invariance_jax.training.preemption import PreemptedError, Preemption
from invariance_jax.training.profiling import Profile
from invariance_jax.training.state import TrainState
from invariance_jax.training.step import make_train_step
from invariance_jax.training.throughput import Throughput
from invariance_jax.training.writers import MetricWriter

_OVERVIEW = "parameters.txt"
# Enough that the devices never wait for the host; a batch of canvases takes hundreds of MB.
_MOST_QUEUED_STEPS = 2


class NonFiniteLossError(RuntimeError):
    """The loss is no longer a number; the last checkpoint was written before that."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run.

    Attributes:
        state: The state after the last step.
        top1: Top-1 accuracy on the validation split, 0 to 1.
        top5: Top-5 accuracy likewise.
        seconds: Time spent in training and validation, over all resumed parts.
    """

    state: TrainState
    top1: float
    top5: float
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run knows beside its state; saved with every checkpoint.

    Attributes:
        seconds: Time spent in training and validation, over all resumed parts.
        best_step: The step with the best validation so far; None before the first one.
        best_top1: Its top-1 accuracy, 0 to 1.
        top1: Top-1 accuracy of the last validation.
        top5: Top-5 accuracy likewise.
    """

    seconds: float = 0.0
    best_step: int | None = None
    best_top1: float = -1.0
    top1: float = 0.0
    top5: float = 0.0

    def validated(self, step: int, result: accuracy.Accuracy) -> "Progress":
        """The progress after a validation.

        Args:
            step: When.
            result: What was measured.

        Returns:
            The new progress; of equally good steps the first is the best.
        """
        now = dataclasses.replace(self, top1=result.top1, top5=result.top5)
        if result.top1 <= self.best_top1:
            return now
        return dataclasses.replace(now, best_step=step, best_top1=result.top1)


def restore_state(
    experiment: Experiment,
    checkpoints: Checkpoints,
    *,
    best: bool = False,
    announce: Callable[[str], object] = distributed.say,
) -> tuple[TrainState, Progress] | None:
    """Reads the newest checkpoint that can be read, or the best one.

    Args:
        experiment: The experiment it belongs to; its mesh may be another one than then.
        checkpoints: Where it is.
        best: Whether to read the one with the best validation instead of the newest.
        announce: Is told of checkpoints that cannot be read.

    Returns:
        The state on the experiment's mesh and the progress saved with it; None if there is none.

    Raises:
        CheckpointError: There are some, and none can be read.
    """
    abstract = experiment.abstract_state()
    restored = checkpoints.restore_newest(abstract, announce)
    if restored is None:
        return None
    state, saved = restored
    best_step = saved["progress"]["best_step"]
    if best and best_step is not None:
        state, saved = checkpoints.restore(best_step, abstract)
    return state, Progress(**saved["progress"])


def make_validate(experiment: Experiment) -> Callable[[Any], accuracy.Accuracy]:
    """Makes the function that measures accuracy on the validation split.

    Args:
        experiment: The experiment.

    Returns:
        From the model's variables to its accuracy; compiled at the first call.
    """
    config = experiment.config
    step = accuracy.make_accuracy_step(experiment.model, experiment.preprocess, experiment.mesh)

    def validate(variables: Any) -> accuracy.Accuracy:
        batches = data.evaluation_batches(
            experiment.validation_source,
            batch_size=experiment.validation_batch_size,
            canvas_size=config.data.canvas_size,
            workers=config.data.workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        on_device = data.prefetch_to_device(batches, devices.by_example(experiment.mesh))
        return accuracy.measure(step, variables, on_device)

    return validate


def compile_step(experiment: Experiment) -> Callable[..., tuple[TrainState, Any]]:
    """Wraps the pure step into one program over the mesh that reuses the state's memory.

    Args:
        experiment: The experiment.

    Returns:
        `step(state, metrics, batch) -> (state, metrics)`, compiled at the first call.
    """
    whole = devices.replicated(experiment.mesh)
    where = jax.tree.map(lambda x: x.sharding, experiment.abstract_state())
    step = make_train_step(
        experiment.model,
        experiment.augmentation,
        experiment.mixing,
        experiment.optimizer,
        experiment.schedule,
        jax.random.key(experiment.config.seed),
        loss=experiment.loss,
        grad_accum_steps=experiment.config.train.grad_accum_steps,
        ema_decay=experiment.config.train.ema_decay,
    )
    return jax.jit(
        step,
        in_shardings=(where, whole, devices.by_example(experiment.mesh)),
        out_shardings=(where, whole),
        # Not the metrics: those of each step say when it is done.
        donate_argnums=0,
    )


def training_input(
    experiment: Experiment, start_step: int, announce: Callable[[str], object] = print
) -> Iterator[data.Batch]:
    """Opens the training input.

    Args:
        experiment: The experiment.
        start_step: Steps already taken; they fix the next batch.
        announce: Takes a message for each bad image that is skipped.

    Returns:
        Batches on the devices, without end.
    """
    config = experiment.config
    batches = data.train_batches(
        experiment.train_source,
        batch_size=config.train.batch_size,
        canvas_size=config.data.canvas_size,
        seed=config.seed,
        start_step=start_step,
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        on_bad_image=data.BadImageCounter(announce) if config.data.skip_bad_images else None,
    )
    return data.prefetch_to_device(batches, devices.by_example(experiment.mesh))


def train(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    announce: Callable[[str], object] = print,
    profile: tuple[int, int] | None = None,
) -> Trained:
    """Trains, or goes on from the newest checkpoint of the workdir.

    Args:
        experiment: The experiment.
        workdir: The run's folder; it must be this experiment's or new.
        announce: Takes each message for the person who watches.
        profile: The first step to trace into `WORKDIR/profile` and the first not to; None for no
            trace.

    Returns:
        The finished run.

    Raises:
        UserError: The workdir belongs to another config, or the weights to start from do not fit.
        NonFiniteLossError: The loss became infinite or not a number.
        PreemptedError: SIGTERM came; the state is saved.
        CheckpointError: A checkpoint could not be written, or none of those there can be read.
    """
    config = experiment.config
    if not (workdir / "checkpoints").exists():
        # Weights that do not fit are found before the workdir is marked.
        experiment.load_weights()
    workdirs.claim(workdir, config)
    with contextlib.ExitStack() as stack:
        preemption = stack.enter_context(Preemption())
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=config.train.keep_checkpoints))
        restored = restore_state(experiment, checkpoints, announce=announce)
        if restored:
            state, done = restored
            start_step = int(state.step)
            announce(f"{workdir}: going on from the checkpoint of step {start_step}")
            if start_step >= config.train.steps:
                return _trained(state, done)
        else:
            state, done, start_step = experiment.init_state(), Progress(), 0
            if distributed.is_lead():
                files.write_text(workdir / _OVERVIEW, _overview(state))
            count = parameter_overview.count_parameters(state.params)
            announce(
                f"{workdir}: training {config.model.name}, {count:,} parameters, listed in "
                f"{_OVERVIEW}"
            )

        writer = stack.enter_context(MetricWriter(workdir, start_step))
        trace = stack.enter_context(Profile(workdir, profile))
        bar = stack.enter_context(
            progress.bar(
                total=config.train.steps,
                initial=start_step,
                description=f"{config.model.name} {config.augment.label}",
                unit="steps",
            )
        )
        validate, throughput = make_validate(experiment), _make_throughput(experiment)
        begun, seconds_before = time.perf_counter(), done.seconds
        metrics = no_metrics(experiment)
        batches = training_input(experiment, start_step, announce)
        first = next(batches)
        batches = itertools.chain([first], batches)
        # Compiled before the first interval is timed; another shape would be an error from now
        # on, not another program.
        run_step = compile_step(experiment).lower(state, metrics, first).compile()
        del first
        queued: collections.deque[Any] = collections.deque()
        throughput.restart()
        for step in range(start_step + 1, config.train.steps + 1):
            batch = throughput.take(batches, metrics)
            trace.before(step, metrics)
            # Whatever the step needs is on the devices, and what it gives stays there.
            with (
                jax.transfer_guard_host_to_device("disallow"),
                jax.transfer_guard_device_to_host("disallow"),
            ):
                state, metrics = run_step(state, metrics, batch)
            # Every queued step holds its batch on the devices.
            devices.wait_for_all_but(_MOST_QUEUED_STEPS, queued, metrics)
            bar.update()
            last = step == config.train.steps
            stop = preemption.reached(step) and not last
            save = last or stop or step % config.train.checkpoint_every == 0
            # A machine that is taken away leaves no time for a validation.
            validation = last or (step % config.train.evaluate_every == 0 and not stop)
            if not (save or validation or step % config.train.log_every == 0):
                continue

            # The only transfer to the host.
            values = jax.device_get(metrics).compute()
            metrics = no_metrics(experiment)
            if values["nonfinite"] is not None:
                raise NonFiniteLossError(
                    f"{workdir}: at step {values['nonfinite']} the loss or the parameters are "
                    f"not finite; the last good checkpoint is {_newest(checkpoints)}. Try a lower "
                    f"config.optimizer.learning_rate (now {config.optimizer.learning_rate}) or "
                    f"more config.optimizer.warmup_steps (now {config.optimizer.warmup_steps})"
                )
            row = {name: float(values[name]) for name in ("loss", "top1", "learning_rate")}
            row |= throughput.measure()
            bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{row['top1']:.1%}", refresh=False)
            if validation:
                result = validate(state.evaluated_variables)
                row |= {"validation_top1": result.top1, "validation_top5": result.top5}
                done = done.validated(step, result)
                save = save or done.best_step == step
            seconds = seconds_before + time.perf_counter() - begun
            done = dataclasses.replace(done, seconds=seconds)
            writer.write(step, {**row, "seconds": seconds})
            if save:
                saved = {"step": step, "progress": dataclasses.asdict(done)}
                saved["config"] = config.to_dict()
                checkpoints.save(step, state, saved, best_step=done.best_step)
            if stop:
                checkpoints.wait()
                raise PreemptedError(
                    f"{workdir}: stopped by SIGTERM after step {step}, which is saved; the same "
                    "command goes on"
                )
            # Validation is not counted into the training rate.
            throughput.restart()
    return _trained(state, done)


def _trained(state: TrainState, done: Progress) -> Trained:
    return Trained(state=state, top1=done.top1, top5=done.top5, seconds=done.seconds)


def _overview(state: TrainState) -> str:
    """A table of all parameters, with how each is divided over the mesh."""
    return parameter_overview.get_parameter_overview(state.params, include_stats="sharding") + "\n"


def _make_throughput(experiment: Experiment) -> Throughput:
    config, devices_ = experiment.config, experiment.mesh.devices.ravel()
    peak = flops.peak_flops(devices_[0].device_kind, config.mesh.peak_flops)
    return Throughput(
        batch_size=config.train.batch_size,
        # To count traces the whole model; without a peak there is nothing to compare it with.
        image_flops=peak and flops.training_flops(experiment.model, config.data.image_size),
        peak_flops=peak and peak * len(devices_),
    )


def no_metrics(experiment: Experiment) -> Any:
    """Makes the metrics of no step yet.

    Args:
        experiment: The experiment.

    Returns:
        A `TrainMetrics` on the mesh.
    """
    return jax.device_put(TrainMetrics.empty(), devices.replicated(experiment.mesh))


def _newest(checkpoints: Checkpoints) -> str:
    step = checkpoints.latest_step()
    return "none" if step is None else f"that of step {step}"
