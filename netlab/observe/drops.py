"""Packets that the kernel threw away, with its own reason: the tracepoint skb:kfree_skb.

A program at it takes the packets of the observed namespaces alone and brings their headers, so that nothing has to be
guessed from addresses or times. Each packet that is dropped anywhere on the host costs some hundred nanoseconds
meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from netlab.errors import UnsupportedError
from netlab.linux import bpf, netdevice
from netlab.linux.bpf import FP, R0, R1, R6, R7, R8
from netlab.observe import Namespaces
from netlab.observe.tracepoints import (
    WORD_AT,
    Layout,
    Programs,
    deliver,
    described,
    headers,
    inodes,
    network_order,
    one_of,
    read,
    realtime_ahead_ns,
    word,
)
from netlab.record.events import PacketDrop
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import ETH_P_IP, ETH_P_IPV6, decode_datagram, decode_ip

BUFFER_BYTES = 1 << 20
"""Room for some 7,700 packets that wait to be read."""

_UNSPECIFIED = "NOT_SPECIFIED"
_OURS = "PACKET_SOCK_ERROR"
"""Of a copy for an AF_PACKET socket that has no room for it: its own observer counts those."""

_HEADER_BYTES = 96
_RECORD = struct.Struct(f"=QQIII4x{_HEADER_BYTES}s")
"""What the program brings: the time, the location, the namespace's inode, the reason, the interface, the headers."""
_RECORD_AT = WORD_AT - _RECORD.size
_TIME_AT, _LOCATION_AT, _NETNS_AT, _REASON_AT, _IFINDEX_AT, _HEADERS_AT = (
    _RECORD_AT + offset for offset in (0, 8, 16, 20, 24, 32)
)


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
        self._netns = inodes(namespaces, names)
        self._ifnames: dict[str, dict[int, str]] = {}
        for name in names:
            with namespaces.inside(name):
                self._ifnames[name] = netdevice.ifnames()
        layout, self._reasons, _ = described()
        if not self._reasons:
            raise UnsupportedError("this kernel has none")
        with Programs.opened(buffer_bytes) as self._programs:
            try:
                # The receiving socket is told since Linux kernel commit c53795d48ee8 ("net: add rx_sk to
                # trace_kfree_skb") (in v6.11).
                self._programs.attach("kfree_skb", lambda *maps: program(layout, self._netns, *maps, socket_told=True))
            except OSError:
                self._programs.attach("kfree_skb", lambda *maps: program(layout, self._netns, *maps, socket_told=False))

    def fileno(self) -> int:
        """The descriptor that is readable when drops wait."""
        return self._programs.fileno()

    def read(self) -> list[PacketDrop]:
        """The drops that wait, in the order they were noted."""
        ahead_ns = realtime_ahead_ns()
        drops = (self._decoded(record, ahead_ns) for record in self._programs.read())
        return [drop for drop in drops if drop and drop.reason != _OURS and self._is_wanted(drop)]

    def _decoded(self, record: bytes, ahead_ns: int) -> PacketDrop | None:
        time_ns, location, inode, number, ifindex, packet = _RECORD.unpack(record)
        netns, reason = self._netns[inode], self._reasons.get(number, str(number))
        segment, datagram = decode_ip(packet), decode_datagram(packet)
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
        return self._programs.lost()

    def close(self) -> None:
        """Stop observing."""
        self._programs.close()


def program(layout: Layout, netns: Collection[int], buffer_fd: int, lost_fd: int, *, socket_told: bool) -> bytes:
    """The program: IP packets that are dropped in the network namespaces with these inodes go into the buffer.

    The namespace is that of the receiving socket (socket_told: the tracepoint has it), of the packet's device, or of
    the socket it is from; of a packet that has none of them nobody knows where it was.
    """
    return bpf.assembled(
        [
            bpf.move(R6, R1),
            bpf.load(R7, R6, 0, 8),
            *word(R1, R7, layout.skb_protocol, 2),
            bpf.jump_if(R1, network_order(ETH_P_IP), "ip"),
            bpf.jump_if(R1, network_order(ETH_P_IPV6), "ip"),
            bpf.put(R0, 0),
            bpf.EXIT,
            "ip",
            *([bpf.load(R8, R6, 3 * 8, 8), bpf.jump_unless_null(R8, "socket")] if socket_told else []),
            *word(R8, R7, layout.skb_dev, 8),
            bpf.jump_if_null(R8, "no device"),
            *word(R8, R8, layout.dev_net, 8),
            bpf.jump("namespace"),
            "no device",
            *word(R8, R7, layout.skb_sk, 8),
            "socket",
            *word(R8, R8, layout.sock_net, 8),
            "namespace",
            *one_of(netns, layout),
            *(bpf.clear(FP, at) for at in range(_RECORD_AT, WORD_AT, 8)),
            bpf.store(FP, _NETNS_AT, R8, 4),
            bpf.call(bpf.KTIME_GET_NS),
            bpf.store(FP, _TIME_AT, R0, 8),
            bpf.load(R1, R6, 1 * 8, 8),
            bpf.store(FP, _LOCATION_AT, R1, 8),
            bpf.load(R1, R6, 2 * 8, 8),
            bpf.store(FP, _REASON_AT, R1, 4),
            *word(R8, R7, layout.skb_dev, 8),
            *read(_IFINDEX_AT, 4, R8, layout.dev_ifindex),
            *headers(_HEADERS_AT, _HEADER_BYTES, R7, layout),
            *deliver(_RECORD_AT, _RECORD.size, buffer_fd, lost_fd),
        ]
    )


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
