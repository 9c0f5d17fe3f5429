"""What the fields of a configuration may hold: read from JSON, checked by type and range, told in sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from napari_nucleiseg.core.errors import DataError

Config = TypeVar("Config")
Ranges = Mapping[str, tuple[float, float]]
"""Least and most of each field."""
ANY, SHARE, COUNT = (0.0, math.inf), (0.0, 1.0), (1, math.inf)
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def read_fields(kind: type[Config], raw: object, name: str = "") -> Config:
    """Make a dataclass of what JSON gives, or check one that is there already.

    Parameters
    ----------
    kind : type
        A dataclass whose fields are numbers, text, booleans, tuples, mappings and other dataclasses.
    raw : object
        A dict with lists where the dataclass has tuples, or an instance of `kind`.
    name : str
        Where it stands, put before the names of its fields.

    Raises
    ------
    DataError
        If a field is unknown, missing or of another type; the sentence names it.
    """
    if isinstance(raw, kind):
        raw = {item.name: getattr(raw, item.name) for item in fields(raw)}  # type: ignore[arg-type] # a dataclass
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type] # a dataclass
    if not isinstance(raw, dict):
        raise DataError(f"{name or 'it'} must be an object such as {{{_example(known)}: ...}}, not {_shown(raw)}")
    hints = get_type_hints(kind)
    unknown = sorted(raw.keys() - known.keys())
    if unknown:
        raise DataError(f"{name or 'it'} has unknown fields: {', '.join(unknown)}; known are {', '.join(known)}")
    for key, item in known.items():
        if key not in raw and _is_required(item):
            unless = ", null where it is not known" * (type(None) in get_args(hints[key]))
            raise DataError(f"{name or 'it'} lacks the field {key}; add it{unless}")
    return kind(**{key: _read(hints[key], value, f"{name}.{key}" if name else key) for key, value in raw.items()})


def load_fields(kind: type[Config], path: str, what: str, base: Config | None = None) -> Config:
    """Make a dataclass of a JSON file; see `read_fields`.

    Parameters
    ----------
    kind : type
        The dataclass.
    path : str
        The file.
    what : str
        What it should describe, for the sentence of an error.
    base : instance of kind, optional
        Gives the fields that the file does not name; default the dataclass's own defaults.

    Raises
    ------
    DataError
        If the file cannot be read or does not fit.
    """
    try:
        raw: object = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the configuration {path} cannot be read: {error}") from error
    if base is not None and isinstance(raw, dict):
        raw = {item.name: getattr(base, item.name) for item in fields(base)} | raw  # type: ignore[arg-type] # a dataclass
    try:
        return read_fields(kind, raw)
    except DataError as error:
        raise DataError(f"{path} does not describe {what}: {error}") from error


def range_problem(config: object, ranges: Ranges, name: str = "") -> str | None:
    """Return a sentence about the first field that is not a number within its ``(least, most)``, or None."""
    for key, (least, most) in ranges.items():
        value = getattr(config, key)
        if not (math.isfinite(value) and least <= value <= most):
            bounds = f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
            return f"{key}{name and f' of {name}'} must be {bounds}, not {value}"
    return None


def length_problem(config: object, lengths: Mapping[str, int]) -> str | None:
    """Return a sentence about the first field that is not so many numbers of at least 0, or None."""
    for name, length in lengths.items():
        values = getattr(config, name)
        if len(values) != length or not all(math.isfinite(value) and value >= 0 for value in values):
            return f"{name} must be {length} numbers of at least 0, not {', '.join(map(str, values)) or 'none'}"
    return None


def scale_problem(config: object, names: Iterable[str], example: str) -> str | None:
    """Return a sentence about the first field that is not a least and a most share of a patch, or None."""
    for name in names:
        least, most = getattr(config, name)
        if not 0 < least <= most <= 1:
            return f"{name} must be a least and a most share of a patch, such as {example}, not {least} and {most}"
    return None


def settings_problem(config: object, ranges: Ranges) -> str | None:
    """Return a sentence about the first field that is of another type or out of its range, or None."""
    try:
        read_fields(type(config), config)
    except DataError as error:
        return str(error)
    return range_problem(config, ranges)


def _read(kind: Any, raw: object, name: str) -> Any:
    """Return a field's value, lists as tuples; raise where it is none of that type."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return read_fields(kind, raw, name)
    if origin is tuple:
        if not isinstance(raw, list | tuple):
            raise DataError(f"{name} must be a list, not {_shown(raw)}")
        return tuple(_read(inner[0], value, f"{name}[{place}]") for place, value in enumerate(raw))
    if origin is not None and origin is not UnionType:
        if not isinstance(raw, Mapping):
            raise DataError(f"{name} must be an object of names and values, not {_shown(raw)}")
        return {key: _read(inner[1], value, f"{name}.{key}") for key, value in raw.items()}
    allowed = inner or (kind,)
    if not any(_is(raw, option) for option in allowed):
        # Whoever reads "a number" need not be told that whole ones are numbers too.
        words = [_WORDS[option] for option in allowed if option is not int or float not in allowed]
        raise DataError(f"{name} must be {' or '.join(words)}, not {_shown(raw)}")
    return raw


def _is(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool  # for Python true is a number
    return isinstance(value, int | float if kind is float else kind)


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _example(known: Mapping[str, Field[Any]]) -> str:
    return f'"{next(iter(known))}"'


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 40 else f"{text[:40]}..."
