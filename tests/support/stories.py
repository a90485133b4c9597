"""Recordings with a story each, for tests of what is said and drawn of them."""

from __future__ import annotations

import errno
from dataclasses import replace

from crossings import OBSERVERS, Crossings, other_flow
from story import FLOW

from netlab.record.events import ACK, FIN, PSH, RST, SYN, EntryChange, InvalidReason
from netlab.record.observers import Unobserved
from netlab.record.recording import Recording

OVER = "SEQ is over upper bound 7307 (over the window of the receiver)"


def _overrun(crossings: Crossings) -> None:
    """#8, a reply past the client's window, comes to the client as it is; #9 is its RST."""
    crossings.stale(650)
    bad = crossings.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    crossings.reason(712, OVER, bad)
    rst = crossings.to_server(760, RST, 5, window=0, nat=False, ip_id=0)
    crossings.reason(771, "invalid new", rst)


def reset() -> Recording:
    """The whole chain, to ECONNRESET at both ends."""
    crossings = Crossings().filled()
    _overrun(crossings)
    crossings.socket(830, "server", errno.ECONNRESET)
    crossings.to_server(900, ACK, 5, 2305)
    crossings.to_client(950, RST, 2305, window=0)
    crossings.socket(1010, "client", errno.ECONNRESET)
    return crossings.recording()


def without_log() -> Recording:
    """The same where conntrack's reasons could not be read."""
    whole = reset()
    return replace(
        whole,
        events=tuple(event for event in whole.events if not isinstance(event, InvalidReason)),
        lost=whole.lost[:-1],
        unobserved=(Unobserved(OBSERVERS[-1], "this kernel has no NFLOG (nfnetlink_log): EOPNOTSUPP"),),
    )


def with_losses() -> Recording:
    """The same where a ring was too small on the node."""
    return replace(
        reset(),
        lost=tuple((each, 1234 if each.ifname == "eth0" and each.netns.endswith("-node") else 0) for each in OBSERVERS),
    )


def without_node() -> Recording:
    """The same where only the ends were observed."""
    whole = reset()
    return replace(
        whole,
        events=tuple(event for event in whole.events if event.netns != "client-node"),
        taps=tuple(tap for tap in whole.taps if tap.netns != "client-node"),
        lost=tuple((observer, count) for observer, count in whole.lost if observer.netns != "client-node"),
    )


def dropped() -> Recording:
    """With drop-invalid: #8 is dropped by a rule, sent again, and everything arrives."""
    crossings = Crossings().filled()
    crossings.stale(650)
    bad = crossings.to_client(700, PSH | ACK, 3000, 5, 4000, hops=2)
    crossings.reason(712, OVER, bad)
    crossings.trace(2000, 7, "KUBE-FORWARD", "ct state invalid drop", "drop", bad)
    crossings.to_server(200_000, ACK, 5, 2305, window=9000)
    crossings.to_client(200_100, ACK, 2305, 5, 695)
    crossings.to_client(200_200, PSH | ACK, 3000, 5, 4000)
    crossings.to_server(200_300, ACK, 5, 7000, window=9000)
    return crossings.closed(201_000, 7000).recording(fixes=("drop-invalid",))


def liberal() -> Recording:
    """With be-liberal: #8 is past the window, and arrives all the same."""
    crossings = Crossings().filled()
    crossings.stale(650)
    crossings.to_client(700, PSH | ACK, 3000, 5, 4000)
    crossings.to_client(200_100, ACK, 2305, 5, 695)
    crossings.to_server(200_300, ACK, 5, 7000, window=9000)
    return crossings.closed(201_000, 7000).recording(fixes=("be-liberal",))


def completed() -> Recording:
    """Nothing happens."""
    crossings = Crossings().filled()
    crossings.to_server(700, ACK, 5, 2305, window=9000)
    return crossings.closed(800, 2305).recording()


def stalled() -> Recording:
    """The client's window stays closed, and the server's probes come to nothing."""
    crossings = Crossings().filled()
    crossings.to_client(300_000, ACK, 2305, 5, 1, hops=2)
    crossings.to_client(900_000, ACK, 2305, 5, 1, hops=2)
    return crossings.recording()


def aborted() -> Recording:
    """The server's program closes with data unread: its kernel sends a RST that answers no packet."""
    crossings = Crossings().opened()
    crossings.to_client(500, ACK, 1, 5, 100)
    crossings.to_server(600, ACK, 5, 101)
    crossings.to_client(50_000, RST | ACK, 101, 5, window=0)
    crossings.socket(50_100, "client", errno.ECONNRESET)
    return crossings.recording()


def expired() -> Recording:
    """The client's window stays closed until conntrack forgets the connection; the server's next probe is new to it."""
    crossings = Crossings().filled()
    crossings.to_client(31_000_000, ACK, 2304, 5, nat=False)
    crossings.entry(31_000_012, EntryChange.DESTROY)
    crossings.adopted(31_000_013)
    crossings.to_server(31_000_060, RST, 5, window=0, nat=False, ip_id=0)
    return crossings.recording()


def remade() -> Recording:
    """Conntrack loses the entry, and makes it anew for a packet of the client's; windows don't matter any more."""
    crossings = Crossings().opened()
    crossings.entry(450, EntryChange.DESTROY)
    crossings.to_server(500, PSH | ACK, 5, 1, 100)
    crossings.entry(513, EntryChange.NEW, tcp_state="ESTABLISHED")
    crossings.to_client(600, ACK, 1, 105, 4000)
    crossings.to_client(700, FIN | ACK, 4001, 105)
    return crossings.recording()


def strict() -> Recording:
    """With tcp_loose=0 and drop-invalid: the entry is lost, and what either end then sends is INVALID, and dropped."""
    crossings = Crossings().opened()
    crossings.entry(450, EntryChange.DESTROY)
    for at_us, trace_id in ((500, 1), (200_500, 2)):
        bad = crossings.to_client(at_us, ACK, 1, 5, 1000, hops=2)
        crossings.invalid(at_us + 13, trace_id, bad)
        crossings.trace(at_us + 14, trace_id, "KUBE-FORWARD", "ct state invalid drop", "drop", bad)
    loose = ("namespaces.client-node.sysctls.net.netfilter.nf_conntrack_tcp_loose", "0")
    return crossings.recording(fixes=("drop-invalid",), settings=(loose,))


def rescaling() -> Crossings:
    """Conntrack forgets that the client's windows are shifted by 7 bits: #10 is inside the window, and yet INVALID."""
    crossings = Crossings()
    crossings.to_server(0, SYN, 0, wscale=7)
    crossings.to_client(100, SYN | ACK, 0, 1, window=65160, wscale=7)
    crossings.to_server(200, ACK, 1, 1, window=18)
    crossings.entry(213, EntryChange.UPDATE, tcp_state="ESTABLISHED", window_scales=(7, 7))
    crossings.to_server(300, PSH | ACK, 1, 1, 4, window=18)
    crossings.to_client(400, ACK, 1, window=509)
    crossings.entry(450, EntryChange.UPDATE, tcp_state="ESTABLISHED", window_scales=(0, 7))
    crossings.to_server(460, ACK, 5, 1, window=100)
    crossings.to_client(500, ACK, 1, 5, 1448, window=509)
    crossings.to_client(520, ACK, 1449, 5, 1448, window=509)
    forgiven = crossings.to_client(540, ACK, 2897, 5, 1448, window=509)
    crossings.reason(552, "2041 bytes more than expected", forgiven)
    bad = crossings.to_client(560, PSH | ACK, 4345, 5, 1448, window=509, nat=False)
    crossings.reason(572, "SEQ is over upper bound 7306 (over the window of the receiver)", bad)
    return crossings


def rescaled() -> Recording:
    """What comes of that."""
    crossings = rescaling()
    rst = crossings.to_server(640, RST, 5, window=0, nat=False, ip_id=0)
    crossings.reason(651, "invalid new", rst)
    crossings.socket(720, "server", errno.ECONNRESET)
    return crossings.recording()


def corrupted() -> Recording:
    """#9's checksum is wrong: NAT skips it, and the client's kernel throws it away. Its data is sent again."""
    crossings = Crossings().filled()
    crossings.to_server(650, ACK, 5, 2305, window=9000)
    bad = crossings.to_client(700, PSH | ACK, 2305, 5, 1000, nat=False)
    crossings.reason(712, "bad checksum", bad)
    crossings.to_client(200_100, PSH | ACK, 2305, 5, 1000)
    crossings.to_server(200_300, ACK, 5, 3305, window=9000)
    return crossings.closed(201_000, 3305).recording()


def forged() -> Recording:
    """#8 comes far too late, #9 far too early, both written by hand; what the server sends then is no copy of #9's."""
    crossings = Crossings().opened()
    crossings.to_client(500, ACK, 1, 5, 1000)
    crossings.to_server(600, ACK, 5, 1001)
    crossings.reason(
        712,
        "SEQ is under lower bound 3696 (already ACKed data retransmitted)",
        crossings.to_client(700, PSH | ACK, -100_000 + 1001, 5, 4),
    )
    crossings.reason(
        812,
        "SEQ is over upper bound 8306 (over the window of the receiver)",
        crossings.to_client(800, PSH | ACK, 1_001_001, 5, 4, hops=2),
    )
    crossings.to_client(1000, PSH | ACK, 1001, 5, 1000)
    crossings.to_server(1100, ACK, 5, 2001)
    return crossings.closed(1200, 2001).recording(fixes=("drop-invalid",))


def overtaken() -> Recording:
    """#7 is held up on its way to the node; #8 brings its data, #10 what follows; then it comes."""
    crossings = Crossings().opened()
    crossings.to_client(500, ACK, 1, 5, 1000)
    late = crossings.to_client(600, ACK, 1001, 5, 1000, held=(1, 300_000))
    crossings.to_client(900, ACK, 1001, 5, 1000)
    crossings.to_server(1000, ACK, 5, 2001)
    crossings.to_client(1100, ACK, 2001, 5, 2000)
    crossings.to_server(1200, ACK, 5, 4001)
    crossings.to_client(1300, ACK, 4001, 5, 2000)
    crossings.to_server(1400, ACK, 5, 6001)
    crossings.reason(300_612, "SEQ is under lower bound 8696 (already ACKed data retransmitted)", late)
    crossings.to_server(300_700, ACK, 5, 6001)
    return crossings.closed(301_000, 6001).recording()


def reconnected() -> Recording:
    """The client forgot a connection, and comes back with the same port: #6 is its SYN, #8 its RST to what is left."""
    crossings = Crossings().opened()
    isn, other = 500_000, 900_000
    syn = crossings.to_server(1000, SYN, isn)
    crossings.reason(1011, "packet (index 0) in dir 0 ignored, state ESTABLISHED", syn)
    crossings.to_client(1100, ACK, 1, 5)
    crossings.to_server(1200, RST, 5, window=0)
    crossings.socket(1260, "server", errno.ECONNRESET, "old")
    crossings.to_server(10_000, SYN, isn)
    crossings.entry(10_020, EntryChange.DESTROY)
    crossings.entry(10_030, EntryChange.NEW)
    crossings.to_client(10_100, SYN | ACK, other, isn + 1, window=65160)
    crossings.to_server(10_200, ACK, isn + 1, other + 1)
    crossings.to_server(10_300, PSH | ACK, isn + 1, other + 1, 4)
    crossings.to_client(10_400, PSH | ACK, other + 1, isn + 5, 1000)
    crossings.to_server(10_500, ACK, isn + 5, other + 1001)
    crossings.to_client(10_600, FIN | ACK, other + 1001, isn + 5)
    return crossings.recording()


def reconnecting() -> Recording:
    """The same where the entry was deleted, on a kernel that knows no challenge ACKs: RSTs are INVALID, and dropped."""
    crossings = Crossings().opened()
    crossings.entry(900, EntryChange.DESTROY)
    for at_us in (1000, 1_001_000):
        crossings.to_server(at_us, SYN, -500_000)
        ack = crossings.to_client(at_us + 100, ACK, 1, 5)
        crossings.reason(at_us + 111, "packet (index 3) in dir 1 ignored, state SYN_SENT", ack)
        rst = crossings.to_server(at_us + 200, RST, 5, window=0, hops=3)
        crossings.reason(at_us + 211, "SEQ is over the upper bound (over the window of the receiver)", rst)
        crossings.trace(at_us + 250, at_us, "KUBE-FORWARD", "ct state invalid drop", "drop", rst)
    return crossings.recording(kernel="6.0.12", fixes=("drop-invalid",))


def crowd() -> Recording:
    """Three flows; the second is reset, then the third; the first completes."""
    first, second, third = FLOW, other_flow(), other_flow(40002)
    crossings = Crossings()
    for place, flow in enumerate((first, second, third)):
        crossings.opened(flow, place * 3)
        crossings.to_client(500 + place * 3, ACK, 1, 5, 2304, flow=flow)
        crossings.to_server(600 + place * 3, ACK, 5, 2305, window=0, flow=flow)
    for at_us, flow in ((700, second), (1000, third)):
        bad = crossings.to_client(at_us, PSH | ACK, 3000, 5, 4000, nat=False, flow=flow)
        crossings.reason(at_us + 12, OVER, bad)
        rst = crossings.to_server(at_us + 60, RST, 5, window=0, nat=False, flow=flow, ip_id=0)
        crossings.reason(at_us + 71, "invalid new", rst)
    crossings.to_client(2000, FIN | ACK, 2305)
    return crossings.recording(flows=(first, second, third))
