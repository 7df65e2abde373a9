"""Flags of one command: absl's for the command itself, `--config` and its fields beside them."""

import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NamedTuple

from absl import flags

from invariance_jax import fields, files
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError, unknown_name
from invariance_jax.fields import Section

_HELP = ("--help", "-help", "-h")


class HelpRequested(Exception):
    """The user asked for help; the text is the message."""


class Parsed(NamedTuple):
    """What a command line says.

    Attributes:
        flags: The command's own flags.
        config: The checked config with its overrides; None for a command without, or where none
            was given.
        arguments: What is not a flag.
    """

    flags: flags.FlagValues
    config: Any
    arguments: list[str]


class _ConfigWords(NamedTuple):
    """The part of a command line that is about the config."""

    file: str | None
    overrides: list[tuple[str, str]]
    rest: list[str]


def parse(
    argv: Sequence[str],
    *,
    usage: str,
    define: Callable[[flags.FlagValues], None] = lambda values: None,
    config: Section | str | None = None,
    kind: type[Section] = ExperimentConfig,
    takes_arguments: bool = False,
) -> Parsed:
    """Parses one command's flags.

    Args:
        argv: What follows the command's name.
        usage: The command's help: what it does, how it is called.
        define: Defines the command's own flags on the values it gets.
        config: What `--config` has by default: a file (empty for none), or a config of which flags
            can override fields; None for a command without config.
        kind: What a config file holds.
        takes_arguments: Whether the command takes arguments that are not flags.

    Returns:
        The flags, the config and the arguments.

    Raises:
        HelpRequested: `--help` is among the flags.
        UserError: A flag is unknown or its value is wrong, or the config cannot be read.
    """
    values = flags.FlagValues()
    define(values)
    if any(word in _HELP for word in argv):
        of_config = "" if config is None else f"\n{_config_help(config, kind)}"
        raise HelpRequested(f"{usage.strip()}\n\nFlags:\n{_flag_help(values)}{of_config}")
    words = _ConfigWords(None, [], list(argv)) if config is None else _config_words(argv)
    try:
        arguments = values(["invariance-jax", *words.rest])[1:]
    except flags.Error as error:
        raise UserError(_explained(error, words.rest)) from error
    if arguments and not takes_arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; flags are written --name=value")
    return Parsed(values, None if config is None else _config(words, config, kind), arguments)


def _config_words(argv: Sequence[str]) -> _ConfigWords:
    """Takes `--config=FILE` and `--config.FIELD=VALUE` out of a command line."""
    file, overrides, rest = None, [], []
    words = iter(argv)
    for word in words:
        found = re.fullmatch(r"--?config(?:\.([^=]*))?(?:=(.*))?", word, re.DOTALL)
        if not found:
            rest.append(word)
            continue
        path, value = found.groups()
        if value is None:
            value = next(words, None)
            if value is None:
                raise UserError(f"{word} has no value; give it as {word}=VALUE")
        if path is None:
            file = value
        else:
            overrides.append((path, value))
    return _ConfigWords(file, overrides, rest)


def _config(words: _ConfigWords, default: Section | str, kind: type[Section]) -> Section | None:
    """The config with its overrides, checked."""
    if words.file is not None and isinstance(default, Section):
        raise UserError("--config cannot be given here; set single fields by --config.FIELD=VALUE")
    file = words.file if words.file is not None else default
    if isinstance(file, str) and not file:
        if words.overrides:
            raise UserError(f"--config.{words.overrides[0][0]} needs --config=FILE beside it")
        return None
    base = load_config(file, kind) if isinstance(file, str) else file
    return overridden(base, words.overrides)


def overridden(config: Section, overrides: Sequence[tuple[str, str]]) -> Section:
    """Sets fields as flags do.

    Args:
        config: The config.
        overrides: Paths of fields, as in "train.steps", each with its value as people type it.

    Returns:
        The config with these values, checked.

    Raises:
        UserError: No such field, or a wrong value.
    """
    changes: dict[str, Any] = {}
    for given, text in overrides:
        path = fields.renamed(type(config), given)
        if path != given:
            now = f"is now config.{path}" if path else "has no meaning any more"
            print(f"invariance-jax: config.{given} {now}", file=sys.stderr)
        if path is None:
            continue
        value = fields.parse_value(type(config), path, text)
        *sections, name = path.split(".")
        place = changes
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return config.with_values(**changes)


def load_config(file: str, kind: type[Section] = ExperimentConfig) -> Section:
    """Reads a config file.

    Args:
        file: `PATH.py` or `PATH.py:ARGUMENT`; a path that is not there is looked for among the
            configs that are installed with the package.
        kind: What the file holds.

    Returns:
        What its `get_config` returned, over the defaults, checked.

    Raises:
        UserError: There is no such file, or it cannot be run, or a field is wrong.
    """
    name, _, argument = file.partition(":")
    path = _find(name)
    try:
        spec = importlib.util.spec_from_file_location("invariance_jax_config", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        values = module.get_config(argument) if argument else module.get_config()
    except UserError as error:
        raise UserError(f"--config={file}: {error}") from error
    except Exception as error:  # whatever the file does
        raise UserError(f"--config={file}: {type(error).__name__}: {error}") from error
    return fields.check(kind, values)


def _find(name: str) -> pathlib.Path:
    """A config file, in a checkout or as it was installed."""
    path = pathlib.Path(name).expanduser()
    if path.is_file():
        return path
    root = pathlib.Path(str(resources.files("invariance_jax.configs")))
    installed = (
        root / path.relative_to("configs") if path.parts[:1] == ("configs",) else root / path
    )
    if not path.is_absolute() and installed.is_file():
        return installed
    known = sorted(f"configs/{each.relative_to(root)}" for each in root.rglob("[a-z]*.py"))
    raise UserError(f"--config: {unknown_name('file', name, known)}")


def define_run(values: flags.FlagValues) -> None:
    """Defines the flags that say which checkpoint of which run: `--workdir` and `--checkpoint`.

    Args:
        values: The command's flags.
    """
    flags.DEFINE_string("workdir", None, "a trained run's folder", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint",
        "newest",
        ["newest", "best"],
        "newest, or best in validation",
        flag_values=values,
    )


def define_boxes(values: flags.FlagValues) -> None:
    """Defines the flags that say where objects are: `--boxes` and `--boxes_image_size`.

    Args:
        values: The command's flags.
    """
    what = "boxes of objects (CSV, or a folder CLASS/*.xml as ImageNet's), or masks (CLASS/*.png)"
    flags.DEFINE_string("boxes", None, what, flag_values=values)
    what = "side of all images of a CSV file of boxes, in pixels"
    flags.DEFINE_float("boxes_image_size", None, what, 1, flag_values=values)


def required(parsed: Parsed, name: str, example: str) -> Any:
    """Reads a flag that has no default, or the config.

    Args:
        parsed: The parsed command line.
        name: The flag's name.
        example: A value, for the error message.

    Returns:
        Its value.

    Raises:
        UserError: It was not given.
    """
    value = parsed.config if name == "config" else parsed.flags[name].value
    if value in (None, ""):
        raise UserError(f"--{name} is missing; give it as --{name}={example}")
    return value


def required_path(parsed: Parsed, name: str, example: str) -> pathlib.Path:
    """Reads a flag that names a file or folder, as `required`.

    Args:
        parsed: The parsed command line.
        name: The flag's name.
        example: A value, for the error message.

    Returns:
        The path, there or not.

    Raises:
        UserError: It was not given, or is a URL.
    """
    return files.local_path(required(parsed, name, example), f"--{name}")


def _flag_help(values: flags.FlagValues) -> str:
    lines = []
    for name in sorted(values):
        flag = values[name]
        default = "" if flag.default in (None, "") else f" (default: {flag.default})"
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)


def _config_help(config: Section | str, kind: type[Section]) -> str:
    head = "" if isinstance(config, Section) else "  --config=FILE.py[:ARGUMENT]: the config file\n"
    shown = type(config) if isinstance(config, Section) else kind
    return f"{head}\nFields of the config, with their defaults:\n{fields.describe(shown)}"


def _explained(error: flags.Error, argv: Sequence[str]) -> str:
    """One line that names the flag, the value and the choices."""
    text = str(error).splitlines()[0]
    if isinstance(error, flags.UnrecognizedFlagError):
        paths = [path for path, _ in fields.fields(ExperimentConfig)]
        near = [path for path in paths if path.rpartition(".")[2] == error.flagname]
        if near:
            return f"{text}; did you mean {' or '.join(f'--config.{path}' for path in near)}?"
    return text.removeprefix("flag ")


def existing_folder(path: str, flag: str) -> pathlib.Path:
    """Reads a folder that must be there.

    Args:
        path: The folder.
        flag: Which flag or argument named it.

    Returns:
        Its path.

    Raises:
        UserError: It is not a folder.
    """
    folder = files.local_path(path, flag)
    if not folder.is_dir():
        raise UserError(f"{flag} is {path!r}; expected a folder that exists")
    return folder
