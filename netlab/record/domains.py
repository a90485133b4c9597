"""What a value in a recording may be, beside its type: `sport: Port` is an int, and one of 65,536. Pure.

A domain stands in an annotation; `codec.py` holds what it reads against it, so that what comes from a file is within
what the kernel could have told. Who makes values of the kernel's bytes has them by their width.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias


class Domain(Protocol):
    """Whatever can say what is wrong with a value of its type."""

    def complaint(self, value: object) -> str:
        """Why the value is none; empty where it is one."""


@dataclass(frozen=True, slots=True)
class Within:
    """Numbers between two, both included; no number that isn't finite."""

    low: float
    high: float

    def complaint(self, value: object) -> str:
        """As of a Domain."""
        assert isinstance(value, int | float)
        if self.low <= value <= self.high:
            return ""
        # An integer of any length, but not written out.
        shown = f"{value}" if math.isnan(value) or abs(value) < 1 << 70 else "a number so large"
        return f"{shown} is not between {self.low:,} and {self.high:,}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Some words."""

    words: Collection[str]

    def complaint(self, value: object) -> str:
        """As of a Domain."""
        return "" if value in self.words else f"{value!r:.40} is none of {', '.join(self.words)}"


@dataclass(frozen=True, slots=True)
class NoLonger:
    """Text of at most so many characters."""

    than: int

    def complaint(self, value: object) -> str:
        """As of a Domain."""
        assert isinstance(value, str)
        return "" if len(value) <= self.than else f"{len(value):,} characters are more than {self.than:,}"


ANY_NUMBER = Within(-(1 << 64), 1 << 64)
"""Of an annotation that says nothing: what all arithmetic here is sure of."""

U8: TypeAlias = Annotated[int, Within(0, 0xFF)]
U16: TypeAlias = Annotated[int, Within(0, 0xFFFF)]
U32: TypeAlias = Annotated[int, Within(0, 0xFFFFFFFF)]
Count: TypeAlias = Annotated[int, Within(0, (1 << 63) - 1)]
Port: TypeAlias = U16
TimeNs: TypeAlias = Annotated[int, Within(0, (1 << 63) - 1)]
"""CLOCK_REALTIME as the kernel's ktime_t holds it: from 1970 to 2262."""
Errno: TypeAlias = Annotated[int, Within(0, 4095)]
"""MAX_ERRNO of include/linux/err.h. Not each of them has a name."""
PayloadBytes: TypeAlias = Annotated[int, Within(-60, 0xFFFFFFFF)]
"""Negative where a TCP header claims to be longer than its packet."""
PrefixLength: TypeAlias = Annotated[int, Within(0, 128)]
WindowScale: TypeAlias = U8
Seconds: TypeAlias = Annotated[float, Within(0, 1e9)]
Word: TypeAlias = Annotated[str, NoLonger(511)]
"""A name of the kernel's or of a lab's, or a few of them: `jump CHAIN`, with a chain's longest name."""
