"""Packets that the kernel threw away, with its own reason: the tracepoint skb:kfree_skb.

A BPF program at it, which is this process's own and goes with it, takes the packets of the observed namespaces alone
and brings their headers, so that nothing has to be guessed from addresses or times. Root's only. Each packet that the
kernel frees anywhere on the host as dropped costs some hundred nanoseconds meanwhile.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

from netlab.errors import UnsupportedError, unsupported
from netlab.linux import bpf
from netlab.linux.bpf import FP, R0, R1, R2, R3, R4, R6, R7, R8, Instruction
from netlab.linux.btf import Btf
from netlab.observe import Namespaces
from netlab.record.events import PacketDrop
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import ETH_P_IP, ETH_P_IPV6, decode_datagram, decode_ip

BUFFER_BYTES = 1 << 20
"""Room for some 7,700 packets that wait to be read."""

_BTF = Path("/sys/kernel/btf/vmlinux")
_PREFIX = "SKB_DROP_REASON_"
_UNSPECIFIED = "NOT_SPECIFIED"
_OURS = "PACKET_SOCK_ERROR"
"""Of a copy for an AF_PACKET socket that has no room for it: its own observer counts those."""

_HEADER_BYTES = 96
_RECORD = struct.Struct(f"=QQIII4x{_HEADER_BYTES}s")
"""What the program brings: the time, the location, the namespace's inode, the reason, the interface, the headers."""

# The stack: a word at its end to read to, and the record before it.
_WORD_AT = -8
_RECORD_AT = _WORD_AT - _RECORD.size
_TIME_AT, _LOCATION_AT, _NETNS_AT, _REASON_AT, _IFINDEX_AT, _HEADERS_AT = (
    _RECORD_AT + offset for offset in (0, 8, 16, 20, 24, 32)
)


class Layout(NamedTuple):
    """Where the members lie that the program reads, in bytes."""

    skb_protocol: int
    skb_dev: int
    skb_sk: int
    skb_head: int
    skb_network_header: int
    dev_net: int
    dev_ifindex: int
    sock_net: int
    net_inum: int


class DropObserver:
    """The IP packets that the kernel drops in some namespaces: TCP, UDP and SCTP from or to one of `ports` (any
    without), and ICMP's errors. Equivalent to `perf trace -e skb:kfree_skb`, with the packets.

    UnsupportedError where the kernel has no BTF or no drop reasons (Linux kernel commit c504e5c2f964 ("net: skb:
    introduce kfree_skb_reason()") (in v5.17)), or where this user may not load the program.
    """

    def __init__(
        self, namespaces: Namespaces, names: Sequence[str], ports: Collection[int], buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.id = ObserverId(ObserverKind.DROPS, "")
        self._ports = frozenset(ports)
        self._netns: dict[int, str] = {}
        self._ifnames: dict[str, dict[int, str]] = {}
        for name in names:
            with namespaces.inside(name):
                self._netns[Path("/proc/thread-self/ns/net").stat().st_ino] = name
                self._ifnames[name] = dict(socket.if_nameindex())
        layout, self._reasons = _described()
        self._told = 0
        with unsupported("this kernel doesn't tell them"), ExitStack() as closing:
            try:
                self._lost = bpf.Array()
            except PermissionError:
                raise UnsupportedError("only the host's root may read them") from None
            closing.callback(self._lost.close)
            self._buffer = bpf.RingBuffer(buffer_bytes)
            closing.callback(self._buffer.close)
            closing.callback(self._attached(layout).close)
            self._closing = closing.pop_all()

    def _attached(self, layout: Layout) -> bpf.RawTracepoint:
        maps = self._buffer.fd, self._lost.fd
        try:
            return bpf.RawTracepoint("kfree_skb", program(layout, self._netns, *maps, socket_told=True))
        except OSError:
            # The receiving socket is told since Linux kernel commit c53795d48ee8 ("net: add rx_sk to trace_kfree_skb")
            # (in v6.11).
            return bpf.RawTracepoint("kfree_skb", program(layout, self._netns, *maps, socket_told=False))

    def fileno(self) -> int:
        """The descriptor that is readable when drops wait."""
        return self._buffer.fd

    def read(self) -> list[PacketDrop]:
        """The drops that wait, in the order they happened on each CPU."""
        ahead_ns = time.time_ns() - time.monotonic_ns()
        found = []
        for record in self._buffer.read():
            drop = self._decoded(record, ahead_ns)
            if drop and drop.reason != _OURS and self._is_wanted(drop):
                found.append(drop)
        return found

    def _decoded(self, record: bytes, ahead_ns: int) -> PacketDrop | None:
        time_ns, location, inode, number, ifindex, headers = _RECORD.unpack(record)
        netns, reason = self._netns[inode], self._reasons.get(number, str(number))
        segment, datagram = decode_ip(headers), decode_datagram(headers)
        if segment is None and datagram is None:
            return None
        return PacketDrop(
            time_ns=time_ns + ahead_ns,
            netns=netns,
            reason=reason,
            function=function_at(location) if reason == _UNSPECIFIED else "",
            ifname=self._ifnames[netns].get(ifindex, ""),
            segment=segment,
            datagram=datagram,
        )

    def _is_wanted(self, drop: PacketDrop) -> bool:
        if drop.segment is not None:
            ports = {drop.segment.sport, drop.segment.dport}
        else:
            assert drop.datagram is not None
            if drop.datagram.icmp_type is not None:
                return drop.datagram.about is not None
            ports = {drop.datagram.header.sport, drop.datagram.header.dport}
        return not self._ports or bool(ports & self._ports)

    def lost(self) -> int:
        """How many drops found the buffer full since this was last asked; whatever their ports were."""
        before, self._told = self._told, self._lost.value()
        return self._told - before

    def close(self) -> None:
        """Stop observing."""
        self._closing.close()


@cache
def _described() -> tuple[Layout, Mapping[int, str]]:
    """Where this kernel's members lie, and its reasons by number. UnsupportedError where it doesn't say."""
    with unsupported("this kernel doesn't describe its types (BTF)"):
        data = _BTF.read_bytes()
    try:
        btf = Btf(data)
        return layout_of(btf), {
            number: name.removeprefix(_PREFIX) for number, name in btf.enumerators("skb_drop_reason").items()
        }
    except (KeyError, ValueError) as error:
        raise UnsupportedError(f"this kernel has no reasons for drops, or other types: {error.args[0]}") from error


def layout_of(btf: Btf) -> Layout:
    """Where the members lie by a kernel's BTF; KeyError where it hasn't one of them."""
    return Layout(
        skb_protocol=btf.offset("sk_buff", "protocol"),
        skb_dev=btf.offset("sk_buff", "dev"),
        skb_sk=btf.offset("sk_buff", "sk"),
        skb_head=btf.offset("sk_buff", "head"),
        skb_network_header=btf.offset("sk_buff", "network_header"),
        dev_net=btf.offset("net_device", "nd_net", "net"),
        dev_ifindex=btf.offset("net_device", "ifindex"),
        sock_net=btf.offset("sock", "__sk_common", "skc_net", "net"),
        net_inum=btf.offset("net", "ns", "inum"),
    )


def program(layout: Layout, inodes: Collection[int], buffer_fd: int, lost_fd: int, *, socket_told: bool) -> bytes:
    """The program: IP packets that are dropped in the network namespaces with these inodes go into the buffer.

    The namespace is that of the receiving socket (socket_told: the tracepoint has it), of the packet's device, or of
    the socket it is from; of a packet that has none of them nobody knows where it was.
    """
    return bpf.assembled(
        [
            bpf.move(R6, R1),
            bpf.load(R7, R6, 0, 8),
            *_read(_WORD_AT, 2, R7, layout.skb_protocol),
            bpf.load(R1, FP, _WORD_AT, 2),
            bpf.jump_if(R1, socket.htons(ETH_P_IP), "ip"),
            bpf.jump_if(R1, socket.htons(ETH_P_IPV6), "ip"),
            bpf.EXIT,
            "ip",
            *([bpf.load(R8, R6, 3 * 8, 8), bpf.jump_unless_null(R8, "socket")] if socket_told else []),
            *_read(_WORD_AT, 8, R7, layout.skb_dev),
            bpf.load(R8, FP, _WORD_AT, 8),
            bpf.jump_if_null(R8, "no device"),
            *_read(_WORD_AT, 8, R8, layout.dev_net),
            bpf.jump("namespace"),
            "no device",
            *_read(_WORD_AT, 8, R7, layout.skb_sk),
            bpf.load(R8, FP, _WORD_AT, 8),
            bpf.jump_unless_null(R8, "socket"),
            bpf.EXIT,
            "socket",
            *_read(_WORD_AT, 8, R8, layout.sock_net),
            "namespace",
            bpf.load(R8, FP, _WORD_AT, 8),
            *_read(_WORD_AT, 4, R8, layout.net_inum),
            bpf.load(R8, FP, _WORD_AT, 4),
            *(bpf.jump_if(R8, inode, "ours") for inode in sorted(inodes)),
            bpf.EXIT,
            "ours",
            *(bpf.clear(FP, at) for at in range(_RECORD_AT, _WORD_AT, 8)),
            bpf.store(FP, _NETNS_AT, R8, 4),
            bpf.call(bpf.KTIME_GET_NS),
            bpf.store(FP, _TIME_AT, R0, 8),
            bpf.load(R1, R6, 1 * 8, 8),
            bpf.store(FP, _LOCATION_AT, R1, 8),
            bpf.load(R1, R6, 2 * 8, 8),
            bpf.store(FP, _REASON_AT, R1, 4),
            *_read(_WORD_AT, 8, R7, layout.skb_dev),
            bpf.load(R8, FP, _WORD_AT, 8),
            *_read(_IFINDEX_AT, 4, R8, layout.dev_ifindex),
            *_read(_WORD_AT, 8, R7, layout.skb_head),
            bpf.load(R8, FP, _WORD_AT, 8),
            *_read(_WORD_AT, 2, R7, layout.skb_network_header),
            bpf.load(R1, FP, _WORD_AT, 2),
            bpf.add_register(R8, R1),
            *_read(_HEADERS_AT, _HEADER_BYTES, R8, 0),
            *bpf.map_of(R1, buffer_fd),
            bpf.move(R2, FP),
            bpf.add(R2, _RECORD_AT),
            bpf.put(R3, _RECORD.size),
            bpf.put(R4, 0),
            bpf.call(bpf.RINGBUF_OUTPUT),
            bpf.jump_if_null(R0, "end"),
            bpf.clear(FP, _WORD_AT),
            *bpf.map_of(R1, lost_fd),
            bpf.move(R2, FP),
            bpf.add(R2, _WORD_AT),
            bpf.call(bpf.MAP_LOOKUP_ELEM),
            bpf.jump_if_null(R0, "end"),
            bpf.put(R1, 1),
            bpf.count(R0, R1),
            "end",
            bpf.put(R0, 0),
            bpf.EXIT,
        ]
    )


def _read(to: int, size: int, register: int, offset: int) -> Iterator[Instruction]:
    """Read so many bytes at register + offset to a place on the stack; where there are none, zeros."""
    yield bpf.move(R1, FP)
    yield bpf.add(R1, to)
    yield bpf.put(R2, size)
    yield bpf.move(R3, register)
    yield bpf.add(R3, offset)
    yield bpf.call(bpf.PROBE_READ_KERNEL)


@cache
def function_at(address: int) -> str:
    """The kernel's function that an address is in; as a number where /proc/kallsyms doesn't say."""
    name, begin = "", 0
    with Path("/proc/kallsyms").open() as symbols:
        for line in symbols:
            at, _, symbol = line.split(maxsplit=2)
            if begin < (start := int(at, 16)) <= address:
                begin, name = start, symbol.split()[0]
    return name or f"{address:#x}"
