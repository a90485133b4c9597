"""A conversation as lines like packetdrill's, each with what conntrack makes of the packet: read, and written again.

    > S 0:0(0) win 65535 <wscale 8>                  | new original, SYN_SENT
    < R. 0:0(0) ack 2                                | invalid, SYN_SENT
        ACK is over upper bound 2 (ACKed data not seen yet)

`>` goes from the client to the server. Flags are S, F, R, P, U and `.` for ACK; seq:end(bytes) counts from the sender's
base, ack from the receiver's. Options are wscale N, sackOK, sack LEFT:RIGHT, nop, ts, or their bytes as 0xHEX; `<>` is
none, and so is nothing. `doff N` is a data offset that isn't the right one. After the | come the verdict and the state,
then, indented, what the kernel logs. Blank lines and comments (//) stay.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from conntrack_oracle import Setting, expected, timeout, verdict
from crafted import Tcp
from real_conntrack import RealConntrack, RealEntry

from netlab.conntrack.agreement import is_shortening
from netlab.conntrack.kernels import Rules
from netlab.conntrack.tracker import Tracker
from netlab.conntrack.values import CtDirection
from netlab.record.events import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Direction, Packet, Tuple
from netlab.record.wire import IPPROTO_TCP, decode_ip

HEADER = Tuple(ip_address("10.1.0.2"), 40000, ip_address("10.200.0.1"), 8080, IPPROTO_TCP)

_FLAGS = {"S": SYN, "F": FIN, "R": RST, "P": PSH, "U": URG, "E": ECE, "W": CWR, ".": ACK, "-": 0}
_MASK = 0xFFFFFFFF
_WORDS = re.compile(
    r"(?P<way>[<>]) (?P<flags>[SFRPUEW.]+|-) (?P<seq>-?\d+):-?\d+\((?P<length>\d+)\)"
    r"(?: ack (?P<ack>-?\d+))?(?: win (?P<win>\d+))?(?: doff (?P<doff>\d+))?(?: <(?P<options>[^>]*)>)?"
)
_WINDOW = 1000


@dataclass(frozen=True)
class Line:
    """One packet, and the words that make it."""

    words: str
    tcp: Tcp

    def told(self, verdict: str, entry: str, log: Sequence[str]) -> str:
        """The line with what conntrack makes of the packet."""
        return "\n    ".join((f"{self.words:48} | {verdict}, {entry or 'no entry'}", *log))


def written(tcp: Tcp) -> Line:
    """The line of a segment, its numbers as they are."""
    way = ">" if tcp.direction is CtDirection.ORIGINAL else "<"
    flags = "".join(letter for letter, bit in _FLAGS.items() if tcp.flags & bit) or "-"
    seq, ack = tcp.seq & _MASK, tcp.ack & _MASK
    end = (seq + tcp.length + bool(tcp.flags & SYN) + bool(tcp.flags & FIN)) & _MASK
    words = f"{way} {flags} {seq}:{end}({tcp.length})"
    words += f" ack {ack}" if ack else ""
    words += f" win {tcp.window}"
    words += f" doff {tcp.data_offset}" if tcp.data_offset is not None else ""
    words += f" <0x{tcp.options.hex()}>" if tcp.options else ""
    return Line(words, replace(tcp, seq=seq, ack=ack))


def read(text: str, client: int = 0, server: int = 0) -> list[Line | str]:
    """The packets of a text, and its comments and blank lines as they are. AssertionError for other lines."""
    found: list[Line | str] = []
    for line in text.strip("\n").splitlines():
        if line.startswith("    "):
            continue
        words = line.partition("|")[0].rstrip()
        if not words or words.startswith("//"):
            found.append(line)
            continue
        parts = _WORDS.fullmatch(words)
        assert parts, f"not a packet: {words!r}"
        own, other = (client, server) if parts["way"] == ">" else (server, client)
        flags = sum(_FLAGS[letter] for letter in parts["flags"])
        tcp = Tcp(
            CtDirection.ORIGINAL if parts["way"] == ">" else CtDirection.REPLY,
            flags,
            own + int(parts["seq"]),
            other + int(parts["ack"]) if parts["ack"] else 0,
            int(parts["win"] or _WINDOW),
            int(parts["length"]),
            _options(parts["options"] or "", other),
            int(parts["doff"]) if parts["doff"] else None,
        )
        found.append(Line(words, tcp))
    return found


def by_kernel(lines: Sequence[Line | str], kernel: RealConntrack, setting: Setting, *, whole: bool = False) -> str:
    """The text with what this kernel makes of each packet, and of its entry's state or the whole entry."""
    kernel.set(setting.sysctls())
    kernel.forget()
    told = []
    for line in lines:
        if isinstance(line, str):
            told.append(line)
            continue
        (seen,) = kernel.play([(line.tcp.packet(HEADER), HEADER)])
        log = [text for text in seen.log if not is_shortening(text)]
        told.append(line.told(seen.verdict, _entry(seen.entry, whole=whole), log))
    return "\n".join(told) + "\n"


def by_model(lines: Sequence[Line | str], rules: Rules, *, whole: bool = False) -> str:
    """The text with what the model makes of each packet, and of its entry's state or the whole entry."""
    tracker = Tracker(rules)
    told = []
    for line in lines:
        if isinstance(line, str):
            told.append(line)
            continue
        segment = decode_ip(line.tcp.packet(HEADER))
        assert segment is not None
        checked = tracker.packet(Packet(time.time_ns(), "", "way", Direction.IN, segment))
        found = tracker.entry(HEADER)
        log = [checked.log] if checked.log else []
        told.append(line.told(verdict(checked), _entry(expected(found) if found else None, whole=whole), log))
    return "\n".join(told) + "\n"


def _entry(entry: RealEntry | None, *, whole: bool) -> str:
    """An entry in words: its state, or all of it with the name of the timeout that was set last."""
    if entry is None or not whole:
        return entry.tcp_state if entry else ""
    bits = [name for name, value in (("seen", entry.seen_reply), ("assured", entry.assured)) if value]
    scales, flags = ("/".join(f"{value:x}" for value in pair) for pair in (entry.scales, entry.flags))
    return " ".join((entry.tcp_state, *bits, f"wscale {scales}", f"flags {flags}", f"for {timeout(entry)}"))


def _options(words: str, base: int) -> bytes:
    made = b""
    for word in filter(None, (part.strip() for part in words.split(","))):
        name, _, value = word.partition(" ")
        if name == "wscale":
            made += bytes((3, 3, int(value)))
        elif name == "sackOK":
            made += b"\4\2"
        elif name == "ts":
            made += struct.pack("!BBII", 8, 10, 7, 9)
        elif name == "mss":
            made += struct.pack("!BBH", 2, 4, int(value))
        elif name == "sack":
            left, _, right = value.partition(":")
            made += struct.pack("!BBII", 5, 10, base + int(left), base + int(right))
        elif name == "nop":
            made += b"\1"
        else:
            made += bytes.fromhex(name.removeprefix("0x"))
    return made + b"\1" * (-len(made) % 4)
