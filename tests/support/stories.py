"""Recordings with a story each, for tests of what is said and drawn of them."""

from __future__ import annotations

import errno
from dataclasses import replace

from hops import OBSERVERS, Hops, other_flow
from story import FLOW

from netlab.record.events import ACK, FIN, PSH, RST, SYN, EntryChange, InvalidReason
from netlab.record.observers import Unobserved
from netlab.record.recording import Recording

OVER = "SEQ is over upper bound 7307 (over the window of the receiver)"


def _overrun(hops: Hops) -> None:
    """#8, a reply past the client's window, comes to the client as it is; #9 is its RST."""
    hops.stale(650)
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, OVER, bad)
    rst = hops.to_server(760, RST, 5, window=0, nat=False, ip_id=0)
    hops.reason(771, "invalid new", rst)


def reset() -> Recording:
    """The whole chain, to ECONNRESET at both ends."""
    hops = Hops().filled()
    _overrun(hops)
    hops.socket(830, "server", errno.ECONNRESET)
    hops.to_server(900, ACK, 5, 2305)
    hops.to_client(950, RST, 2305, window=0)
    hops.socket(1010, "client", errno.ECONNRESET)
    return hops.recording()


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
    hops = Hops().filled()
    hops.stale(650)
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, hops=2)
    hops.reason(712, OVER, bad)
    hops.trace(2000, 7, "KUBE-FORWARD", "ct state invalid drop", "drop", bad)
    hops.to_server(200_000, ACK, 5, 2305, window=9000)
    hops.to_client(200_100, ACK, 2305, 5, 695)
    hops.to_client(200_200, PSH | ACK, 3000, 5, 4000)
    hops.to_server(200_300, ACK, 5, 7000, window=9000)
    return hops.closed(201_000, 7000).recording(fixes=("drop-invalid",))


def liberal() -> Recording:
    """With be-liberal: #8 is past the window, and arrives all the same."""
    hops = Hops().filled()
    hops.stale(650)
    hops.to_client(700, PSH | ACK, 3000, 5, 4000)
    hops.to_client(200_100, ACK, 2305, 5, 695)
    hops.to_server(200_300, ACK, 5, 7000, window=9000)
    return hops.closed(201_000, 7000).recording(fixes=("be-liberal",))


def completed() -> Recording:
    """Nothing happens."""
    hops = Hops().filled()
    hops.to_server(700, ACK, 5, 2305, window=9000)
    return hops.closed(800, 2305).recording()


def stalled() -> Recording:
    """The client's window stays closed, and the server's probes come to nothing."""
    hops = Hops().filled()
    hops.to_client(300_000, ACK, 2305, 5, 1, hops=2)
    hops.to_client(900_000, ACK, 2305, 5, 1, hops=2)
    return hops.recording()


def aborted() -> Recording:
    """The server's program closes with data unread: its kernel sends a RST that answers no packet."""
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_server(600, ACK, 5, 101)
    hops.to_client(50_000, RST | ACK, 101, 5, window=0)
    hops.socket(50_100, "client", errno.ECONNRESET)
    return hops.recording()


def expired() -> Recording:
    """The client's window stays closed until conntrack forgets the connection; the server's next probe is new to it."""
    hops = Hops().filled()
    hops.to_client(31_000_000, ACK, 2304, 5, nat=False)
    hops.entry(31_000_012, EntryChange.DESTROY)
    hops.adopted(31_000_013)
    hops.to_server(31_000_060, RST, 5, window=0, nat=False, ip_id=0)
    return hops.recording()


def remade() -> Recording:
    """Conntrack loses the entry, and makes it anew for a packet of the client's; windows don't matter any more."""
    hops = Hops().opened()
    hops.entry(450, EntryChange.DESTROY)
    hops.to_server(500, PSH | ACK, 5, 1, 100)
    hops.entry(513, EntryChange.NEW, tcp_state="ESTABLISHED")
    hops.to_client(600, ACK, 1, 105, 4000)
    hops.to_client(700, FIN | ACK, 4001, 105)
    return hops.recording()


def strict() -> Recording:
    """With tcp_loose=0 and drop-invalid: the entry is lost, and what either end then sends is INVALID, and dropped."""
    hops = Hops().opened()
    hops.entry(450, EntryChange.DESTROY)
    for at_us, trace_id in ((500, 1), (200_500, 2)):
        bad = hops.to_client(at_us, ACK, 1, 5, 1000, hops=2)
        hops.invalid(at_us + 13, trace_id, bad)
        hops.trace(at_us + 14, trace_id, "KUBE-FORWARD", "ct state invalid drop", "drop", bad)
    loose = ("namespaces.client-node.sysctls.net.netfilter.nf_conntrack_tcp_loose", "0")
    return hops.recording(fixes=("drop-invalid",), settings=(loose,))


def rescaling() -> Hops:
    """Conntrack forgets that the client's windows are shifted by 7 bits: #10 is inside the window, and yet INVALID."""
    hops = Hops()
    hops.to_server(0, SYN, 0, wscale=7)
    hops.to_client(100, SYN | ACK, 0, 1, window=65160, wscale=7)
    hops.to_server(200, ACK, 1, 1, window=18)
    hops.entry(213, EntryChange.UPDATE, tcp_state="ESTABLISHED", window_scales=(7, 7))
    hops.to_server(300, PSH | ACK, 1, 1, 4, window=18)
    hops.to_client(400, ACK, 1, window=509)
    hops.entry(450, EntryChange.UPDATE, tcp_state="ESTABLISHED", window_scales=(0, 7))
    hops.to_server(460, ACK, 5, 1, window=100)
    hops.to_client(500, ACK, 1, 5, 1448, window=509)
    hops.to_client(520, ACK, 1449, 5, 1448, window=509)
    forgiven = hops.to_client(540, ACK, 2897, 5, 1448, window=509)
    hops.reason(552, "2041 bytes more than expected", forgiven)
    bad = hops.to_client(560, PSH | ACK, 4345, 5, 1448, window=509, nat=False)
    hops.reason(572, "SEQ is over upper bound 7306 (over the window of the receiver)", bad)
    return hops


def rescaled() -> Recording:
    """What comes of that."""
    hops = rescaling()
    rst = hops.to_server(640, RST, 5, window=0, nat=False, ip_id=0)
    hops.reason(651, "invalid new", rst)
    hops.socket(720, "server", errno.ECONNRESET)
    return hops.recording()


def corrupted() -> Recording:
    """#9's checksum is wrong: NAT skips it, and the client's kernel throws it away. Its data is sent again."""
    hops = Hops().filled()
    hops.to_server(650, ACK, 5, 2305, window=9000)
    bad = hops.to_client(700, PSH | ACK, 2305, 5, 1000, nat=False)
    hops.reason(712, "bad checksum", bad)
    hops.to_client(200_100, PSH | ACK, 2305, 5, 1000)
    hops.to_server(200_300, ACK, 5, 3305, window=9000)
    return hops.closed(201_000, 3305).recording()


def forged() -> Recording:
    """#8 comes far too late, #9 far too early, both written by hand; what the server sends then is no copy of #9's."""
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 1000)
    hops.to_server(600, ACK, 5, 1001)
    hops.reason(
        712,
        "SEQ is under lower bound 3696 (already ACKed data retransmitted)",
        hops.to_client(700, PSH | ACK, -100_000 + 1001, 5, 4),
    )
    hops.reason(
        812,
        "SEQ is over upper bound 8306 (over the window of the receiver)",
        hops.to_client(800, PSH | ACK, 1_001_001, 5, 4, hops=2),
    )
    hops.to_client(1000, PSH | ACK, 1001, 5, 1000)
    hops.to_server(1100, ACK, 5, 2001)
    return hops.closed(1200, 2001).recording(fixes=("drop-invalid",))


def overtaken() -> Recording:
    """#7 is held up on its way to the node; #8 brings its data, #10 what follows; then it comes."""
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 1000)
    late = hops.to_client(600, ACK, 1001, 5, 1000, held=(1, 300_000))
    hops.to_client(900, ACK, 1001, 5, 1000)
    hops.to_server(1000, ACK, 5, 2001)
    hops.to_client(1100, ACK, 2001, 5, 2000)
    hops.to_server(1200, ACK, 5, 4001)
    hops.to_client(1300, ACK, 4001, 5, 2000)
    hops.to_server(1400, ACK, 5, 6001)
    hops.reason(300_612, "SEQ is under lower bound 8696 (already ACKed data retransmitted)", late)
    hops.to_server(300_700, ACK, 5, 6001)
    return hops.closed(301_000, 6001).recording()


def reconnected() -> Recording:
    """The client forgot a connection, and comes back with the same port: #6 is its SYN, #8 its RST to what is left."""
    hops = Hops().opened()
    isn, other = 500_000, 900_000
    syn = hops.to_server(1000, SYN, isn)
    hops.reason(1011, "packet (index 0) in dir 0 ignored, state ESTABLISHED", syn)
    hops.to_client(1100, ACK, 1, 5)
    hops.to_server(1200, RST, 5, window=0)
    hops.socket(1260, "server", errno.ECONNRESET, "old")
    hops.to_server(10_000, SYN, isn)
    hops.entry(10_020, EntryChange.DESTROY)
    hops.entry(10_030, EntryChange.NEW)
    hops.to_client(10_100, SYN | ACK, other, isn + 1, window=65160)
    hops.to_server(10_200, ACK, isn + 1, other + 1)
    hops.to_server(10_300, PSH | ACK, isn + 1, other + 1, 4)
    hops.to_client(10_400, PSH | ACK, other + 1, isn + 5, 1000)
    hops.to_server(10_500, ACK, isn + 5, other + 1001)
    hops.to_client(10_600, FIN | ACK, other + 1001, isn + 5)
    return hops.recording()


def reconnecting() -> Recording:
    """The same where the entry was deleted, on a kernel that knows no challenge ACKs: RSTs are INVALID, and dropped."""
    hops = Hops().opened()
    hops.entry(900, EntryChange.DESTROY)
    for at_us in (1000, 1_001_000):
        hops.to_server(at_us, SYN, -500_000)
        ack = hops.to_client(at_us + 100, ACK, 1, 5)
        hops.reason(at_us + 111, "packet (index 3) in dir 1 ignored, state SYN_SENT", ack)
        rst = hops.to_server(at_us + 200, RST, 5, window=0, hops=3)
        hops.reason(at_us + 211, "SEQ is over the upper bound (over the window of the receiver)", rst)
        hops.trace(at_us + 250, at_us, "KUBE-FORWARD", "ct state invalid drop", "drop", rst)
    return hops.recording(kernel="6.0.12", fixes=("drop-invalid",))


def crowd() -> Recording:
    """Three flows; the second is reset, then the third; the first completes."""
    first, second, third = FLOW, other_flow(), other_flow(40002)
    hops = Hops()
    for place, flow in enumerate((first, second, third)):
        hops.opened(flow, place * 3)
        hops.to_client(500 + place * 3, ACK, 1, 5, 2304, flow=flow)
        hops.to_server(600 + place * 3, ACK, 5, 2305, window=0, flow=flow)
    for at_us, flow in ((700, second), (1000, third)):
        bad = hops.to_client(at_us, PSH | ACK, 3000, 5, 4000, nat=False, flow=flow)
        hops.reason(at_us + 12, OVER, bad)
        rst = hops.to_server(at_us + 60, RST, 5, window=0, nat=False, flow=flow, ip_id=0)
        hops.reason(at_us + 71, "invalid new", rst)
    hops.to_client(2000, FIN | ACK, 2305)
    return hops.recording(flows=(first, second, third))
