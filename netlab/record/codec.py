"""Frozen dataclasses as JSON and back, by their type hints. Pure.

A value becomes an object with its type's name under "is"; tuples become lists, addresses and enumerations text, bytes
base64. Reading checks each value against its hint: what comes from a file is either whole or a ValueError.
"""

from __future__ import annotations

import base64
import ipaddress
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeAlias

Convert: TypeAlias = Callable[[Any], Any]

_FORMER = {"Load": "Crowd", "TrialResult.load": "crowd"}
"""What a type, or a member of one, was called in what was written before it was renamed."""

_PLAIN = frozenset((int, str, float, bool, types.NoneType))


def to_json(value: Any) -> Any:
    """A dataclass of such values, or any such value, as what json.dumps takes."""
    kind: type = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple:
        return [to_json(item) for item in value]
    if names := _names(kind):
        return {"is": kind.__name__} | {name: to_json(getattr(value, name)) for name in names}
    if kind is bytes:
        return base64.b64encode(value).decode()
    if isinstance(value, Enum):
        return value.value
    assert isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address), kind
    return str(value)


def from_json(raw: Any, hint: Any) -> Any:
    """The value of that type (or type hint) that `to_json` was given; ValueError, saying where, for anything else.

    Members that the type doesn't have are passed over, those with a default may be left out: so that a reader
    understands what was written before or after a member came.
    """
    return _reader(hint)(raw)


@cache
def _names(kind: type) -> tuple[str, ...]:
    """A dataclass's members, but for those that it fills in by itself; none for other types."""
    return tuple(field.name for field in fields(kind) if field.init) if is_dataclass(kind) else ()


@cache
def _reader(hint: Any) -> Convert:
    """The function that reads one kind of value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _sequence(arguments)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _dataclass(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _parsed(hint, str)
    return _SCALARS.get(hint) or _exactly(hint)


def _union(members: Sequence[Any]) -> Convert:
    """None, an address, one kind of scalar, or dataclasses, told apart by their names: hints have no more than that."""
    optional = types.NoneType in members
    others = [member for member in members if member is not types.NoneType]
    by_name = {
        member.__name__: _reader(member) for member in others if is_dataclass(member) and isinstance(member, type)
    }
    by_name |= {_FORMER[name]: read for name, read in by_name.items() if name in _FORMER}
    if set(others) == {ipaddress.IPv4Address, ipaddress.IPv6Address}:
        scalar = _parsed(_address, str)
    elif not by_name:
        scalar = _reader(others[0])

    def read(raw: Any) -> Any:
        if raw is None and optional:
            return None
        if not by_name:
            return scalar(raw)
        if not isinstance(raw, dict):
            raise ValueError(f"{raw!r:.40} is neither {' nor '.join(by_name)}")
        name = raw.get("is")
        if not isinstance(name, str) or name not in by_name:
            raise ValueError(f"{name!r}: not one of {', '.join(by_name)}")
        return by_name[name](raw)

    return read


def _sequence(members: Sequence[Any]) -> Convert:
    if len(members) == 2 and members[1] is ...:
        each = _reader(members[0])
        return lambda raw: tuple(map(each, _of(list, raw)))
    readers = [_reader(member) for member in members]

    def read(raw: Any) -> Any:
        if len(_of(list, raw)) != len(readers):
            raise ValueError(f"a list of {len(raw)}, not of {len(readers)}")
        return tuple(reader(item) for reader, item in zip(readers, raw, strict=True))

    return read


def _dataclass(kind: type) -> Convert:
    name = kind.__name__
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}

    @cache
    def readers() -> dict[str, Convert]:
        """Made when first needed: a type may have members of its own kind."""
        hints = typing.get_type_hints(kind)
        return {each: _reader(hints[each]) for each in _names(kind)}

    def read(raw: Any) -> Any:
        if _of(dict, raw).get("is") not in (name, _FORMER.get(name, name)):
            raise ValueError(f"{raw.get('is')!r}, not {name}")
        values = {}
        for member, reader in readers().items():
            written = member if member in raw else _FORMER.get(f"{name}.{member}", member)
            if written in raw:
                try:
                    values[member] = reader(raw[written])
                except ValueError as error:
                    raise ValueError(f"{name}.{member}: {error}") from None
        if missing := needed - values.keys():
            raise ValueError(f"{name} without {', '.join(sorted(missing))}")
        return kind(**values)

    return read


def _of(kind: type, raw: Any) -> Any:
    if type(raw) is not kind:
        raise ValueError(f"{raw!r:.40} is no {kind.__name__}")
    return raw


def _exactly(kind: type) -> Convert:
    return lambda raw: _of(kind, raw)


def _parsed(parse: Convert, kind: type) -> Convert:
    return lambda raw: parse(_of(kind, raw))


@cache
def _address(text: str) -> Any:
    return ipaddress.ip_address(text)


_SCALARS: dict[Any, Convert] = {
    bytes: _parsed(lambda text: base64.b64decode(text, validate=True), str),
    float: lambda raw: float(raw) if type(raw) is int else _of(float, raw),
}
