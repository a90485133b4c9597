"""BTF's bytes, hand-made: where members lie, what enumerators are called."""

from __future__ import annotations

import struct

import pytest

from netlab.linux.btf import Btf

_STRUCT, _UNION, _INT, _ENUM, _TYPEDEF, _CONST, _PTR = 4, 5, 1, 6, 8, 10, 2


class Written:
    """BTF under construction: types are numbered from 1."""

    def __init__(self) -> None:
        self._types, self._strings = b"", b"\0"

    def name(self, text: str) -> int:
        if not text:
            return 0
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text) - 1

    def add(self, kind: int, name: str, size_or_type: int, *more: int, count: int = 0, flag: bool = False) -> None:
        info = flag << 31 | kind << 24 | count
        self._types += struct.pack("=III", self.name(name), info, size_or_type)
        self._types += struct.pack(f"={len(more)}I", *more)

    def bytes(self) -> bytes:
        lengths = (0, len(self._types), len(self._types), len(self._strings))
        return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, *lengths) + self._types + self._strings


def written() -> bytes:
    """struct outer { int first; union { struct inner other; int same; }; const inner_t last; flags:3 } and an enum."""
    btf = Written()
    btf.add(_INT, "int", 4, 0x20)  # 1
    btf.add(_STRUCT, "inner", 8, btf.name("a"), 1, 0, btf.name("b"), 1, 32, count=2)  # 2
    btf.add(_UNION, "", 8, btf.name("other"), 2, 0, btf.name("same"), 1, 0, count=2)  # 3
    btf.add(_TYPEDEF, "inner_t", 2)  # 4
    btf.add(_CONST, "", 4)  # 5
    members = (btf.name("first"), 1, 0, 0, 3, 64, btf.name("last"), 5, 128, btf.name("flags"), 1, 3 << 24 | 192)
    btf.add(_STRUCT, "outer", 28, *members, count=4, flag=True)  # 6
    btf.add(_ENUM, "why", 4, btf.name("WHY_NOT"), 2, btf.name("WHY_BAD"), 0xFFFFFFFF, count=2)  # 7
    btf.add(_TYPEDEF, "outer", 6)  # 8: a name that another kind of type has, too
    return btf.bytes()


@pytest.mark.parametrize(
    ("members", "offset"),
    [
        (("first",), 0),
        (("other",), 8),
        (("same",), 8),
        (("other", "b"), 12),
        (("last",), 16),
        (("last", "b"), 20),
        (("flags",), 24),
        ((), 0),
    ],
)
def test_where_a_member_lies(members: tuple[str, ...], offset: int) -> None:
    assert Btf(written()).offset("outer", *members) == offset


def test_what_an_enums_values_are_called() -> None:
    assert Btf(written()).enumerators("why") == {2: "WHY_NOT", -1: "WHY_BAD"}


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("nothing",), "no type is called nothing"),
        (("why",), "no type is called why"),
        (("first",), "no type is called first"),
        (("outer", "second"), "struct outer has no second"),
        (("outer", "last", "c"), "struct outer has no last.c"),
        (("outer", "first", "a"), "struct outer has no first.a"),
    ],
)
def test_what_is_not_there(names: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(KeyError, match=complaint.replace(".", r"\.")):
        Btf(written()).offset(*names)


@pytest.mark.parametrize("data", [b"", b"x" * 100, written()[:10]])
def test_what_is_no_btf(data: bytes) -> None:
    with pytest.raises(ValueError, match="no BTF"):
        Btf(data)
