"""Everything that a training step reads and changes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

# Parameters are drawn from the seed folded with a number that no training step reaches.
_INIT = np.uint32(0xFFFF_FFFF)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The state of a run; also what a checkpoint holds.

    Attributes:
        step: How many steps have been taken, int32 scalar. With the seed it fixes the next batch.
        params: Parameters of the model.
        batch_stats: Running statistics of BatchNorm; empty for models without.
        optimizer_state: State of the optimizer.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    optimizer_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        if not self.batch_stats:
            return {"params": self.params}
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, key: PRNGKeyArray, image_size: int
) -> TrainState:
    """Makes the state before the first step; pure, so `jax.eval_shape` gives its shapes.

    Args:
        model: The network.
        optimizer: The optimizer.
        key: The run's key.
        image_size: Side of the images, pixels.

    Returns:
        The state at step 0.
    """
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = model.init(jax.random.fold_in(key, _INIT), images, train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        optimizer_state=optimizer.init(params),
    )
