"""Interfaces, routes, rules, neighbours, listening sockets, sysctls: as they are in a namespace, and as they change."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import labs
import pytest
from pair import LEFT, PAIR, RIGHT
from private_lab import PrivateLab

from netlab.linux.netlink import attribute
from netlab.observe.counters import Counters
from netlab.observe.network import (
    NetworkObserver,
    decode_interface,
    decode_neighbour,
    decode_route,
    decode_rule,
    network_state,
)
from netlab.observe.watch import Watch
from netlab.record.events import Event, InterfaceChange, NeighbourChange, RouteChange
from netlab.record.network import (
    InterfaceState,
    ListeningSocket,
    Neighbour,
    NetworkState,
    NextHop,
    RouteState,
    RoutingRule,
)
from netlab.record.observers import ObserverId, ObserverKind

NOBODY = ip_address("10.9.0.77")
IFNAMES = {1: "lo", 2: "eth0", 3: "eth1", 9: "cni0"}


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, left and right, joined by a veth pair."""
    with PrivateLab(PAIR) as lab:
        yield lab


# --- taking messages apart -------------------------------------------------------------------------------------------


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def rtmsg(family: int, bits: int, table: int, kind: int, flags: int = 0, src_bits: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, bits, src_bits, 0, table, 4, 0, kind, flags)


def test_a_route_with_a_gateway_a_metric_and_an_mtu() -> None:
    body = rtmsg(socket.AF_INET, 16, 254, 1) + b"".join(
        (
            u32(15, 254),
            attribute(1, ip_address("10.2.0.0").packed),
            attribute(5, RIGHT.packed),
            u32(4, 2),
            u32(6, 100),
            attribute(7, LEFT.packed),
            attribute(8, u32(2, 1300)),
        )
    )
    assert decode_route(body, IFNAMES) == RouteState(
        ip_address("10.2.0.0"), 16, "unicast", 254, (NextHop("eth0", RIGHT),), 100, LEFT, 1300
    )


def test_a_multipath_route_and_a_gateway_of_the_other_family() -> None:
    first = struct.pack("=HBBi", 8 + 8, 0, 2, 2) + attribute(5, RIGHT.packed)
    gateway = ip_address("fe80::1")
    via = attribute(18, struct.pack("=H", socket.AF_INET6) + gateway.packed)
    second = struct.pack("=HBBi", 8 + len(via), 0, 0, 3) + via
    body = rtmsg(socket.AF_INET, 0, 254, 1) + attribute(9, first + second)
    route = decode_route(body, IFNAMES)
    assert route is not None
    assert (route.destination, route.prefix_length) == (ip_address("0.0.0.0"), 0)
    assert route.next_hops == (NextHop("eth0", RIGHT, 3), NextHop("eth1", gateway, 1))


def test_a_route_that_refuses_leads_to_no_interface() -> None:
    body = rtmsg(socket.AF_INET6, 64, 0, 7) + u32(15, 1000) + attribute(1, ip_address("fd00::").packed) + u32(4, 1)
    assert decode_route(body, IFNAMES) == RouteState(ip_address("fd00::"), 64, "unreachable", 1000)


def test_what_was_learned_of_a_path() -> None:
    cache = struct.pack("=IIiIIIII", 1, 0, 59_900, 0, 0, 0, 0, 0)
    body = rtmsg(socket.AF_INET, 32, 254, 1, 0x200) + b"".join(
        (attribute(1, RIGHT.packed), u32(4, 2), attribute(8, u32(2, 1300)), attribute(12, cache))
    )
    route = decode_route(body, IFNAMES)
    assert route is not None
    assert (route.learned, route.mtu, route.expires_ms) == (True, 1300, 599_000)


@pytest.mark.parametrize(
    "body",
    [
        rtmsg(socket.AF_INET, 32, 255, 2) + attribute(1, LEFT.packed),
        rtmsg(socket.AF_INET6, 8, 254, 5) + attribute(1, ip_address("ff00::").packed),
        rtmsg(socket.AF_INET6, 8, 254, 1) + attribute(1, ip_address("ff00::").packed),
    ],
)
def test_local_and_multicast_routes_are_left_out(body: bytes) -> None:
    assert decode_route(body, IFNAMES) is None


def test_rules_and_what_they_select_by() -> None:
    every = rtmsg(socket.AF_INET, 0, 254, 1) + u32(6, 32766) + u32(15, 254)
    assert decode_rule(every) == RoutingRule(32766, 4, "table", 254)
    picky = rtmsg(socket.AF_INET, 24, 0, 7, 2, 16) + b"".join(
        (
            u32(6, 10),
            attribute(2, ip_address("10.1.0.0").packed),
            attribute(1, ip_address("10.2.3.0").packed),
            u32(10, 1),
            u32(16, 0xFF),
            attribute(3, b"eth0\0"),
            attribute(22, b"\6"),
        )
    )
    selector = "not from 10.1.0.0/16 to 10.2.3.0/24 fwmark 0x1/0xff iif eth0 ipproto"
    assert decode_rule(picky) == RoutingRule(10, 4, "unreachable", 0, selector)
    assert decode_rule(rtmsg(129, 0, 0, 1)) is None


def test_neighbours_that_somebody_must_answer_for() -> None:
    def ndmsg(family: int, state: int) -> bytes:
        return struct.pack("=BxxxiHBB", family, 2, state, 0, 1) + attribute(1, RIGHT.packed)

    lladdr = attribute(2, bytes.fromhex("020000000001"))
    assert decode_neighbour(ndmsg(socket.AF_INET, 2) + lladdr, IFNAMES) == Neighbour(
        "eth0", RIGHT, "02:00:00:00:00:01", "REACHABLE"
    )
    assert decode_neighbour(ndmsg(socket.AF_INET, 32), IFNAMES) == Neighbour("eth0", RIGHT, "", "FAILED")
    assert decode_neighbour(ndmsg(socket.AF_INET, 0x40) + lladdr, IFNAMES) is None  # NOARP: multicast
    assert decode_neighbour(ndmsg(socket.AF_BRIDGE, 2) + lladdr, IFNAMES) is None


def test_a_port_of_a_bridge() -> None:
    body = struct.pack("=BxHiII", 0, 1, 3, 1, 0) + b"".join(
        (
            attribute(3, b"veth1\0"),
            attribute(1, bytes.fromhex("020000000001")),
            u32(4, 1400),
            u32(10, 9),
            attribute(16, b"\6"),
            attribute(18, attribute(1, b"veth\0")),
        )
    )
    assert decode_interface(body, IFNAMES) == InterfaceState(
        "veth1", True, "UP", 1400, "02:00:00:00:00:01", "veth", "cni0"
    )


# --- a namespace as it is --------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_namespace_as_it_is(pair: PrivateLab) -> None:
    for line in (
        "ip address add fd00:9::1/64 dev eth0 nodad",
        f"ip route add 10.2.0.0/16 via {RIGHT} metric 7 mtu 1300",
        "ip route add blackhole 10.3.0.0/16",
        "ip route add default dev eth0 table 100",
        "ip rule add from 10.9.9.0/24 table 100 priority 10",
        f"ip neigh add {RIGHT} lladdr 02:00:00:00:00:01 dev eth0",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
        "sysctl -qw net.ipv4.conf.all.rp_filter=2",
    ):
        pair.run("left", *line.split())
    with (
        pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as tcp,
        pair.socket("left", socket.AF_INET6, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind((str(LEFT), 80))
        tcp.listen(5)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.bind(("::", 53))
        state = network_state(pair, "left")
    interfaces = {interface.ifname: interface for interface in state.interfaces}
    eth0 = interfaces["eth0"]
    assert (eth0.kind, eth0.up, eth0.mtu, interfaces["lo"].mtu) == ("veth", True, 1500, 65536)
    assert {(LEFT, 24), (ip_address("fd00:9::1"), 64)} <= {*eth0.addresses}
    assert [route for route in state.routes if route.destination.version == 4] == [
        RouteState(ip_address("0.0.0.0"), 0, "unicast", 100, (NextHop("eth0"),)),
        RouteState(ip_address("10.2.0.0"), 16, "unicast", 254, (NextHop("eth0", RIGHT),), 7, None, 1300),
        RouteState(ip_address("10.3.0.0"), 16, "blackhole", 254),
        RouteState(ip_address("10.9.0.0"), 24, "unicast", 254, (NextHop("eth0"),), 0, LEFT),
    ]
    assert [rule for rule in state.rules if rule.version == 4][:2] == [
        RoutingRule(0, 4, "table", 255),
        RoutingRule(10, 4, "table", 100, "from 10.9.9.0/24"),
    ]
    assert state.neighbour(RIGHT) == Neighbour("eth0", RIGHT, "02:00:00:00:00:01", "PERMANENT")
    assert state.listening == (
        ListeningSocket(socket.IPPROTO_TCP, LEFT, 80, 0, 5),
        ListeningSocket(socket.IPPROTO_UDP, ip_address("::"), 53, 0, 0, only_ipv6=True),
    )
    assert (state.reverse_path_filter("eth0"), state.sysctl("net.ipv4.ip_forward")) == (2, "0")
    assert state.sysctl("net.no_such") is None


@pytest.mark.kernel
def test_a_queue_of_connections_that_nobody_accepts_is_seen(pair: PrivateLab) -> None:
    with pair.socket("right", socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((str(RIGHT), 80))
        listener.listen(0)
        with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((str(RIGHT), 80))
            state = network_state(pair, "right")
    assert state.listens(6, RIGHT, 80) == ListeningSocket(socket.IPPROTO_TCP, RIGHT, 80, 1, 0)


@pytest.mark.kernel
def test_the_mtu_of_a_path_that_was_learned_is_told(pair: PrivateLab) -> None:
    """A router's error, hand-made: the kernel learns of it where its quoted packet has a socket."""
    with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((str(RIGHT), 9))
        port = udp.getsockname()[1]
        quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1500, 1, 0x4000, 64, 17, 0, LEFT.packed, RIGHT.packed)
        quoted += struct.pack("!HHHH", port, 9, 1480, 0)
        body = struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quoted
        checksum = sum(struct.unpack(f"!{len(body) // 2}H", body))
        while checksum >> 16:
            checksum = (checksum & 0xFFFF) + (checksum >> 16)
        with pair.socket("right", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            icmp.sendto(body[:2] + struct.pack("!H", ~checksum & 0xFFFF) + body[4:], (str(LEFT), 0))
        with Watch() as watch:
            assert watch.until(lambda: network_state(pair, "left").path_mtu(RIGHT) == 1300, labs.DEADLINE_S)
    assert network_state(pair, "left").path_mtu(NOBODY) is None


# --- as it changes ---------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_changes_are_told_as_they_come(pair: PrivateLab) -> None:
    with Watch() as watch:
        watch.add(NetworkObserver(pair, "left"))
        for line in (
            f"ip neigh add {NOBODY} lladdr 02:00:00:00:00:02 dev eth0",
            f"ip route add 10.2.0.0/16 via {NOBODY}",
            f"ip route del 10.2.0.0/16 via {NOBODY}",
            f"ip neigh del {NOBODY} dev eth0",
            "ip link set eth0 mtu 1400",
        ):
            pair.run("left", *line.split())
        events, lost = watch.take()
    neighbour = Neighbour("eth0", NOBODY, "02:00:00:00:00:02", "PERMANENT")
    route = RouteState(ip_address("10.2.0.0"), 16, "unicast", 254, (NextHop("eth0", NOBODY),))
    told = [replace(event, time_ns=0) for event in events if not isinstance(event, InterfaceChange)]
    of_ours = [event for event in told if event in (NeighbourChange(0, "left", neighbour),)]
    assert of_ours == [NeighbourChange(0, "left", neighbour)]
    routes = [event for event in told if isinstance(event, RouteChange) and event.route.destination.version == 4]
    assert routes == [RouteChange(0, "left", route), RouteChange(0, "left", route, gone=True)]
    assert [event.gone for event in told if isinstance(event, NeighbourChange)][-1:] == [True]
    interfaces = [event.interface for event in events if isinstance(event, InterfaceChange)]
    assert [(each.ifname, each.mtu) for each in interfaces][-1:] == [("eth0", 1400)]
    assert lost == ((ObserverId(ObserverKind.NETWORK, "left"), 0),)


@pytest.mark.kernel
def test_a_neighbour_that_nobody_answers_for_is_told(pair: PrivateLab) -> None:
    pair.run("left", "sysctl", "-qw", "net.ipv4.neigh.eth0.retrans_time_ms=10", "net.ipv4.neigh.eth0.mcast_solicit=1")

    def failed(event: Event) -> bool:
        return isinstance(event, NeighbourChange) and event.neighbour == Neighbour("eth0", NOBODY, "", "FAILED")

    with Watch() as watch:
        watch.add(NetworkObserver(pair, "left"))
        with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x", (str(NOBODY), 9))
        assert watch.until(lambda: watch.saw(failed), labs.DEADLINE_S)


# --- counters --------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_what_an_interface_and_its_qdisc_drop_is_counted(pair: PrivateLab) -> None:
    pair.run(
        "left", "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8kbit", "burst", "100", "limit", "200"
    )
    pair.run("left", "ip", "neigh", "replace", str(RIGHT), "dev", "eth0", "lladdr", "02:00:00:00:00:01")
    counters = Counters(pair, "left")
    with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for _ in range(20):
            udp.sendto(b"x" * 50, (str(RIGHT), 9))
    dropped = {change.name: change.by for change in counters.changes() if change.ifname == "eth0"}
    assert dropped["qdisc.drops"] >= 10


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("rule", "counter", "not_counted"),
    [
        ("tcp dport 80 reject with tcp reset", None, "Tcp.OutRsts"),
        ("tcp dport 80 reject with icmp port-unreachable", "Icmp.OutDestUnreachs", "Tcp.OutRsts"),
        ("", "Tcp.OutRsts", "Icmp.OutDestUnreachs"),
    ],
    ids=["rule with RST", "rule with ICMP", "no socket"],
)
def test_what_refuses_a_connection_shows_in_the_counters(
    pair: PrivateLab, rule: str, counter: str | None, not_counted: str
) -> None:
    """A RST that a rule makes is in no counter of TCP's (nf_send_reset()): that tells it from a socket's."""
    if rule:
        pair.run("right", "nft", f"table ip t {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}")
    counters = Counters(pair, "right")
    with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(labs.DEADLINE_S)
        with pytest.raises(ConnectionRefusedError):
            client.connect((str(RIGHT), 80))
    changes = {change.name: change.by for change in counters.changes()}
    assert changes.get(not_counted) is None
    assert counter is None or changes[counter] == 1


# --- what a state tells ----------------------------------------------------------------------------------------------


def state(**changes: object) -> NetworkState:
    whole = NetworkState(
        time_ns=0,
        netns="n",
        interfaces=(InterfaceState("eth0", True, "UP", 1500, "", addresses=((LEFT, 24),)),),
        routes=(
            RouteState(ip_address("10.9.0.0"), 24, "unicast", 254, (NextHop("eth0"),)),
            RouteState(ip_address("0.0.0.0"), 0, "unicast", 254, (NextHop("eth0", RIGHT),), 10),
            RouteState(ip_address("0.0.0.0"), 0, "unreachable", 254, (), 20),
            RouteState(ip_address("10.3.0.0"), 16, "throw", 100),
            RouteState(ip_address("0.0.0.0"), 0, "blackhole", 100),
            RouteState(RIGHT, 32, "unicast", 254, (NextHop("eth0"),), mtu=1300, learned=True),
        ),
        rules=(RoutingRule(0, 4, "table", 255), RoutingRule(32766, 4, "table", 254)),
        neighbours=(),
        listening=(),
        sysctls=(("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv4.conf.eth0/5.rp_filter", "1")),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def kind_of_route(told: NetworkState, address: str) -> tuple[str, int] | None:
    route = told.route_to(ip_address(address))
    return (route.kind, route.metric) if route else None


def test_the_route_to_an_address() -> None:
    assert kind_of_route(state(), "10.9.0.2") == ("unicast", 0)
    assert kind_of_route(state(), "8.8.8.8") == ("unicast", 10)
    assert kind_of_route(state(), "fd00::1") is None
    assert kind_of_route(state(rules=()), "8.8.8.8") is None


def test_rules_decide_which_table_a_route_is_from() -> None:
    main = RoutingRule(32766, 4, "table", 254)
    first = RoutingRule(5, 4, "table", 100)
    assert kind_of_route(state(rules=(main, first)), "8.8.8.8") == ("blackhole", 0)
    assert kind_of_route(state(rules=(main, first)), "10.3.0.1") == ("unicast", 10)  # throw: go on with the next rule
    assert kind_of_route(state(rules=(main, replace(first, selector="iif eth1"))), "8.8.8.8") == ("unicast", 10)
    assert kind_of_route(state(rules=(main, replace(first, action="prohibit"))), "8.8.8.8") == ("prohibit", 0)


def test_addresses_paths_and_filters() -> None:
    assert (state().is_local(LEFT), state().is_local(RIGHT), state().is_local(ip_address("::1"))) == (True, False, True)
    assert (state().path_mtu(RIGHT), state().path_mtu(LEFT)) == (1300, None)
    assert [state().reverse_path_filter(ifname) for ifname in ("eth0", "eth0.5")] == [0, 1]


def test_which_socket_takes_what_comes() -> None:
    six, four, own = ip_address("::"), ip_address("0.0.0.0"), ListeningSocket(6, LEFT, 80, 0)
    sockets = (ListeningSocket(6, four, 80, 0), own, ListeningSocket(17, six, 53, 0), ListeningSocket(6, six, 22, 0))
    told = state(listening=(*sockets, ListeningSocket(6, six, 81, 0, only_ipv6=True)))
    assert told.listens(6, LEFT, 80) == own
    assert told.listens(6, RIGHT, 80) == sockets[0]
    assert told.listens(17, LEFT, 53) == sockets[2]
    assert told.listens(17, ip_address("fd00::1"), 53) == sockets[2]
    assert told.listens(6, ip_address("fd00::1"), 80) is None
    assert told.listens(6, LEFT, 81) is None
    assert told.listens(17, LEFT, 80) is None
