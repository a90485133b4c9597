"""Observers of what a node does: conntrack's entries, the rules' traces, counters; the decoders, and all in a lab."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import labs
import pytest
from pair import LEFT, PAIR, RIGHT, connect
from private_lab import PrivateLab

from netlab.errors import UnsupportedError, told
from netlab.linux import ctnetlink, nft
from netlab.linux.netlink import Subscription, attribute
from netlab.observe import kept
from netlab.observe.canary import send_canary
from netlab.observe.conntrack import ConntrackObserver, as_event
from netlab.observe.counters import Counters, parse_nft, parse_proc
from netlab.observe.kept import marking_table
from netlab.observe.packets import Frame, FrameObserver
from netlab.observe.sockets import samples
from netlab.observe.trace import TraceObserver, rules_by_handle
from netlab.observe.watch import Watch
from netlab.record.events import (
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    ConntrackEvent,
    CounterChange,
    Direction,
    EntryChange,
    Packet,
    TraceStep,
    Tuple,
)
from netlab.record.observers import ObserverId, ObserverKind

TRACKED = """\
table ip t {
  chain c { type filter hook input priority 0; ct state invalid counter; }
  chain sent { type filter hook output priority 0; }
}
"""


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, left and right; the right one tracks connections."""
    with PrivateLab(PAIR) as lab:
        lab.run("right", "nft", "-f", "-", stdin=TRACKED)
        yield lab


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_frames_of_any_protocol_come_whole_or_cut_off(pair: PrivateLab) -> None:
    whole = FrameObserver(pair, "left", "eth0", None, 1600, 32)
    cut = FrameObserver(pair, "left", "eth0", None, 20, 64)
    with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x" * 1000, (str(RIGHT), 9))
    sent: dict[bytes, Frame] = {}

    def both_seen() -> bool:
        sent.update({frame.data[12:14]: frame for frame in whole.frames() if frame.direction is Direction.OUT})
        return b"\x08\x00" in sent

    labs.until(both_seen, "the datagram, which waits for its neighbour's answer")
    assert b"\x08\x06" in sent  # ARP
    datagram = sent[b"\x08\x00"]
    assert (datagram.wire_bytes, len(datagram.data), datagram.data[-1:]) == (1042, 1042, b"x")
    assert [(frame.wire_bytes, frame.data) for frame in cut.frames() if frame.wire_bytes == 1042] == [
        (1042, datagram.data[:20])
    ]
    whole.close()
    cut.close()


# --- conntrack's entries ---------------------------------------------------------------------------------------------

ORIG = attribute(
    1,
    attribute(1, attribute(1, LEFT.packed) + attribute(2, RIGHT.packed))
    + attribute(2, attribute(1, b"\6") + attribute(2, struct.pack("!H", 40000)) + attribute(3, struct.pack("!H", 80))),
)
REPLY = attribute(
    2,
    attribute(1, attribute(1, RIGHT.packed) + attribute(2, LEFT.packed))
    + attribute(
        2, attribute(1, b"\6") + attribute(2, struct.pack("!H", 8080)) + attribute(3, struct.pack("!H", 40000))
    ),
)


def read_entry(body: bytes, change: EntryChange) -> ConntrackEvent:
    entry = ctnetlink.parse(body)
    assert entry is not None
    return as_event(entry, "node", change)


def test_an_entry_is_read_from_its_attributes() -> None:
    body = ORIG + REPLY + attribute(3, struct.pack("!I", 0x2A)) + attribute(18, struct.pack("!H", 7))
    tcp = attribute(1, b"\3") + attribute(2, b"\7") + attribute(3, b"\0")
    body += attribute(4, attribute(1, tcp)) + attribute(27, struct.pack("!Q", 1234))
    assert read_entry(body, EntryChange.UPDATE) == ConntrackEvent(
        time_ns=1234,
        netns="node",
        change=EntryChange.UPDATE,
        tuple_orig=Tuple(LEFT, 40000, RIGHT, 80, 6),
        tuple_reply=Tuple(RIGHT, 8080, LEFT, 40000, 6),
        status=("SEEN_REPLY", "CONFIRMED", "DST_NAT"),
        tcp_state="ESTABLISHED",
        zone=7,
        stamped=True,
        window_scales=(7, 0),
    )


def test_a_destroyed_entry_is_stamped_with_its_end_where_events_have_no_stamps() -> None:
    body = ORIG + REPLY + attribute(20, attribute(1, struct.pack("!Q", 5)) + attribute(2, struct.pack("!Q", 9)))
    destroyed = read_entry(body, EntryChange.DESTROY)
    assert (destroyed.time_ns, destroyed.stamped, destroyed.tcp_state, destroyed.status) == (9, True, None, ())


def test_an_entry_without_a_tuple_is_none() -> None:
    assert ctnetlink.parse(ORIG) is None
    assert ctnetlink.parse(b"") is None


@pytest.mark.kernel
def test_an_entrys_life_is_told_and_the_sysctls_go_back(pair: PrivateLab) -> None:
    keys = ("net.netfilter.nf_conntrack_events", "net.netfilter.nf_conntrack_timestamp")
    with pair.inside("right"):
        Path("/proc/sys/net/netfilter/nf_conntrack_events").write_text("0")
    before = [pair.sysctl("right", key) for key in keys]
    with Watch() as watch:
        watch.add(ConntrackObserver(pair, "right"))
        assert [pair.sysctl("right", key) for key in keys] == ["1", "1"]
        client, server = connect(pair)
        with server:
            port = client.getsockname()[1]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # with a RST
            assert watch.until(
                lambda: watch.saw(lambda e: isinstance(e, ConntrackEvent) and e.tcp_state == "CLOSE"), labs.DEADLINE_S
            )
        events, lost = watch.take()
    told = [event for event in events if isinstance(event, ConntrackEvent)]
    assert {event.tuple_orig for event in told} == {Tuple(LEFT, port, RIGHT, 80, 6)}
    assert [(event.change, event.tcp_state) for event in told][:3] == [
        (EntryChange.NEW, "SYN_SENT"),
        (EntryChange.UPDATE, "SYN_RECV"),
        (EntryChange.UPDATE, "ESTABLISHED"),
    ]
    assert lost == ((ObserverId(ObserverKind.ENTRIES, "right"), 0),)
    assert [pair.sysctl("right", key) for key in keys] == before


@pytest.mark.kernel
def test_entries_from_before_are_found(pair: PrivateLab) -> None:
    client, server = connect(pair)
    with client, server, Watch() as watch:
        watch.add(ConntrackObserver(pair, "right"))
        (found,), _ = watch.take()
        assert isinstance(found, ConntrackEvent)
        assert (found.change, found.tcp_state, found.tuple_orig.dport) == (EntryChange.FOUND, "ESTABLISHED", 80)
        assert watch.take()[0] == ()


@pytest.mark.kernel
def test_events_that_found_no_room_are_counted(pair: PrivateLab) -> None:
    observer = ConntrackObserver(pair, "right", receive_buffer_bytes=1)
    other = ConntrackObserver(pair, "right")
    with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as warm:
        warm.sendto(b"", (str(RIGHT), 9))
    for port in range(1000, 1100):
        with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"", (str(RIGHT), port))
    all_of_them = len(other.read())
    seen = len(observer.read())
    assert all_of_them > 100
    assert seen < all_of_them
    assert observer.lost() == all_of_them - seen
    assert (observer.lost(), other.lost()) == (0, 0)
    observer.close()
    other.close()


@pytest.mark.kernel
def test_a_kernel_without_conntrack_events_is_unsupported(pair: PrivateLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_EVENTS", "net/netfilter/nf_conntrack_no_events")
    before = pair.sysctl("right", "net.netfilter.nf_conntrack_timestamp")
    with pytest.raises(UnsupportedError) as caught:
        ConntrackObserver(pair, "right")
    assert str(caught.value) == (
        "this kernel can't tell of conntrack's events: net.netfilter.nf_conntrack_no_events: No such file or directory"
    )
    assert pair.sysctl("right", "net.netfilter.nf_conntrack_timestamp") == before


# --- the rules' traces -----------------------------------------------------------------------------------------------

LISTED = """table ip nat { # handle 2
	set wanted { # handle 3
		type inet_service
		elements = { 80,
			443 }
	}

	chain PREROUTING { # handle 1
		type nat hook prerouting priority dstnat; policy accept;
		counter jump SERVICES comment "a # handle 9" # handle 10
		tcp dport { 80,
			443 } accept # handle 11
	}

	chain SERVICES { # handle 4
	}

	chain refusal { # handle 5
		comment "said of the chain, not of its first rule"
		reject comment "and this of the rule" # handle 12
	}
}
table inet filter { # handle 3
	chain FORWARD { # handle 1
		ct state invalid drop # handle 10
	}
}
"""


def test_rules_are_found_by_family_table_and_handle() -> None:
    assert rules_by_handle(LISTED) == {
        ("ip", "nat", 10): 'counter jump SERVICES comment "a # handle 9"',
        ("ip", "nat", 11): "tcp dport { 80, 443 } accept",
        ("ip", "nat", 12): 'reject comment "and this of the rule"',
        ("inet", "filter", 10): "ct state invalid drop",
    }


def test_a_namespace_that_tracks_nothing_is_not_made_to() -> None:
    assert "ct state" not in marking_table({80}, conntrack=False)
    invalid = "ct state invalid meta l4proto { tcp, udp, sctp } th dport @ports"
    assert marking_table({80, 8080}, conntrack=True).count(invalid) == 2


@pytest.mark.kernel
def test_the_path_of_a_packet_is_told_and_the_table_goes(pair: PrivateLab) -> None:
    with Watch() as watch:
        watch.add(TraceObserver(pair, "right", {80}, conntrack=True))
        client, server = connect(pair)
        port = client.getsockname()[1]
        with client, server:
            send_canary(pair, "left", RIGHT, 80, 77)

            def judged_invalid() -> bool:
                return watch.saw(lambda e: isinstance(e, TraceStep) and e.rule == "ct state invalid counter")

            assert watch.until(judged_invalid, labs.DEADLINE_S)
        events, lost = watch.take()
    steps = [event for event in events if isinstance(event, TraceStep)]
    syn = next(step for step in steps if step.segment and step.segment.flags == SYN)
    assert (syn.family, syn.table, syn.chain, syn.rule, syn.verdict) == ("ip", "t", "c", "", "continue")
    assert (syn.ifname_in, syn.ifname_out) == ("eth0", "")
    assert syn.segment is not None
    assert (syn.segment.src, syn.segment.sport, syn.segment.dport) == (LEFT, port, 80)
    invalid_rule = "ct state invalid meta l4proto { tcp, udp, sctp } th dport @ports meta nftrace set 1"
    invalid = [(step.table, step.chain, step.rule, step.verdict) for step in steps if "invalid" in step.rule]
    assert invalid == [
        (TRACE_TABLE, TRACE_INVALID_CHAIN, invalid_rule, "continue"),
        ("t", "c", "ct state invalid counter", "continue"),
    ]
    assert lost == ((ObserverId(ObserverKind.TRACES, "right"), 0),)
    assert pair.run("right", "nft", "list", "tables") == "table ip t\n"


@pytest.mark.kernel
def test_the_path_of_a_datagram_and_of_the_error_that_answers_it_is_told(pair: PrivateLab) -> None:
    with Watch() as watch:
        watch.add(TraceObserver(pair, "right", {53}, conntrack=True))
        with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((str(RIGHT), 53))
            client.send(b"hello")
            port = client.getsockname()[1]
            assert watch.until(
                lambda: watch.saw(lambda e: isinstance(e, TraceStep) and e.chain == "sent"), labs.DEADLINE_S
            )
        events, _ = watch.take()
    shown = [(step.chain, step.datagram.header) for step in events if isinstance(step, TraceStep) and step.datagram]
    assert shown == [("c", Tuple(LEFT, port, RIGHT, 53, 17)), ("sent", Tuple(RIGHT, 0, LEFT, 0, 1))]


@pytest.mark.kernel
def test_a_table_that_was_left_behind_is_replaced(pair: PrivateLab) -> None:
    with pair.inside("right"):
        nft.make_own_table(TRACE_TABLE, "chain left-behind { }")
    TraceObserver(pair, "right", {80}, conntrack=True).close()
    assert pair.run("right", "nft", "list", "tables") == "table ip t\n"


@pytest.mark.kernel
def test_somebody_elses_table_of_that_name_is_left_alone(pair: PrivateLab) -> None:
    pair.run("right", "nft", f"add table inet {TRACE_TABLE}; add chain inet {TRACE_TABLE} theirs")
    before = pair.run("right", "nft", "-a", "list", "ruleset")
    with pytest.raises(OSError) as raised:
        TraceObserver(pair, "right", {80}, conntrack=True)
    words = f"nft: another program's table inet {TRACE_TABLE} is there: nft delete table inet {TRACE_TABLE}"
    assert told(raised.value) == words
    assert pair.run("right", "nft", "-a", "list", "ruleset") == before


@pytest.mark.kernel
def test_a_table_that_took_our_tables_place_is_left_alone(pair: PrivateLab) -> None:
    observer = TraceObserver(pair, "right", {80}, conntrack=True)
    pair.run("right", "nft", f"delete table inet {TRACE_TABLE}; add table inet {TRACE_TABLE}")
    observer.close()
    assert pair.run("right", "nft", "list", "tables") == f"table ip t\ntable inet {TRACE_TABLE}\n"


def traced(observer: TraceObserver, port: int) -> bool:
    """Whether it has been told of packets to the port, by a rule that isn't of the marking table."""
    return any(step.segment and step.segment.dport == port for step in observer.read() if step.table == "t")


@pytest.mark.kernel
def test_two_at_once_share_the_table_and_it_goes_with_the_last(pair: PrivateLab) -> None:
    first = TraceObserver(pair, "right", {80}, conntrack=False)
    second = TraceObserver(pair, "right", {443}, conntrack=True)
    for port in (80, 443):
        client, server = connect(pair, port)
        with client, server:
            assert traced(first, port)
    first.close()
    client, server = connect(pair, 443)
    with client, server:
        assert traced(second, 443)
    send_canary(pair, "left", RIGHT, 443, 77)
    assert any(step.chain == TRACE_INVALID_CHAIN for step in second.read())
    second.close()
    assert pair.run("right", "nft", "list", "tables") == "table ip t\n"


@pytest.mark.kernel
def test_somebody_elses_traces_go_on(pair: PrivateLab) -> None:
    theirs = (
        "table ip theirs { chain c { type filter hook prerouting priority -400; tcp dport 81 meta nftrace set 1; }; }"
    )
    pair.run("right", "nft", "-f", "-", stdin=theirs)
    before = pair.run("right", "nft", "-a", "list", "table", "ip", "theirs")
    with pair.inside("right"), closing(Subscription([9])) as monitor:  # `nft monitor trace`
        for _ in range(2):
            TraceObserver(pair, "right", {80}, conntrack=True).close()
            client, server = connect(pair, 81)
            with client, server:
                assert any(b"theirs\0" in body for _, _, body in monitor.read())
        assert monitor.lost() == 0
    assert pair.run("right", "nft", "-a", "list", "table", "ip", "theirs") == before


@pytest.mark.kernel
def test_the_table_is_there_again_for_who_comes_after_somebody_flushed_the_rules(pair: PrivateLab) -> None:
    first = TraceObserver(pair, "right", {80}, conntrack=True)
    pair.run("right", "nft", "-f", "-", stdin=f"flush ruleset\n{TRACKED}")
    second = TraceObserver(pair, "right", {443}, conntrack=True)
    client, server = connect(pair, 80)
    with client, server:
        assert traced(second, 80)
    first.close()
    second.close()
    assert pair.run("right", "nft", "list", "tables") == "table ip t\n"


@pytest.mark.kernel
def test_steps_that_found_no_room_are_counted(pair: PrivateLab) -> None:
    observer = TraceObserver(pair, "right", {80}, conntrack=True, receive_buffer_bytes=1)
    client, server = connect(pair)
    with client, server:
        pass
    assert observer.lost() > 0
    assert observer.lost() == 0
    observer.close()


# --- counters and sockets --------------------------------------------------------------------------------------------


def test_counters_are_read_from_both_kinds_of_files_without_gauges() -> None:
    text = "Tcp: RtoMin MaxConn InSegs\nTcp: 200 -1 7\nIp6InReceives 12\nTcpExt: A\nTcpExt: 3\n"
    assert parse_proc(text) == {"Tcp.MaxConn": -1, "Tcp.InSegs": 7, "Ip6InReceives": 12, "TcpExt.A": 3}


def test_nftables_counters_are_read_by_table_and_name() -> None:
    text = (
        'table inet tour {\n\tcounter new {\n\t\tpackets 2 bytes 84\n\t}\n\tcounter related {\n\t\tcomment "x"\n'
        "\t\tpackets 1 bytes 56\n\t}\n}\ntable ip other {\n\tcounter new {\n\t\tpackets 0 bytes 0\n\t}\n}\n"
    )
    assert parse_nft(text) == {"tour.new": 2, "tour.related": 1, "other.new": 0}


@pytest.mark.kernel
def test_a_counter_of_nftables_that_changed_is_told(pair: PrivateLab) -> None:
    pair.run(
        "right", "nft", "table ip u { counter a { }; chain c { type filter hook input priority 1; counter name a; }; }"
    )
    counters = Counters(pair, "right", nftables=True)
    send_canary(pair, "left", RIGHT, 80, 1)
    labs.until(lambda: counters.grown("u.a") == 1, "the canary")
    assert ("u.a", 1) in {(change.name, change.by) for change in counters.changes()}


@pytest.mark.kernel
def test_counters_that_changed_are_told(pair: PrivateLab) -> None:
    counters = Counters(pair, "right")
    send_canary(pair, "left", RIGHT, 80, 1)
    labs.until(lambda: counters.grown("Tcp.InCsumErrors") == 1, "the canary")
    changes = counters.changes()
    assert {(change.netns, change.name, change.by) for change in changes} >= {
        ("right", "Tcp.InCsumErrors", 1),
        ("right", "Ip.InReceives", 1),
        ("right", "conntrack.invalid", 1),
    }
    assert all(isinstance(change, CounterChange) and change.by for change in changes)
    # IPv6 may go on looking for neighbours and routers.
    assert not {change.name for change in counters.changes()} & {"Tcp.InCsumErrors", "conntrack.invalid"}


@pytest.mark.kernel
def test_sockets_of_others_are_sampled(pair: PrivateLab) -> None:
    client, server = connect(pair)
    with client, server:
        (sample,) = samples(pair, "left", {80})
        assert (sample.netns, sample.local, sample.local_port) == ("left", LEFT, client.getsockname()[1])
        assert (sample.tcp_state, sample.unacked) == ("ESTABLISHED", 0)
        assert sample.snd_wnd_bytes > 1448
        assert samples(pair, "left", {81}) == []
        (again,) = samples(pair, "left", ())
        assert replace(again, time_ns=sample.time_ns) == sample


# --- a dead observer -------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_an_observer_whose_socket_is_closed_is_dead_and_the_others_live_on(pair: PrivateLab) -> None:
    with Watch() as watch:
        dead, alive = ConntrackObserver(pair, "right"), TraceObserver(pair, "right", {80}, conntrack=True)
        watch.add(dead)
        watch.add(alive)
        dead._subscription._socket.close()
        client, server = connect(pair)
        with client, server:
            assert watch.until(lambda: watch.saw(lambda event: isinstance(event, TraceStep)), labs.DEADLINE_S)
        events, lost = watch.take()
        assert watch.failed == ((ObserverId(ObserverKind.ENTRIES, "right"), "Bad file descriptor"),)
    assert not [event for event in events if isinstance(event, ConntrackEvent | Packet)]
    assert lost == ((ObserverId(ObserverKind.ENTRIES, "right"), 0), (ObserverId(ObserverKind.TRACES, "right"), 0))
