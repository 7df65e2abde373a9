"""Frozen dataclasses as pytrees that know their class."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """Makes a frozen keyword-only dataclass whose fields are leaves unless marked static.

    `jax.tree_util.register_dataclass` does the same, but two such classes with equal static fields
    have equal structures (JAX 0.10), whatever their names; then `jit` may run the program of one
    distribution with the numbers of another. Here the class is part of the structure.

    Args:
        cls: The class; static fields have `metadata={"static": True}`.

    Returns:
        The dataclass, registered.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields = dataclasses.fields(cls)
    static = tuple(each.name for each in fields if each.metadata.get("static"))
    leaves = tuple(each.name for each in fields if not each.metadata.get("static"))

    def flatten(node: T) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        children = tuple((jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in leaves)
        return children, (cls, *(getattr(node, name) for name in static))

    def unflatten(structure: tuple[Any, ...], children: tuple[Any, ...]) -> T:
        return cls(
            **dict(zip(static, structure[1:], strict=True)),
            **dict(zip(leaves, children, strict=True)),
        )

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls
