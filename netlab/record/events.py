"""What was seen, as values on one clock: packets, conntrack's reasons and entries, rules, sockets, counters.

This room knows no kernel: `observe/` makes these values, `analysis/judge.py` reads them. The clock is CLOCK_REALTIME in
nanoseconds. Packets and reasons carry the kernel's own stamps, taken when the packet crossed the interface or the
hook, comparable between all namespaces of a host. A reason's stamp is in whole microseconds, cut off, so it can be
early by less than one; a socket's event carries the moment at which the program read it, so it can only be late.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeAlias

from netlab.model import Address
from netlab.record.domains import U8, U16, U32, Count, Errno, OneOf, PayloadBytes, Port, TimeNs, WindowScale, Word
from netlab.record.network import InterfaceState, Neighbour, RouteState

# TCP flags as they stand in the header's 14th byte (RFC 9293, section 3.1).
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
_FLAG_NAMES = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


REASON_ACCURACY_NS = 1_000
"""A reason may be stamped this much too early: NFULA_TIMESTAMP has microseconds (nfnetlink_log.h)."""


def flag_names(flags: int) -> tuple[str, ...]:
    """The names of the flags that are set: ("SYN", "ACK")."""
    return tuple(name for bit, name in enumerate(_FLAG_NAMES) if flags & 1 << bit)


def seq_diff(a: int, b: int) -> int:
    """How far sequence number `a` is past `b`, in bytes; negative if it is before it. Numbers wrap at 2**32."""
    return ((a - b + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


class Direction(StrEnum):
    """Whether an interface received the packet or sent it."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment with its addresses, as one packet's headers have them.

    window is the header's field, not yet scaled; wscale is the window scale option of a SYN, None without it.
    payload_bytes comes from the IP header, so it is right for a packet that was captured in part. ip_id is IPv4's
    identification, 0 for IPv6: Linux counts it up per connection, so it tells copies of a packet from its
    retransmission. ts_val and ts_ecr are the timestamp option's, None without it. sack_permitted is the SYN's option;
    sack_edge the highest right edge past the ack among the selective acknowledgements (RFC 2018), None without any.
    data_offset is the header's length in 32-bit words, options included; None where a recording of before doesn't say.
    is_fragment: the packet is the first fragment of a longer one, of which payload_bytes is only a part.
    """

    src: Address
    sport: Port
    dst: Address
    dport: Port
    seq: U32
    ack: U32
    flags: U8
    window: U16
    payload_bytes: PayloadBytes
    wscale: WindowScale | None = None
    ip_id: U16 = 0
    ts_val: U32 | None = None
    ts_ecr: U32 | None = None
    sack_permitted: bool = False
    sack_edge: U32 | None = None
    data_offset: U8 | None = None
    is_fragment: bool = False

    def inconsistency(self) -> str:
        """Of a segment read from a file: addresses of two families."""
        return "" if self.src.version == self.dst.version else f"no packet goes from {self.src} to {self.dst}"

    @property
    def end(self) -> int:
        """The sequence number after the segment's last byte; SYN and FIN count as one each."""
        return (self.seq + self.payload_bytes + bool(self.flags & SYN) + bool(self.flags & FIN)) & 0xFFFFFFFF

    def same_data(self, other: Segment) -> bool:
        """Whether both are the same segment, whatever NAT made of its addresses."""
        return (self.seq, self.ack, self.flags, self.payload_bytes) == (
            other.seq,
            other.ack,
            other.flags,
            other.payload_bytes,
        )

    def same_packet(self, other: Segment) -> bool:
        """Whether both are one packet, as far as a copy that was sent later can be told from it."""
        return self.same_data(other) and (self.ip_id, self.ts_val) == (other.ip_id, other.ts_val)


@dataclass(frozen=True, slots=True)
class Packet:
    """A TCP segment crossing one interface.

    wire_bytes is the frame's length on the wire (more than the interface's MTU for a GSO packet), frame its beginning
    as captured, link-layer header first; both are empty where the observer was not asked to keep them.
    """

    time_ns: TimeNs
    netns: Word
    ifname: Word
    direction: Direction
    segment: Segment
    wire_bytes: Count = 0
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class Tuple:
    """A packet's header, as one direction of a conntrack entry has it; proto is the IP protocol's number.

    The ports are 0 for a protocol that has none.
    """

    src: Address
    sport: Port
    dst: Address
    dport: Port
    proto: U8

    def inconsistency(self) -> str:
        """Of a header read from a file: addresses of two families."""
        return "" if self.src.version == self.dst.version else f"no packet goes from {self.src} to {self.dst}"


@dataclass(frozen=True, slots=True)
class Datagram:
    """A packet that is no TCP segment, as its headers have it: UDP, SCTP, or an ICMP message.

    icmp_type and icmp_code are those of an ICMP or ICMPv6 message, None of anything else. about is the header of the
    packet that an ICMP error answers, as the error quotes it. payload_bytes comes from the IP header, and counts what
    follows it. ip_id is IPv4's identification, 0 for IPv6.
    """

    header: Tuple
    payload_bytes: PayloadBytes
    ip_id: U16 = 0
    icmp_type: U8 | None = None
    icmp_code: U8 | None = None
    about: Tuple | None = None


@dataclass(frozen=True, slots=True)
class DatagramPacket:
    """A datagram crossing one interface. wire_bytes and frame are as a Packet's."""

    time_ns: TimeNs
    netns: Word
    ifname: Word
    direction: Direction
    datagram: Datagram
    wire_bytes: Count = 0
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class InvalidReason:
    """What conntrack logged about a packet, and the packet as it was then, before any translation.

    text is the kernel's own: "SEQ is over upper bound 4242 (over the window of the receiver)". Conntrack logs ignored
    packets too: a reason is no proof that the packet became INVALID. ifname is where the packet came in, empty where
    the kernel doesn't say.
    """

    time_ns: TimeNs
    netns: Word
    ifname: Word
    text: str
    segment: Segment


class SocketEventKind(StrEnum):
    """What can happen to a socket under study."""

    STALE_WINDOW = "stale-window"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SocketEvent:
    """Something that happened to the socket at one end, as the kernel told the program.

    ERROR has the errno. STALE_WINDOW has window_bytes, the send window the kernel has from now on, and was_bytes, the
    one it had until now, both read back from the kernel. local_port is the socket's own, peer_port that of
    the other end as this one sees it; 0 where it was not told. connection names another than the one under study, which
    may have the same ports: one that was there before it.
    """

    time_ns: TimeNs
    netns: Word
    kind: SocketEventKind
    errno: Errno = 0
    window_bytes: Count = 0
    was_bytes: Count = 0
    local_port: Port = 0
    peer_port: Port = 0
    connection: Word = ""


class EntryChange(StrEnum):
    """What conntrack did to an entry (IPCT_NEW and the rest of enum ip_conntrack_events, grouped as ctnetlink does).

    FOUND is an entry that was there already when the observation began.
    """

    FOUND = "found"
    NEW = "new"
    UPDATE = "update"
    DESTROY = "destroy"


CT_TCP_STATES = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)
"""Conntrack's own TCP states, by enum tcp_conntrack (include/uapi/linux/netfilter/nf_conntrack_tcp.h)."""

CtTcpState: TypeAlias = Annotated[str, OneOf(CT_TCP_STATES)]


@dataclass(frozen=True, slots=True)
class ConntrackEvent:
    """A conntrack entry found, made, changed or destroyed, as ctnetlink told it.

    status are the names of the IPS_* bits that are set, without the prefix: ("SEEN_REPLY", "ASSURED", "DST_NAT").
    tcp_state is conntrack's own ("SYN_RECV", "ESTABLISHED"), None for other protocols and for events without it.
    time_ns is the kernel's own stamp where it is stamped, otherwise the moment the event was read, which can only be
    late. tuple_master is the tuple_orig of the connection that made conntrack expect this one, as an FTP helper does
    with the data connection that it finds announced; None for any other. window_scales are by how many
    bits windows are shifted, the original direction's and the reply's; None for other protocols and where not told.
    """

    time_ns: TimeNs
    netns: Word
    change: EntryChange
    tuple_orig: Tuple
    tuple_reply: Tuple
    status: tuple[Word, ...]
    tcp_state: CtTcpState | None = None
    zone: U16 = 0
    stamped: bool = False
    tuple_master: Tuple | None = None
    window_scales: tuple[WindowScale, WindowScale] | None = None


TRACE_TABLE, TRACE_INVALID_CHAIN = "netlab_trace", "invalid"
"""A TraceStep of this (inet) table and chain is conntrack's verdict: the packet matched `ct state invalid`."""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One rule, or the end of one chain, that a traced packet came through: `nft monitor trace`.

    trace_id is one packet's way through one hook's chains and on. rule is the rule's text as nft prints it, empty for
    a chain's policy or end; rule_handle is the kernel's number for it, 0 where there is none or it was not told.
    verdict is nftables' word ("accept", "drop", "continue", "jump KUBE-SERVICES"). segment is the packet's, None where
    the kernel sends none (it comes with a chain's first step); a packet that is no TCP segment has datagram instead.
    time_ns is when it was read.
    """

    time_ns: TimeNs
    netns: Word
    trace_id: U32
    family: Word
    table: Word
    chain: Word
    rule: str
    verdict: Word
    ifname_in: Word = ""
    ifname_out: Word = ""
    segment: Segment | None = None
    datagram: Datagram | None = None
    rule_handle: Count = 0


@dataclass(frozen=True, slots=True)
class SocketSample:
    """A socket's TCP_INFO at one moment. windows in bytes; tcp_state is the kernel's name: "ESTABLISHED", "CLOSE"."""

    time_ns: TimeNs
    netns: Word
    local: Address
    local_port: Port
    tcp_state: Word
    snd_wnd_bytes: Count
    rcv_wnd_bytes: Count
    unacked: Count
    retransmits: Count
    total_retrans: Count
    notsent_bytes: Count


@dataclass(frozen=True, slots=True)
class PacketDrop:
    """A packet that the kernel threw away, with its own reason: the tracepoint skb:kfree_skb.

    reason is the kernel's name, SKB_DROP_REASON_ left out ("NETFILTER_DROP", "IP_RPFILTER", "TCP_INVALID_SEQUENCE").
    What a socket takes is no drop, nor is a RST that it accepts. function is where in the kernel it happened, told
    where it gives no reason ("NOT_SPECIFIED"). segment or datagram is the packet, as it then was: NAT may have
    translated it since it came in. ifname is the interface that it came in by or was to leave by, empty where the
    kernel no longer knew. time_ns is the kernel's stamp, right to some microseconds.
    """

    time_ns: TimeNs
    netns: Word
    reason: Word
    function: Word = ""
    ifname: Word = ""
    segment: Segment | None = None
    datagram: Datagram | None = None


class ResetKind(StrEnum):
    """Which side of a RST the kernel tells of."""

    SENT = "sent"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class TcpReset:
    """A RST that a namespace's own TCP sends, or that a socket of it accepts: tcp:tcp_send_reset, tcp_receive_reset.

    A RST that answers a packet is told before it leaves, one of a close's own just after; one that is accepted, before
    its socket is ended. A RST that a rule makes, or that a raw socket sends, is in no SENT; one that is out of its
    receiver's window, or that a challenge ACK answers, in no ACCEPTED. reason is the kernel's, SK_RST_REASON_ left out
    ("NO_SOCKET", "TCP_ABORT_ON_CLOSE"), empty of an accepted one and of kernels that tell none. socket is whose it is,
    its own end first; None where there was none. tcp_state is what it was in then. answered is the packet that a sent
    one answers; None of one that answers none, and of an accepted one. rcv_nxt is the accepting socket's RCV.NXT, the
    number that a RST must have (RFC 5961); None of a sent one, and in SYN_SENT, where the RST's ack decides. time_ns is
    the kernel's stamp, right to some microseconds.
    """

    time_ns: TimeNs
    netns: Word
    kind: ResetKind
    reason: Word = ""
    socket: Tuple | None = None
    tcp_state: Word = ""
    answered: Segment | None = None
    rcv_nxt: U32 | None = None


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """A TCP socket that the kernel freed, of any program: its last TCP_INFO, with the addresses it had.

    That is after its program closed it and its connection was over: a reset that the program has not yet noticed frees
    nothing. A socket that comes to TIME_WAIT is freed at once; one whose connection was refused has forgotten its
    ports, and isn't told. A socket that listened has peer port 0. sent_bytes is what it sent, once each, unsent_bytes
    what it was given and never sent; received_bytes what it got in order and acked_bytes what the peer acknowledged, as
    tcpi_bytes_* count: a FIN is one, and so is the SYN of the end that connected. time_ns is when it was read.
    """

    time_ns: TimeNs
    netns: Word
    local: Address
    local_port: Port
    peer: Address
    peer_port: Port
    received_bytes: Count
    sent_bytes: int
    unsent_bytes: Count
    acked_bytes: Count
    total_retrans: Count


@dataclass(frozen=True, slots=True)
class CounterChange:
    """How far one of a namespace's counters went between the beginning and the end: "TcpExt.TCPTimeouts".

    ifname is an interface's whose own counter it is, by the name in struct rtnl_link_stats64 ("rx_dropped"), or its
    qdiscs' together ("qdisc.drops"); empty for a namespace's.
    """

    time_ns: TimeNs
    netns: Word
    name: Word
    by: int
    ifname: Word = ""


@dataclass(frozen=True, slots=True)
class NeighbourChange:
    """A neighbour that was asked for, found, lost or given up: "FAILED" is one that nobody answered for.

    time_ns is when it was read. gone: it was removed from the table.
    """

    time_ns: TimeNs
    netns: Word
    neighbour: Neighbour
    gone: bool = False


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A route that was added, replaced, or (gone) removed. time_ns is when it was read."""

    time_ns: TimeNs
    netns: Word
    route: RouteState
    gone: bool = False


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """An interface as it is after a change of it, or (gone) as it was; without its addresses.

    time_ns is when it was read.
    """

    time_ns: TimeNs
    netns: Word
    interface: InterfaceState
    gone: bool = False


Witness: TypeAlias = Packet | DatagramPacket | InvalidReason | SocketEvent | ConntrackEvent | TraceStep
"""What can be evidence for a link of the chain that ends in a reset."""

NetworkChange: TypeAlias = NeighbourChange | RouteChange | InterfaceChange

Event: TypeAlias = Witness | PacketDrop | TcpReset | SocketSample | SocketClosed | CounterChange | NetworkChange
