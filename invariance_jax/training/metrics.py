"""Training metrics as mergeable states on the device."""

import clu.metrics
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

_NEVER = jnp.iinfo(jnp.int32).max


@flax.struct.dataclass
class FirstNonFiniteStep(clu.metrics.Metric):
    """The first step whose loss or new state was not a finite number.

    Attributes:
        step: That step; the largest int32 if there was none.
    """

    step: Int[Array, ""]

    @classmethod
    def empty(cls) -> "FirstNonFiniteStep":
        """No such step."""
        return cls(step=jnp.int32(_NEVER))

    @classmethod
    def from_model_output(
        cls, *, finite: Bool[Array, ""], step: Int[Array, ""], **_: Array
    ) -> "FirstNonFiniteStep":
        """One step."""
        return cls(step=jnp.where(finite, _NEVER, step).astype(jnp.int32))

    def merge(self, other: "FirstNonFiniteStep") -> "FirstNonFiniteStep":
        """The earlier of two."""
        return FirstNonFiniteStep(step=jnp.minimum(self.step, other.step))

    def compute(self) -> int | None:
        """The step, or None."""
        return None if int(self.step) == _NEVER else int(self.step)


# What accumulates between two log lines.
TrainMetrics = clu.metrics.Collection.create(
    loss=clu.metrics.Average.from_output("loss"),
    top1=clu.metrics.Average.from_output("correct"),
    learning_rate=clu.metrics.LastValue.from_output("learning_rate"),
    nonfinite=FirstNonFiniteStep,
)
