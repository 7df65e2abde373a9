"""Everything that a training step reads and changes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from invariance_jax.augment.learned import COLLECTION
from invariance_jax.models import init_variables, options_of_drawing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The state of a run; also what a checkpoint holds.

    Attributes:
        step: How many steps have been taken, int32 scalar. With the seed it fixes the next batch.
        params: Parameters of the model; those of a learned augmentation under its own name.
        batch_stats: Running statistics of BatchNorm; empty for models without.
        optimizer_state: State of the optimizer.
        ema: Moving average of `variables`; empty for runs without.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    optimizer_state: Any
    ema: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        if not self.batch_stats:
            return {"params": self.params}
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated_variables(self) -> dict[str, Any]:
        """What the run is judged by: the moving average where there is one."""
        return self.ema or self.variables


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    image_size: int,
    *,
    variables: dict[str, Any] | None = None,
    augmentation: Any = None,
    ema: bool = False,
    shardings: "TrainState | None" = None,
) -> TrainState:
    """Makes the state before the first step; `jax.eval_shape` gives its shapes.

    Args:
        model: The network.
        optimizer: The optimizer.
        key: The run's key.
        image_size: Side of the images, pixels.
        variables: Parameters and batch statistics to start from; drawn from the key by default.
        augmentation: Parameters of a learned augmentation; None for none.
        ema: Whether to keep a moving average; it starts from the first variables.
        shardings: Where each array shall lie, in a tree like the state; None for the default
            device. The values do not depend on it.

    Returns:
        The state at step 0.
    """
    where = shardings and shardings.variables
    if variables is None:
        # The model is static and compared by its fields: one program for all runs of an
        # architecture, as drawing compiles slowly. The optimizer has no such identity.
        draw = jax.jit(
            _drawn,
            static_argnames=("model", "image_size"),
            out_shardings=where,
            # Within another program, as that of the shapes, there can be none.
            compiler_options=options_of_drawing() if shardings else None,
        )
        variables = draw(model, key, augmentation, image_size=image_size)
    else:
        variables = jax.device_put(_with(variables, augmentation), where)
    params = variables["params"]
    start = jax.jit(optimizer.init, out_shardings=shardings and shardings.optimizer_state)
    return TrainState(
        step=jnp.zeros((), jnp.int32, device=shardings and shardings.step),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        optimizer_state=start(params),
        # A copy: the step gives away the memory of each part of the state.
        ema=jax.jit(_copied, out_shardings=where)(variables) if ema else {},
    )


def _drawn(model: nn.Module, key: PRNGKeyArray, augmentation: Any, image_size: int) -> Any:
    return _with(init_variables(model, key, image_size), augmentation)


def _with(variables: dict[str, Any], augmentation: Any) -> dict[str, Any]:
    if augmentation is None:
        return variables
    return {**variables, "params": {**variables["params"], COLLECTION: augmentation}}


def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
