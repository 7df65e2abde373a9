"""The training loop: feeds the step, logs, validates, saves and resumes."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from clu import parameter_overview

from invariance_jax import data, devices, progress
from invariance_jax.evaluation import accuracy
from invariance_jax.experiment import Experiment
from invariance_jax.training import workdir as workdirs
from invariance_jax.training.checkpoints import Checkpoints, abstract_state
from invariance_jax.training.metrics import TrainMetrics
from invariance_jax.training.state import TrainState
from invariance_jax.training.step import make_train_step
from invariance_jax.training.writers import MetricWriter


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


def restore_state(
    experiment: Experiment, checkpoints: Checkpoints
) -> tuple[TrainState, dict[str, Any]] | None:
    """Reads the newest checkpoint.

    Args:
        experiment: The experiment it belongs to.
        checkpoints: Where it is.

    Returns:
        The state on the experiment's mesh and the progress saved with it; None if there is none.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    abstract = abstract_state(experiment.abstract_state(), experiment.mesh)
    return checkpoints.restore(step, abstract)


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
            batch_size=config.eval.batch_size,
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
    step = make_train_step(
        experiment.model,
        experiment.augmentation,
        experiment.mixing,
        experiment.optimizer,
        experiment.schedule,
        jax.random.key(experiment.config.seed),
        label_smoothing=experiment.config.train.label_smoothing,
    )
    return jax.jit(
        step,
        in_shardings=(whole, whole, devices.by_example(experiment.mesh)),
        out_shardings=(whole, whole),
        donate_argnums=(0, 1),
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
    experiment: Experiment, workdir: pathlib.Path, *, announce: Callable[[str], object] = print
) -> Trained:
    """Trains, or goes on from the newest checkpoint of the workdir.

    Args:
        experiment: The experiment.
        workdir: The run's folder; it must be this experiment's or new.
        announce: Takes each message for the person who watches.

    Returns:
        The finished run.

    Raises:
        UserError: The workdir belongs to another config, or the weights to start from do not fit.
        NonFiniteLossError: The loss became infinite or not a number.
    """
    config = experiment.config
    if not (workdir / "checkpoints").exists():
        # Weights that do not fit are found before the workdir is marked.
        experiment.load_weights()
    workdirs.claim(workdir, config)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=config.train.keep_checkpoints))
        restored = restore_state(experiment, checkpoints)
        if restored:
            state, saved = restored
            start_step, seconds_before = int(state.step), float(saved["seconds"])
            announce(f"{workdir}: going on from the checkpoint of step {start_step}")
        else:
            state, start_step, seconds_before = experiment.init_state(), 0, 0.0
            count = parameter_overview.count_parameters(state.params)
            announce(f"{workdir}: training {config.model.name}, {count:,} parameters")
        if restored and start_step >= config.train.steps:
            return Trained(
                state=state, top1=saved["top1"], top5=saved["top5"], seconds=seconds_before
            )

        writer = stack.enter_context(MetricWriter(workdir, start_step))
        bar = stack.enter_context(
            progress.bar(
                total=config.train.steps,
                initial=start_step,
                description=f"{config.model.name} {config.augment.label}",
                unit="steps",
            )
        )
        run_step, validate = compile_step(experiment), make_validate(experiment)
        begun = time.perf_counter()
        metrics, logged_step, logged_time = no_metrics(experiment), start_step, begun
        batches = training_input(experiment, start_step, announce)
        for step in range(start_step + 1, config.train.steps + 1):
            state, metrics = run_step(state, metrics, next(batches))
            bar.update()
            last = step == config.train.steps
            save = last or step % config.train.checkpoint_every == 0
            validation = last or step % config.train.evaluate_every == 0
            if not (save or validation or step % config.train.log_every == 0):
                continue

            # The only transfer to the host: everything else in the loop is queued.
            values = jax.device_get(metrics).compute()
            metrics = no_metrics(experiment)
            if values["nonfinite"] is not None:
                raise NonFiniteLossError(
                    f"{workdir}: at step {values['nonfinite']} the loss or the parameters are "
                    f"not finite; the last good checkpoint is {_newest(checkpoints)}. Try a lower "
                    f"config.optimizer.learning_rate (now {config.optimizer.learning_rate}) or "
                    f"more config.optimizer.warmup_steps (now {config.optimizer.warmup_steps})"
                )
            now = time.perf_counter()
            rate = (step - logged_step) * config.train.batch_size / (now - logged_time)
            row = {
                "loss": float(values["loss"]),
                "top1": float(values["top1"]),
                "learning_rate": float(values["learning_rate"]),
                "images_per_second": rate,
            }
            bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{row['top1']:.1%}", refresh=False)
            if validation:
                result = validate(state.variables)
                row |= {"validation_top1": result.top1, "validation_top5": result.top5}
            seconds = seconds_before + time.perf_counter() - begun
            writer.write(step, {**row, "seconds": seconds})
            if save:
                saved = {"step": step, "seconds": seconds, "seed": config.seed}
                if last:
                    saved |= {"top1": result.top1, "top5": result.top5}
                checkpoints.save(step, state, saved)
            # Validation is not counted into the training rate.
            logged_step, logged_time = step, time.perf_counter()
    return Trained(state=state, top1=result.top1, top5=result.top5, seconds=seconds)


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
