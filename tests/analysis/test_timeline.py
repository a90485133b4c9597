"""Packets followed from interface to interface: told as text, one line a packet; and held against the real kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from flagship import part
from hops import OBSERVERS, TAPS, Hops, other_flow
from places import TOPOLOGIES
from private_lab import PrivateLab
from story import FLOW

from netlab.analysis.findings import Findings
from netlab.analysis.paths import Fate, PacketPath
from netlab.analysis.timeline import Timeline, build
from netlab.analysis.tracking import Unverified
from netlab.conntrack.values import CtOutcome
from netlab.observe.recorder import Source
from netlab.record.events import (
    ACK,
    PSH,
    RST,
    SYN,
    ConntrackEvent,
    EntryChange,
    InvalidReason,
    Packet,
    Tuple,
    flag_names,
)
from netlab.record.flow import CANARY_PORT, Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording

FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"
TRIALS = 20


def told(timeline: Timeline) -> list[str]:
    """One line a packet: number, what it is, hops (xN: in N pieces), where NAT rewrote it, and its fate."""
    return [_line(path) for path in timeline.paths]


def _line(path: PacketPath) -> str:
    segment = path.segment
    names = {"client": "c", "client-node": "n", "server": "s", "": "?"}
    hops = " ".join(
        f"{names[hop.netns]}/{hop.ifname}" + (f"x{len(hop.parts)}" if len(hop.parts) > 1 else "") for hop in path.hops
    )
    nat = "".join(f" nat:{names[rewrite.netns]}" for rewrite in path.rewrites)
    copy = f" again:#{path.copy_of}" if path.copy_of else ""
    flags = ",".join(flag_names(segment.flags))
    return f"#{path.number} {flags} {segment.payload_bytes} {hops}{nat} {path.fate}{copy}"


THERE = "c/eth0 n/veth-client n/cni0 n/eth0 s/eth0"
BACK = "s/eth0 n/eth0 n/cni0 n/veth-client c/eth0"


def test_a_packet_is_the_same_on_each_interface_and_on_both_sides_of_nat() -> None:
    timeline = build(Hops().opened().recording())
    assert told(timeline) == [
        f"#1 SYN 0 {THERE} nat:n delivered",
        f"#2 SYN,ACK 0 {BACK} nat:n delivered",
        f"#3 ACK 0 {THERE} nat:n delivered",
        f"#4 PSH,ACK 4 {THERE} nat:n delivered",
        f"#5 ACK 0 {BACK} nat:n delivered",
    ]
    rewrite = timeline.paths[0].rewrites[0]
    client = (FLOW.client_address, FLOW.client_port)
    assert (rewrite.before, rewrite.after) == (
        (*client, FLOW.vip, FLOW.port),
        (*client, FLOW.endpoint, FLOW.target_port),
    )
    assert [[check.netns for check in path.checks] for path in timeline.paths] == [["client-node"]] * 5


def test_the_order_in_which_events_were_read_does_not_matter() -> None:
    recording = Hops().opened().recording()
    backwards = replace(recording, events=recording.events[::-1])
    assert told(build(backwards)) == told(build(recording))


def test_a_bridge_and_its_port_have_one_stamp() -> None:
    """The port is first on the way in, and last on the way out, whichever was read first."""
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, SYN | ACK, 0, 1)
    port_ns = {event.time_ns for event in hops.events if getattr(event, "ifname", "") == "veth-client"}
    same = []
    for event in hops.events:
        bridge_ns = event.time_ns + (10_000 if event.time_ns > hops.events[5].time_ns else -10_000)
        on_bridge = getattr(event, "ifname", "") == "cni0" and bridge_ns in port_ns
        same.append(replace(event, time_ns=bridge_ns) if on_bridge else event)
    expected = [f"#1 SYN 0 {THERE} nat:n delivered", f"#2 SYN,ACK 0 {BACK} nat:n delivered"]
    assert told(build(hops.recording(events=tuple(same)))) == expected
    assert told(build(hops.recording(events=tuple(same[::-1])))) == expected


def test_two_steps_of_nat_in_one_namespace_are_one() -> None:
    """First the destination, then the source: cni0 shows the packet between them."""
    hops = Hops()
    syn = hops.to_server(0, SYN, 0)
    node = ip_address("10.1.0.1")
    way = (*FLOW.header(Leg.CLIENT_TO_VIP), 6), (node, 50000, FLOW.endpoint, FLOW.target_port, 6)
    flow = replace(FLOW, way=tuple(Tuple(*header) for header in way))
    headers = (
        *((syn.src, syn.sport, syn.dst, syn.dport),) * 2,
        (syn.src, syn.sport, FLOW.endpoint, FLOW.target_port),
        *((node, 50000, FLOW.endpoint, FLOW.target_port),) * 2,
    )
    events = []
    for event, (src, sport, dst, dport) in zip(hops.events, headers, strict=True):
        assert isinstance(event, Packet)
        events.append(replace(event, segment=replace(event.segment, src=src, sport=sport, dst=dst, dport=dport)))
    (path,) = build(hops.recording(events=tuple(events), flows=(flow,))).paths
    assert [(each.netns, each.before, each.after) for each in path.rewrites] == [
        ("client-node", headers[0], headers[-1])
    ]


def test_a_copy_is_what_carries_a_byte_that_was_sent_before() -> None:
    hops = Hops()
    lengths = ((100, 100), (300, 100), (200, 100), (150, 10), (199, 1), (200, 1), (350, 100), (450, 50), (0, 500))
    for number, (seq, length) in enumerate(lengths):
        hops.to_client(500 + number * 100, ACK, seq, 5, length)
    paths = build(hops.recording()).paths
    assert [path.copy_of for path in paths] == [None, None, None, 1, 1, 3, 2, None, None]
    hops.to_client(5000, ACK, 0, 5, 1)
    hops.to_client(5100, ACK, 400, 5, 1)
    hops.to_client(5200, ACK, 500, 5, 1)
    assert [path.copy_of for path in build(hops.recording()).paths[9:]] == [9, 7, None]


def test_another_syn_begins_to_count_anew_and_its_copy_does_not() -> None:
    hops = Hops().opened()
    for at_us in (1000, 2000):
        hops.to_server(at_us, SYN, -50)
    hops.to_server(3000, ACK, -49, 1, 100)
    assert [path.copy_of for path in build(hops.recording()).paths[5:]] == [None, 6, None]


def test_a_retransmission_is_a_packet_of_its_own() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 768, hops=2)
    hops.to_client(300_000, ACK, 1, 5, 768)
    hops.to_client(300_500, ACK, 1, 5, 1000)
    hops.to_client(301_000, ACK, 600, 5, 100)
    assert told(build(hops.recording()))[5:] == [
        "#6 ACK 768 s/eth0 n/eth0 unseen",
        f"#7 ACK 768 {BACK} nat:n delivered again:#6",
        f"#8 ACK 1000 {BACK} nat:n delivered again:#6",
        f"#9 ACK 100 {BACK} nat:n delivered again:#6",
    ]


def test_identical_packets_keep_their_order_at_each_hop() -> None:
    """Duplicate ACKs without identification, each on its way before the last one has arrived."""
    hops = Hops().opened()
    for at_us in (500, 515, 530):
        hops.to_server(at_us, ACK, 5, 1, ip_id=0)
    timeline = build(hops.recording())
    assert told(timeline)[5:] == [f"#{number} ACK 0 {THERE} nat:n delivered" for number in (6, 7, 8)]
    assert [path.last.time_ns - path.time_ns for path in timeline.paths[5:]] == [40_000] * 3
    assert {path.ambiguous for path in timeline.paths} == {""}


def test_which_of_two_identical_packets_was_lost_is_not_guessed() -> None:
    hops = Hops().opened()
    hops.to_server(500, ACK, 5, 1, ip_id=0, hops=3)
    hops.to_server(600, ACK, 5, 1, ip_id=0)
    first, second = build(hops.recording()).paths[5:]
    why = "#6 and #7 look alike, and not all of them came as far: which did can't be told"
    assert (first.ambiguous, second.ambiguous) == (why, why)


def test_an_ip_identification_tells_them_apart() -> None:
    hops = Hops().opened()
    hops.to_server(500, ACK, 5, 1, hops=3)
    hops.to_server(600, ACK, 5, 1)
    timeline = build(hops.recording())
    assert told(timeline)[5:] == [
        "#6 ACK 0 c/eth0 n/veth-client n/cni0 unseen",
        f"#7 ACK 0 {THERE} nat:n delivered",
    ]
    assert {path.ambiguous for path in timeline.paths} == {""}


@pytest.mark.parametrize("ip_id", [None, 0])
def test_a_super_packet_is_split_on_its_way(ip_id: int | None) -> None:
    identified = {} if ip_id is None else {"ip_id": ip_id}
    hops = Hops().opened()
    hops.to_client(500, PSH | ACK, 1, 5, 4000, split_at=2, **identified)
    hops.to_client(505, ACK, 4001, 5, 1448, **identified)
    timeline = build(hops.recording())
    assert told(timeline)[5:] == [
        "#6 PSH,ACK 4000 s/eth0 n/eth0 n/cni0x3 n/veth-clientx3 c/eth0x3 nat:n delivered",
        f"#7 ACK 1448 {BACK} nat:n delivered",
    ]
    # Conntrack saw it whole.
    assert len(timeline.paths[5].checks) == 1


def test_several_flows_with_the_same_numbers() -> None:
    hops = Hops().opened().opened(other_flow(), 5)
    timeline = build(hops.recording(flows=(FLOW, other_flow())))
    assert [path.number for path in timeline.of(FLOW)] == [1, 3, 5, 7, 9]
    assert [path.number for path in timeline.of(other_flow())] == [2, 4, 6, 8, 10]
    assert {path.fate for path in timeline.paths} == {Fate.DELIVERED}


def test_headers_that_conntrack_told_of_belong_to_the_flow_in_their_direction() -> None:
    """A second entry leads the client's packets to another endpoint, whose answers are this flow's too."""
    hops = Hops().opened()
    hops.entry(20, EntryChange.NEW)
    other = ip_address("10.0.1.9")
    reply = Tuple(other, 9090, FLOW.client_address, FLOW.client_port, 6)
    hops.entry(480, EntryChange.NEW, tuple_reply=reply)
    sent = hops.to_client(500, ACK, 1, 5, 100, hops=1)
    (packet,) = hops.events[-1:]
    assert isinstance(packet, Packet)
    hops.events[-1] = replace(packet, segment=replace(sent, src=other, sport=9090))
    got = replace(sent, src=FLOW.client_address, sport=FLOW.client_port, dst=other, dport=9090, ip_id=77)
    hops.events.append(replace(packet, time_ns=packet.time_ns + 1000, segment=got))
    assert [(path.number, path.to_server) for path in build(hops.recording()).paths[5:]] == [(6, False), (7, True)]


def test_flows_are_found_by_what_conntrack_told() -> None:
    hops = Hops().opened()
    hops.entry(25, EntryChange.NEW)
    timeline = build(hops.recording(flows=()))
    assert [(flow.client_port, flow.client, flow.node, flow.server) for flow in timeline.flows] == [
        (40000, "client", "client-node", "server")
    ]
    assert len(timeline.paths) == 5


def test_an_interface_that_was_not_observed_is_left_out() -> None:
    hops = Hops().opened()
    events = tuple(event for event in hops.events if getattr(event, "netns", "") != "client-node")
    assert told(build(hops.recording(events=events)))[0] == "#1 SYN 0 c/eth0 s/eth0 nat:? delivered"


# --- reasons, traces, checks -----------------------------------------------------------------------------------------

OVER = "SEQ is over upper bound 7307 (over the window of the receiver)"


def overrun() -> Hops:
    """A reply past the client's window, INVALID; it reaches the client as it is, which answers with a RST."""
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, OVER, bad)
    rst = hops.to_server(760, RST, 5, window=0, nat=False, ip_id=0)
    hops.reason(771, "invalid new", rst)
    return hops


def test_reasons_belong_to_their_packets_and_agree_with_the_model() -> None:
    timeline = build(overrun().recording())
    assert told(timeline)[7:] == [f"#8 PSH,ACK 4000 {BACK} delivered", f"#9 RST 0 {THERE} delivered"]
    assert [(j.number, j.reasons[0].text) for j in timeline.paths if j.reasons] == [(8, OVER), (9, "invalid new")]
    assert Findings(timeline).of(timeline.flows[0])[0].packets[7].untranslated
    assert timeline.paths[7].checks[0].checked.outcome is CtOutcome.INVALID
    assert (timeline.loose, timeline.disagreements, timeline.unverified) == ((), (), ())


def test_identical_packets_have_each_its_own_reason() -> None:
    hops = overrun()
    for at_us in (780, 800):
        rst = hops.to_server(at_us, RST, 5, window=0, nat=False, ip_id=0)
        # A reason's stamp is cut off to microseconds: it can be before the packet's own.
        hops.reason(at_us + 10, "invalid new", rst)
    timeline = build(hops.recording())
    assert [(j.number, len(j.reasons)) for j in timeline.paths if j.reasons] == [(8, 1), (9, 1), (10, 1), (11, 1)]
    assert timeline.disagreements == ()


def test_each_piece_of_a_super_packet_has_its_own_reason() -> None:
    """Split before it comes to conntrack: three packets for it, with three log lines."""
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False, split_at=1)
    for number, length in enumerate((1448, 1448, 1104)):
        flags = PSH | ACK if number == 2 else ACK
        piece = replace(bad, seq=bad.seq + 1448 * number, payload_bytes=length, flags=flags, ip_id=bad.ip_id + number)
        # The first piece starts past the edge, but ends near enough to it to be forgiven.
        text = "2143 bytes more than expected" if number == 0 else OVER
        hops.reason(711 + number, text, piece)
    timeline = build(hops.recording())
    assert [len(path.reasons) for path in timeline.paths] == [0] * 7 + [3]
    assert [check.checked.outcome.value for check in timeline.paths[7].checks] == ["ignore", "invalid", "invalid"]
    assert (timeline.loose, timeline.disagreements) == ((), ())


def test_a_reason_without_a_packet_is_kept() -> None:
    hops = overrun()
    events = tuple(event for event in hops.events if isinstance(event, InvalidReason))
    assert [reason.text for reason in build(hops.recording(events=events)).loose] == [OVER, "invalid new"]


def test_the_rules_that_a_packet_came_through() -> None:
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, hops=2)
    hops.reason(712, OVER, bad)
    hops.trace(2000, 7, "FORWARD", "jump KUBE-FORWARD", "jump KUBE-FORWARD", bad)
    hops.trace(2001, 7, "KUBE-FORWARD", "ct state invalid drop", "drop", None)
    hops.trace(2002, 8, "FORWARD", "", "accept", replace(bad, seq=1))
    dropped = build(hops.recording()).paths[7]
    assert [(step.chain, step.verdict) for step in dropped.trace] == [
        ("FORWARD", "jump KUBE-FORWARD"),
        ("KUBE-FORWARD", "drop"),
    ]
    assert dropped.fate is Fate.DROPPED


@pytest.mark.parametrize("ip_ids", [(1, 2), (0, 0)])
def test_two_probes_that_the_kernel_traces_by_one_number(ip_ids: tuple[int, int]) -> None:
    hops = Hops().filled()
    times = zip((700, 5700), ip_ids, strict=True)
    known, forgotten = (hops.to_client(at_us, ACK, 2303, 5, ip_id=ip_id) for at_us, ip_id in times)
    hops.trace(712, 7, "FORWARD", "jump KUBE-FORWARD", "jump KUBE-FORWARD", known)
    hops.trace(713, 7, "KUBE-FORWARD", "ct state established accept", "accept", None)
    hops.trace(5712, 7, "FORWARD", "jump KUBE-FORWARD", "jump KUBE-FORWARD", forgotten)
    hops.invalid(5713, 7, forgotten)
    first, second = build(hops.recording()).paths[7:]
    assert [step.chain for step in first.trace] == ["FORWARD", "KUBE-FORWARD"]
    assert (first.called_invalid("client-node"), second.called_invalid("client-node")) == (False, True)


def test_where_model_and_kernel_differ_the_timeline_says_so() -> None:
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    (found,) = build(hops.recording()).disagreements
    assert found[0] == 8
    assert str(found[1]) == f'the model expects "{OVER}", and the kernel logged nothing'


def test_what_the_kernel_was_found_to_do_decides_before_its_release() -> None:
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    recording = replace(hops.recording(), capabilities=(("forgives-late-segments", False),))
    ((_, found),) = build(recording).disagreements
    assert found.predicted == "SEQ is over the upper bound (over the window of the receiver)"


def test_silence_is_no_evidence_where_nobody_listened() -> None:
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    deaf = build(hops.recording(lost=tuple((name, 0) for name in OBSERVERS[:-1])))
    assert (deaf.disagreements, deaf.unverified) == ((), (Unverified("client-node", "its log was not read"),))
    lossy = build(hops.recording(lost=((OBSERVERS[-1], 3),)))
    assert (lossy.disagreements, lossy.unverified) == ((), (Unverified("client-node", "3 of its log lines were lost"),))


def test_nothing_is_computed_where_packets_were_lost() -> None:
    lost = tuple(
        (name, 12 if name == ObserverId(ObserverKind.PACKETS, "client-node", "eth0") else 0) for name in OBSERVERS
    )
    timeline = build(overrun().recording(lost=lost))
    assert timeline.unverified == (
        Unverified("client-node", "12 packets were lost there, so what conntrack knew can't be computed"),
    )
    assert {path.checks for path in timeline.paths} == {()}
    assert timeline.paths[7].reasons[0].text == OVER


def test_a_liberal_conntrack_is_known_by_the_fix() -> None:
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000)
    timeline = build(hops.recording(fixes=("be-liberal",)))
    assert timeline.disagreements == ()
    assert timeline.paths[7].checks[0].checked.outcome is CtOutcome.ACCEPT


def test_a_connection_older_than_the_recording_is_not_modelled() -> None:
    hops = Hops()
    hops.to_client(500, ACK, 1, 5, 9999)
    hops.entry(1, EntryChange.FOUND)
    (path,) = build(hops.recording()).paths
    assert path.checks[0].checked.outcome is CtOutcome.UNMODELLED


def test_a_recording_of_nothing() -> None:
    timeline = build(Hops().recording(topology="no: topology", taps=TAPS, flows=()))
    assert (timeline.flows, timeline.paths, timeline.events) == ((), (), ())


# --- the kernel ------------------------------------------------------------------------------------------------------


def observed(fix: str | None = None, trials: int = TRIALS) -> tuple[Recording, Timeline]:
    names = (fix,) if fix else ()
    whole = part(fix=fix)
    with PrivateLab(whole.topology) as namespaces:
        source = Source(FLAGSHIP.read_text(), (), names)
        _, recording = whole.run(namespaces, trials, fix, source=source)
    return recording, build(recording)


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", [None, "drop-invalid", "be-liberal"])
def test_the_model_agrees_with_the_kernel_on_every_packet(fix: str | None) -> None:
    trials = TRIALS if fix is None else 3
    recording, timeline = observed(fix, trials)
    assert sum(count for _, count in recording.lost) == 0
    assert (timeline.loose, timeline.disagreements, timeline.unverified) == ((), (), ())
    logged = [
        event for event in recording.events if isinstance(event, InvalidReason) and event.segment.sport != CANARY_PORT
    ]
    attached = [reason for path in timeline.paths for reason in path.reasons]
    assert sorted(attached, key=id) == sorted(logged, key=id)
    predicted = [
        (check.checked.log, path.number) for path in timeline.paths for check in path.checks if check.checked.log
    ]
    assert len(predicted) == len(logged)
    assert {check.checked.outcome for j in timeline.paths for check in j.checks} <= set(CtOutcome) - {
        CtOutcome.UNMODELLED
    }
    for flow in recording.flows:
        paths = timeline.of(flow)
        assert paths[0].segment.flags & (SYN | ACK) == SYN
        assert any(each.untranslated for found in Findings(timeline).of(flow) for each in found.packets) is (
            fix is None
        )
    assert (len(logged) >= trials) is (fix != "be-liberal")


def test_what_a_helper_rewrites_stays_one_packet_and_is_not_held_against_the_model() -> None:
    hops = Hops().opened()
    hops.to_client(500, PSH | ACK, 1, 5, 45, ts_val=7)
    for place, event in enumerate(hops.events[-3:], len(hops.events) - 3):
        assert isinstance(event, Packet)
        hops.events[place] = replace(event, segment=replace(event.segment, payload_bytes=48))
    hops.entry(10, EntryChange.NEW)
    entry = hops.events[-1]
    assert isinstance(entry, ConntrackEvent)
    hops.events[-1] = replace(entry, status=("DST_NAT", "HELPER"))
    timeline = build(hops.recording())
    assert told(timeline)[5:] == [f"#6 PSH,ACK 45 {BACK} nat:n delivered"]
    crossed = timeline.paths[5].hops
    assert [hop.parts[0].segment.payload_bytes for hop in crossed] == [45, 45, 48, 48, 48]
    assert timeline.unverified == (Unverified("client-node", "a helper rewrites what 10.0.0.2 sends and gets there"),)
    assert [path.checks for path in timeline.paths] == [()] * 6
