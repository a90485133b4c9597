"""tc's notation of sizes, rates and times (tc(8), PARAMETERS) as numbers."""

from __future__ import annotations

import re

_SIZES = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1024**2, "mb": 1024**2, "g": 1024**3, "gb": 1024**3}
_SIZES |= {"kbit": 1024 // 8, "mbit": 1024**2 // 8, "gbit": 1024**3 // 8}
_BITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_TIMES_US = {"": 1, "us": 1, "usec": 1, "ms": 1000, "msec": 1000, "s": 10**6, "sec": 10**6}
_TIMES_US |= {f"{unit}s": factor for unit, factor in _TIMES_US.items() if unit.endswith("sec")}
_NUMBER = r"([0-9.]+)([a-z]*)"


def _split(text: str) -> tuple[float, str]:
    match = re.fullmatch(_NUMBER, text.lower())
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2]


def size_bytes(text: str) -> int:
    """Bytes of "16kb" (k is 1,024, as tc has it)."""
    number, unit = _split(text)
    return int(number * _SIZES[unit])


def rate_bytes_per_s(text: str) -> int:
    """Bytes a second of "1mbit" or "125kbps" (tc's bit is a bit, its bps a byte, a second)."""
    number, unit = _split(text)
    if unit.endswith("bps"):
        return int(number * _BITS[unit.removesuffix("bps")])
    return int(number * _BITS[unit.removesuffix("bit")] / 8)


def time_us(text: str) -> int:
    """Microseconds of "50ms"."""
    number, unit = _split(text)
    return int(number * _TIMES_US[unit])
