"""The recorder in a lab: a run's whole recording, observers that die in mid-run, a load, and the live timeline."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from typing import Any

import downloads
import pytest
import story
from command import Netlab
from flagship import FLAGSHIP, part
from private_lab import PrivateLab

from netlab.analysis.connections import connections_in
from netlab.analysis.result import Conclusion, Outcome
from netlab.capabilities.probes import deciding
from netlab.linux import interrupts, nft
from netlab.model import Topology
from netlab.observe import conntrack, invalid, keeper, kept, recorder, trace
from netlab.observe import packets as packet_observers
from netlab.observe.counters import Counters
from netlab.observe.recorder import Source, record
from netlab.record.events import (
    TRACE_TABLE,
    ConntrackEvent,
    CounterChange,
    Datagram,
    DatagramPacket,
    Direction,
    EntryChange,
    Event,
    InterfaceChange,
    InvalidReason,
    NeighbourChange,
    Packet,
    PacketDrop,
    ResetKind,
    RouteChange,
    SocketClosed,
    SocketEvent,
    SocketSample,
    TcpReset,
    TraceStep,
    Tuple,
)
from netlab.record.flow import Leg
from netlab.record.network import InterfaceState, Neighbour, NextHop, RouteState
from netlab.record.observers import (
    Gap,
    ObserverId,
    ObserverKind,
    Unobserved,
    describe_observer,
    describe_unobserved,
)
from netlab.record.recording import from_json, to_json
from netlab.report.live import line
from netlab.topology import load

NODES = ("client-node", "server-node")


def topology() -> Topology:
    return load(FLAGSHIP.read_text(), "-", (), None)


@pytest.fixture
def lab(as_root: None) -> Iterator[PrivateLab]:
    with PrivateLab(topology()) as namespaces:
        yield namespaces


# --- a run's recording -----------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_run_is_recorded_by_every_observer(lab: PrivateLab) -> None:
    source = Source(FLAGSHIP.read_text(), (("vars.x", "1"),), ("fix",), capabilities=deciding())
    result, recording = part().run(lab, 2, keep_frames=True, source=source)
    assert result.result is Conclusion.REPRODUCED
    assert (recording.topology, recording.settings, recording.fixes) == (source.text, source.settings, source.fixes)
    assert recording.flows == tuple(trial.flow for trial in result.trials)
    assert connections_in(topology(), recording.events) == recording.flows
    assert recording.unobserved == ()
    assert dict(recording.lost) == dict.fromkeys(
        [
            *(ObserverId(ObserverKind.PACKETS, tap.netns, tap.ifname) for tap in recording.taps),
            *(ObserverId(kind, node) for kind in (ObserverKind.REASONS, ObserverKind.ENTRIES) for node in NODES),
            *(
                ObserverId(kind, netns.name)
                for kind in (ObserverKind.NETWORK, ObserverKind.CLOSED_SOCKETS)
                for netns in topology().namespaces
            ),
            ObserverId(ObserverKind.TRACES, "client-node"),
            ObserverId(ObserverKind.DROPS, ""),
            ObserverId(ObserverKind.RESETS, ""),
        ],
        0,
    )
    assert {(tap.netns, tap.role) for tap in recording.taps} == {
        ("client", "pod"),
        ("client-node", "node"),
        ("server-node", "node"),
        ("server", "pod"),
    }
    kinds = {
        Packet,
        InvalidReason,
        SocketEvent,
        ConntrackEvent,
        TraceStep,
        SocketSample,
        SocketClosed,
        CounterChange,
        TcpReset,
    }
    assert {type(event) for event in recording.events} - {
        NeighbourChange,
        RouteChange,
        InterfaceChange,
        PacketDrop,
    } == kinds
    assert Counter(state.netns for state in recording.network) == {each.name: 2 for each in topology().namespaces}
    for netns, address in (("client-node", recording.flows[0].endpoint), ("client", recording.flows[0].vip)):
        state = recording.network_of(netns, recording.events[0].time_ns)
        assert state is not None
        route = state.route_to(address)
        assert route is not None
        assert route.kind == "unicast"
    server = recording.network_of("server", recording.ended_ns)
    assert server is not None
    assert server.is_local(recording.flows[0].endpoint)
    assert list(recording.events) == sorted(recording.events, key=lambda event: event.time_ns)
    packets = [event for event in recording.events if isinstance(event, Packet)]
    assert all(54 <= len(packet.frame) <= packet.wire_bytes for packet in packets)
    assert from_json(json.loads(json.dumps(to_json(recording)))) == recording
    assert recording.capabilities == source.capabilities


@pytest.mark.kernel
def test_the_verdict_invalid_is_traced_for_the_reply_and_the_rst(lab: PrivateLab) -> None:
    result, recording = part().run(lab, 1)
    (flow,) = recording.flows
    invalid_segments = {
        (step.segment.src, step.segment.dst, step.segment.seq)
        for step in recording.events
        if isinstance(step, TraceStep) and step.table == "netlab_trace" and step.segment and step.segment.sport != 1
    }
    chain = {piece.link.value: piece.event for piece in result.trials[0].evidence}
    for link in ("reply-untranslated", "rst"):
        packet = chain[link]
        assert isinstance(packet, Packet)
        assert (packet.segment.src, packet.segment.dst, packet.segment.seq) in invalid_segments
    assert {source for source, _, _ in invalid_segments} == {flow.endpoint, flow.client_address}


# --- observers that die ----------------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("kind", "observer_id"),
    [
        (packet_observers.PacketObserver, ObserverId(ObserverKind.PACKETS, "server", "eth0")),
        (invalid.InvalidObserver, ObserverId(ObserverKind.REASONS, "client-node")),
        (conntrack.ConntrackObserver, ObserverId(ObserverKind.ENTRIES, "client-node")),
        (trace.TraceObserver, ObserverId(ObserverKind.TRACES, "client-node")),
    ],
)
def test_an_observer_killed_in_mid_run_makes_it_inconclusive(
    lab: PrivateLab, monkeypatch: pytest.MonkeyPatch, kind: type, observer_id: ObserverId
) -> None:
    opened = []

    class Doomed(kind):  # type: ignore[misc]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    monkeypatch.setattr(recorder, kind.__name__, Doomed)

    def kill(done: int, _: int) -> None:
        victim: Any
        (victim,) = (observer for observer in opened if observer.id == observer_id)
        if done == 1:
            (getattr(victim, "_subscription", None) or getattr(victim, "_share", victim))._socket.close()

    result, recording = part().run(lab, 2, progress=kill)
    assert [trial.outcome for trial in result.trials] == [Outcome.RESET, Outcome.INCONCLUSIVE]
    assert (
        f"all of {describe_observer(observer_id)}: observing ended early (Bad file descriptor)"
        in result.trials[1].missing
    )
    assert recording.unobserved == (Unobserved(observer_id, "Bad file descriptor", Gap.END),)
    assert result.exit_code() == 3


@pytest.mark.kernel
@pytest.mark.parametrize(("kind", "method"), [(trace.TraceObserver, "fileno"), (keeper.Share, "close")])
def test_a_signal_leaves_no_table(
    lab: PrivateLab, stopping: None, monkeypatch: pytest.MonkeyPatch, kind: type, method: str
) -> None:
    """Where the observer is there and not yet known, and where it is about to go."""
    real = getattr(kind, method)

    def signalled(one: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return real(one)

    monkeypatch.setattr(kind, method, signalled)
    with pytest.raises(interrupts.Interrupted):
        record(topology(), lab, Source(), NODES, seconds=0)
    with lab.inside("client-node"):
        assert TRACE_TABLE not in nft.run("list tables")


@pytest.mark.kernel
def test_what_this_kernel_cannot_observe_is_named(lab: PrivateLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_EVENTS", "net/netfilter/nf_conntrack_no_events")
    monkeypatch.setattr(trace, "_NFNLGRP_NFTRACE", 999)
    result, recording = part().run(lab, 1)
    missing = "net.netfilter.nf_conntrack_no_events: No such file or directory"
    assert tuple(map(describe_unobserved, recording.unobserved)) == (
        f"conntrack's events on client-node: this kernel can't tell of conntrack's events: {missing}",
        "the rules' traces on client-node: netfilter group 999: Invalid argument",
        f"conntrack's events on server-node: this kernel can't tell of conntrack's events: {missing}",
    )
    assert result.result is Conclusion.REPRODUCED


# --- many flows at once ----------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_of_fifty_downloads_the_one_that_is_reset_can_be_told(lab: PrivateLab) -> None:
    seen = downloads.download(topology(), part().experiment, lab, size_bytes=200_000)
    assert sum(count for _, count in seen.recording.lost) == 0
    assert (seen.recording.unobserved, len(connections_in(topology(), seen.recording.events))) == ((), 50)
    assert {port for port, got in seen.received.items() if got < 200_000} == {seen.victim_port}
    errors = [event for event in seen.recording.events if isinstance(event, SocketEvent) and event.errno]
    assert {seen.victim_port} == {e.local_port if e.netns == "client" else e.peer_port for e in errors}
    ports = {event.segment.sport for event in seen.recording.events if isinstance(event, InvalidReason)}
    assert ports == {80, seen.victim_port}


# --- a lab in which something else makes the traffic -----------------------------------------------------------------


@pytest.mark.kernel
def test_a_live_lab_is_recorded_until_it_is_told_to_stop(lab: PrivateLab) -> None:
    batches: list[Sequence[Event]] = []

    def connect_once_then_stop() -> bool:
        if len(batches) == 1:  # every observer is ready, and nothing has come
            with lab.socket("client", socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect_ex(("192.168.0.2", 80))
        return any(isinstance(event, ConntrackEvent) for batch in batches for event in batch)

    names = ["client", "client-node"]
    recording = record(topology(), lab, Source(), names, 30, connect_once_then_stop, batches.append)
    assert batches[0] == ()
    assert {tap.netns for tap in recording.taps} == set(names)
    assert {flow.client for flow in connections_in(topology(), recording.events)} == {"client"}
    handed_on = sorted((event for batch in batches for event in batch), key=lambda event: event.time_ns)
    assert handed_on == list(recording.events)


@pytest.mark.kernel
def test_what_was_there_before_is_no_connection_of_the_recording(
    lab: PrivateLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was seen before every observer was ready, nor an entry that was found; but what is seen of it later."""

    class Late(Counters):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if early.fileno() >= 0 and early.connect_ex(("192.168.0.2", 80)) == 0:
                early.send(b"early")

    monkeypatch.setattr(recorder, "Counters", Late)
    with (
        lab.socket("server", socket.AF_INET, socket.SOCK_STREAM) as server,
        lab.socket("client", socket.AF_INET, socket.SOCK_STREAM) as early,
    ):
        server.bind(("10.0.1.2", 80))
        server.listen()
        old = record(topology(), lab, Source(), seconds=0.3)
        assert connections_in(topology(), old.events) == ()
        assert [event for event in old.events if isinstance(event, Packet | TraceStep | InvalidReason)] == []
        entries = [event for event in old.events if isinstance(event, ConntrackEvent)]
        assert {entry.tuple_orig.dport for entry in entries} >= {80}
        assert EntryChange.NEW not in {entry.change for entry in entries}
        monkeypatch.undo()

        def say_more() -> bool:
            return early.send(b"more") == 0

        seen = record(topology(), lab, Source(), seconds=0.3, stop=say_more)
        (flow,) = connections_in(topology(), seen.events)
        assert (flow.client_port, flow.node) == (early.getsockname()[1], "client-node")


# --- the live timeline -----------------------------------------------------------------------------------------------


def test_each_event_is_a_line() -> None:
    named = story.reset()
    orig, reply = (
        Tuple(story.FLOW.client_address, 40000, story.FLOW.vip, 80, 6),
        Tuple(story.FLOW.endpoint, 8080, story.FLOW.client_address, 40000, 6),
    )
    at = story.START_NS + 1_500_000_000
    entry = ConntrackEvent(at, "node", EntryChange.UPDATE, orig, reply, ("SEEN_REPLY", "DST_NAT"), "ESTABLISHED", 3)
    rst = story.segment(Leg.CLIENT_TO_ENDPOINT, 4, 7, 0, window=0)
    step = TraceStep(at, "node", 0xAB, "ip", "nat", "PREROUTING", "counter", "jump X", "eth0", "", rst)
    to_dns = Tuple(story.FLOW.client_address, 40000, story.FLOW.endpoint, 53, 17)
    error = Tuple(story.FLOW.endpoint, 0, story.FLOW.client_address, 0, 1)
    port_unreachable = Datagram(error, 41, 7, 3, 3, to_dns)
    expected = ConntrackEvent(at, "node", EntryChange.NEW, orig, reply, ("EXPECTED",), "SYN_SENT", tuple_master=orig)
    sample = SocketSample(at, "server", story.FLOW.endpoint, 8080, "ESTABLISHED", 2304, 65535, 3, 0, 1, 4096)
    events = [
        named["syn"],
        named["invalid"],
        named["stale window"],
        named["server reset"],
        entry,
        step,
        TraceStep(at, "node", 0xAB, "ip", "nat", "PREROUTING", "", "accept"),
        TraceStep(at, "node", 0xAB, "ip", "nat", "X", "", "continue"),
        sample,
        CounterChange(at, "client", "Tcp.OutRsts", 1),
        DatagramPacket(at, "client", "eth0", Direction.IN, port_unreachable),
        TraceStep(at, "node", 0xAC, "inet", "tour", "states", "counter", "continue", datagram=Datagram(to_dns, 13)),
        expected,
        TcpReset(at, "server", ResetKind.SENT, "NO_SOCKET", None, "", rst),
        TcpReset(at, "server", ResetKind.SENT, "TCP_ABORT_ON_CLOSE", orig, "CLOSE"),
        TcpReset(at, "client", ResetKind.ACCEPTED, "", orig, "ESTABLISHED"),
        PacketDrop(at, "node", "NETFILTER_DROP", "", "eth0", rst),
        PacketDrop(at, "node", "NOT_SPECIFIED", "ip_rcv", datagram=Datagram(to_dns, 13)),
        CounterChange(at, "client", "rx_dropped", 2, "eth0"),
        SocketClosed(at, "server", story.FLOW.endpoint, 8080, story.FLOW.client_address, 40000, 5, 1000, 7, 9, 0),
        SocketClosed(at, "server", story.FLOW.endpoint, 8080, IPv4Address("0.0.0.0"), 0, 0, 0, 0, 0, 0),
        NeighbourChange(at, "client", Neighbour("eth0", story.FLOW.vip, "", "FAILED")),
        NeighbourChange(at, "client", Neighbour("eth0", story.FLOW.vip, "02:00:00:00:00:01", "STALE"), gone=True),
        RouteChange(
            at, "node", RouteState(story.FLOW.vip, 32, "unicast", 254, (NextHop("eth0", story.FLOW.endpoint),), 5)
        ),
        RouteChange(at, "node", RouteState(story.FLOW.vip, 32, "blackhole", 100, mtu=1300), gone=True),
        InterfaceChange(at, "node", InterfaceState("veth1", False, "DOWN", 1500, "", "veth", "cni0")),
    ]
    assert "\n".join(line(event, story.START_NS) for event in events) == (
        "    0.000010  client/eth0 out  10.0.0.2:40000 > 192.168.0.2:80 SYN seq 1000 ack 0 win 2304 len 0\n"
        f"    0.000063  client-node  conntrack logs: {story.UPPER_BOUND} "
        "[10.0.1.2:8080 > 10.0.0.2:40000 PSH,ACK seq 8073 ack 1005 win 64 len 4000]\n"
        "    0.000050  server  socket's send window set: 0 to 1,048,576 bytes\n"
        "    0.000090  server  socket error: ECONNRESET\n"
        "    1.500000  node  conntrack entry update: tcp ESTABLISHED 10.0.0.2:40000 > 192.168.0.2:80, "
        "replies 10.0.1.2:8080 > 10.0.0.2:40000 zone 3 [SEEN_REPLY DST_NAT]\n"
        "    1.500000  node  rules: 000000ab ip nat PREROUTING: counter -> jump X "
        "[10.0.0.2:40000 > 10.0.1.2:8080 RST seq 7 ack 0 win 0 len 0]\n"
        "    1.500000  node  rules: 000000ab ip nat PREROUTING: policy -> accept\n"
        "    1.500000  node  rules: 000000ab ip nat X: end of chain -> continue\n"
        "    1.500000  server  socket 10.0.1.2:8080 ESTABLISHED: send window 2,304, receive window 65,535, "
        "3 segments unacknowledged, 4,096 bytes not sent, 1 retransmissions\n"
        "    1.500000  client  counter Tcp.OutRsts: +1\n"
        "    1.500000  client/eth0 in  10.0.1.2 > 10.0.0.2 ICMP port unreachable len 41, "
        "about udp 10.0.0.2:40000 > 10.0.1.2:53\n"
        "    1.500000  node  rules: 000000ac inet tour states: counter -> continue "
        "[10.0.0.2:40000 > 10.0.1.2:53 UDP len 13]\n"
        "    1.500000  node  conntrack entry new: tcp SYN_SENT 10.0.0.2:40000 > 192.168.0.2:80, "
        "replies 10.0.1.2:8080 > 10.0.0.2:40000 [EXPECTED], expected by 10.0.0.2:40000 > 192.168.0.2:80\n"
        "    1.500000  server  TCP, without a socket, sends a RST: NO_SOCKET "
        "[answers 10.0.0.2:40000 > 10.0.1.2:8080 RST seq 7 ack 0 win 0 len 0]\n"
        "    1.500000  server  socket 10.0.0.2:40000 > 192.168.0.2:80 (CLOSE) sends a RST: TCP_ABORT_ON_CLOSE\n"
        "    1.500000  client  socket 10.0.0.2:40000 > 192.168.0.2:80 (ESTABLISHED) accepts a RST\n"
        "    1.500000  node  the kernel drops: NETFILTER_DROP "
        "[10.0.0.2:40000 > 10.0.1.2:8080 RST seq 7 ack 0 win 0 len 0]\n"
        "    1.500000  node  the kernel drops: NOT_SPECIFIED in ip_rcv() [10.0.0.2:40000 > 10.0.1.2:53 UDP len 13]\n"
        "    1.500000  client  counter eth0 rx_dropped: +2\n"
        "    1.500000  server  socket 10.0.1.2:8080 > 10.0.0.2:40000 freed: 5 bytes received, 1,000 sent, "
        "7 never sent\n"
        "    1.500000  server  socket 10.0.1.2:8080, listening, freed: 0 bytes received, 0 sent\n"
        "    1.500000  client  neighbour 192.168.0.2 dev eth0 FAILED\n"
        "    1.500000  client  neighbour 192.168.0.2 dev eth0 lladdr 02:00:00:00:00:01 STALE, removed\n"
        "    1.500000  node  route 192.168.0.2/32 via 10.0.1.2 dev eth0 table 254 metric 5\n"
        "    1.500000  node  route blackhole 192.168.0.2/32 table 100 mtu 1300, removed\n"
        "    1.500000  node  interface veth1 down, DOWN, mtu 1500 master cni0"
    )


TO_ITSELF = """
import socket
listener = socket.create_server(("127.0.0.1", 80))
client = socket.create_connection(("127.0.0.1", 80))
server, _ = listener.accept()
client.send(b"hi")
server.recv(2)
server.close()
client.recv(1)
"""


@pytest.mark.kernel
def test_watch_shows_events_at_once_and_ends_cleanly(netlab: Netlab, lab_name: str, privilege: str) -> None:
    assert netlab("up", FLAGSHIP, "--name", lab_name, privilege, "-q").returncode == 0
    watching = subprocess.Popen(
        netlab.argv("watch", lab_name, "--netns", "client", "--netns", "client-node"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=netlab.environment(),
    )
    assert watching.stdout is not None and watching.stderr is not None
    try:
        assert watching.stderr.readline() == b"watching client, client-node\n"
        connected = netlab("exec", "--lab", lab_name, "client", "--", "bash", "-c", "exec 3<>/dev/tcp/192.168.0.2/80")
        assert connected.returncode == 0
        assert netlab("exec", "--lab", lab_name, "client", "--", sys.executable, "-c", TO_ITSELF).returncode == 0
        shown, deadline = b"", time.monotonic() + 20
        while not (b"FIN" in shown and b" 2 sent" in shown) and (left_s := deadline - time.monotonic()) > 0:
            if select.select([watching.stdout], [], [], left_s)[0]:
                shown += os.read(watching.stdout.fileno(), 65536)
        watching.send_signal(signal.SIGTERM)
        rest, complaints = watching.communicate(timeout=20)
    finally:
        watching.kill()
        watching.wait()
    *untold, lost = complaints.decode().splitlines()
    assert (watching.returncode, lost) == (0, "no event lost")
    assert all(line.startswith("not seen: the ") for line in untold)
    lines = shown.decode()
    assert re.search(r"(?m)^ +\d+\.\d{6}  client/eth0 out  10\.0\.0\.2:\d+ > 192\.168\.0\.2:80 SYN seq \d+ ", lines)
    freed = r"(?m)^ +\d+\.\d{6}  client  socket 127\.0\.0\.1:\d+ > 127\.0\.0\.1:80 freed: 1 bytes received, 2 sent$"
    assert re.search(freed, lines)
    assert rest.endswith(b"\n")
    assert b"\x1b" not in shown + rest


def test_watch_of_a_namespace_that_is_not_there_is_an_error(netlab: Netlab, lab_name: str, rootless: None) -> None:
    assert netlab("up", FLAGSHIP, "--name", lab_name, "--rootless", "-q").returncode == 0
    done = netlab("watch", lab_name, "--netns", "moon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"netlab: the lab {lab_name} has no namespace moon\n  hint: it has: client, client-node, server-node, server\n"
    )
