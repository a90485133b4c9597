"""pcapng: frames as the file that Wireshark, tshark and tcpdump read. Pure: values in, bytes out.

Each function makes one block of draft-ietf-opsawg-pcapng ("PCAP Now Generic"), so that a capture can be written as it
happens; `write` makes the file of a recording. Which packets are in it, and what is said of them, is
`report/packets.py`'s to say, observing them `observe/packets.py`'s.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from netlab import escapes
from netlab.record.events import DatagramPacket, Direction, Packet
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording, Tap

LINKTYPE_ETHERNET = 1
"""What the interfaces of a lab carry, `lo` too (https://www.tcpdump.org/linktypes.html)."""

Comments: TypeAlias = Mapping[int, Sequence[str]]
"""What to say about packets, by their places in the file, from 0; each text is one comment of the packet's block."""

_SECTION_HEADER, _INTERFACE_DESCRIPTION, _INTERFACE_STATISTICS, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER_MAGIC, _MAJOR, _MINOR = 0x1A2B3C4D, 1, 0
_LENGTH_UNKNOWN = -1

# Options: the number and the block it belongs to; 0 and 1 are the same in all blocks.
_END_OF_OPTIONS, _COMMENT = 0, 1
_SHB_HARDWARE, _SHB_OS, _SHB_USERAPPL = 2, 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _IF_FILTER = 2, 3, 9, 11
_EPB_FLAGS = 2
_ISB_STARTTIME, _ISB_ENDTIME, _ISB_IFRECV, _ISB_IFDROP = 2, 3, 4, 5

_NANOSECONDS = 9
"""if_tsresol: times count in 10 ** -9 seconds."""

_FILTER_IS_TEXT = b"\0"
_FLAGS = {Direction.IN: 1, Direction.OUT: 2}
_LONGEST_OPTION_BYTES = 0xFFFF

_Option: TypeAlias = tuple[int, bytes | str]


def section_header(*, hardware: str = "", os: str = "", comment: str = "") -> bytes:
    """The block that a file begins with. hardware is `uname -m`, os "Linux 6.18.44"; empty ones are left out."""
    fixed = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, _MAJOR, _MINOR, _LENGTH_UNKNOWN)
    named = ((_COMMENT, comment), (_SHB_HARDWARE, hardware), (_SHB_OS, os), (_SHB_USERAPPL, "netlab"))
    return _block(_SECTION_HEADER, fixed, [(code, text) for code, text in named if text])


def interface_description(tap: Tap, *, snaplen_bytes: int = 0, expression: str = "") -> bytes:
    """An interface, called "client/eth0", its namespace's role the description. The first one has the number 0.

    snaplen_bytes is where its frames were cut off, 0 if nowhere; expression the capture filter in libpcap's language.
    """
    options: list[_Option] = [(_IF_NAME, f"{tap.netns}/{tap.ifname}")]
    if tap.role:
        options.append((_IF_DESCRIPTION, tap.role))
    options.append((_IF_TSRESOL, bytes([_NANOSECONDS])))
    if expression:
        options.append((_IF_FILTER, _FILTER_IS_TEXT + escapes.lines(expression).encode()))
    return _block(_INTERFACE_DESCRIPTION, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snaplen_bytes), options)


def enhanced_packet(
    interface: int, time_ns: int, direction: Direction, wire_bytes: int, data: bytes, comments: Sequence[str] = ()
) -> bytes:
    """A frame that crossed the interface of that number; data is its beginning, wire_bytes its whole length."""
    fixed = struct.pack("<IIIII", interface, *_time(time_ns), len(data), wire_bytes)
    options: list[_Option] = [(_COMMENT, comment) for comment in comments]
    options.append((_EPB_FLAGS, struct.pack("<I", _FLAGS[direction])))
    return _block(_ENHANCED_PACKET, fixed, options, data)


def interface_statistics(
    interface: int, *, started_ns: int, ended_ns: int, received: int, dropped: int | None
) -> bytes:
    """How much an interface's observer was given, and how much of that it had no room for; None where nobody counted.

    As dumpcap has it, isb_ifdrop is what the kernel's ring dropped.
    """
    options: list[_Option] = [
        (_ISB_STARTTIME, struct.pack("<II", *_time(started_ns))),
        (_ISB_ENDTIME, struct.pack("<II", *_time(ended_ns))),
        (_ISB_IFRECV, struct.pack("<Q", received)),
    ]
    if dropped is not None:
        options.append((_ISB_IFDROP, struct.pack("<Q", dropped)))
    return _block(_INTERFACE_STATISTICS, struct.pack("<III", interface, *_time(ended_ns)), options)


def kept(recording: Recording) -> list[Packet | DatagramPacket]:
    """The recording's packets whose frames were kept, in the order of their times."""
    found = [event for event in recording.events if isinstance(event, Packet | DatagramPacket) and event.frame]
    return sorted(found, key=lambda packet: packet.time_ns)


def write(
    recording: Recording, packets: Sequence[Packet | DatagramPacket], comments: Comments, *, comment: str = ""
) -> bytes:
    """The file of some of the packets that `kept` gives, in their order; comment is about all of it.

    Every tap is in it, with how many packets it saw, whether or not they are here, and how many it lost.
    """
    received = Counter((packet.netns, packet.ifname) for packet in kept(recording))
    taps = {(tap.netns, tap.ifname): tap for tap in recording.taps}
    for key in received:
        taps.setdefault(key, Tap(*key, ""))
    numbers = {key: number for number, key in enumerate(taps)}
    blocks = [section_header(os=f"Linux {recording.kernel}", comment=comment)]
    blocks += [interface_description(tap) for tap in taps.values()]
    blocks += [
        enhanced_packet(
            numbers[packet.netns, packet.ifname],
            packet.time_ns,
            packet.direction,
            packet.wire_bytes,
            packet.frame,
            comments.get(place, ()),
        )
        for place, packet in enumerate(packets)
    ]
    lost = dict(recording.lost)
    for key, number in numbers.items():
        dropped = lost.get(ObserverId(ObserverKind.PACKETS, *key))
        blocks.append(
            interface_statistics(
                number,
                started_ns=recording.started_ns,
                ended_ns=recording.ended_ns,
                received=received[key] + (dropped or 0),
                dropped=dropped,
            )
        )
    return b"".join(blocks)


def _block(kind: int, fixed: bytes, options: Sequence[_Option], data: bytes = b"") -> bytes:
    """A block; data comes between what all of the kind have and the options. It is copied once: it may be big."""
    parts = [fixed, data, b"\0" * (-len(data) % 4)]
    for code, value in (*options, (_END_OF_OPTIONS, b"")):
        octets = _cut(escapes.lines(value).encode()) if isinstance(value, str) else value
        parts += [struct.pack("<HH", code, len(octets)), octets, b"\0" * (-len(octets) % 4)]
    length = struct.pack("<I", 12 + sum(map(len, parts)))
    return b"".join((struct.pack("<I", kind), length, *parts, length))


def _cut(text: bytes) -> bytes:
    """As much of a UTF-8 text as an option holds."""
    return text if len(text) <= _LONGEST_OPTION_BYTES else text[:_LONGEST_OPTION_BYTES].decode(errors="ignore").encode()


def _time(time_ns: int) -> tuple[int, int]:
    """A time's upper and lower half: pcapng has no 64-bit times."""
    return time_ns >> 32, time_ns & 0xFFFFFFFF
