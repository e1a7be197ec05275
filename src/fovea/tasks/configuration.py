"""Configurations are nested plain dataclasses; here they are changed from words, written to YAML and read back.

``override(config, ["optimisation.steps=200", "network.embed_dim=36"])`` returns a changed copy: every value is
converted to the type that the dataclass declares, and an unknown name is answered with the nearest ones there are.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from fovea.errors import UsageError, unknown

Config = TypeVar("Config")


def override(config: Config, assignments: Iterable[str]) -> Config:
    """A copy of ``config`` in which each ``dotted.key=value`` has been set; raises ``UsageError``
    naming the nearest keys."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{assignment!r} sets nothing; write key=value, e.g. {_example(config)}")
        _collect(config, key.strip(), key.strip().split("."), _parse(text), changes)
    return _changed(config, changes)


def to_dict(config: Any) -> Any:
    """The configuration as nested dicts, lists and scalars, which YAML and JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """The inverse of ``to_dict``: a ``kind`` built from nested dicts; keys that are left out keep their defaults."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise unknown("key", f"{where}{name}", [where + known for known in names])
    return kind(**{name: _convert(value, hints[name], where + name) for name, value in values.items()})


def save(config: Any, path: Path) -> None:
    """Write the configuration as YAML, in the order of its fields."""
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=100))


def load(kind: type[Config], path: Path) -> Config:
    """Read a configuration that ``save`` wrote, or that a user wrote by hand (keys left out keep their defaults)."""
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values or {}, dict):
        raise UsageError(f"{path} holds no key: value pairs")
    return from_dict(kind, values or {})


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves as ``(dotted key, value)``, in order."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from flat(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _example(config: Any) -> str:
    key, value = next(iter(flat(config)))
    return f"{key}={value}"


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _collect(config: Any, full: str, path: list[str], value: Any, changes: dict[str, Any]) -> None:
    """Enter one converted value into ``changes``, a tree like the configuration's."""
    names = [field.name for field in dataclasses.fields(config)]
    if path[0] not in names:
        leaves = [key for key, _ in flat(config) if "." in key]
        raise unknown("key", full, [full.removesuffix(".".join(path)) + name for name in [*leaves, *names]])
    current = getattr(config, path[0])
    if len(path) == 1:
        changes[path[0]] = _convert(value, get_type_hints(type(config))[path[0]], full)
    elif dataclasses.is_dataclass(current):
        _collect(current, full, path[1:], value, changes.setdefault(path[0], {}))
    else:
        raise UsageError(f"unknown key {full!r}: {path[0]} is {current!r} and has no parts")


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """All changes at once, so that values which must fit each other are checked together."""
    values = {
        name: _changed(getattr(config, name), value)
        if isinstance(value, dict) and dataclasses.is_dataclass(getattr(config, name))
        else value
        for name, value in changes.items()
    }
    try:
        return dataclasses.replace(config, **values)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def _convert(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the declared type, or a ``UsageError`` that says what the key takes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or (isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint)):
        return value
    if origin in (Union, types.UnionType):
        for choice in sorted(arguments, key=lambda kind: kind is str):
            try:
                return _convert(value, choice, key)
            except UsageError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
        if str(value) in arguments:
            return str(value)
        raise unknown(key, str(value), [str(choice) for choice in arguments])
    elif hint is type(None) and value in (None, "none"):
        return None
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(hint, value, f"{key}.")
    elif origin in (tuple, list) and not isinstance(value, Mapping) and value is not None:
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        if isinstance(value, str):
            items = [_parse(item) for item in items]
        if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
            return origin(_convert(item, arguments[0], key) for item in items)
        if len(items) == len(arguments):
            return tuple(_convert(item, kind, key) for item, kind in zip(items, arguments, strict=True))
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return {name: _convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    elif hint is bool and isinstance(value, bool):
        return value
    elif hint is int and not isinstance(value, bool):
        number = _number(value)
        if number is not None and math.isfinite(number) and number == int(number):
            return int(number)
    elif hint is float and not isinstance(value, bool):
        number = _number(value)
        if number is not None and math.isfinite(number):
            return number
    elif hint is str and value is not None and not isinstance(value, Mapping | list):
        return str(value)
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    raise UsageError(f"{key}={value} does not fit; {key} takes {_words(hint)}")


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in arguments)
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin in (tuple, list):
        if (len(arguments) == 2 and arguments[1] is Ellipsis) or origin is list:
            return f"a comma-separated list, each {_words(arguments[0])}"
        return f"{len(arguments)} comma-separated values"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a word", type(None): "none"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
