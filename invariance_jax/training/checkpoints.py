"""Checkpoints: written atomically in the background, read onto the mesh at hand or to the host."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import jax
import numpy as np

from invariance_jax import devices, distributed
from invariance_jax.errors import RunError, UserError
from invariance_jax.training import checksums
from invariance_jax.training.state import TrainState

T = TypeVar("T")

_STATE, _PROGRESS, _CHECKSUMS = "state", "progress", "checksums"
_FOLDER, _ASIDE = "checkpoints", "checkpoints_unreadable"
_LONGEST = 200  # characters of an error that are shown; TensorStore adds whole specifications
_PATTERN = frozenset("*?[\\")


class CheckpointError(RunError):
    """A checkpoint could not be written or read; the message says which, and what is left."""


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

    @classmethod
    def from_saved(cls, saved: Any) -> Self:
        """Reads what any version has saved.

        Args:
            saved: JSON values. What they lack has its default, what is not known is passed over.

        Returns:
            The progress.
        """
        found = saved.get(_PROGRESS) if isinstance(saved, Mapping) else None
        found = found if isinstance(found, Mapping) else {}
        known = {
            field.name: found[field.name]
            for field in dataclasses.fields(cls)
            if type(found.get(field.name)) in (int, float)
        }
        return cls(**known)

    def validated(self, step: int, top1: float, top5: float) -> Self:
        """The progress after a validation.

        Args:
            step: When.
            top1: Top-1 accuracy that was measured, 0 to 1.
            top5: Top-5 accuracy likewise.

        Returns:
            The new progress; of equally good steps the first is the best.
        """
        now = dataclasses.replace(self, top1=top1, top5=top5)
        if top1 <= self.best_top1:
            return now
        return dataclasses.replace(now, best_step=step, best_top1=top1)


def steps(workdir: pathlib.Path) -> list[int]:
    """Lists the complete checkpoints; one that was not finished has another name.

    Args:
        workdir: The run's folder, there or not.

    Returns:
        Their steps, the oldest first.
    """
    folder = workdir / _FOLDER
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def restore_state(
    workdir: pathlib.Path, abstract: TrainState, announce: Callable[[str], object]
) -> tuple[TrainState, Progress] | None:
    """Reads the newest checkpoint that can be read, to go on from it.

    Newer ones are moved to `WORKDIR/checkpoints_unreadable`: their steps will be saved again.

    Args:
        workdir: The run's folder.
        abstract: Shapes, dtypes and shardings of the state; the mesh need not be the one that the
            checkpoint was written on.
        announce: Is told of checkpoints that cannot be read.

    Returns:
        The state, laid out as `abstract` says, and the progress; None if there is no checkpoint.

    Raises:
        CheckpointError: There are checkpoints, and none of them can be read.
    """
    restored = restore_states([workdir], abstract, next, announce)
    return restored and (restored[1], restored[2][0])


def restore_states(
    workdirs: Sequence[pathlib.Path],
    abstract: TrainState,
    join: Callable[[Iterator[TrainState]], T],
    announce: Callable[[str], object],
) -> tuple[int, T, list[Progress]] | None:
    """Reads the newest step that several runs have and that can be read of all of them.

    What is newer is moved to `WORKDIR/checkpoints_unreadable`: those steps will be saved again.

    Args:
        workdirs: The runs' folders.
        abstract: As `restore_state` takes it; of every run.
        join: Makes one thing of the states, which are read one after another as it asks for them.
        announce: Is told of checkpoints that cannot be read.

    Returns:
        The step, what `join` made, and each run's progress; None if they have no step in common.

    Raises:
        CheckpointError: They have, and none of them can be read.
    """
    reading, arguments = workdirs[0], None

    def read(step: int) -> tuple[int, T, list[Progress]]:
        progress = []

        def states() -> Iterator[TrainState]:
            nonlocal reading, arguments
            import orbax.checkpoint as ocp

            arguments = arguments or ocp.checkpoint_utils.construct_restore_args(abstract)
            for reading in workdirs:
                told = _told(reading, step)
                with _opened(reading, step) as (handler, path):
                    restore = ocp.args.PyTreeRestore(item=abstract, restore_args=arguments)
                    state = handler.restore(path, args=restore)
                progress.append(Progress.from_saved(told))
                yield _checked(state, told)

        return step, join(states()), progress

    known = [step for step in steps(workdirs[0]) if all(step in steps(each) for each in workdirs)]
    restored = _newest_readable(known, lambda: reading, read, announce)
    devices.barrier("checkpoints read")
    if distributed.is_lead():
        for workdir in workdirs:
            for step in steps(workdir):
                if restored is None or step > restored[0]:
                    target = workdir / _ASIDE / str(step)
                    target.parent.mkdir(exist_ok=True)
                    shutil.rmtree(target, ignore_errors=True)
                    (workdir / _FOLDER / str(step)).rename(target)
    devices.barrier("checkpoints set aside")
    return restored


def restore_variables(
    workdir: pathlib.Path, *, best: bool, announce: Callable[[str], object]
) -> tuple[int, dict[str, Any], Progress] | None:
    """Reads what a run is judged by, and nothing else of its state; nothing is moved.

    Args:
        workdir: The run's folder.
        best: Whether to read the checkpoint with the best validation instead of the newest.
        announce: Is told of checkpoints that cannot be read.

    Returns:
        The step; the moving average where there is one, else parameters and batch statistics, as
        numpy arrays; the progress at that step. None if there is no checkpoint.

    Raises:
        UserError: The best checkpoint is not there or cannot be read.
        CheckpointError: There are checkpoints, and none of them can be read.
    """

    def read(step: int) -> tuple[int, dict[str, Any], Progress]:
        import orbax.checkpoint as ocp

        told = _told(workdir, step)
        with _opened(workdir, step) as (handler, path):
            saved = handler.metadata(path).tree
            names = ("ema",) if saved["ema"] else ("params", "batch_stats")
            wanted = {name: saved[name] for name in names if saved[name]}
            restore = ocp.args.PyTreeRestore(
                item=jax.tree.map(lambda each: np.zeros((), each.dtype), wanted),
                restore_args=jax.tree.map(
                    lambda each: ocp.RestoreArgs(restore_type=np.ndarray), wanted
                ),
                partial_restore=True,
            )
            found = _checked(handler.restore(path, args=restore), told)
        return step, found.get("ema", found), Progress.from_saved(told)

    done = None
    known = steps(workdir)
    if best:
        of_step = functools.partial(_progress, workdir)
        done = _newest_readable(known, lambda: workdir, of_step, announce)
    if done is None or done.best_step is None:
        return _newest_readable(known, lambda: workdir, read, announce)
    try:
        return read(done.best_step)
    except Exception as error:
        raise UserError(
            f"{workdir / _FOLDER}: the checkpoint of step {done.best_step}, the best in "
            f"validation, cannot be read: {_one_line(error)}; --checkpoint=newest takes the newest"
        ) from error


def _newest_readable(
    known: Sequence[int],
    reading: Callable[[], pathlib.Path],
    read: Callable[[int], T],
    announce: Callable[[str], object],
) -> T | None:
    """What `read` gives of the newest step at which it does not fail; what failed is said.

    `reading` tells of which workdir something was read last.
    """
    failed: list[tuple[pathlib.Path, int, Exception]] = []
    for step in reversed(known):
        try:
            found = read(step)
        except Exception as error:  # Orbax and TensorStore raise many kinds, `Exception` too
            failed.append((reading() / _FOLDER, step, error))
            continue
        if failed:
            folder, newest, first_error = failed[0]
            announce(
                f"{folder / str(newest)} cannot be read: {_one_line(first_error)}; fell back to "
                f"the checkpoint of step {step}"
            )
        return found
    if failed:
        folder, _, first_error = failed[0]
        raise CheckpointError(
            f"{folder}: none of the checkpoints of steps {sorted(known)} can be "
            f"read: {_one_line(first_error)}; move the folder away to begin anew"
        ) from first_error
    return None


def _told(workdir: pathlib.Path, step: int) -> Any:
    """What stands beside a step's state."""
    path = workdir / _FOLDER / str(step) / _PROGRESS / "metadata"
    return json.loads(path.read_bytes()) if path.exists() else None


def _progress(workdir: pathlib.Path, step: int) -> Progress:
    return Progress.from_saved(_told(workdir, step))


def _checked(arrays: T, told: Any) -> T:
    """The arrays, if they are what was written; older versions wrote no checksums."""
    expected = told.get(_CHECKSUMS) if isinstance(told, Mapping) else None
    if expected and (wrong := checksums.differing(expected, checksums.of_tree(arrays))):
        raise CheckpointError(f"the data of {', '.join(wrong[:3])} are not what was written")
    return arrays


@contextlib.contextmanager
def _opened(workdir: pathlib.Path, step: int) -> Iterator[tuple[Any, pathlib.Path]]:
    """Orbax's reader, and where it finds a step's state."""
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler()
    with _plain(workdir / _FOLDER) as folder, _quiet(), contextlib.closing(handler):
        yield handler, folder / str(step) / _STATE


@contextlib.contextmanager
def _plain(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path of the folder that is no pattern.

    Orbax looks for its own files by patterns that begin with the path. Where that holds one too,
    it finds none of them, and leaves all arrays out of a checkpoint without a word.
    """
    folder = folder.absolute()
    if not _PATTERN & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="invariance_jax_") as place:
        link = pathlib.Path(place) / folder.name
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what TensorStore's other reads and writes say when one has failed.

    Orbax closes its event loop at the first error; each that was under way then prints a traceback
    of its own, and each that had not begun a warning.
    """
    warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(raised: Any) -> None:
        if str(raised.exc_value) != "Event loop is closed":
            before(raised)

    sys.unraisablehook = hook
    yield
    # After an error it stays: what was under way ends later.
    sys.unraisablehook = before


class _KeepBest:
    """Keeps the step that was best in validation, however old it is."""

    def __init__(self) -> None:
        self.step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        return [info.step == self.step for info in checkpoints]


class CheckpointWriter:
    """Writes the checkpoints of one run to `WORKDIR/checkpoints/STEP`; a context manager.

    What a process that died has not finished is removed.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int) -> None:
        """Opens the folder.

        Args:
            workdir: The run's folder.
            keep: How many of the latest checkpoints stay, the best not counted.
        """
        import orbax.checkpoint as ocp

        self._workdir = workdir
        self._best = _KeepBest()
        self._stack = contextlib.ExitStack()
        (workdir / _FOLDER).mkdir(exist_ok=True)
        self._stack.enter_context(_quiet())
        policy = ocp.checkpoint_managers.AnyPreservationPolicy(
            [ocp.checkpoint_managers.LatestN(keep), self._best]
        )
        self._manager = ocp.CheckpointManager(
            self._stack.enter_context(_plain(workdir / _FOLDER)),
            options=ocp.CheckpointManagerOptions(preservation_policy=policy),
            item_names=(_STATE, _PROGRESS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Waits for a save in flight, so that a run that stops on an error keeps it.
        try:
            with self._stack:
                self._manager.close()
        except Exception as broken:
            # A run that stops for another reason says that one.
            if error is None:
                raise self._not_saved(broken) from broken

    def save(
        self, step: int, state: TrainState, progress: Progress, config: Mapping[str, Any]
    ) -> None:
        """Starts to save; returns as soon as the state has been copied.

        Args:
            step: Steps taken.
            state: The state after them.
            progress: What else a resumed run needs; its best step is kept beyond the latest ones.
            config: The run's config, as JSON values.

        Raises:
            CheckpointError: This one or the one before it could not be written, for example on
                a full disk. Older ones are whole: they are removed after a new one is.
        """
        import orbax.checkpoint as ocp

        self._best.step = progress.best_step
        told = {
            "step": step,
            _PROGRESS: dataclasses.asdict(progress),
            "config": dict(config),
            _CHECKSUMS: checksums.of_tree(state),
        }
        items = {_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(told)}
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
        except Exception as error:
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Waits until the checkpoint in flight is on disk.

        Raises:
            CheckpointError: It could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def newest(self) -> str:
        """Says which checkpoint is the newest, be it still in flight."""
        step = self._manager.latest_step()
        return "none" if step is None else f"that of step {step}"

    def _not_saved(self, error: Exception) -> CheckpointError:
        left = steps(self._workdir)
        whole = f"that of step {left[-1]} is whole" if left else "there is none yet"
        return CheckpointError(
            f"{self._workdir / _FOLDER}: a checkpoint could not be saved: {_one_line(error)}; "
            f"{whole}. Make room, then the same command goes on from there"
        )


def _one_line(error: Exception) -> str:
    """The first line of a message; of a long one both ends, which say what and why."""
    first = (str(error).splitlines() or [""])[0]
    if len(first) > _LONGEST:
        first = f"{first[: _LONGEST // 3]} ... {first[-2 * _LONGEST // 3 :]}"
    return f"{type(error).__name__}: {first}"
