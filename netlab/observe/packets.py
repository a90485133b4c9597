"""Packets on one interface: an AF_PACKET socket with a ring in shared memory, the kernel's stamps, and a filter in it.

A FrameObserver brings the frames that its filter takes, cut off where it is told to. A PacketObserver is one whose
frames are those of the wanted ports and ICMP's errors, decoded. The kernel counts what the ring had no room for. An
open AF_PACKET socket makes the kernel clone each packet of its interface: that is all it changes there.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from netlab.errors import UnsupportedError
from netlab.model import Address
from netlab.observe import Namespaces
from netlab.record.events import FIN, PSH, RST, SYN, DatagramPacket, Direction, Packet
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import (
    ETH_HEADER_BYTES,
    ETH_P_IP,
    ETH_P_IPV6,
    ICMP_ERRORS,
    ICMPV6_FIRST_INFORMATIONAL,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPV6_FRAGMENT,
    IPV6_FRAGMENT_OFFSET,
    IPV6_OPTIONS,
    WITH_PORTS,
    decode_datagram,
    decode_frame,
)

SNAPLEN_BYTES = 160
"""Enough for Ethernet, IPv4 with options or IPv6, and TCP with all its options: 14 + 60 + 60 bytes at most."""

# include/uapi/linux/if_packet.h, if_ether.h, asm-generic/socket.h
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V2 = 1
_PACKET_OUTGOING = 4
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35
_TP_STATUS_KERNEL, _TP_STATUS_USER = 0, 1

_SLOTS = 8192
# struct tpacket2_hdr: tp_status, tp_len, tp_snaplen, tp_mac, tp_net, tp_sec, tp_nsec; padded to 32 bytes, and then
# struct sockaddr_ll, whose sll_pkttype is its 11th byte.
_TPACKET2_HDR = struct.Struct("=IIIHHII")
_PKTTYPE_AT = 32 + 10
_FRAME_AT = 66
"""Where an Ethernet frame begins in its slot: both headers (52 bytes) and 16 for the link layer's, rounded up to a
multiple of 16, less the 14 bytes of Ethernet's own (tpacket_rcv in net/packet/af_packet.c)."""
_STATUS = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame crossing one interface. wire_bytes is its whole length, data its beginning, link-layer header first."""

    time_ns: int
    netns: str
    ifname: str
    direction: Direction
    wire_bytes: int
    data: bytes


class FrameObserver:
    """The frames that cross one interface and that a classic BPF program takes; all of them without a program.

    A frame is cut off after snaplen_bytes. The ring has room for `slots` frames, a multiple of those in a page, and
    takes snaplen_bytes of memory for each and a little more. UnsupportedError where the kernel or the user can't;
    OSError for an interface that isn't there. Equivalent to `ip netns exec NETNS tcpdump -i IFNAME -s SNAPLEN`.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        netns: str,
        ifname: str,
        program: bytes | None = None,
        snaplen_bytes: int = SNAPLEN_BYTES,
        slots: int = _SLOTS,
    ) -> None:
        self.id = ObserverId(ObserverKind.PACKETS, netns, ifname)
        self._netns, self._ifname = netns, ifname
        self._snaplen, self._slots, self._next = snaplen_bytes, slots, 0
        self._slot_bytes, block_bytes = _ring_geometry(snaplen_bytes)
        self._went_down = False
        try:
            # Protocol 0 receives nothing yet: what comes before the filter is in place would pass unfiltered.
            self._socket = namespaces.socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0)
        except OSError as error:
            raise UnsupportedError(f"can't observe packets: AF_PACKET socket: {error.strerror}") from error
        try:
            self._socket.setblocking(False)
            if program is not None:
                attach_filter(self._socket, program)
            # Has the kernel stamp a packet when it is received, not when it gets here.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            blocks = slots * self._slot_bytes // block_bytes
            self._socket.setsockopt(
                _SOL_PACKET, _PACKET_RX_RING, struct.pack("=IIII", block_bytes, blocks, self._slot_bytes, slots)
            )
            self._ring = mmap.mmap(self._socket.fileno(), slots * self._slot_bytes)
            self._ring.madvise(mmap.MADV_DONTFORK)  # a child that lives on would keep the socket open
            self._socket.bind((ifname, _ETH_P_ALL))
        except UnicodeEncodeError as error:
            self._socket.close()
            raise OSError(errno.EILSEQ, "a name that isn't UTF-8, which Python's bind(2) can't take", ifname) from error
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor that is readable when frames wait."""
        return self._socket.fileno()

    def frames(self) -> Iterator[Frame]:
        """The frames that wait, in the order they crossed the interface; each gives its slot back as it is taken."""
        # One round at most: a slot given back may be filled again at once.
        for _ in range(self._slots):
            at = self._next * self._slot_bytes
            status, wire_bytes, snaplen, mac, _, sec, nsec = _TPACKET2_HDR.unpack_from(self._ring, at)
            if not status & _TP_STATUS_USER:
                break
            direction = Direction.OUT if self._ring[at + _PKTTYPE_AT] == _PACKET_OUTGOING else Direction.IN
            data = self._ring[at + mac : at + mac + min(snaplen, self._snaplen)]
            _STATUS.pack_into(self._ring, at, _TP_STATUS_KERNEL)
            self._next = (self._next + 1) % self._slots
            yield Frame(sec * 1_000_000_000 + nsec, self._netns, self._ifname, direction, wire_bytes, data)

    @property
    def may_be_gone(self) -> bool:
        """Whether its interface went down, which may have been its end: `trouble` tells once it is unbound."""
        return self._went_down

    def trouble(self) -> int:
        """What has happened to the interface since this was last asked, as an errno; 0 for nothing.

        ENETDOWN where it went down: frames are observed again once it is up. ENODEV where it is gone, for good.
        """
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._went_down |= code == errno.ENETDOWN
        # Linux's packet_notifier says ENETDOWN of both, once, and then unbinds the socket of an interface that is gone:
        # the error may have been taken in between.
        if self._went_down and not self._socket.getsockname()[0]:
            self._went_down = False
            return errno.ENODEV
        return code

    def lost(self) -> int:
        """How many frames found the ring full since this was last asked: tp_drops of PACKET_STATISTICS."""
        _, drops = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(drops)

    def close(self) -> None:
        """Stop observing."""
        self._ring.close()
        self._socket.close()


def _ring_geometry(snaplen_bytes: int) -> tuple[int, int]:
    """Bytes of a slot and of a block: slots smaller than a page share one, larger ones are a block each."""
    needed = _FRAME_AT + snaplen_bytes
    if needed > mmap.PAGESIZE:
        slot = -(-needed // mmap.PAGESIZE) * mmap.PAGESIZE
        return slot, slot
    return 1 << (needed - 1).bit_length(), mmap.PAGESIZE


class Outline(NamedTuple):
    """What is observed of many TCP connections: little of each, all of some.

    Of those to or from one of server_ports: segments with SYN, FIN or RST, without any flag, or with PSH to the server;
    and, in the namespaces `where`, whatever has `source` as its source. Of those of the client's ports from `whole`:
    everything.
    """

    server_ports: frozenset[int]
    whole: range
    source: Address | None = None
    where: frozenset[str] = frozenset()


class PacketObserver(FrameObserver):
    """The packets that cross one interface: TCP, UDP and SCTP with one of `ports` (any without), and ICMP's errors.

    With an outline: of TCP what that says, and nothing else. keep_frames keeps each one's bytes, up to snaplen_bytes of
    them, and its length on the wire. Ring and errors are FrameObserver's. Equivalent to
    `ip netns exec NETNS tcpdump -i IFNAME 'port PORT or icmp[0] == 3 or …'`.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        netns: str,
        ifname: str,
        ports: Iterable[int],
        slots: int = _SLOTS,
        *,
        keep_frames: bool = False,
        snaplen_bytes: int = SNAPLEN_BYTES,
        outline: Outline | None = None,
    ) -> None:
        self._keep_frames = keep_frames
        program = outline_filter(outline, snaplen_bytes) if outline else ports_filter(ports, snaplen_bytes)
        super().__init__(namespaces, netns, ifname, program, snaplen_bytes, slots)

    def read(self) -> list[Packet | DatagramPacket]:
        """The packets that wait, in the order they crossed the interface; OSError (ENODEV) once it is gone."""
        packets: list[Packet | DatagramPacket] = []
        for frame in self.frames():
            kept = (frame.wire_bytes, frame.data) if self._keep_frames else (0, b"")
            where = (frame.time_ns, frame.netns, frame.ifname, frame.direction)
            segment = decode_frame(frame.data, frame.wire_bytes)
            if segment is not None:
                packets.append(Packet(*where, segment, *kept))
            elif datagram := decode_datagram(frame.data[ETH_HEADER_BYTES:]):
                packets.append(DatagramPacket(*where, datagram, *kept))
        # An error that nobody takes leaves the descriptor readable for ever.
        if not packets and self.trouble() == errno.ENODEV:
            raise OSError(errno.ENODEV, "the interface is gone")
        return packets


# Classic BPF, of include/uapi/linux/bpf_common.h: operation codes by the names `bpf_asm` has for them.
_LD, _LDH, _LDB, _LDH_X, _LDB_X, _LDX_IMM, _LDXB_MSH = 0x20, 0x28, 0x30, 0x48, 0x50, 0x01, 0xB1
_ADD, _LSH, _TAX = 0x04, 0x64, 0x07
_JEQ, _JGE, _JSET, _RET = 0x15, 0x35, 0x45, 0x06
_INSTRUCTION = struct.Struct("=HBBI")


def ports_filter(ports: Iterable[int], snaplen_bytes: int = SNAPLEN_BYTES) -> bytes:
    """A classic BPF program for Ethernet frames: what a PacketObserver takes.

    It returns snaplen_bytes for those and 0 for the rest. Later fragments don't match, nor what has two of IPv6's
    extension headers, or an authentication header.
    """
    wanted = [(_JEQ, port, "yes", "") for port in sorted(set(ports))] or [(_JGE, 0, "yes", "")]
    # Jumps go to labels, "" being the next instruction; instructions are (code, operand, if true, if false).
    program: list[tuple[int, int, str, str] | str] = [
        (_LDH, 12, "", ""),
        (_JEQ, ETH_P_IPV6, "ipv6", ""),
        (_JEQ, ETH_P_IP, "", "no"),
        (_LDH, 14 + 6, "", ""),
        (_JSET, 0x1FFF, "no", ""),
        (_LDXB_MSH, 14, "", ""),
        (_LDB, 14 + 9, "", ""),
        *((_JEQ, protocol, "ports", "") for protocol in WITH_PORTS),
        (_JEQ, IPPROTO_ICMP, "", "no"),
        (_LDB_X, 14, "", ""),
        *((_JEQ, kind, "yes", "") for kind in ICMP_ERRORS),
        (_RET, 0, "", ""),
        "ports",
        (_LDH_X, 14, "", ""),
        *wanted,
        (_LDH_X, 14 + 2, "", ""),
        *wanted,
        (_RET, 0, "", ""),
        "ipv6",
        (_LDX_IMM, 0, "", ""),
        (_LDB, 14 + 6, "", ""),
        *((_JEQ, protocol, "ports6", "") for protocol in WITH_PORTS),
        *((_JEQ, kind, "extended", "") for kind in IPV6_OPTIONS),
        (_JEQ, IPV6_FRAGMENT, "fragment", ""),
        (_JEQ, IPPROTO_ICMPV6, "", "no"),
        (_LDB, 14 + 40, "", ""),
        (_JGE, ICMPV6_FIRST_INFORMATIONAL, "no", "yes"),
        "fragment",
        (_LDH, 14 + 42, "", ""),
        (_JSET, IPV6_FRAGMENT_OFFSET, "no", ""),
        "extended",
        (_LDB, 14 + 41, "", ""),  # the header's length in units of 8 bytes, the first left out; a fragment's is 0
        (_ADD, 1, "", ""),
        (_LSH, 3, "", ""),
        (_TAX, 0, "", ""),
        (_LDB, 14 + 40, "", ""),
        *((_JEQ, protocol, "ports6", "") for protocol in WITH_PORTS),
        (_RET, 0, "", ""),
        "ports6",
        (_LDH_X, 14 + 40, "", ""),
        *wanted,
        (_LDH_X, 14 + 42, "", ""),
        *wanted,
        "no",
        (_RET, 0, "", ""),
        "yes",
        (_RET, snaplen_bytes, "", ""),
    ]
    return _assembled(program)


def _assembled(program: Iterable[tuple[int, int, str, str] | str]) -> bytes:
    """The instructions with the labels that they jump to resolved."""
    labels: dict[str, int] = {}
    instructions: list[tuple[int, int, str, str]] = []
    for entry in program:
        if isinstance(entry, str):
            labels[entry] = len(instructions)
        else:
            instructions.append(entry)
    return b"".join(
        _INSTRUCTION.pack(code, labels[yes] - at - 1 if yes else 0, labels[no] - at - 1 if no else 0, operand)
        for at, (code, operand, yes, no) in enumerate(instructions)
    )


def outline_filter(outline: Outline, snaplen_bytes: int = SNAPLEN_BYTES) -> bytes:
    """A classic BPF program for Ethernet frames: what a PacketObserver with that outline takes."""
    program: list[tuple[int, int, str, str] | str] = [
        (_LDH, 12, "", ""),
        (_JEQ, ETH_P_IPV6, "ipv6", ""),
        (_JEQ, ETH_P_IP, "", "no"),
        (_LDB, 14 + 9, "", ""),
        (_JEQ, IPPROTO_TCP, "", "no"),
        (_LDH, 14 + 6, "", ""),
        (_JSET, 0x1FFF, "no", ""),
        *_from(outline.source, 4, 14 + 12),
        (_LDXB_MSH, 14, "", ""),
        *_outlined(outline, "4"),
        "ipv6",
        (_LDB, 14 + 6, "", ""),
        (_JEQ, IPPROTO_TCP, "", "no"),
        *_from(outline.source, 6, 14 + 8),
        (_LDX_IMM, 40, "", ""),
        *_outlined(outline, "6"),
        "no",
        (_RET, 0, "", ""),
        "yes",
        (_RET, snaplen_bytes, "", ""),
    ]
    return _assembled(program)


def _from(source: Address | None, version: int, at: int) -> Iterator[tuple[int, int, str, str] | str]:
    """Take what has that source address, which stands there in the header."""
    if source is None or source.version != version:
        return
    words = struct.unpack(f"!{len(source.packed) // 4}I", source.packed)
    for index, word in enumerate(words):
        last = index == len(words) - 1
        yield (_LD, at + 4 * index, "", "")
        yield (_JEQ, word, "yes" if last else "", "" if last else f"not from {version}")
    if len(words) > 1:
        yield f"not from {version}"


def _outlined(outline: Outline, name: str) -> Iterator[tuple[int, int, str, str] | str]:
    """The part from the TCP header on, which begins where X and 14 bytes of Ethernet end."""
    first, behind = outline.whole.start, outline.whole.stop
    to_server, from_server = f"to server {name}", f"from server {name}"
    yield (_LDH_X, 14 + 2, "", "")
    yield from ((_JEQ, port, to_server, "") for port in sorted(outline.server_ports))
    yield (_LDH_X, 14, "", "")
    yield from ((_JEQ, port, from_server, "") for port in sorted(outline.server_ports))
    yield (_RET, 0, "", "")
    yield to_server
    yield (_LDH_X, 14, "", "")
    yield (_JGE, first, "", f"request {name}")
    yield (_JGE, behind, "", "yes")
    yield f"request {name}"
    yield (_LDB_X, 14 + 13, "", "")
    yield (_JSET, PSH, "yes", f"flags {name}")
    yield from_server
    yield (_LDH_X, 14 + 2, "", "")
    yield (_JGE, first, "", f"look {name}")
    yield (_JGE, behind, "", "yes")
    yield f"look {name}"
    yield (_LDB_X, 14 + 13, "", "")
    yield f"flags {name}"
    yield (_JSET, SYN | FIN | RST, "yes", "")
    yield (_JEQ, 0, "yes", "no")


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Let only what the classic BPF program takes reach the socket: SO_ATTACH_FILTER."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and a pointer to them.
    fprog = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
