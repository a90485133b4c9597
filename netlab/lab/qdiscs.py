"""A topology's qdiscs in the kernel: tc's words become the numbers that `linux/tc.py` takes.

What acts does so in the calling thread's network namespace.
"""

from __future__ import annotations

from typing import Any

from netlab.errors import UnsupportedError
from netlab.linux import tc
from netlab.model import Qdisc
from netlab.yamlspec.units import rate_bytes_per_s, size_bytes, time_us


def replace_root(index: int, qdisc: Qdisc) -> None:
    """Equivalent to `tc qdisc replace dev IFNAME root KIND …`; UnsupportedError where the kernel lacks it, OSError."""
    try:
        tc.replace_root(index, qdisc.kind, arguments(qdisc))
    except FileNotFoundError:
        raise lacking(qdisc.kind) from None


def lacking(kind: str) -> UnsupportedError:
    """What is said where the kernel lacks a queueing discipline."""
    return UnsupportedError(
        f"this kernel has no queueing discipline {kind}",
        f"it needs CONFIG_NET_SCH_{kind.upper()}, or its module sch_{kind}",
    )


def arguments(qdisc: Qdisc) -> dict[str, Any]:
    """The parameters as pyroute2's tc() takes them: bytes, bytes a second, microseconds, percent."""
    words = dict(qdisc.parameters)
    if qdisc.kind == "netem":
        return _netem(words)
    if qdisc.kind == "pfifo":
        return {word: int(value) for word, value in words.items()}
    readers = {"rate": rate_bytes_per_s, "ceil": rate_bytes_per_s, "peakrate": rate_bytes_per_s, "latency": time_us}
    found = {word: readers.get(word, size_bytes)(value) for word, value in words.items()}
    if "peakrate" in found:
        found["peak"] = found.pop("peakrate")
    if qdisc.kind == "htb":
        # tc's own default: what is sent in a tick of the kernel's packet scheduler, a nanosecond, and one packet.
        found.setdefault("burst", found["rate"] // 10**9 + 1600)
        found.setdefault("cburst", found.get("ceil", found["rate"]) // 10**9 + 1600)
    return found


def _percent(text: str) -> float:
    return float(text.removesuffix("%"))


def _netem(words: dict[str, str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    delay = words.get("delay", "").split()
    for name, text in zip(("delay", "jitter"), delay, strict=False):
        arguments[name] = time_us(text)
    if len(delay) > 2:
        arguments["delay_corr"] = _percent(delay[2])
    names = {
        "loss": ("loss", "loss_corr"),
        "duplicate": ("duplicate", "dup_corr"),
        "reorder": ("prob_reorder", "corr_reorder"),
        "corrupt": ("prob_corrupt", "corr_corrupt"),
    }
    for word, arguments_of in names.items():
        for name, text in zip(arguments_of, words.get(word, "").split(), strict=False):
            arguments[name] = _percent(text)
    if "rate" in words:
        arguments["rate"] = rate_bytes_per_s(words["rate"])
    arguments |= {word: int(words[word]) for word in ("gap", "limit") if word in words}
    return arguments
