"""Frozen dataclasses as JSON and back, by their type hints. Pure.

A value becomes an object with its type's name under "is"; tuples become lists, addresses and enumerations text, bytes
base64. Reading checks each value against its hint and the domain in it (`domains.py`), and asks a type that has a
method `inconsistency` what of its members doesn't go together (empty: nothing). What comes from a file is either
whole, of values that could have been written, or a ValueError.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache
from typing import Annotated, Any, NoReturn, TypeAlias

from netlab.record.domains import ANY_NUMBER, Domain

Convert: TypeAlias = Callable[[Any], Any]

_FORMER = {"Load": "Crowd", "TrialResult.load": "crowd"}
"""What a type, or a member of one, was called in what was written before it was renamed."""

_PLAIN = frozenset((int, str, float, bool, types.NoneType))

MOST_MEMORY_BYTES = 400_000_000
"""What the text of JSON and all that is made of it may take: over 100,000 packets."""

# CPython's own sizes, of a dict of some members, a list, and whatever stands after a comma.
_OBJECT_BYTES, _LIST_BYTES, _ITEM_BYTES = 232, 64, 40


def parse(data: bytes) -> Any:
    """JSON from a file; ValueError for what is none, nests too deep, or would take too much memory.

    How much it takes is known before it is read, from how often it has a bracket or a comma.
    """
    # A text is as wide as its widest character: 1, 2 or 4 bytes each.
    width = 1 if data.isascii() else 4 if re.search(rb"[\xf0-\xf4]", data) else 2
    needed = len(data) * (1 + 2 * width)
    needed += _OBJECT_BYTES * data.count(b"{") + _LIST_BYTES * data.count(b"[") + _ITEM_BYTES * data.count(b",")
    if needed > MOST_MEMORY_BYTES:
        raise ValueError(f"to read it takes some {needed >> 20:,} MiB, {MOST_MEMORY_BYTES >> 20:,} at most are used")
    try:
        return json.loads(data.decode(), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


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
    if origin is Annotated:
        return _within(_reader(arguments[0]), arguments[1])
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
            raise ValueError(f"{_shown(raw)} is neither {' nor '.join(by_name)}")
        name = raw.get("is")
        if not isinstance(name, str) or name not in by_name:
            raise ValueError(f"{_shown(name)}: not one of {', '.join(by_name)}")
        return by_name[name](raw)

    return read


def _sequence(members: Sequence[Any]) -> Convert:
    if len(members) == 2 and members[1] is ...:
        each = _reader(members[0])
        return lambda raw: _items([each] * len(_of(list, raw)), raw)
    readers = [_reader(member) for member in members]

    def read(raw: Any) -> Any:
        if len(_of(list, raw)) != len(readers):
            raise ValueError(f"a list of {len(raw)}, not of {len(readers)}")
        return _items(readers, raw)

    return read


def _items(readers: Sequence[Convert], raw: list[Any]) -> tuple[Any, ...]:
    made = []
    for at, (reader, item) in enumerate(zip(readers, raw, strict=True)):
        try:
            made.append(reader(item))
        except ValueError as error:
            raise _at(f"[{at}]", error) from None
    return tuple(made)


class _WrongError(ValueError):
    """What is wrong, and the path to it: `trials[2].flow.port`."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what


def _at(step: str, error: ValueError) -> _WrongError:
    """The error as it is told one step further out."""
    if not isinstance(error, _WrongError):
        return _WrongError(step, str(error))
    return _WrongError(f"{step}{'' if error.path.startswith('[') else '.'}{error.path}", error.what)


def _dataclass(kind: type) -> Convert:
    name = kind.__name__
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    inconsistency: Callable[[Any], str] | None = getattr(kind, "inconsistency", None)

    @cache
    def readers() -> dict[str, Convert]:
        """Made when first needed: a type may have members of its own kind."""
        hints = typing.get_type_hints(kind, include_extras=True)
        return {each: _reader(hints[each]) for each in _names(kind)}

    def read(raw: Any) -> Any:
        if _of(dict, raw).get("is") not in (name, _FORMER.get(name, name)):
            raise ValueError(f"{_shown(raw.get('is'))}, not {name}")
        values = {}
        for member, reader in readers().items():
            written = member if member in raw else _FORMER.get(f"{name}.{member}", member)
            if written in raw:
                try:
                    values[member] = reader(raw[written])
                except ValueError as error:
                    raise _at(member, error) from None
        if missing := needed - values.keys():
            raise ValueError(f"{name} without {', '.join(sorted(missing))}")
        made = kind(**values)
        if inconsistency is not None and (why := inconsistency(made)):
            raise ValueError(why)
        return made

    return read


def _of(kind: type, raw: Any) -> Any:
    if type(raw) is not kind:
        raise ValueError(f"{_shown(raw)} is no {kind.__name__}")
    return raw


_short = reprlib.Repr()
_short.maxlevel, _short.maxdict, _short.maxlist, _short.maxstring, _short.maxother = 2, 3, 3, 40, 40


def _shown(raw: Any) -> str:
    """As Python writes it, but no more than the beginning."""
    return _short.repr(raw)[:80]


def _within(read: Convert, domain: Domain) -> Convert:
    def convert(raw: Any) -> Any:
        value = read(raw)
        if complaint := domain.complaint(value):
            raise ValueError(complaint)
        return value

    return convert


def _text(raw: Any) -> Any:
    if not _of(str, raw).isascii():
        try:
            raw.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{_shown(raw)} has half a character") from None
    return raw


def _float(raw: Any) -> float:
    number = raw if type(raw) is int else _of(float, raw)
    if not math.isfinite(number) or abs(number) > ANY_NUMBER.high:
        raise ValueError(ANY_NUMBER.complaint(number))
    return float(number)


def _exactly(kind: type) -> Convert:
    return lambda raw: _of(kind, raw)


def _parsed(parse: Convert, kind: type) -> Convert:
    return lambda raw: parse(_of(kind, raw))


@lru_cache(maxsize=1 << 16)
def _address(text: str) -> Any:
    if "%" in text:
        raise ValueError(f"{_shown(text)} has a zone, which no packet has")
    return ipaddress.ip_address(text)


_SCALARS: dict[Any, Convert] = {
    bytes: _parsed(lambda text: base64.b64decode(text, validate=True), str),
    float: _float,
    int: _within(_exactly(int), ANY_NUMBER),
    str: _text,
}
