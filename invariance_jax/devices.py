"""The mesh of devices and how arrays lie on it; the same code on one CPU and on many hosts."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from invariance_jax.errors import UserError

DATA_AXIS = "data"


def make_mesh(data: int = 0) -> Mesh:
    """Makes a mesh of one axis, `data`.

    Args:
        data: How many devices share the batch; 0 for all there are.

    Returns:
        The mesh, over the first devices.

    Raises:
        UserError: There are fewer devices.
    """
    available = jax.devices()
    count = data or len(available)
    if count > len(available):
        raise UserError(
            f"config.mesh.data is {count}; expected 0 (all) to {len(available)}, "
            f"the number of devices here"
        )
    return jax.make_mesh(
        (count,), (DATA_AXIS,), devices=available[:count], axis_types=(AxisType.Auto,)
    )


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
        The sharding.
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
