"""The root queueing discipline of an interface: its keys, in tc's own notation, and its value.

tc(8), PARAMETERS, also takes bare numbers, each with a unit of its own: here the unit is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from netlab.model import Qdisc
from netlab.yamlspec.document import Item, Reader
from netlab.yamlspec.limits import MAX_NUMBER, shortened
from netlab.yamlspec.shapes import Choice, Fields, InvalidError, Key, Kinds, Text
from netlab.yamlspec.units import rate_bytes_per_s, size_bytes, time_us

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_TIME = rf"{_NUMBER}(s|sec|secs|ms|msec|msecs|us|usec|usecs)"
_PERCENT = rf"{_NUMBER}%"
_RATE = rf"^{_NUMBER}([kKmMgGtT][iI]?)?([bB][iI][tT]|[bB][pP][sS])$"
_SIZE = rf"^{_NUMBER}([bB]|[kKmMgG][bB]?|[kKmMgG][bB][iI][tT])?$"
_TIMES = rf"^{_TIME}$"
_COUNT = r"^[0-9]+$"
_DELAY = rf"^{_TIME}( {_TIME}( {_PERCENT})?)?$"
_CHANCE = rf"^{_PERCENT}( {_PERCENT})?$"


def _word(what: str, pattern: str, example: str, check: Callable[[str], None] | None = None) -> Text:
    """A qdisc's parameter: text that must match tc's own notation, and whose meaning check may refuse."""

    def parse(text: str) -> str:
        if len(text) > MAX_NUMBER or not re.fullmatch(pattern, text):
            raise InvalidError(f"{shortened(repr(text), MAX_NUMBER)} is not {what}", f"for instance {example}")
        if check is not None:
            check(text)
        return text

    return Text(what, parse, pattern, numbers=True)


def _moves(rate: str) -> None:
    """The kernel counts whole bytes a second; at none of them nothing would ever be sent."""
    if rate_bytes_per_s(rate) < 1:
        raise InvalidError(f"{rate!r} is less than a byte a second", "for instance 10mbit")


_SIZE_MAX = 2**31 - 1
_TIME_MAX_US = 274_000_000
"""The kernel takes sizes and counts in 31 bits, and times in 32 bits, in ticks of 64 ns (PSCHED_SHIFT)."""


def _is_held(text: str) -> None:
    if size_bytes(text) > _SIZE_MAX:
        raise InvalidError(f"{text!r} is more than the kernel takes", f"at most {_SIZE_MAX:,} bytes")


def _is_countable(text: str) -> None:
    if int(text) > _SIZE_MAX:
        raise InvalidError(f"{text!r} is more than the kernel takes", f"at most {_SIZE_MAX:,}")


def _parts(text: str) -> None:
    """The times and percentages of one text."""
    for word in text.split():
        if word.endswith("%") and float(word[:-1]) > 100:
            raise InvalidError(f"{word!r} is more than 100%", "at most 100%")
        if not word.endswith("%") and time_us(word) > _TIME_MAX_US:
            raise InvalidError(f"{word!r} is longer than the kernel waits", f"at most {_TIME_MAX_US // 10**6}s")


RATE = Key(_word("a rate", _RATE, "10mbit", _moves), "bits per second (10mbit) or bytes per second (1mbps)")
SIZE = Key(_word("a size", _SIZE, "16kb", _is_held), "bytes (16kb)")
TIME = Key(_word("a time", _TIMES, "50ms", _parts), "a time (50ms)")
COUNT = Key(_word("a whole number", _COUNT, "1000", _is_countable), "a whole number")
CHANCE = Key(_word("a percentage", _CHANCE, "1% or 25% 50%", _parts), "a percentage, and its correlation with the last")
_REQUIRED_RATE = Key(RATE.shape, RATE.doc, required=True)


def _qdisc(kind: str, **keys: Key) -> Fields:
    return Fields({"kind": Key(Choice("a kind of qdisc", (kind,)), "the qdisc's kind", required=True), **keys})


QDISC = Kinds(
    "a kind of qdisc",
    {
        "tbf": _qdisc(
            "tbf",
            rate=_REQUIRED_RATE,
            burst=Key(SIZE.shape, "the bucket, at least rate/HZ and one packet (16kb)", required=True),
            latency=Key(TIME.shape, "longest wait in the queue; either this or limit"),
            limit=Key(SIZE.shape, "bytes that may wait in the queue; either this or latency"),
            peakrate=RATE,
            mtu=Key(SIZE.shape, "the bucket of peakrate"),
        ),
        "htb": _qdisc("htb", rate=_REQUIRED_RATE, ceil=RATE, burst=SIZE, cburst=SIZE, quantum=SIZE),
        "netem": _qdisc(
            "netem",
            delay=Key(
                _word("a delay", _DELAY, "10ms or 10ms 2ms 25%", _parts), "delay, its jitter, the jitter's correlation"
            ),
            loss=CHANCE,
            duplicate=CHANCE,
            corrupt=CHANCE,
            reorder=CHANCE,
            gap=COUNT,
            rate=RATE,
            limit=COUNT,
        ),
        "pfifo": _qdisc("pfifo", limit=Key(COUNT.shape, "packets that may wait in the queue")),
        "bfifo": _qdisc("bfifo", limit=Key(SIZE.shape, "bytes that may wait in the queue")),
    },
    definition="qdisc",
)


def qdisc(reader: Reader, item: Item) -> Qdisc | None:
    """The value of what was read by QDISC; what doesn't go together goes to the reader. None without a kind."""
    if "kind" not in item:
        return None
    kind = item["kind"].value
    if kind == "tbf" and not item.broken:
        if ("latency" in item) == ("limit" in item):
            reader.at(item, "tbf needs either latency or limit", "latency: 50ms")
        if ("peakrate" in item) != ("mtu" in item):
            reader.at(item, "tbf needs both peakrate and mtu, or neither", "mtu: the size of peakrate's bucket")
    return Qdisc(kind, tuple((word, value.value) for word, value in item.value.items() if word != "kind"))
