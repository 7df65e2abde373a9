"""How many images fit into a device's memory, estimated before anything is compiled.

The estimate walks through the traced program as it is written and adds up what is alive. The
compiler fuses elementwise steps and keeps less of those, but copies operands of convolutions to
other layouts and gives them workspaces that no trace shows; `WITH_COPIES` stands for these.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

from invariance_jax.errors import UserError

# On a CPU the compiler's own count for ResNets and ViTs is 0.7 to 1.5 times what is alive.
WITH_COPIES = 1.5


def peak_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Estimates the largest number of bytes alive at once while a function runs.

    Args:
        function: A pure function of arrays.
        *arguments: Its arguments, or their shapes and dtypes.

    Returns:
        Bytes, arguments and results included.
    """
    return _peak(jax.make_jaxpr(function)(*arguments).jaxpr)


def largest_batch(bytes_of: Callable[[int], int], memory: int) -> int:
    """Finds the largest batch that fits, taking bytes as a line over the batch size.

    Args:
        bytes_of: Estimated bytes at a batch size.
        memory: Bytes there are.

    Returns:
        The largest batch, at least 1.

    Raises:
        UserError: Not even one image fits.
    """
    one, two = bytes_of(1), bytes_of(2)
    if one > memory:
        raise UserError(
            f"config.eval.memory is {memory} bytes a device; expected at least {one}, what the "
            "network and one image are estimated to need (or give "
            "config.eval.per_device_batch_size)"
        )
    return 1 + (memory - one) // max(two - one, 1)


def _peak(jaxpr: core.Jaxpr) -> int:
    last_use = {
        variable: number
        for number, equation in enumerate(jaxpr.eqns)
        for variable in _variables(equation.invars)
    }
    # Inputs belong to the caller and results must stay: neither is freed here.
    kept = {*jaxpr.invars, *jaxpr.constvars, *_variables(jaxpr.outvars)}
    alive = sum(_bytes(variable) for variable in (*jaxpr.invars, *jaxpr.constvars))
    peak = alive
    for number, equation in enumerate(jaxpr.eqns):
        results = sum(_bytes(variable) for variable in equation.outvars)
        peak = max(peak, alive + results + _inside(equation))
        alive += results
        ends = [v for v in dict.fromkeys(_variables(equation.invars)) if last_use[v] == number]
        unused = [v for v in equation.outvars if v not in last_use]
        alive -= sum(_bytes(variable) for variable in (*ends, *unused) if variable not in kept)
    return peak


def _inside(equation: core.JaxprEqn) -> int:
    """What the programs inside an equation need beside its inputs and results."""
    needs = [0]
    for inner in _programs(equation):
        outside = [*inner.invars, *_variables(inner.outvars)]
        needs.append(_peak(inner) - sum(_bytes(variable) for variable in outside))
    return max(needs)


def _programs(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Bodies and branches."""
    for parameter in equation.params.values():
        for each in parameter if isinstance(parameter, tuple) else (parameter,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _variables(atoms: list[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _bytes(variable: Any) -> int:
    shape = variable.aval
    return int(np.prod(shape.shape)) * shape.dtype.itemsize if hasattr(shape, "shape") else 0
