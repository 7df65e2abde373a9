"""Checkpoints: written atomically in the background, restored onto the mesh at hand."""

import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from invariance_jax import devices, distributed
from invariance_jax.training.state import TrainState

_STATE, _PROGRESS = "state", "progress"
_FOLDER, _ASIDE = "checkpoints", "checkpoints_unreadable"
_LONGEST = 300  # characters of an error that are shown; TensorStore adds whole specifications


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says which, and what is left."""


class _KeepBest:
    """Keeps the step that was best in validation, however old it is."""

    def __init__(self) -> None:
        self.step: int | None = None

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: checkpoint_managers.PreservationContext
    ) -> list[bool]:
        return [info.step == self.step for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run, in `WORKDIR/checkpoints/STEP`.

    A checkpoint that was not finished when the process died is ignored and removed.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int | None = None) -> None:
        """Opens the folder.

        Args:
            workdir: The run's folder.
            keep: How many of the latest checkpoints stay, the best not counted; None opens for
                reading only.
        """
        self._folder = (workdir / _FOLDER).absolute()
        self._read_only = keep is None
        self._best = _KeepBest()
        policy = checkpoint_managers.AnyPreservationPolicy(
            [checkpoint_managers.LatestN(keep), self._best]
        )
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy, create=keep is not None, read_only=keep is None
            ),
            item_names=(_STATE, _PROGRESS),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Waits for a save in flight, so that a run that stops on an error keeps it.
        try:
            self._manager.close()
        except Exception as broken:
            # A run that stops for another reason says that one.
            if error is None:
                raise self._not_saved(broken) from broken

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, the oldest first."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: TrainState,
        progress: Mapping[str, Any],
        *,
        best_step: int | None = None,
    ) -> None:
        """Starts to save; returns as soon as the state has been copied.

        Args:
            step: Steps taken.
            state: The state after them.
            progress: What else a resumed run needs, as JSON values.
            best_step: The step to keep beyond the latest ones, if any.

        Raises:
            CheckpointError: This one or the one before it could not be written, for example on
                a full disk. Older ones are whole: they are removed after a new one is.
        """
        self._best.step = best_step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        _STATE: ocp.args.StandardSave(state),
                        _PROGRESS: ocp.args.JsonSave(dict(progress)),
                    }
                ),
            )
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

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
            step: Which one.
            abstract: Shapes, dtypes and shardings of the state; the mesh need not be the one that
                the checkpoint was written on.

        Returns:
            The state, laid out as `abstract` says, and the progress saved with it.
        """
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardRestore(abstract),
                    _PROGRESS: ocp.args.JsonRestore(),
                }
            ),
        )
        return restored[_STATE], restored[_PROGRESS]

    def restore_newest(
        self, abstract: TrainState, announce: Callable[[str], object]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest checkpoint that can be read.

        Args:
            abstract: As `restore` takes it.
            announce: Is told of every newer one that cannot be read.

        Returns:
            The state and the progress saved with it; None if there is no checkpoint.

        Raises:
            CheckpointError: There are checkpoints, and none of them can be read.
        """
        unreadable: list[int] = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, abstract)
            except Exception as error:  # Orbax and TensorStore raise many kinds, `Exception` too
                announce(f"{self._folder / str(step)} cannot be read: {_one_line(error)}")
                unreadable.append(step)
                last_error = error
                continue
            if unreadable:
                announce(f"{self._folder}: fell back to the checkpoint of step {step}")
                self._set_aside(unreadable)
            return restored
        if unreadable:
            raise CheckpointError(
                f"{self._folder}: none of the checkpoints of steps {sorted(unreadable)} can be "
                "read; move the folder away to begin anew"
            ) from last_error
        return None

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Makes room for these steps to be saved again, and keeps what there was for a look."""
        if self._read_only:
            return
        if distributed.is_lead():
            for step in steps:
                target = self._folder.with_name(_ASIDE) / str(step)
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
                (self._folder / str(step)).rename(target)
        devices.barrier("checkpoints set aside")
        self._manager.reload()

    def _not_saved(self, error: Exception) -> CheckpointError:
        left = sorted(self._manager.all_steps(read=True))
        whole = f"that of step {left[-1]} is whole" if left else "there is none yet"
        return CheckpointError(
            f"{self._folder}: a checkpoint could not be saved: {_one_line(error)}; {whole}. Make "
            "room, then the same command goes on from there"
        )


def _one_line(error: Exception) -> str:
    """The first line of a message; of a long one both ends, which say what and why."""
    first = (str(error).splitlines() or [""])[0]
    if len(first) > _LONGEST:
        first = f"{first[: _LONGEST // 3]} ... {first[-2 * _LONGEST // 3 :]}"
    return f"{type(error).__name__}: {first}"
