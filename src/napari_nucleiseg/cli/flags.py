"""Command-line flags made of a dataclass, so that each parameter is declared and explained in one place."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Config = TypeVar("Config")
_PARAMETER = re.compile(r"^([\w, ]+?)(?: : .*)?$")


def add_flags(parser: argparse.ArgumentParser, config: type, prefix: str = "") -> None:
    """Add one flag for each field of a dataclass; nested dataclasses get their field's name as prefix.

    Flags that are not given stay out of the namespace, so that `read_flags` can tell. Kinds of fields: numbers,
    text, booleans (``--x`` and ``--no-x``), tuples (the flag may be repeated), mappings (``key=value,key=value``),
    dataclasses in tuples (``FIRST,key=value,...``).

    Parameters
    ----------
    parser : ArgumentParser
        Gets the flags.
    config : type
        A dataclass with a numpydoc docstring, which becomes the help.
    prefix : str
        Put before each flag's name.
    """
    hints, explained = get_type_hints(config), parameter_help(config)
    for item in fields(config):
        kind = hints[item.name]
        if is_dataclass(kind) and isinstance(kind, type):
            add_flags(parser, kind, f"{prefix}{item.name}_")
            continue
        parser.add_argument(
            _flag(prefix + item.name),
            dest=prefix + item.name,
            default=argparse.SUPPRESS,
            help=_help(explained.get(item.name, ""), item),
            **_how(kind),
        )


def read_flags(options: argparse.Namespace, base: Config, prefix: str = "") -> Config:
    """Return `base` with the fields whose flags were given replaced."""
    changes: dict[str, Any] = {}
    for item in fields(base):  # type: ignore[arg-type] # a dataclass instance
        name = prefix + item.name
        now = getattr(base, item.name)
        if is_dataclass(now) and not isinstance(now, type):
            changes[item.name] = read_flags(options, now, f"{name}_")
        elif hasattr(options, name):
            given = getattr(options, name)
            changes[item.name] = tuple(given) if isinstance(given, list) else given
    return replace(base, **changes)  # type: ignore[type-var]


def parameter_help(config: type) -> dict[str, str]:
    """Return the explanation of each field from the Parameters sections of numpydoc docstrings: its own goes first."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        found |= _own_help(base)
    return found


def _own_help(config: type) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    lines = (config.__doc__ or "").partition("----------")[2].splitlines()
    for line in (raw.removeprefix("    ") for raw in lines):
        if line.startswith(" "):
            found |= {name: f"{found.get(name, '')} {line.strip()}".strip() for name in names}
        elif match := _PARAMETER.match(line):
            names = [name.strip() for name in match[1].split(",")]
    return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(text: str, item: Field[Any]) -> str:
    default = item.default
    plain = isinstance(default, int | float | str) and not isinstance(default, bool) and default != ""
    said = f"{text} (default: {default})" if plain else text
    return said.replace("`", "").replace("%", "%%")


def _how(kind: Any) -> dict[str, Any]:
    """Return what argparse must know of a field's type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind in {int, float, str}:
        return {"type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple and is_dataclass(inner[0]):
        return {"type": partial(read_record, inner[0]), "action": "append", "metavar": "PATH[,KEY=VALUE...]"}
    if origin is tuple:
        return {"type": inner[0], "action": "append", "metavar": "TEXT"}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": partial(read_mapping, inner[1]), "metavar": "KEY=VALUE,..."}
    raise TypeError(f"a field of type {kind} has no flag")


def read_record(kind: Any, text: str) -> Any:
    """Make a dataclass of ``first,key=value,...``: what is not named fills the first field."""
    hints = get_type_hints(kind)
    first, *pairs = text.split(",")
    values: dict[str, Any] = {fields(kind)[0].name: first}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in hints:
            raise argparse.ArgumentTypeError(f"{pair} is none of {', '.join(hints)}")
        values[key] = _value(hints[key], value)
    missing = {
        item.name: None for item in fields(kind) if item.name not in values and type(None) in get_args(hints[item.name])
    }
    return kind(**missing, **values)


def read_mapping(kind: Any, text: str) -> dict[str, Any]:
    """Read ``key=value,key=value``."""
    values = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{pair} has no value; write {pair}=...")
        values[key] = _value(kind, value)
    return values


def _value(kind: Any, text: str) -> Any:
    """Read a value of a type, or of one of several; lists are parted by ``|``."""
    if get_origin(kind) is tuple:
        return tuple(text.split("|"))
    # Any text is a str, so that is tried last.
    for option in sorted(get_args(kind) or (kind,), key=lambda option: option is str):
        if option is type(None):
            if text.lower() == "none":
                return None
        elif option is bool:
            if text.lower() in {"true", "false"}:
                return text.lower() == "true"
        else:
            try:
                return option(text)
            except ValueError:
                continue
    raise argparse.ArgumentTypeError(f"{text} cannot be read")
