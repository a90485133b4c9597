"""What is said of a connection that no story of `stories.py` is about: its whole chain, and what else is to know."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import stories
from hops import Hops
from story import FLOW, START_NS

from netlab.analysis import explain
from netlab.analysis.findings import analyse
from netlab.record.events import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    CounterChange,
    Datagram,
    DatagramPacket,
    Direction,
    ResetKind,
    TcpReset,
    Tuple,
)
from netlab.record.flow import Leg
from netlab.record.recording import ClosedSocket, Recording, Stimulus


def chain(recording: Recording) -> list[str]:
    """The links of its chain, in order."""
    return [step.text for step in explain.explain(analyse(recording)).chain]


def notes(recording: Recording) -> tuple[str, ...]:
    return explain.explain(analyse(recording)).notes


GOES_ON = [
    "the last of client is #4: PSH,ACK 4 bytes, seq 1, ack 1; it reaches server",
    "the last of server is #5: ACK, seq 1, ack 5; it reaches client",
]


def test_a_connection_that_goes_on() -> None:
    assert chain(Hops().opened().recording()) == GOES_ON


def test_nothing_at_all() -> None:
    (step,) = explain.explain(analyse(Hops().recording())).chain
    assert (step.text, step.number, step.time_ns) == ("no packet of it was seen", None, None)


def test_a_syn_that_nobody_answers() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_server(1000, SYN, 0)
    assert chain(hops.recording()) == [
        "the last of client is #2: SYN, seq 0, for the second time; it reaches server",
        "nothing was seen of server",
    ]
    hops.to_server(2000, SYN, 0)
    assert chain(hops.recording())[0] == "the last of client is #3: SYN, seq 0, for the third time; it reaches server"
    hops.to_server(3000, SYN, 0)
    assert chain(hops.recording())[0] == "the last of client is #4: SYN, seq 0, for the 4th time; it reaches server"


def test_a_side_that_is_closed() -> None:
    hops = Hops().opened()
    hops.to_client(500, FIN | ACK, 1)
    hops.to_server(600, PSH | ACK, 5, 2, 100, hops=3)
    assert chain(hops.recording()) == [
        "the last of server is #6: FIN,ACK, seq 1, ack 5; it reaches client",
        "server closes its side: its FIN arrives, after all that came before it",
        "the last of client is #7: PSH,ACK 100 bytes, seq 5, ack 2; it is not seen after coming into client-node/cni0",
    ]
    hops = Hops().opened()
    hops.to_server(500, FIN | ACK, 5, 1)
    assert chain(hops.recording())[-1] == "client closes its side: its FIN arrives, after all that came before it"
    closed = ClosedSocket(hops.recording().started_ns, "client", Tuple(*hops.recording().flows[0].headers()[0], 6))
    by_netlab = replace(hops.recording(), stimuli=(Stimulus(closed.time_ns, "", (closed,)),))
    assert chain(by_netlab)[-1] == "netlab closes client's socket: its FIN arrives, after all that came before it"


def test_both_sides() -> None:
    assert chain(Hops().opened().closed(1000, 1).recording()) == [
        "the server's FIN reaches the client, after all that came before it"
    ]


def test_a_window_that_is_closed() -> None:
    assert chain(Hops().filled().recording())[-2:] == [
        "the last of client is #7: ACK, seq 5, ack 2305; it reaches server; its window is closed",
        "client has kept its window closed since #7: its program reads nothing",
    ]


def test_a_rst_that_was_lost_closes_no_window() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0, hops=3)
    assert chain(hops.recording()) == [
        GOES_ON[0],
        "the last of server is #6: RST,ACK, seq 1, ack 5; it is not seen after leaving client-node/cni0",
    ]


def test_an_icmp_error_that_refuses_it() -> None:
    about = Tuple(FLOW.client_address, FLOW.client_port, FLOW.vip, FLOW.port, 6)
    error = Datagram(Tuple(ip_address("10.0.0.1"), 0, FLOW.client_address, 0, 1), 68, 9, 3, 1, about)
    hops = Hops()
    hops.to_server(0, SYN, 0, hops=3)
    hops.events.append(DatagramPacket(START_NS + 500_000, "client-node", "veth-client", Direction.OUT, error))
    hops.events.append(DatagramPacket(START_NS + 501_000, "client", "eth0", Direction.IN, error))
    assert chain(hops.recording()) == [
        "#1 leaves client: SYN, seq 0",
        "client-node answers #1 with ICMP host unreachable #2",
        "#2 reaches client: connecting fails",
    ]


def test_a_socket_that_was_reset_by_nothing_in_sight() -> None:
    hops = Hops().opened()
    hops.socket(600, "client", 104)
    assert chain(hops.recording()) == ["the socket in client has ECONNRESET, and no RST was seen that came to it"]


def test_the_other_end_learns_of_it() -> None:
    assert (
        chain(stories.reset())[-1]
        == "server answers #10 with RST #11, and client learns of it: its socket is reset too"
    )


def test_or_does_not() -> None:
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, stories.OVER, bad)
    hops.reason(771, "invalid new", hops.to_server(760, RST, 5, window=0, nat=False, ip_id=0))
    assert chain(hops.recording())[-1] == "client was not told: no RST came to it"
    hops.socket(900, "client", 104)
    assert chain(hops.recording())[-1] == "#9 reaches server; what its socket made of it was not observed"


def test_or_may_have() -> None:
    """What came to it and was not acknowledged may have been refused: then the RST has the number it waits for."""
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, stories.OVER, bad)
    hops.to_server(760, RST, 5, window=0, nat=False, ip_id=0)
    hops.to_server(800, ACK, 5, 1)
    hops.to_client(850, RST, 1, window=0)
    assert (
        chain(hops.recording())[-1]
        == "server answers #9 with RST #10, which reaches client; what its socket made of it was not observed"
    )


def test_several_packets_that_fared_alike() -> None:
    def dropped(count: int) -> Recording:
        hops = Hops().opened()
        for number in range(count):
            hops.to_client(1000 + number * 1000, PSH | ACK, 1 + number * 100, 5, 100, nat=False)
        return hops.recording()

    assert not any("the same holds" in text for text in chain(dropped(1)))
    (more,) = [text for text in chain(dropped(2)) if "the same holds" in text]
    assert more == "the same holds for 1 more: #7"
    (more,) = [text for text in chain(dropped(6)) if "the same holds" in text]
    assert more == "the same holds for 5 more: #7, #8, #9, #10, #11"
    (more,) = [text for text in chain(dropped(7)) if "the same holds" in text]
    assert more == "the same holds for 6 more: #7, #8, #9, #10, #11 ..."


def test_a_cause_from_a_counter() -> None:
    hops = Hops().opened()
    hops.to_server(500, PSH | ACK, 5, 1, 1000, hops=3)
    hops.events.append(CounterChange(START_NS + 900_000, "client-node", "IpExt.InNoRoutes", 3))
    assert chain(hops.recording())[-1] == "#6 find no route on client-node (IpExt.InNoRoutes counted 3)"


# --- what else is to know --------------------------------------------------------------------------------------------

NAT = (
    "NAT on client-node: 10.0.0.2:40000 > 192.168.0.2:80 becomes 10.0.0.2:40000 > 10.0.1.2:8080",
    "NAT on client-node: 10.0.1.2:8080 > 10.0.0.2:40000 becomes 192.168.0.2:80 > 10.0.0.2:40000",
)


def test_what_nat_rewrote() -> None:
    assert notes(Hops().opened().recording()) == NAT
    events = tuple(event for event in Hops().opened().events if event.netns != "client-node")
    assert notes(Hops().recording(events=events)) == tuple(
        note.replace("on client-node", "where it was not observed") for note in NAT
    )


def test_how_much_was_sent_again() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_client(600, ACK, 1, 5, 100)
    assert notes(hops.recording()) == ("1 packet carries data that was sent before", *NAT)
    hops.to_client(700, ACK, 1, 5, 100)
    assert notes(hops.recording()) == ("2 packets carry data that was sent before", *NAT)


def test_why_the_kernel_says_it_sent_its_rsts() -> None:
    hops = Hops().opened()
    servers = Tuple(*FLOW.header(Leg.ENDPOINT_TO_CLIENT), 6)
    word = TcpReset(START_NS + 510_000, "server", ResetKind.SENT, "TCP_ABORT_ON_CLOSE", servers, "CLOSE")
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    assert notes(hops.recording(events=(*hops.events, word))) == (
        "the kernel says that server's TCP sent RST #6: TCP_ABORT_ON_CLOSE",
        *NAT,
    )
    hops.to_client(900, RST | ACK, 1, 5, window=0)
    again = replace(word, time_ns=START_NS + 910_000)
    assert notes(hops.recording(events=(*hops.events, word, again)))[0] == (
        "the kernel says that server's TCP sent RST #6 and 1 more: TCP_ABORT_ON_CLOSE"
    )
