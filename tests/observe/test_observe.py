"""Observers: the filter in the kernel's own hands, the decoder of NFLOG, and both at work on two namespaces."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import labs
import pytest
from frames import icmp, ipv4, ipv6, segment, tcp, udp
from pair import LEFT, PAIR, RIGHT, connect
from private_lab import PrivateLab

from netlab.errors import LabError, UnsupportedError
from netlab.linux import nflog
from netlab.observe import keeper, kept, packets
from netlab.observe.canary import send_canary
from netlab.observe.invalid import InvalidObserver, decode_reason
from netlab.observe.packets import SNAPLEN_BYTES, Outline, PacketObserver, ports_filter
from netlab.observe.sockets import socket_error, tcp_info, why_failed
from netlab.observe.watch import Watch
from netlab.record.events import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Datagram,
    DatagramPacket,
    Direction,
    Event,
    InvalidReason,
    Packet,
    SocketEvent,
    Tuple,
)
from netlab.record.observers import ObserverId, ObserverKind

# A connection tracked on the right, which is what loads and switches on conntrack there.
TRACKED = "table ip t { chain c { type filter hook input priority 0; ct state invalid counter; }; }"


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, left and right, joined by a veth pair."""
    with PrivateLab(PAIR) as lab:
        yield lab


# --- the filter ------------------------------------------------------------------------------------------------------


def filtered(frame: bytes, *ports: int) -> int | None:
    """How many bytes of a frame the program lets through, run by the kernel; None where it takes none."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setblocking(False)
        packets.attach_filter(right, ports_filter(ports))
        try:
            left.send(frame)
            return len(right.recv(65536))
        except (BlockingIOError, PermissionError):
            return None


def ethernet(packet: bytes) -> bytes:
    protocol = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return b"\2" * 12 + struct.pack("!H", protocol) + packet


@pytest.mark.parametrize(
    ("frame", "ports", "length"),
    [
        (ethernet(ipv4(tcp(ACK))), (80,), 54),  # the destination port
        (ethernet(ipv4(tcp(ACK))), (8080, 40000), 54),  # the source port
        (ethernet(ipv4(tcp(ACK), options=b"\1\1\1\0")), (80,), 58),
        (ethernet(ipv6(tcp(ACK))), (80,), 74),
        (ethernet(ipv6(tcp(ACK))), (1, 40000), 74),
        (ethernet(ipv4(tcp(ACK, payload=b"x" * 1000))), (80,), SNAPLEN_BYTES),
        (ethernet(ipv4(tcp(ACK))), (81,), None),
        (ethernet(ipv6(tcp(ACK))), (81,), None),
        (ethernet(ipv4(tcp(ACK), fragment=1)), (80,), None),
        (ethernet(ipv6(b"\6\0\0\1" + bytes(4) + tcp(ACK), next_header=44)), (80,), 82),  # a first fragment
        (ethernet(ipv6(b"\6\0\0\x08" + bytes(4) + tcp(ACK), next_header=44)), (80,), None),
        (ethernet(ipv6(b"\6\0" + bytes(6) + tcp(ACK), next_header=0)), (80,), 82),
        (ethernet(ipv6(b"\6\1" + bytes(14) + tcp(ACK), next_header=60)), (40000,), 90),
        (ethernet(ipv6(b"\6\1" + bytes(14) + tcp(ACK), next_header=43)), (81,), None),
        (ethernet(ipv6(b"\x11\0" + bytes(6) + udp(), next_header=60)), (53,), 70),
        (ethernet(ipv6(b"\x3a\0" + bytes(6) + icmp(143, 0), next_header=0)), (), None),
        (ethernet(ipv4(udp(b"hello"), protocol=17)), (53,), 47),
        (ethernet(ipv4(udp(b"hello"), protocol=17)), (80,), None),
        (ethernet(ipv4(udp(b"hello"), protocol=17)), (), 47),
        (ethernet(ipv6(udp(b"hello"), next_header=17)), (40000,), 67),
        (ethernet(ipv4(udp(b"hello"), protocol=132)), (53,), 47),
        (ethernet(ipv4(udp(b"hello"), protocol=47)), (), None),
        (ethernet(ipv4(icmp(3, 3, udp()), protocol=1)), (80,), 50),
        (ethernet(ipv4(icmp(11, 0, udp()), options=b"\1\1\1\0", protocol=1)), (80,), 54),
        (ethernet(ipv4(icmp(12, 0), protocol=1)), (80,), 42),
        (ethernet(ipv4(icmp(8, 0), protocol=1)), (), None),
        (ethernet(ipv6(icmp(2, 0), next_header=58)), (80,), 62),
        (ethernet(ipv6(icmp(128, 0), next_header=58)), (), None),
        (b"\2" * 12 + b"\x08\x06" + ipv4(tcp(ACK)), (80,), None),
    ],
)
def test_the_filter_takes_the_ports_and_icmp_errors_alone(
    frame: bytes, ports: tuple[int, ...], length: int | None
) -> None:
    assert filtered(frame, *ports) == length


def outlined(frame: bytes, source: str | None = None) -> bool:
    """Whether a frame is taken by the outline of a load whose client's ports 20000 to 20007 are observed whole."""
    outline = Outline(frozenset({80, 8080}), range(20000, 20008), ip_address(source) if source else None)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setblocking(False)
        packets.attach_filter(right, packets.outline_filter(outline))
        try:
            left.send(frame)
            return bool(right.recv(65536))
        except (BlockingIOError, PermissionError):
            return False


def between(sport: int, dport: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 7, 9, 5 << 4, flags, 512, 0, 0)


@pytest.mark.parametrize("wrap", [lambda body: ethernet(ipv4(body)), lambda body: ethernet(ipv6(body))])
@pytest.mark.parametrize(
    ("sport", "dport", "flags", "taken"),
    [
        (40000, 80, SYN, True),
        (8080, 40000, SYN | ACK, True),
        (40000, 80, ACK, False),
        (40000, 80, PSH | ACK, True),  # the request
        (80, 40000, PSH | ACK, False),  # data
        (80, 40000, FIN | ACK, True),
        (40000, 8080, RST, True),
        (1, 80, 0, True),  # a canary
        (40000, 81, SYN, False),
        (20000, 80, ACK, True),
        (80, 20007, ACK, True),
        (20008, 80, ACK, False),
        (80, 19999, ACK, False),
    ],
)
def test_an_outline_takes_little_of_each_connection_and_all_of_some(
    wrap: Callable[[bytes], bytes], sport: int, dport: int, flags: int, taken: bool
) -> None:
    assert outlined(wrap(between(sport, dport, flags))) is taken


def test_an_outline_takes_all_of_one_source() -> None:
    data = between(80, 40000, ACK)
    assert outlined(ethernet(ipv4(data)), "10.0.0.2")
    assert not outlined(ethernet(ipv4(data)), "10.0.0.3")
    assert outlined(ethernet(ipv6(data)), "fd00::2")
    assert not outlined(ethernet(ipv6(data)), "fd00::3")
    assert not outlined(ethernet(ipv6(data)), "10.0.0.2")
    assert not outlined(ethernet(ipv4(data, protocol=17)), "10.0.0.3")
    assert not outlined(ethernet(ipv4(data, fragment=1)))


# --- NFLOG -----------------------------------------------------------------------------------------------------------

TIMESTAMP, INDEV, PAYLOAD, PREFIX = 3, 4, 9, 10


def test_a_reason_is_read_from_its_attributes() -> None:
    attributes = {
        PREFIX: b"nf_ct_proto_6: SEQ is over upper bound 42 (over the window of the receiver) \0",
        PAYLOAD: ipv4(tcp(ACK, payload=b"abc")),
        TIMESTAMP: struct.pack("!QQ", 1_700_000_000, 123_456),
        INDEV: struct.pack("!I", 7),
    }
    assert decode_reason(nflog.line(attributes), "node", {7: "eth0"}) == InvalidReason(
        1_700_000_000_123_456_000,
        "node",
        "eth0",
        "SEQ is over upper bound 42 (over the window of the receiver)",
        segment(ACK, 3),
    )


def test_a_reason_without_a_stamp_gets_the_time_of_reading() -> None:
    before = time.time_ns()
    reason = decode_reason(nflog.line({PREFIX: b"nf_ct_proto_6: why\0", PAYLOAD: ipv4(tcp(ACK))}), "node", {})
    assert reason is not None
    assert before <= reason.time_ns <= time.time_ns()
    assert reason.ifname == ""


@pytest.mark.parametrize(
    "attributes",
    [
        {PREFIX: b"a rule's own prefix\0", PAYLOAD: ipv4(tcp(ACK))},
        {PREFIX: b"nf_ct_proto_6: why\0", PAYLOAD: ipv4(tcp(ACK), protocol=17)},
        {PREFIX: b"nf_ct_proto_6: why\0"},
        {},
    ],
)
def test_what_conntrack_did_not_log_about_tcp_is_left_out(attributes: dict[int, bytes]) -> None:
    assert decode_reason(nflog.line(attributes), "node", {}) is None


# --- at work ---------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_both_ends_of_a_veth_pair_see_a_handshake_in_order(pair: PrivateLab) -> None:
    before = time.time_ns()
    with Watch() as watch:
        for netns in ("left", "right"):
            watch.add(PacketObserver(pair, netns, "eth0", {80}))
        client, server = connect(pair)
        with client, server:
            port = client.getsockname()[1]
            events, lost = watch.take()
    seen = sorted(events, key=lambda event: event.time_ns)
    assert [
        (event.netns, event.direction, event.segment.flags, event.segment.sport == port)
        for event in seen
        if isinstance(event, Packet)
    ] == [
        ("left", Direction.OUT, SYN, True),
        ("right", Direction.IN, SYN, True),
        ("right", Direction.OUT, SYN | ACK, False),
        ("left", Direction.IN, SYN | ACK, False),
        ("left", Direction.OUT, ACK, True),
        ("right", Direction.IN, ACK, True),
    ]
    assert before <= seen[0].time_ns
    assert seen[-1].time_ns <= time.time_ns()
    assert lost == (
        (ObserverId(ObserverKind.PACKETS, "left", "eth0"), 0),
        (ObserverId(ObserverKind.PACKETS, "right", "eth0"), 0),
    )


@pytest.mark.kernel
def test_an_interface_that_was_seen_to_go_down_is_seen_to_be_gone_later() -> None:
    """The kernel says ENETDOWN once, of both: who asks in between is told nothing more."""
    with PrivateLab(PAIR) as lab, closing(PacketObserver(lab, "left", "eth0", {80})) as observer:
        assert observer.trouble() == 0
        lab.run("left", "ip", "link", "set", "eth0", "down")
        assert (observer.trouble(), observer.trouble()) == (errno.ENETDOWN, 0)
        lab.run("left", "ip", "link", "del", "eth0")
        assert (observer.trouble(), observer.trouble()) == (errno.ENODEV, 0)


@pytest.mark.kernel
def test_a_datagram_to_a_closed_port_and_the_error_that_answers_it_are_seen(pair: PrivateLab) -> None:
    def came_back(event: Event) -> bool:
        return isinstance(event, DatagramPacket) and event.direction is Direction.IN

    with Watch() as watch:
        watch.add(PacketObserver(pair, "left", "eth0", {53}))
        with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((str(RIGHT), 53))
            client.send(b"hello")
            port = client.getsockname()[1]
            assert watch.until(lambda: watch.saw(came_back), labs.DEADLINE_S)
        events, _ = watch.take()
    asked = Tuple(LEFT, port, RIGHT, 53, 17)
    seen = [event for event in events if isinstance(event, DatagramPacket)]
    assert [(event.direction, replace(event.datagram, ip_id=0)) for event in seen] == [
        (Direction.OUT, Datagram(asked, 13)),
        (Direction.IN, Datagram(Tuple(RIGHT, 0, LEFT, 0, 1), 41, 0, 3, 3, asked)),
    ]


@pytest.mark.kernel
def test_other_ports_are_not_seen(pair: PrivateLab) -> None:
    with Watch() as watch:
        watch.add(PacketObserver(pair, "left", "eth0", {80}))
        client, server = connect(pair, 81)
        with client, server:
            assert watch.take() == ((), ((ObserverId(ObserverKind.PACKETS, "left", "eth0"), 0),))


@pytest.mark.kernel
def test_what_a_full_ring_has_no_room_for_is_counted_once(pair: PrivateLab) -> None:
    sent = 100
    with Watch() as watch:
        watch.add(PacketObserver(pair, "left", "eth0", {80}, slots=16))
        watch.add(PacketObserver(pair, "left", "eth0", {80}))
        pair.run("left", "ip", "neigh", "replace", str(RIGHT), "dev", "eth0", "lladdr", "02:00:00:00:00:01")
        for seq in range(sent):
            send_canary(pair, "left", RIGHT, 80, seq)
        events, lost = watch.take()
        assert lost == (
            (ObserverId(ObserverKind.PACKETS, "left", "eth0"), sent - 16),
            (ObserverId(ObserverKind.PACKETS, "left", "eth0"), 0),
        )
        assert len(events) == sent + 16
        assert watch.take() == (
            (),
            (
                (ObserverId(ObserverKind.PACKETS, "left", "eth0"), 0),
                (ObserverId(ObserverKind.PACKETS, "left", "eth0"), 0),
            ),
        )


@pytest.mark.kernel
def test_the_ring_goes_round(pair: PrivateLab) -> None:
    observer = PacketObserver(pair, "left", "eth0", {80}, slots=16)
    pair.run("left", "ip", "neigh", "replace", str(RIGHT), "dev", "eth0", "lladdr", "02:00:00:00:00:01")
    seen = []
    for seq in range(50):
        send_canary(pair, "left", RIGHT, 80, seq)
        seen += [packet.segment.seq for packet in observer.read() if isinstance(packet, Packet)]
    assert seen == list(range(50))
    assert observer.lost() == 0
    observer.close()


@pytest.mark.kernel
def test_an_interface_that_is_not_there_is_an_error(pair: PrivateLab) -> None:
    with pytest.raises(OSError, match="No such device"):
        PacketObserver(pair, "left", "eth7", {80})


LOGGING = ("net.netfilter.nf_conntrack_log_invalid", "net.netfilter.nf_log.2")


@pytest.mark.kernel
def test_conntracks_reason_comes_up_and_the_sysctls_go_back(pair: PrivateLab) -> None:
    pair.run("right", "nft", "-f", "-", stdin=TRACKED)
    before = [pair.sysctl("right", key) for key in LOGGING]
    with Watch() as watch:
        watch.add(InvalidObserver(pair, "right", socket.AF_INET))
        assert [pair.sysctl("right", key) for key in LOGGING] == ["6", "nfnetlink_log"]
        send_canary(pair, "left", RIGHT, 80, 77)
        assert watch.until(lambda: watch.saw(lambda event: isinstance(event, InvalidReason)), labs.DEADLINE_S)
        (reason,), lost = watch.take()
    assert isinstance(reason, InvalidReason)
    assert (reason.netns, reason.segment.seq, reason.segment.dst) == ("right", 77, RIGHT)
    assert "tcp" in reason.text or "checksum" in reason.text
    assert lost == ((ObserverId(ObserverKind.REASONS, "right"), 0),)
    assert [pair.sysctl("right", key) for key in LOGGING] == before


@pytest.mark.kernel
def test_reasons_that_found_no_room_are_counted_by_the_gap(pair: PrivateLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_MOST_WAITING", 1)
    pair.run("right", "nft", "-f", "-", stdin=TRACKED)
    slow, quick = InvalidObserver(pair, "right", socket.AF_INET), InvalidObserver(pair, "right", socket.AF_INET)
    sent = 0
    seen: list[int] = []
    with closing(slow), closing(quick):
        while sent < 2000:
            send_canary(pair, "left", RIGHT, 80, sent)
            sent += 1
            quick.read()
        labs.until(lambda: len(quick.read()) == 0, "the last of them")
        while not seen or seen[-1] < 2000:  # what is lost last shows with the next one
            assert sent < 3000
            send_canary(pair, "left", RIGHT, 80, sent)
            sent += 1
            time.sleep(0.01)
            seen += [reason.segment.seq for reason in slow.read()]
        assert len(seen) < 2000
        assert slow.lost() == seen[-1] + 1 - len(seen)
        assert slow.lost() == 0


@pytest.mark.kernel
def test_two_at_once_get_the_same_reasons_and_the_sysctls_go_back_with_the_last(pair: PrivateLab) -> None:
    pair.run("right", "nft", "-f", "-", stdin=TRACKED)
    before = [pair.sysctl("right", key) for key in LOGGING]
    with Watch() as second:
        with Watch() as first:
            for watch in (first, second):
                watch.add(InvalidObserver(pair, "right", socket.AF_INET))
            send_canary(pair, "left", RIGHT, 80, 77)
            for watch in (first, second):
                assert watch.until(lambda: bool(watch.gathered()), labs.DEADLINE_S)  # noqa: B023 (asked at once)
            assert first.take()[0] == second.take()[0]
        assert [pair.sysctl("right", key) for key in LOGGING] == ["6", "nfnetlink_log"]
        send_canary(pair, "left", RIGHT, 80, 78)
        assert second.until(lambda: bool(second.gathered()), labs.DEADLINE_S)
        (reason,), lost = second.take()
        assert isinstance(reason, InvalidReason)
        assert (reason.segment.seq, lost) == (78, ((ObserverId(ObserverKind.REASONS, "right"), 0),))
    assert [pair.sysctl("right", key) for key in LOGGING] == before


@pytest.mark.kernel
def test_a_sysctl_that_somebody_has_written_meanwhile_stays(pair: PrivateLab) -> None:
    pair.run("right", "nft", "-f", "-", stdin=TRACKED)
    observer = InvalidObserver(pair, "right", socket.AF_INET)
    with pair.inside("right"):
        Path("/proc/sys/net/netfilter/nf_conntrack_log_invalid").write_text("255")
    observer.close()
    assert pair.sysctl("right", LOGGING[0]) == "255"


@pytest.mark.kernel
def test_a_group_that_someone_else_reads_is_an_error_and_nothing_is_changed(pair: PrivateLab) -> None:
    pair.run("right", "nft", "-f", "-", stdin=TRACKED)
    before = [pair.sysctl("right", key) for key in LOGGING]
    with pair.inside("right"):
        theirs = nflog.listen(nflog.KERNELS_GROUP, 128, 1 << 20)
    with theirs, pytest.raises(LabError, match="right: another program than netlab reads NFLOG group 0"):
        InvalidObserver(pair, "right", socket.AF_INET)
    assert [pair.sysctl("right", key) for key in LOGGING] == before


@pytest.mark.kernel
def test_a_kernel_without_the_sysctl_is_unsupported_by_name(pair: PrivateLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_LOG_INVALID", "net/netfilter/nf_conntrack_log_nothing")
    before = pair.sysctl("right", "net.netfilter.nf_log.2")
    with pytest.raises(UnsupportedError) as caught:
        InvalidObserver(pair, "right", socket.AF_INET)
    assert str(caught.value) == (
        "this kernel can't tell why a packet is INVALID: net.netfilter.nf_conntrack_log_nothing: "
        "No such file or directory"
    )
    assert caught.value.exit_code == 77
    assert pair.sysctl("right", "net.netfilter.nf_log.2") == before


@pytest.mark.kernel
def test_tcp_info_tells_what_is_sent_and_what_waits(pair: PrivateLab) -> None:
    client, server = connect(pair)
    with client, server, Watch() as watch:
        client.setblocking(False)
        client.send(b"x" * 1000)
        assert watch.until(lambda: tcp_info(client).unacked == 0, labs.DEADLINE_S)
        info = tcp_info(client)
        assert (info.notsent_bytes, info.snd_mss_bytes) == (0, 1448)
        assert info.snd_wnd_bytes > 1448
        while tcp_info(client).notsent_bytes == 0:  # the server doesn't read: at last its window closes
            client.send(b"x" * 65536)


@pytest.mark.kernel
def test_a_socket_error_is_told_once(pair: PrivateLab) -> None:
    client, server = connect(pair)
    with client, Watch() as watch:
        client.setblocking(False)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        assert watch.until(lambda: _note(watch, client), labs.DEADLINE_S, [client])
        (event,), _ = watch.take()
        assert isinstance(event, SocketEvent)
        assert (event.errno, event.netns) == (errno.ECONNRESET, "left")
        assert socket_error(client, "left") is None


@pytest.mark.kernel
def test_a_reset_socket_says_so_of_a_call_that_is_told_another_error(pair: PrivateLab) -> None:
    client, server = connect(pair)
    with client, Watch() as watch:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        closed = bytes([7])  # TCP_CLOSE, include/net/tcp_states.h
        assert watch.until(lambda: client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == closed, labs.DEADLINE_S)
        with pytest.raises(OSError) as caught:
            client.shutdown(socket.SHUT_WR)
        assert (caught.value.errno, why_failed(client, caught.value)) == (errno.ENOTCONN, errno.ECONNRESET)
        assert why_failed(client, caught.value) == errno.ENOTCONN


def _note(watch: Watch, sock: socket.socket) -> bool:
    if event := socket_error(sock, "left"):
        watch.note(event)
    return event is not None
