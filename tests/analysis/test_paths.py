"""What a packet's places tell: whether it stayed on a bridge, and whether it asks for a window."""

from __future__ import annotations

import pytest
from hops import FLAGSHIP, Hops
from story import FLOW

from netlab.analysis.paths import Place, bridge_ports, bridged, window_probes
from netlab.analysis.timeline import build
from netlab.record.events import ACK, FIN, PSH, RST, SYN, Direction
from netlab.topology import load

IN, OUT = Direction.IN, Direction.OUT
PORTS = {("node", "a"): "br0", ("node", "b"): "br0", ("node", "c"): "br1"}


def places(*names: str) -> list[Place]:
    """The interfaces of the node that a packet crossed: "a in"."""
    return [("node", ifname, Direction(way)) for ifname, way in (name.split() for name in names)]


@pytest.mark.parametrize(
    ("names", "stayed"),
    [
        (("a in", "b out"), True),
        (("a in", "br0 in", "b out"), False),
        (("a in", "br0 in", "br0 out", "b out"), False),
        (("a in", "c out"), False),
        (("a in", "eth0 out"), False),
        (("eth0 in", "b out"), False),
        (("a in",), False),
        (("a in", "eth0 out", "b out"), True),
        (("a in", "b out", "c out"), False),
        ((), False),
    ],
)
def test_a_packet_stays_on_a_bridge_that_never_had_it_itself(names: tuple[str, ...], stayed: bool) -> None:
    assert bridged(places(*names), PORTS) is stayed


def test_the_ports_of_each_bridge() -> None:
    ports = bridge_ports(load(FLAGSHIP, "flagship.yaml"))
    assert ports == {("client-node", "veth-client"): "cni0", ("server-node", "veth-server"): "cni0"}
    assert bridge_ports(None) == {}


def probes(hops: Hops) -> list[int]:
    return sorted(window_probes(build(hops.recording()).of(FLOW)))


def test_a_bare_ack_of_the_last_byte_to_a_closed_window_is_a_probe() -> None:
    hops = Hops().filled()
    hops.to_client(700, ACK, 2304, 5)
    hops.to_client(900, ACK, 2304, 5)
    assert probes(hops) == [8, 9]


@pytest.mark.parametrize(
    ("flags", "seq", "length"),
    [(ACK, 2305, 0), (ACK, 2303, 0), (ACK, 2304, 1), (PSH | ACK, 2304, 0), (RST, 2304, 0), (FIN | ACK, 2304, 0)],
)
def test_another_packet_is_none(flags: int, seq: int, length: int) -> None:
    hops = Hops().filled()
    hops.to_client(700, flags, seq, 5, length)
    assert probes(hops) == []


def test_an_open_window_needs_none() -> None:
    hops = Hops().filled()
    hops.to_server(650, ACK, 5, 2305, window=1)
    hops.to_client(700, ACK, 2304, 5)
    assert probes(hops) == []


def test_a_rst_closes_no_window_and_a_retransmission_sends_nothing_new() -> None:
    hops = Hops().opened()
    hops.to_server(500, RST, 5, window=0)
    hops.to_client(600, ACK, 0, 5)
    assert probes(hops) == []
    hops = Hops().filled()
    hops.to_client(650, ACK, 1, 5, 100)
    hops.to_client(700, ACK, 2304, 5)
    assert probes(hops) == [9]


def test_the_client_may_ask_too() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, window=0)
    hops.to_server(700, ACK, 4, 1)
    assert probes(hops) == [7]


def test_a_syn_begins_to_count_anew() -> None:
    hops = Hops().filled()
    hops.to_client(700, SYN | ACK, -9000, 5)
    hops.to_server(750, ACK, 5, -8999, window=0)
    hops.to_client(800, ACK, -9000, 5)
    assert probes(hops) == [10]
