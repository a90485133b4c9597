"""What is said of one packet: who sent a RST, what it did at the end of its way, and why NAT left a packet alone."""

from __future__ import annotations

import pytest
import stories
from hops import SERVER, Hops
from story import FLOW, START_NS

from netlab.analysis import explain
from netlab.analysis.findings import analyse
from netlab.record.events import (
    ACK,
    PSH,
    RST,
    SYN,
    EntryChange,
    Packet,
    PacketDrop,
    ResetKind,
    TcpReset,
    Tuple,
)
from netlab.record.flow import Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import ClosedSocket, CraftedSegment, Recording, Stimulus

CLIENTS, SERVERS = FLOW.header(Leg.CLIENT_TO_VIP), FLOW.header(Leg.ENDPOINT_TO_CLIENT)


def said(recording: Recording, number: int) -> list[str]:
    """What is said of a packet, in order."""
    return [step.text for step in explain.explain(analyse(recording)).chain if step.number == number]


def by_netlab(at_us: int = 100) -> tuple[Stimulus, ...]:
    """netlab has closed the server's socket."""
    return (Stimulus(START_NS, "", (ClosedSocket(START_NS + at_us * 1000, "server", Tuple(*SERVERS, 6)),)),)


# --- who sends a RST -------------------------------------------------------------------------------------------------

UNOBSERVED = "#{} reaches client; what its socket made of it was not observed"


def aborted() -> Hops:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    return hops


def test_a_port_where_nobody_listens() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, RST | ACK, -SERVER, 1, window=0)
    assert said(hops.recording(), 1) == ["#1 leaves client: SYN, seq 0"]
    assert said(hops.recording(), 2) == [
        "server has no socket that listens for #1 -> RST #2 (RST,ACK, seq 0, ack 1)",
        UNOBSERVED.format(2),
    ]


def test_a_socket_that_aborts() -> None:
    assert said(aborted().recording(), 6) == [
        "server aborts the connection itself: RST #6 to client (RST,ACK, seq 1, ack 5)",
        UNOBSERVED.format(6),
    ]


def test_a_socket_that_netlab_closed() -> None:
    assert said(aborted().recording(stimuli=by_netlab()), 6)[0] == (
        "netlab closes server's socket before all is read: RST #6 to client (RST,ACK, seq 1, ack 5)"
    )


def gone() -> Hops:
    hops = Hops().opened()
    hops.to_server(600, PSH | ACK, 5, 1, 100)
    hops.to_client(700, RST, 1, window=0)
    return hops


def test_a_socket_that_is_gone() -> None:
    assert said(gone().recording(), 6) == ["#6 leaves client: PSH,ACK 100 bytes, seq 5, ack 1"]
    assert said(gone().recording(), 7)[0] == (
        "server answers #6 with RST #7: it has no such connection any more (RST, seq 1)"
    )
    assert said(gone().recording(stimuli=by_netlab()), 7)[0] == (
        "server answers #6 with RST #7: netlab has closed the socket (RST, seq 1)"
    )


def test_a_kernel_without_that_connection() -> None:
    assert said(stories.reset(), 9)[0] == (
        "client knows no connection with 10.0.1.2:8080 -> RST #9, seq = #8's ack (RST, seq 5)"
    )


def unexplained() -> Hops:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_client(600, RST, 101, window=0)
    return hops


def test_a_rst_that_answers_nothing() -> None:
    assert said(unexplained().recording(), 7)[0] == (
        "server sends RST #7 to client; it answers no packet that was seen (RST, seq 101)"
    )


def test_a_rst_that_comes_from_out_of_sight() -> None:
    events = tuple(e for e in gone().events if not isinstance(e, Packet) or e.netns != "server")
    assert said(gone().recording(events=events), 7)[0] == (
        "client-node receives, from somewhere unobserved, RST #7 to client; "
        "it answers no packet that was seen (RST, seq 1)"
    )


def test_a_rst_that_a_step_wrote() -> None:
    hops = Hops().opened()
    own = hops.to_client(500, RST, 1, window=0)
    written = (Stimulus(START_NS, "craft", (CraftedSegment(START_NS + 499_000, "server", own),)),)
    assert (
        said(hops.recording(stimuli=written), 6)[0] == "a step of the experiment sends RST #6 from server (RST, seq 1)"
    )


def test_a_rst_that_the_kernels_tcp_did_not_make() -> None:
    other = TcpReset(START_NS + 90_000_000, "client", ResetKind.SENT, "", Tuple(*CLIENTS, 6), "CLOSE")
    recording = gone().recording(events=(*gone().events, other))
    assert said(recording, 7)[0] == (
        "server's TCP did not make RST #7, the kernel says: a rule that was not seen, or a program's raw socket, did; "
        "it looks like the answer to #6 (RST, seq 1)"
    )
    recording = aborted().recording(events=(*aborted().events, other))
    assert said(recording, 6)[0].endswith("raw socket, did (RST,ACK, seq 1, ack 5)")


def test_a_rule_that_rejects() -> None:
    hops = Hops().opened()
    taken = hops.to_server(500, PSH | ACK, 5, 1, 10, hops=3)
    hops.trace(530, 7, "FORWARD", "tcp dport 80 reject with tcp reset", "drop", taken)
    hops.to_client(600, RST, 1, window=0)
    events = tuple(
        event
        for event in hops.events
        if not isinstance(event, Packet)
        or not event.segment.flags & RST
        or event.ifname in ("cni0", "veth-client")
        or event.netns == "client"
    )
    assert said(hops.recording(events=events), 7)[0] == (
        "rule `tcp dport 80 reject with tcp reset` of chain FORWARD (ip filter) on client-node rejects #6 with RST #7 "
        "(RST, seq 1)"
    )


# --- what it does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seq", "text"),
    [
        (1, "what its socket made of it was not observed"),
        (100, "it lies in the window, but not where client waits; client asks with an ACK"),
        (0, "its number is outside of what client waits for, and client ignores it"),
    ],
)
def test_what_a_rst_did(seq: int, text: str) -> None:
    hops = Hops().opened()
    hops.to_client(500, RST, seq, window=0)
    assert said(hops.recording(), 6)[-1].removeprefix("#6 reaches client").lstrip(";: ") == text


def test_a_rst_of_which_that_can_not_be_told() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_client(600, RST, 1, window=0)
    assert said(hops.recording(), 7)[-1] == "#7 reaches client; whether it is what client waits for can't be told"


def test_a_rst_to_a_closed_socket() -> None:
    hops = Hops().opened()
    hops.to_server(500, RST | ACK, 5, 1, window=0, hops=4)
    hops.to_client(600, RST, 1, window=0)
    assert said(hops.recording(), 7)[-1] == (
        "#7 reaches client, which has no such socket, or has closed it: it does no harm"
    )


def test_a_socket_that_says_that_it_was_reset() -> None:
    hops = aborted()
    hops.socket(550, "client", 104)
    assert said(hops.recording(), 6)[-1] == "#6 reaches client: its socket is reset (ECONNRESET)"


def test_a_socket_of_which_the_kernel_says_so() -> None:
    takes = TcpReset(
        START_NS + 545_000, "client", ResetKind.ACCEPTED, "", Tuple(*CLIENTS, 6), "ESTABLISHED", rcv_nxt=SERVER + 1
    )
    recording = aborted().recording(events=(*aborted().events, takes))
    assert said(recording, 6)[-1] == "#6 reaches client: its socket accepts it, the kernel says, and is reset"


# --- left alone ------------------------------------------------------------------------------------------------------


def reply(**how: int) -> Hops:
    hops = Hops().opened()
    hops.to_client(500, PSH | ACK, 1, 5, 100, nat=False, **how)
    return hops


ASTRAY = ["#6 leaves server: PSH,ACK 100 bytes, seq 1, ack 5", "", "#6 reaches client, as if from 10.0.1.2"]


def test_nat_that_left_a_reply_alone_for_no_reason_in_sight() -> None:
    why = "NAT on client-node left it alone: its source stays 10.0.1.2, and why was not seen"
    assert said(reply().recording(), 6) == [ASTRAY[0], why, ASTRAY[2]]


def test_nat_that_had_no_translation() -> None:
    hops = reply()
    hops.entry(20, EntryChange.NEW)
    hops.entry(450, EntryChange.DESTROY)
    lost = ((ObserverId(ObserverKind.PACKETS, "client-node", "eth0"), 1),)
    why = "NAT on client-node has no translation for it: its source stays 10.0.1.2"
    assert said(hops.recording(lost=lost), 6) == [ASTRAY[0], why, ASTRAY[2]]


def test_a_rule_that_keeps_it_from_conntrack() -> None:
    why = "a rule keeps it from conntrack on client-node, and nothing translates it: its source stays 10.0.1.2"
    assert said(reply().recording(fixes=("notrack",)), 6) == [ASTRAY[0], why, ASTRAY[2]]


def test_nat_that_skips_what_is_invalid() -> None:
    assert said(stories.reset(), 8)[-1] == "NAT on client-node skips it: its source stays 10.0.1.2"


# --- conntrack -------------------------------------------------------------------------------------------------------


def test_what_only_the_model_says_is_said_to_be_the_models() -> None:
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    assert said(hops.recording(), 8)[1:3] == [
        "it ends 4,694 bytes past the window that conntrack on client-node allows (td_maxend 2306, 7306 on the wire); "
        "kernels since 6.1 forgive 2,303 here",
        f'conntrack on client-node: INVALID by the model, "{stories.OVER}"; its own log has nothing',
    ]
    deaf = hops.recording(lost=())
    assert said(deaf, 8)[2] == (
        f'conntrack on client-node: INVALID by the model, "{stories.OVER}"; its own log was not read'
    )


def test_a_packet_that_is_held_up() -> None:
    (held,) = [text for text in said(stories.overtaken(), 7) if "held up" in text]
    assert held == (
        "it is held up between server and client-node for 300.0 ms; meanwhile its data goes out again as #8, "
        "which reaches client"
    )


# --- its fate --------------------------------------------------------------------------------------------------------


def test_a_packet_that_a_rule_took() -> None:
    assert said(stories.dropped(), 8)[-1] == (
        "dropped on client-node by rule `ct state invalid drop` of chain KUBE-FORWARD (ip filter)"
    )


def test_a_packet_that_the_kernel_dropped() -> None:
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False, hops=2)
    hops.reason(712, stories.OVER, bad)
    drop = PacketDrop(START_NS + 715_000, "client-node", "NETFILTER_DROP", segment=bad)
    assert said(hops.recording(events=(*hops.events, drop)), 8)[-1] == ("client-node's kernel drops #8: NETFILTER_DROP")
    assert said(hops.recording(), 8)[-1] == "#8 is not seen after coming into client-node/eth0"


def test_a_packet_with_a_wrong_checksum() -> None:
    assert said(stories.corrupted(), 9)[-1] == (
        "#9 reaches client, whose kernel drops what has a wrong checksum, and answers nothing"
    )
