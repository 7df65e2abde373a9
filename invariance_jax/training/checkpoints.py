"""Checkpoints: written atomically in the background, restored onto the mesh at hand."""

import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from invariance_jax import devices
from invariance_jax.training.state import TrainState

_STATE, _PROGRESS = "state", "progress"


def abstract_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Describes a state without holding it.

    Args:
        state: A state, or the result of `jax.eval_shape`.
        mesh: Where the state shall lie, replicated.

    Returns:
        Shapes, dtypes and shardings.
    """
    sharding = devices.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


class Checkpoints:
    """The checkpoints of one run, in `WORKDIR/checkpoints/STEP`.

    A checkpoint that was not finished when the process died is ignored and removed.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int | None = None) -> None:
        """Opens the folder.

        Args:
            workdir: The run's folder.
            keep: How many of the latest checkpoints stay; None opens for reading only.
        """
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=keep is not None, read_only=keep is None
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
        self._manager.close()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Starts to save; returns as soon as the state has been copied.

        Args:
            step: Steps taken.
            state: The state after them.
            progress: What else a resumed run needs, as JSON values.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardSave(state),
                    _PROGRESS: ocp.args.JsonSave(dict(progress)),
                }
            ),
        )

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
            step: Which one.
            abstract: What `abstract_state` returned.

        Returns:
            The state on the mesh of `abstract`, and the progress saved with it.
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
