"""One line for each event, as it comes: the live timeline. Pure."""

from __future__ import annotations

import errno

from netlab import escapes
from netlab.record import words as datagrams
from netlab.record.events import (
    RST,
    ConntrackEvent,
    CounterChange,
    DatagramPacket,
    Event,
    InterfaceChange,
    InvalidReason,
    NeighbourChange,
    Packet,
    PacketDrop,
    ResetKind,
    RouteChange,
    Segment,
    SocketClosed,
    SocketEvent,
    SocketEventKind,
    SocketSample,
    TcpReset,
    TraceStep,
    Tuple,
    flag_names,
)
from netlab.record.network import InterfaceState, Neighbour, RouteState
from netlab.record.words import endpoint
from netlab.style import Style


def line(event: Event, started_ns: int) -> str:
    """Seconds since the start, where it was seen, and what: without a line's end."""
    where, what = _where_and_what(event)
    return escapes.line(f"{(event.time_ns - started_ns) / 1e9:12.6f}  {where}  {what}")


def style(event: Event) -> Style | None:
    """How the line is to look: what ends connections, and what is lost, is to be seen among the rest."""
    match event:
        case InvalidReason() | TcpReset():
            return Style.BAD
        case Packet() if event.segment.flags & RST:
            return Style.BAD
        case PacketDrop():
            return Style.UNSURE
        case _:
            return None


def _where_and_what(event: Event) -> tuple[str, str]:
    match event:
        case Packet():
            return f"{event.netns}/{event.ifname} {event.direction}", _segment(event.segment)
        case DatagramPacket():
            return f"{event.netns}/{event.ifname} {event.direction}", datagrams.describe(event.datagram)
        case InvalidReason():
            return event.netns, f"conntrack logs: {event.text} [{_segment(event.segment)}]"
        case ConntrackEvent():
            return event.netns, f"conntrack entry {event.change}: {_entry(event)}"
        case TraceStep():
            return event.netns, _step(event)
        case SocketEvent(kind=SocketEventKind.ERROR):
            return event.netns, f"socket error: {errno.errorcode.get(event.errno, str(event.errno))}"
        case SocketEvent():
            return event.netns, f"socket's send window set: {event.was_bytes:,} to {event.window_bytes:,} bytes"
        case SocketSample():
            return event.netns, _sample(event)
        case PacketDrop():
            return event.netns, _drop(event)
        case TcpReset():
            return event.netns, _reset(event)
        case SocketClosed():
            return event.netns, _closed(event)
        case CounterChange():
            name = f"{event.ifname} {event.name}" if event.ifname else event.name
            return event.netns, f"counter {name}: {event.by:+,}"
        case NeighbourChange():
            return event.netns, f"neighbour {_neighbour(event.neighbour)}{_gone(event.gone)}"
        case RouteChange():
            return event.netns, f"route {_route(event.route)}{_gone(event.gone)}"
        case InterfaceChange():
            return event.netns, f"interface {_interface(event.interface)}{_gone(event.gone)}"


def _gone(gone: bool) -> str:
    return ", removed" if gone else ""


def _neighbour(neighbour: Neighbour) -> str:
    lladdr = f" lladdr {neighbour.lladdr}" if neighbour.lladdr else ""
    return f"{neighbour.address} dev {neighbour.ifname}{lladdr} {neighbour.state}"


def _route(route: RouteState) -> str:
    kind = "" if route.kind == "unicast" else f"{route.kind} "
    hops = "".join(
        f"{f' via {hop.gateway}' if hop.gateway else ''}{f' dev {hop.ifname}' if hop.ifname else ''}"
        for hop in route.next_hops
    )
    metric = f" metric {route.metric}" if route.metric else ""
    mtu = f" mtu {route.mtu}" if route.mtu else ""
    return f"{kind}{route.destination}/{route.prefix_length}{hops} table {route.table}{metric}{mtu}"


def _interface(interface: InterfaceState) -> str:
    master = f" master {interface.master}" if interface.master else ""
    return f"{interface.ifname} {'up' if interface.up else 'down'}, {interface.operstate}, mtu {interface.mtu}{master}"


def _segment(segment: Segment) -> str:
    ends = f"{endpoint(segment.src, segment.sport)} > {endpoint(segment.dst, segment.dport)}"
    flags = ",".join(flag_names(segment.flags)) or "no flags"
    return f"{ends} {flags} seq {segment.seq} ack {segment.ack} win {segment.window} len {segment.payload_bytes}"


def _entry(event: ConntrackEvent) -> str:
    words = [datagrams.protocol(event.tuple_orig.proto), *([event.tcp_state] if event.tcp_state else [])]
    zone = f" zone {event.zone}" if event.zone else ""
    status = f" [{' '.join(event.status)}]" if event.status else ""
    master = f", expected by {_tuple(event.tuple_master)}" if event.tuple_master else ""
    return f"{' '.join(words)} {_tuple(event.tuple_orig)}, replies {_tuple(event.tuple_reply)}{zone}{status}{master}"


def _step(step: TraceStep) -> str:
    path = f"rules: {step.trace_id:08x} {step.family} {step.table} {step.chain}"
    packet = f" [{_segment(step.segment)}]" if step.segment else ""
    packet = f" [{datagrams.describe(step.datagram)}]" if step.datagram else packet
    # Only a base chain ends in a verdict, by its policy.
    ending = "policy" if step.verdict in ("accept", "drop") else "end of chain"
    return f"{path}: {step.rule or ending} -> {step.verdict}{packet}"


def _sample(sample: SocketSample) -> str:
    windows = f"send window {sample.snd_wnd_bytes:,}, receive window {sample.rcv_wnd_bytes:,}"
    sending = f"{sample.unacked} segments unacknowledged, {sample.notsent_bytes:,} bytes not sent"
    again = f"{sample.total_retrans} retransmissions"
    return f"socket {endpoint(sample.local, sample.local_port)} {sample.tcp_state}: {windows}, {sending}, {again}"


def _drop(drop: PacketDrop) -> str:
    what = (
        _segment(drop.segment) if drop.segment else datagrams.describe(drop.datagram) if drop.datagram else "a packet"
    )
    where = f" in {drop.function}()" if drop.function else ""
    return f"the kernel drops: {drop.reason}{where} [{what}]"


def _reset(reset: TcpReset) -> str:
    whose = f"socket {_tuple(reset.socket)} ({reset.tcp_state})" if reset.socket else "TCP, without a socket,"
    if reset.kind is ResetKind.ACCEPTED:
        return f"{whose} accepts a RST"
    reason = f": {reset.reason}" if reset.reason else ""
    answered = f" [answers {_segment(reset.answered)}]" if reset.answered else ""
    return f"{whose} sends a RST{reason}{answered}"


def _closed(socket: SocketClosed) -> str:
    bytes_told = f"{socket.received_bytes:,} bytes received, {socket.sent_bytes:,} sent"
    unsent = f", {socket.unsent_bytes:,} never sent" if socket.unsent_bytes else ""
    own = endpoint(socket.local, socket.local_port)
    whose = f"{own} > {endpoint(socket.peer, socket.peer_port)}" if socket.peer_port else f"{own}, listening,"
    return f"socket {whose} freed: {bytes_told}{unsent}"


def _tuple(header: Tuple) -> str:
    return f"{endpoint(header.src, header.sport)} > {endpoint(header.dst, header.dport)}"
