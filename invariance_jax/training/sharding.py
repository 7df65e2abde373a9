"""Which part of every array of a training state lies on which device.

One table of rules for each `config.mesh.parameters`. A rule is a pattern of paths and what becomes
of the arrays it finds. The optimizer's moments and the moving average need no rules of their own:
their paths end with the path of their parameter, and they have its shape.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from invariance_jax.augment.learned import COLLECTION
from invariance_jax.devices import DATA_AXIS, MODEL_AXIS
from invariance_jax.errors import UserError, lookup

Shape = tuple[int, ...]
Axes = Mapping[str, int]
Divide = Callable[[Shape, Axes], PartitionSpec]


# A smaller array is gathered more slowly than it is read.
_WORTH_DIVIDING = 2**13
# Parts of a parameter with "fsdp". Of more devices, so many share one copy and other groups have
# theirs: in 256 parts a kernel's are a few columns wide, and XLA then rebuilds kernels by summing
# arrays that are zero but for one part.
_MOST_PARTS = 16
# The devices that hold the same part.
_COPIES_AXIS = "copies"


def _whole(shape: Shape, axes: Axes) -> PartitionSpec:
    """Every device holds all of it."""
    return PartitionSpec()


def _largest_axis_over_data(shape: Shape, axes: Axes) -> PartitionSpec:
    """Fully sharded data parallelism: gathered when a layer needs it, divided otherwise."""
    parts = axes[DATA_AXIS]
    divisible = [axis for axis, size in enumerate(shape) if size and size % parts == 0]
    if parts == 1 or not divisible or math.prod(shape) < _WORTH_DIVIDING:
        return PartitionSpec()
    return _along(max(divisible, key=lambda axis: shape[axis]), DATA_AXIS)


def _columns(shape: Shape, axes: Axes) -> PartitionSpec:
    """Each device computes some of a layer's outputs (Megatron-LM's first half)."""
    return _along(len(shape) - 1, MODEL_AXIS)


def _rows(shape: Shape, axes: Axes) -> PartitionSpec:
    """Each device sums over some of a layer's inputs; the sums are added up (its second half)."""
    return _along(len(shape) - 2, MODEL_AXIS)


def _along(axis: int, name: str) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, name)


# The first pattern that is found in a path decides.
RULES: Mapping[str, tuple[tuple[str, Divide], ...]] = {
    "replicated": ((r"", _whole),),
    # Every process logs what its augmentation has learned.
    "fsdp": ((rf"\b{COLLECTION}$", _whole), (r"", _largest_axis_over_data)),
    # Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
    "tensor": (
        (r"\bblock\d+/(qkv|fc1)/(kernel|bias)$", _columns),
        (r"\bblock\d+/(proj|fc2)/kernel$", _rows),
        (r"", _whole),
    ),
}


def partition_spec(path: str, shape: Shape, rules: str, axes: Axes) -> PartitionSpec:
    """Says how one array is divided.

    Args:
        path: Where the array stands: names joined by slashes, `params/block1/qkv/kernel`.
        shape: Its shape.
        rules: A key of `RULES`.
        axes: Devices along each axis of the mesh, "data" and "model".

    Returns:
        For each dimension the mesh axis that divides it, or None.

    Raises:
        UserError: The axis of the mesh does not divide the dimension.

    Examples:
        >>> tuple(partition_spec("block1/qkv/bias", (1152,), "tensor", {"data": 4, "model": 2}))
        ('model',)
        >>> tuple(partition_spec("conv1/kernel", (7, 7, 3, 64), "fsdp", {"data": 8, "model": 1}))
        (None, None, None, 'data')
    """
    table = lookup(RULES, rules, "way to lay out parameters")
    divide = next(divide for pattern, divide in table if re.search(pattern, path))
    spec = divide(shape, axes)
    for axis, name in enumerate(spec):
        if name is not None and shape[axis] % axes[name]:
            raise UserError(
                f"config.mesh.{name} is {axes[name]}, which does not divide axis {axis} of "
                f"{path} {shape}; expected a divisor of {shape[axis]}"
            )
    return spec


def lay_out(shapes: Any, mesh: Mesh, rules: str) -> Any:
    """Lays a whole state out.

    Args:
        shapes: The state's shapes, as `jax.eval_shape` gives them.
        mesh: The devices.
        rules: A key of `RULES`.

    Returns:
        The same tree of `jax.ShapeDtypeStruct`, each with its sharding.

    Raises:
        UserError: The mesh does not fit the parameters, or `rules` is "tensor" and no array of
            the model can be divided that way.
    """
    if rules == "tensor" and not _has_tensor_parts(shapes):
        raise UserError(
            "config.mesh.parameters is 'tensor', which divides the blocks of vision transformers "
            "only; expected 'replicated' or 'fsdp' for this model"
        )

    if rules == "fsdp":
        mesh = _in_groups(mesh)

    def laid_out(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = partition_spec(_name(path), leaf.shape, rules, mesh.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(laid_out, shapes)


def gathered(mesh: Mesh) -> NamedSharding:
    """Says where divided arrays lie when every device has all of them.

    Args:
        mesh: The devices.

    Returns:
        The sharding, on the mesh on which `lay_out` divides arrays under "fsdp".
    """
    return NamedSharding(_in_groups(mesh), PartitionSpec())


def _in_groups(mesh: Mesh) -> Mesh:
    """The same devices in the same order; the data axis is one group, an axis before it the groups.

    Programs take arrays that lie on either mesh.
    """
    count = mesh.shape[DATA_AXIS]
    parts = max(each for each in range(1, _MOST_PARTS + 1) if count % each == 0)
    if parts == count:
        return mesh
    return Mesh(
        mesh.devices.reshape(count // parts, parts, -1),
        (_COPIES_AXIS, DATA_AXIS, MODEL_AXIS),
        axis_types=(AxisType.Auto,) * 3,
    )


def _has_tensor_parts(shapes: Any) -> bool:
    patterns = [pattern for pattern, divide in RULES["tensor"] if divide is not _whole]
    paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    return any(re.search(pattern, path) for path in paths for pattern in patterns)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
