"""BTF: the kernel's own description of its types, and where their members lie. Pure.

`/sys/kernel/btf/vmlinux` has it (Documentation/bpf/btf.rst). Types are read one after the other, as far as they are
asked for: those of networking come early among some 130,000.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE, _WORD, _MEMBER, _ENUMERATOR = (
    struct.Struct("=III"),
    struct.Struct("=I"),
    struct.Struct("=III"),
    struct.Struct("=Ii"),
)
# enum BTF_KIND_* (include/uapi/linux/btf.h)
_STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG = 4, 5, 6, 8, 9, 10, 11, 18
_NAMES_ANOTHER = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
_BYTES_MORE = {1: 4, 3: 12, 14: 4, 17: 4}
_BYTES_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class Btf:
    """The types in BTF's bytes. ValueError where they are none; KeyError for a type or a member that there isn't."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] != _MAGIC:
            raise ValueError("no BTF")
        _, _, _, header_bytes, types_at, types_bytes, strings_at, strings_bytes = _HEADER.unpack_from(data)
        self._data = data
        self._strings = header_bytes + strings_at
        self._strings_end = self._strings + strings_bytes
        self._next, self._end = header_bytes + types_at, header_bytes + types_at + types_bytes
        self._found = [0]  # where each type stands, by its number; 0 is void

    def offset(self, type_name: str, *members: str) -> int:
        """Where a member lies in a struct, in bytes; of several, each one in the one before it."""
        at = self._named(type_name, _STRUCT)
        total = 0
        for member in members:
            place = self._member(at, member)
            if place is None:
                raise KeyError(f"struct {type_name} has no {'.'.join(members)}")
            bits, number = place
            total += bits // 8
            at = self._resolved(number)
        return total

    def enumerators(self, type_name: str) -> dict[int, str]:
        """An enum's names by their values."""
        at = self._named(type_name, _ENUM)
        _, info, _ = _TYPE.unpack_from(self._data, at)
        places = range(at + _TYPE.size, at + _TYPE.size + (info & 0xFFFF) * _ENUMERATOR.size, _ENUMERATOR.size)
        told = (_ENUMERATOR.unpack_from(self._data, place) for place in places)
        return {value: self._string(name) for name, value in told}

    def _named(self, name: str, kind: int) -> int:
        """Where the type of that name and kind stands."""
        wanted = self._data.find(b"\0" + name.encode() + b"\0", self._strings, self._strings_end) + 1 - self._strings
        if wanted > 0:
            number = 1
            while (at := self._at(number)) is not None:
                its_name, info, _ = _TYPE.unpack_from(self._data, at)
                if its_name == wanted and info >> 24 & 0x1F == kind:
                    return at
                number += 1
        raise KeyError(f"no type is called {name}")

    def _at(self, number: int) -> int | None:
        """Where a type stands, by its number; None past the last one."""
        while number >= len(self._found):
            if self._next >= self._end:
                return None
            self._found.append(self._next)
            _, info, _ = _TYPE.unpack_from(self._data, self._next)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            self._next += _TYPE.size + _BYTES_MORE.get(kind, 0) + _BYTES_EACH.get(kind, 0) * count
        return self._found[number]

    def _member(self, at: int, wanted: str) -> tuple[int, int] | None:
        """Offset in bits and type of a member, which may be in a struct or union without a name."""
        for name, number, bits in self._members(at):
            if name == wanted:
                return bits, number
            if not name and (inside := self._member(self._resolved(number), wanted)):
                return bits + inside[0], inside[1]
        return None

    def _members(self, at: int) -> Iterator[tuple[str, int, int]]:
        _, info, _ = _TYPE.unpack_from(self._data, at)
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return
        for place in range(at + _TYPE.size, at + _TYPE.size + (info & 0xFFFF) * _MEMBER.size, _MEMBER.size):
            name, number, bits = _MEMBER.unpack_from(self._data, place)
            # With the flag set, the upper 8 bits are a bit field's width.
            yield self._string(name), number, bits & 0xFFFFFF if info >> 31 else bits

    def _resolved(self, number: int) -> int:
        """Where the type stands that a type's number comes to, past its other names."""
        while True:
            at = self._at(number)
            if at is None:
                raise KeyError(f"no type has the number {number}")
            _, info, number = _TYPE.unpack_from(self._data, at)
            if info >> 24 & 0x1F not in _NAMES_ANOTHER:
                return at

    def _string(self, offset: int) -> str:
        begin = self._strings + offset
        return self._data[begin : self._data.index(b"\0", begin)].decode()
