"""Frozen, checked groups of fields: what a config is made of.

pydantic checks; what is ours is what a field changes, the words of the errors, and the reading of
what people type and of what earlier versions stored.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_origin

import ml_collections
import pydantic
from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from invariance_jax.errors import UserError, unknown_name

# What a field changes: the training, everything that is measured, or the measurements named.
TRAINING = "training"
EVERY_MEASUREMENT = "every measurement"
# Those that have no fields of their own: their options stand in `eval.measurements`.
OTHER_MEASUREMENTS = "other measurements"
# Counts, sizes and seeds become int32 on the devices.
_LARGEST = 2**31 - 1
_LONGEST = 80  # characters of a value that an error shows


def training(default: Any, *, measures: str | tuple[str, ...] = (), **options: Any) -> Any:
    """Declares a field that changes what is trained: a run cannot go on with another value.

    Args:
        default: The value where nothing is said.
        measures: The measurements that it changes too, or `EVERY_MEASUREMENT`.
        **options: Range, as pydantic names it: `ge`, `gt`, `le`, `lt`; and `was`, the name that the
            field had in an earlier version.

    Returns:
        The field.
    """
    return _field(
        default, TRAINING, *((measures,) if isinstance(measures, str) else measures), **options
    )


def measurement(default: Any, *measures: str, **options: Any) -> Any:
    """Declares a field that changes what is measured, and part of what identifies the result.

    Args:
        default: The value where nothing is said.
        *measures: The measurements that it changes, or `EVERY_MEASUREMENT`.
        **options: See `training`.

    Returns:
        The field.
    """
    return _field(default, *measures, **options)


def execution(default: Any, **options: Any) -> Any:
    """Declares a field that changes how a run is executed and no number of it.

    Args:
        default: The value where nothing is said.
        **options: See `training`.

    Returns:
        The field.
    """
    return _field(default, **options)


def _field(default: Any, *changes: str, was: str | None = None, **limits: Any) -> Any:
    extra = {"changes": list(changes)}
    return Field(default, validation_alias=was, json_schema_extra=extra, **limits)


def _whole(value: Any) -> Any:
    """1e4 steps are 10000."""
    return int(value) if type(value) is float and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole), Field(le=_LARGEST, ge=-_LARGEST)]
# Bytes exceed what steps and images do.
Large = Annotated[int, BeforeValidator(_whole), Field(le=2**62)]


class Section(pydantic.BaseModel):
    """A frozen group of checked fields.

    Attributes:
        no_more: Fields of earlier versions that mean nothing any more; they are passed over.
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        loc_by_alias=False,
    )
    no_more: ClassVar[Sequence[str]] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        """JSON has lists where we have tuples, and earlier versions had other fields."""
        if not isinstance(values, Mapping):
            return values
        return {name: _tuples(x) for name, x in values.items() if name not in cls.no_more}

    def with_values(self, **values: Any) -> Self:
        """Replaces fields and checks the result.

        Args:
            **values: Fields by name, sections as mappings of the fields that change:
                `config.with_values(seed=1, model={"name": "resnet18"})`.

        Returns:
            The new section.

        Raises:
            UserError: A field is unknown, of another type or out of range.
        """
        return check(type(self), merged(self.to_dict(), values))

    def to_dict(self) -> dict[str, Any]:
        """The fields as nested dicts; tuples stay tuples."""
        return self.model_dump()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


C = TypeVar("C", bound=Section)


def check(kind: type[C], values: Any, path: str = "config") -> C:
    """Checks a config and gives it types.

    Args:
        kind: The config.
        values: What a config file returned, or what a workdir stored, as a mapping; fields that are
            missing take their defaults, names of earlier versions are read.
        path: How error messages call it.

    Returns:
        The config, frozen.

    Raises:
        UserError: A field is unknown, of another type or out of range.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        raise _explained(error.errors()[0], kind, path) from None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


_EXPECTED = {
    "model_type": "a group of fields",
    "dict_type": "a group of fields",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "True or False",
    "tuple_type": "a tuple",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
}


def _explained(error: Any, kind: type[Section], path: str) -> UserError:
    """A mistake in the package's words."""
    value, context = error["input"], error.get("ctx", {})
    # The rest of the location is the way through the types: of a union, say.
    within: Any = kind
    for name in error["loc"]:
        if _is_section(within) and name in within.model_fields:
            path, within = f"{path}.{name}", within.model_fields[name].annotation
        elif isinstance(name, int):
            path = f"{path}[{name}]"
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        return UserError(f"{path}.{name}: {unknown_name('field', name, within.model_fields)}")
    if error["type"] == "literal_error":
        choices = context["expected"].replace("' or '", "', '").strip("'").split("', '")
        return UserError(f"{path}: {unknown_name(path.rpartition('.')[2], value, choices)}")
    text = _EXPECTED.get(error["type"], error["msg"].removeprefix("Input should be "))
    limits = {
        name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()
    }
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}..."
    return UserError(
        f"{path} is {shown} ({type(value).__name__}); expected {text.format(**limits)}"
    )


def fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Lists the fields of a config with those of its sections.

    Args:
        kind: The config.
        prefix: What the paths begin with.

    Yields:
        Path, as in "train.steps", and the field.
    """
    for name, field in kind.model_fields.items():
        if _is_section(field.annotation):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def changes(field: FieldInfo) -> Sequence[str]:
    """Says what a field changes: `TRAINING`, `EVERY_MEASUREMENT`, or measurements by name."""
    return field.json_schema_extra["changes"]


def differences(ours: Section, theirs: Section) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two configs.

    Args:
        ours: One config.
        theirs: The other, of the same kind.

    Returns:
        Path of the field, as in "train.steps", to (our value, their value).
    """
    flat_ours, flat_theirs = flatten(ours.to_dict()), flatten(theirs.to_dict())
    return {
        path: (value, flat_theirs[path])
        for path, value in flat_ours.items()
        if value != flat_theirs[path]
    }


def renamed(kind: type[Section], path: str) -> str | None:
    """Says what a field is called now.

    Args:
        kind: The config.
        path: A field's path, as in "train.steps", of this version or an earlier one.

    Returns:
        The path; None for a field that has no meaning any more.
    """
    *above, name = path.split(".")
    within: Any = kind
    for section in above:
        within = within.model_fields[section].annotation if _has(within, section) else None
    if not _is_section(within):
        return path
    if name in within.no_more:
        return None
    new = {field.validation_alias: each for each, field in within.model_fields.items()}
    return ".".join([*above, new.get(name, name)])


def _has(kind: Any, name: str) -> bool:
    return _is_section(kind) and name in kind.model_fields


def parse_value(kind: type[Section], path: str, text: str) -> Any:
    """Reads a field's value as people type it.

    Args:
        kind: The config.
        path: The field's path, as in "train.steps".
        text: `600`, `1e4`, `True`, `yes`, `(0, 1)`, `stage1_block1`.

    Returns:
        The value, not checked yet; the text itself where it is no literal.

    Raises:
        UserError: No such field, or a section.
    """
    field = _field_at(kind, path)
    if field.annotation is str:
        return text
    if field.annotation is bool and text.lower() in _SWITCHES:
        return _SWITCHES[text.lower()]
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if get_origin(field.annotation) is tuple and not isinstance(value, tuple | list):
        return (value,)
    return value


_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _field_at(kind: type[Section], path: str) -> FieldInfo:
    where, within = "config", kind
    *sections, last = path.split(".")
    for name in (*sections, last):
        if get_origin(within) is dict:  # of whatever the user puts there
            return field
        if not _is_section(within):
            raise UserError(f"--{where}.{name}: {where} is one value, without fields")
        if name not in within.model_fields:
            raise UserError(f"--{where}.{name}: {unknown_name('field', name, within.model_fields)}")
        field = within.model_fields[name]
        where, within = f"{where}.{name}", field.annotation
    if _is_section(within):
        names = ", ".join(within.model_fields)
        raise UserError(
            f"--{where} is a group of fields: {names}; set one of them, as in "
            f"--{where}.{next(iter(within.model_fields))}=VALUE"
        )
    return field


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one nested mapping over another.

    Args:
        base: Nested mapping.
        changes: What differs, nested likewise.

    Returns:
        A new nested dict.
    """
    found = dict(base)
    for name, value in changes.items():
        below = found.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        found[name] = merged(below, value) if both else value
    return found


def describe(kind: type[Section]) -> str:
    """Lists the fields for `--help`.

    Args:
        kind: The config.

    Returns:
        A line a field: path, default, meaning.
    """
    return "\n".join(
        f"  --config.{path}={field.default!r}: {' '.join((field.description or '').split())}"
        for path, field in fields(kind)
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Lays nested mappings out flat.

    Args:
        values: The mapping.
        prefix: What the paths begin with.

    Returns:
        Path to value.

    Examples:
        >>> flatten({"train": {"steps": 5}, "seed": 0})
        {'train.steps': 5, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
