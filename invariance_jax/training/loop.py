"""The training loop: feeds the step, logs, validates, saves and resumes."""

import collections
import contextlib
import dataclasses
import itertools
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from clu import parameter_overview
from jax.experimental import multihost_utils

from invariance_jax import data, devices, distributed, files, progress, signals
from invariance_jax.augment.learned import COLLECTION
from invariance_jax.errors import RunError, UserError
from invariance_jax.evaluation.accuracy import Accuracy, AveragedAccuracy
from invariance_jax.evaluation.driver import Driver
from invariance_jax.factors import per_class
from invariance_jax.training import checkpoints, performance
from invariance_jax.training import workdir as workdirs
from invariance_jax.training.checkpoints import CheckpointWriter, Progress
from invariance_jax.training.experiment import Experiment
from invariance_jax.training.metrics import MetricWriter
from invariance_jax.training.program import Program, program_of_one
from invariance_jax.training.state import TrainState

_OVERVIEW = "parameters.txt"
# Enough that the devices never wait for the host; a batch of canvases takes hundreds of MB.
_MOST_QUEUED_STEPS = 2
_VALIDATED = ("loss", "top1", "top5")
# Images of a device. Validation is a small part of a run; to find the batch that fits is not.
_VALIDATED_AT_ONCE = 32


class NonFiniteLossError(RunError):
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


class Validation(NamedTuple):
    """Accuracy and loss over the validation split.

    Attributes:
        top1: Share of images whose best score is the true class, 0 to 1.
        top5: Share of images whose five best scores hold the true class.
        images: How many images there were.
        loss: Mean cross-entropy, nats, whatever the loss in training is; with the regulariser of a
            learned augmentation.
    """

    top1: float
    top5: float
    images: int
    loss: float


def make_validate(experiment: Experiment) -> Callable[[Sequence[Any]], list[Validation]]:
    """Makes the function that measures accuracy on the validation split.

    Args:
        experiment: The experiment.

    Returns:
        From the variables of one or several such models to the accuracy of each; compiled at the
        first call, and each image is read once. Images are judged with a learned augmentation,
        unless every class has widths of its own.
    """
    config, learned = experiment.config, experiment.learned
    augmented = learned and not learned.per_class
    measurement = AveragedAccuracy.from_config(config) if augmented else Accuracy()
    driver = Driver(
        model=experiment.as_model(experiment.abstract_state.evaluated_variables),
        measurements=[measurement],
        source=experiment.validation_source,
        preprocess=experiment.preprocess,
        canvas_size=config.data.canvas_size,
        workers=config.data.workers,
        mesh=experiment.mesh,
        per_device_batch_size=config.eval.per_device_batch_size or _VALIDATED_AT_ONCE,
        memory=config.eval.memory,
        shard_size=config.eval.shard_size,
        description="",
    )

    def validate(networks: Sequence[Any]) -> list[Validation]:
        validations = []
        for variables, ((_, found),) in zip(networks, driver.run_each(networks), strict=True):
            top1, top5 = found["correct_top1"], found["correct_top5"]
            loss = found["cross_entropy"].mean()
            if learned:
                loss += learned.penalty(devices.to_host(variables["params"][COLLECTION]))
            shares = float(top1.mean()), float(top5.mean())
            validations.append(Validation(*shares, len(top1), float(loss)))
        return validations

    return validate


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
    part, parts = devices.part_of_input(experiment.mesh)
    batches = data.train_batches(
        experiment.train_source,
        batch_size=config.train.batch_size,
        canvas_size=config.data.canvas_size,
        seed=config.order_seed,
        start_step=start_step,
        workers=config.data.workers,
        process_index=part,
        process_count=parts,
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
        UserError: The workdir belongs to another config, data is not there, or the weights to start
            from do not fit.
        NonFiniteLossError: The loss became infinite or not a number.
        Interrupted: SIGTERM or SIGINT came; from the first step on, the state is saved.
        CheckpointError: A checkpoint could not be written, or none of those there can be read.
    """
    state, (done,) = train_each([experiment], [workdir], program_of_one, announce, profile)
    return Trained(state=state, top1=done.top1, top5=done.top5, seconds=done.seconds)


def train_each(
    experiments: Sequence[Experiment],
    workdirs_: Sequence[pathlib.Path],
    make_program: Callable[[Sequence[Experiment]], Program],
    announce: Callable[[str], object],
    profile: tuple[int, int] | None = None,
    failed: Callable[[int, str], object] = lambda number, reason: None,
) -> tuple[Any, list[Progress | None]]:
    """Trains runs that share a program and its input, each into its own workdir; see `train`.

    Args:
        experiments: Of the runs.
        workdirs_: Their folders.
        make_program: Makes the program once they are checked.
        announce: Takes each message for the person who watches.
        profile: As `train` takes it; traced into the first workdir.
        failed: Is told the number of a run whose loss became infinite or not a number, and why.
            Nothing of it is saved from then on; the others go on.

    Returns:
        The program's state after the last step, and what each run knows; None of those that failed.

    Raises:
        UserError: As `train`, of any run.
        NonFiniteLossError: All have failed.
        Interrupted: As `train`; all that go on are saved.
        CheckpointError: As `train`.
    """
    for experiment, workdir in zip(experiments, workdirs_, strict=True):
        experiment.check()
        if not checkpoints.steps(workdir):
            # Weights that do not fit are found before the workdir is marked.
            experiment.load_weights()
    with contextlib.ExitStack() as stack:
        for experiment, workdir in zip(experiments, workdirs_, strict=True):
            stack.enter_context(workdirs.claimed(workdir, experiment.config))
            _note_rows(experiment, workdir, announce)
        return _train_each(experiments, workdirs_, make_program, announce, profile, failed)


@dataclasses.dataclass(kw_only=True)
class _Run:
    """One run while it trains."""

    number: int
    experiment: Experiment
    workdir: pathlib.Path
    done: Progress
    writer: MetricWriter
    saver: CheckpointWriter

    def diverged(self, step: int) -> str:
        """Says that its loss is no number any more."""
        optimizer = self.experiment.config.optimizer
        return (
            f"{self.workdir}: at step {step} the loss or the parameters are "
            f"not finite; the last good checkpoint is {self.saver.newest()}. Try a lower "
            f"config.optimizer.learning_rate (now {optimizer.learning_rate}) or "
            f"more config.optimizer.warmup_steps (now {optimizer.warmup_steps})"
        )


def _train_each(
    experiments: Sequence[Experiment],
    workdirs_: Sequence[pathlib.Path],
    make_program: Callable[[Sequence[Experiment]], Program],
    announce: Callable[[str], object],
    profile: tuple[int, int] | None,
    failed: Callable[[int, str], object],
) -> tuple[Any, list[Progress | None]]:
    experiment, count = experiments[0], len(experiments)
    config, learned = experiment.config, experiment.learned
    where = f"{workdirs_[0]}" if count == 1 else f"{count} runs in {workdirs_[0].parent}"
    program = make_program(experiments)
    restored = checkpoints.restore_states(
        workdirs_, experiment.abstract_state, program.join, announce
    )
    if restored:
        start_step, state, done = restored
        announce(f"{where}: going on from the checkpoint of step {start_step}")
        if start_step >= config.train.steps:
            return state, list(done)
    else:
        begun = (_begin(*each, announce) for each in zip(experiments, workdirs_, strict=True))
        start_step, state, done = 0, program.join(begun), [Progress()] * count

    def widths(run: _Run) -> dict[str, float]:
        if not learned:
            return {}
        return learned.metrics(devices.to_host(program.part(state.params[COLLECTION], run.number)))

    with contextlib.ExitStack() as stack:
        # Several go on together from a step that all have: one may have died before it was saved.
        fewest = 1 if count == 1 else 2
        runs = [
            _Run(
                number=number,
                experiment=each,
                workdir=workdir,
                done=known,
                # Of a run that begins, the row before the first step is repeated too.
                writer=MetricWriter(workdir, start_step or -1, announce),
                saver=stack.enter_context(
                    CheckpointWriter(workdir, keep=max(fewest, each.config.train.keep_checkpoints))
                ),
            )
            for number, (each, workdir, known) in enumerate(
                zip(experiments, workdirs_, done, strict=True)
            )
        ]
        before_step = stack.enter_context(performance.profile(workdirs_[0], profile))
        label = config.augment.label if count == 1 else f"x {count}"
        bar = stack.enter_context(
            progress.bar(
                total=config.train.steps,
                initial=start_step,
                description=f"{config.model.name} {label}",
                unit="steps",
            )
        )
        validate, throughput = make_validate(experiment), _make_throughput(experiment, count)
        begun, seconds_before = time.perf_counter(), [each.seconds for each in done]
        metrics = program.no_metrics()
        batches = stack.enter_context(
            contextlib.closing(training_input(experiment, start_step, announce))
        )
        first = next(batches)
        # Compiled before the first interval is timed; another shape would be an error from now
        # on, not another program.
        bar.set_postfix_str("compiling")
        run_step = program.step.lower(state, metrics, first).compile()
        bar.set_postfix_str("", refresh=False)
        batches = itertools.chain([first], batches)
        del first
        queued: collections.deque[Any] = collections.deque()
        # Of several processes all must stop after the same step: there JAX takes SIGTERM.
        asked = signals.Signals()
        if jax.process_count() == 1:
            asked = stack.enter_context(signals.deferred())
        if learned and not start_step:
            for run in runs:
                run.writer.write(0, {**widths(run), "seconds": 0.0})
        throughput.restart()
        for step in range(start_step + 1, config.train.steps + 1):
            batch = throughput.take(batches, metrics)
            before_step(step, metrics)
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
            stop = must_stop(asked, step) and not last
            save = last or stop or step % config.train.checkpoint_every == 0
            # A machine that is taken away leaves no time for a validation.
            validation = last or (step % config.train.evaluate_every == 0 and not stop)
            if not (save or validation or step % config.train.log_every == 0):
                continue

            # The only transfer to the host.
            values = [each.compute() for each in program.split(devices.to_host(metrics))]
            metrics, rates = program.no_metrics(), throughput.measure()
            for run in [run for run in runs if values[run.number]["nonfinite"] is not None]:
                runs.remove(run)
                reason = run.diverged(values[run.number]["nonfinite"])
                failed(run.number, reason)
                if not runs:
                    raise NonFiniteLossError(reason)
                announce(f"{reason}. The other {len(runs)} runs go on")
            if count == 1:
                loss, top1 = (float(values[0][name]) for name in ("loss", "top1"))
                bar.set_postfix(loss=f"{loss:.3f}", top1=f"{top1:.1%}", refresh=False)
            else:
                together = rates["images_per_second"] * len(runs)
                bar.set_postfix({"images/s": f"{together:,.0f}"}, refresh=False)
            results = itertools.repeat(None)
            if validation:
                variables = state.evaluated_variables
                results = validate([program.part(variables, run.number) for run in runs])
            for run, result in zip(runs, results, strict=validation):
                found = values[run.number]
                row = {name: float(found[name]) for name in ("loss", "top1", "learning_rate")}
                row |= rates | widths(run)
                if result:
                    row |= {f"validation_{each}": getattr(result, each) for each in _VALIDATED}
                    run.done = run.done.validated(step, result.top1, result.top5)
                seconds = seconds_before[run.number] + time.perf_counter() - begun
                run.done = dataclasses.replace(run.done, seconds=seconds)
                run.writer.write(step, {**row, "seconds": seconds})
            if save or any(run.done.best_step == step for run in runs):
                # All have their last checkpoint before one has its next.
                for run in runs:
                    run.saver.wait()
                for run in runs:
                    mine, told = program.part(state, run.number), run.experiment.config.to_dict()
                    run.saver.save(step, mine, run.done, told)
            if stop:
                for run in runs:
                    run.saver.wait()
                name = signal.Signals(asked.came or signal.SIGTERM).name
                raise signals.Interrupted(
                    f"{where}: stopped by {name} after step {step}, which is saved; the same "
                    "command goes on",
                    asked.came or signal.SIGTERM,
                )
            # Validation is not counted into the training rate.
            throughput.restart()
    known = {run.number: run.done for run in runs}
    return state, [known.get(number) for number in range(count)]


def _note_rows(
    experiment: Experiment, workdir: pathlib.Path, announce: Callable[[str], object]
) -> None:
    """Says how many classes get operations of their own, and lists them beside the run."""
    if experiment.per_class is None:
        return
    announce(f"{workdir}: {per_class.told(experiment.rows_by_class)}, listed in {per_class.LIST}")
    path = workdir / per_class.LIST
    text = per_class.to_csv(experiment.rows_by_class, experiment.train_source.class_names)
    with distributed.together():
        if distributed.is_lead():
            if path.exists() and path.read_bytes() != text.encode():
                raise UserError(
                    f"config.augment.per_class chooses other rows than {path} lists, which the run "
                    "began with; expected the same file of the search, or another --workdir"
                )
            files.write_text(path, text)


def _begin(
    experiment: Experiment, workdir: pathlib.Path, announce: Callable[[str], object]
) -> TrainState:
    """The state before the first step, and a table of its parameters."""
    state = experiment.init_state()
    if distributed.is_lead():
        table = parameter_overview.get_parameter_overview(state.params, include_stats="sharding")
        files.write_text(workdir / _OVERVIEW, f"{table}\n")
    count = parameter_overview.count_parameters(state.params)
    name = experiment.config.model.name
    announce(f"{workdir}: training {name}, {count:,} parameters, listed in {_OVERVIEW}")
    return state


def must_stop(asked: signals.Signals, step: int) -> bool:
    """Whether the run is to stop after this step; the same answer in all processes.

    Args:
        asked: What notices signals, in a process that is alone.
        step: Steps taken. Call it after every step: JAX's coordination service listens in each of
            several processes, passes the notice on and agrees on a step.

    Returns:
        True once all processes have taken the step at which they stop.
    """
    return asked.came is not None or multihost_utils.reached_preemption_sync_point(step)


def _make_throughput(experiment: Experiment, runs: int) -> performance.Throughput:
    config, devices_ = experiment.config, experiment.mesh.devices.ravel()
    peak = performance.peak_flops(devices_[0].device_kind, config.mesh.peak_flops)
    # To count traces the whole model; without a peak there is nothing to compare it with.
    flops = peak and performance.training_flops(experiment.model, config.data.image_size)
    if flops and experiment.learned:
        flops *= experiment.learned.train_copies
    return performance.Throughput(
        batch_size=config.train.batch_size,
        # One image is every run's, and the devices work for all.
        image_flops=flops and flops * runs,
        peak_flops=peak and peak * len(devices_),
    )
