"""The mesh of devices and how arrays lie on it; the same code on one CPU and on many hosts."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from invariance_jax.errors import UserError

DATA_AXIS, MODEL_AXIS, RUN_AXIS = "data", "model", "run"


def make_mesh(data: int = 0, model: int = 1, available: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh of two axes, `data` and `model`.

    Args:
        data: How many parts the batch is divided into; 0 for as many as there are devices for.
        model: How many devices share each part, and the parameters that are divided over them.
        available: The devices to choose from; those at hand by default.

    Returns:
        The mesh, over the first `data * model` devices.

    Raises:
        UserError: There are fewer devices, or not a multiple of `model`.
    """
    available = jax.devices() if available is None else available
    if len(available) % model:
        raise UserError(
            f"config.mesh.model is {model}; expected a divisor of {len(available)}, the number of "
            "devices here"
        )
    most = len(available) // model
    count = data or most
    if count > most:
        raise UserError(
            f"config.mesh.data is {count}; expected 0 (all) to {most}, the number of devices here "
            f"({len(available)}) by config.mesh.model ({model})"
        )
    return jax.make_mesh(
        (count, model),
        (DATA_AXIS, MODEL_AXIS),
        devices=available[: count * model],
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def make_mesh_of_runs(
    count: int, run: int = 0, data: int = 0, available: Sequence[jax.Device] | None = None
) -> Mesh:
    """Makes a mesh whose first axis, `run`, divides runs that share a program.

    Args:
        count: How many runs there are.
        run: Groups of devices among which they are divided, in turns where there are more runs; 0
            for as many as leave fewest devices without a run, and of these the most.
        data: How many parts each group divides its batch into; 0 for as many as there are devices.
        available: The devices to choose from; those at hand by default.

    Returns:
        The mesh, over the first `run * data` devices; its axis `model` is 1 long.

    Raises:
        UserError: There are fewer devices.
    """
    available = jax.devices() if available is None else available
    most = len(available) // max(data, 1)
    if not run:
        groups = [each for each in range(1, min(count, most) + 1) if most % each == 0]
        run = min(groups or [1], key=lambda each: (-(-count // each) * each, -each))
    data = data or len(available) // run
    if not 0 < run * data <= len(available):
        raise UserError(
            f"config.mesh.run is {run} and config.mesh.data {data or 1}; expected at most "
            f"{len(available)} devices in all, the number here"
        )
    return jax.make_mesh(
        (run, data, 1),
        (RUN_AXIS, DATA_AXIS, MODEL_AXIS),
        devices=available[: run * data],
        axis_types=(AxisType.Auto,) * 3,
    )


def part_of_input(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """Says which part of every batch a process reads: what its own devices hold.

    Args:
        mesh: The devices of all processes.
        process: Which; this one by default.

    Returns:
        Which of how many equal consecutive parts. Processes whose devices hold the same images, as
        groups of `run` do, read the same part.
    """
    axis = mesh.axis_names.index(DATA_AXIS)
    process = jax.process_index() if process is None else process
    mine = sorted(
        {
            place[axis]
            for place, device in np.ndenumerate(mesh.devices)
            if device.process_index == process
        }
    )
    return mine[0] // len(mine), mesh.shape[DATA_AXIS] // len(mine)


def by_run(mesh: Mesh) -> NamedSharding:
    """The leading axis, of runs, is spread over the groups of devices.

    Args:
        mesh: The devices.

    Returns:
        The sharding.
    """
    return NamedSharding(mesh, PartitionSpec(RUN_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array.

    Args:
        mesh: The devices.

    Returns:
        The sharding.
    """
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The leading axis is spread over the devices of the data axis.

    Args:
        mesh: The devices.

    Returns:
        The sharding; along the model axis every device holds the same part.
    """
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_divisible(field: str, batch_size: int, mesh: Mesh) -> None:
    """Checks that a batch can be spread over the mesh.

    Args:
        field: The field that holds it, for the error message.
        batch_size: Images a batch.
        mesh: The devices.

    Raises:
        UserError: It cannot.
    """
    count = mesh.shape[DATA_AXIS]
    if batch_size % count:
        raise UserError(
            f"{field} is {batch_size}; expected a multiple of {count}, "
            f"the number of devices that share it (config.mesh.data)"
        )


def local_mesh(mesh: Mesh) -> Mesh:
    """Makes a mesh of the devices that this process has of a mesh.

    Args:
        mesh: The devices of all processes.

    Returns:
        A mesh of one axis, `data`.
    """
    mine = [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
    return jax.make_mesh((len(mine),), (DATA_AXIS,), devices=mine, axis_types=(AxisType.Auto,))


def replicated_copy(arrays: Any, mesh: Mesh, local: Mesh) -> Any:
    """Copies a tree of arrays whole to every device of this process.

    Args:
        arrays: A pytree of arrays, on the host or on `mesh` in any layout; every process calls this
            with the same one.
        mesh: The devices of all processes.
        local: The devices of this process, from `local_mesh`.

    Returns:
        The same tree on `local`.
    """
    divided = any(
        isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)
        for x in jax.tree.leaves(arrays)
    )
    if divided:
        # The devices gather what lies in parts on several hosts.
        arrays = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(arrays)
    mine = jax.tree.map(
        lambda x: (
            x.addressable_data(0) if isinstance(x, jax.Array) and not x.is_fully_addressable else x
        ),
        arrays,
    )
    return jax.device_put(mine, replicated(local))


def to_host(arrays: Any) -> Any:
    """Copies a tree of arrays to the host, whole, whatever lies on other processes' devices.

    Args:
        arrays: A pytree of arrays; every process calls this with the same one.

    Returns:
        The same tree of numpy arrays.
    """

    def one(array: Any) -> Any:
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                return multihost_utils.process_allgather(array, tiled=True)
            array = array.addressable_data(0)
        return jax.device_get(array)

    return jax.tree.map(one, arrays)


def one_behind(results: Iterable[Any]) -> Iterator[Any]:
    """Fetches results to the host while the devices work on the next one.

    Args:
        results: Pytrees of arrays that are being computed, made when they are asked for.

    Yields:
        The same with numpy arrays, in order; never more than two wait on the devices.
    """
    waiting = None
    for result in results:
        if waiting is not None:
            yield jax.device_get(waiting)
        waiting = result
    if waiting is not None:
        yield jax.device_get(waiting)


def wait_for_all_but(most: int, queued: collections.deque[Any], result: Any) -> None:
    """Lets a loop run ahead of the devices by a few steps and no more.

    Without it, a loop that never looks at a result queues step after step, each of which holds its
    input. The devices do not stand still meanwhile: they have the steps that are left.

    Args:
        most: How many results may be waited for when this returns, at least 1.
        queued: Earlier results that may not be there yet, the oldest first; changed.
        result: Arrays that the step just queued will give.
    """
    queued.append(result)
    while len(queued) > most:
        jax.block_until_ready(queued.popleft())


def barrier(name: str) -> None:
    """Waits until every process has come here.

    Args:
        name: Of the place; every process names the same one.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
