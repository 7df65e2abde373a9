"""Flags of one command: absl flags and an ml_collections config, errors as one line."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from invariance_jax.errors import UserError, unknown_name

_CONFIG = "config"
_CHECKPOINTS = ("newest", "best")


class HelpRequested(Exception):
    """The user asked for help; the text is the message."""


def parse(
    argv: Sequence[str],
    *,
    usage: str,
    define: Callable[[flags.FlagValues], None],
    config: Mapping[str, Any] | str | None = None,
    takes_arguments: bool = False,
) -> tuple[flags.FlagValues, list[str]]:
    """Parses one command's flags.

    Args:
        argv: What follows the command's name.
        usage: The command's help: what it does, how it is called.
        define: Defines the command's own flags on the values it gets.
        config: The default of `--config`: a path (empty for none), or the fields themselves,
            of which flags can then override some; None for a command without config.
        takes_arguments: Whether the command takes arguments that are not flags.

    Returns:
        The flags, with `config` a ConfigDict if the command has one, and the arguments.

    Raises:
        HelpRequested: `--help` is among the flags.
        UserError: A flag is unknown or its value is wrong.
    """
    values = flags.FlagValues()
    define(values)
    command_line = ["invariance-jax", *argv]
    try:
        _define_config(values, config, command_line)
        if any(word in ("--help", "-help", "-h") for word in argv):
            raise HelpRequested(f"{usage.strip()}\n\nFlags:\n{_flag_help(values)}")
        rest = values(command_line)[1:]
        if config is not None and values.config is not None:
            # Loading is lazy: a broken file shows its error at the first look.
            values.config.keys()
    except (UserError, HelpRequested):
        raise
    except (flags.Error, AttributeError, KeyError, OSError, ValueError, TypeError) as error:
        raise _explained(error, argv, config) from error
    if rest and not takes_arguments:
        raise UserError(f"unexpected argument {rest[0]!r}; flags are written --name=value")
    return values, rest


def _define_config(
    values: flags.FlagValues, config: Mapping[str, Any] | str | None, command_line: list[str]
) -> None:
    """Defines `--config`; a default is read at once, with the overrides of the command line."""
    if isinstance(config, str):
        config_flags.DEFINE_config_file(
            _CONFIG,
            config or None,
            "config file, with its argument if it takes one: configs/NAME.py:ARGUMENT; "
            "any field can be set by --config.FIELD=VALUE",
            flag_values=values,
            sys_argv=command_line,
        )
    elif config is not None:
        config_flags.DEFINE_config_dict(
            _CONFIG,
            ml_collections.ConfigDict(config),
            "fields of the run's config; set one by --config.FIELD=VALUE",
            flag_values=values,
            sys_argv=command_line,
        )


def required(values: flags.FlagValues, name: str, example: str) -> Any:
    """Reads a flag that has no default.

    Args:
        values: The parsed flags.
        name: The flag's name.
        example: A value, for the error message.

    Returns:
        Its value.

    Raises:
        UserError: It was not given.
    """
    if values[name].value in (None, ""):
        raise UserError(f"--{name} is missing; give it as --{name}={example}")
    return values[name].value


def define_checkpoint(values: flags.FlagValues) -> None:
    """Defines `--checkpoint`.

    Args:
        values: The command's flags.
    """
    flags.DEFINE_string(
        "checkpoint", _CHECKPOINTS[0], "newest, or best in validation", flag_values=values
    )


def wants_best(values: flags.FlagValues) -> bool:
    """Reads `--checkpoint`.

    Args:
        values: The parsed flags.

    Returns:
        Whether the best checkpoint is asked for, not the newest.

    Raises:
        UserError: The flag has another value.
    """
    if values.checkpoint not in _CHECKPOINTS:
        known = unknown_name("checkpoint", values.checkpoint, _CHECKPOINTS)
        raise UserError(f"--checkpoint: {known}")
    return values.checkpoint == "best"


def _flag_help(values: flags.FlagValues) -> str:
    lines = []
    for name in sorted(values):
        flag = values[name]
        default = "" if flag.default in (None, "") else f" (default: {flag.default})"
        if isinstance(flag.default, ml_collections.ConfigDict):
            default = ""
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)


def _explained(
    error: Exception, argv: Sequence[str], config: Mapping[str, Any] | str | None
) -> UserError:
    """One line that names the field, the value and the choices."""
    overrides = [word for word in argv if word.lstrip("-").startswith(f"{_CONFIG}.")]
    fields = _fields_without(overrides, argv, config)
    if fields is not None:
        for word in overrides:
            path = word.lstrip("-").split("=", 1)[0].split(".")[1:]
            unknown = _unknown_field(path, fields)
            if unknown:
                return unknown
    text = str(error).strip("'\"").splitlines()
    for line in text:
        if isinstance(error, flags.IllegalFlagValueError) and line.startswith("flag --"):
            return UserError(line.removeprefix("flag "))
    if config is not None and isinstance(error, OSError):
        return UserError(f"--config: {text[0]}")
    return UserError(text[0] if text else type(error).__name__)


def _fields_without(
    overrides: Sequence[str], argv: Sequence[str], config: Mapping[str, Any] | str | None
) -> Mapping[str, Any] | None:
    """The config as it is before any override, or None if that cannot be read either."""
    if not isinstance(config, str):
        return config
    given = [word.split("=", 1)[1] for word in argv if word.lstrip("-").startswith("config=")]
    path = given[-1] if given else config
    try:
        fields = config_flags.config_flags.ConfigFileFlagParser(_CONFIG).parse(path)
        fields.keys()  # a file that cannot be loaded says so only when it is looked at
        return fields
    except Exception:  # the original error says more than this one would
        return None


def _unknown_field(path: Sequence[str], fields: Mapping[str, Any]) -> UserError | None:
    """The error for a path of which some part does not exist."""
    for depth, name in enumerate(path):
        if not isinstance(fields, Mapping | ml_collections.ConfigDict) or name not in fields:
            where = ".".join([_CONFIG, *path[: depth + 1]])
            choices = list(fields) if hasattr(fields, "keys") else []
            return UserError(f"--{where}: {unknown_name('field', name, choices)}")
        fields = fields[name]
    return None


def existing_folder(path: str, flag: str) -> pathlib.Path:
    """Reads a folder that must be there.

    Args:
        path: The folder.
        flag: Which flag or argument named it.

    Returns:
        Its path.

    Raises:
        UserError: It is not there.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise UserError(f"{flag} is {path!r}; expected a folder that exists")
    return folder
