"""Each namespace's conntrack followed with the model, packet by packet, and held against its log. Pure."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from netlab.analysis.merge import Draft
from netlab.analysis.paths import NodeCheck, bridge_ports, bridged, called_invalid
from netlab.conntrack import kernels, tracker
from netlab.conntrack.agreement import BAD_CHECKSUM, Differs, Disagreement, disagreements
from netlab.conntrack.kernels import Rules
from netlab.conntrack.packet import unsound
from netlab.conntrack.values import Checked, CtDirection
from netlab.kubeproxy.notrack import untracks
from netlab.model import Topology
from netlab.record.events import SYN, ConntrackEvent, Direction, EntryChange, Event, InvalidReason, Packet
from netlab.record.flow import Flow, ends
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording


class Unverified(NamedTuple):
    """A namespace whose log was not compared with the model, and why, for a message alone."""

    netns: str
    why: str


@dataclass(slots=True)
class Tracking:
    """What the model made of the flows: where the kernel's log differs, and where it could not be compared, and why.

    disagreements have the packet's number; lazily_expired has the entries whose end a packet's look-up noticed, with
    that packet's arrival; ran_out those that ended for want of packets, with their timeout in seconds.
    """

    disagreements: list[tuple[int, Disagreement]] = field(default_factory=list)
    unverified: list[Unverified] = field(default_factory=list)
    lazily_expired: dict[ConntrackEvent, int] = field(default_factory=dict)
    ran_out: dict[ConntrackEvent, int] = field(default_factory=dict)


def follow_entries(
    recording: Recording,
    topology: Topology | None,
    drafts: Sequence[Draft],
    events: Sequence[Event],
    flows: Sequence[Flow],
    helped: Set[tuple[int, str]],
) -> Tracking:
    """Follow each flow with the model in each namespace that tracks it, and hold it against what the kernel logged.

    Each draft is given what the model makes of it. helped are the flows, by index, and the namespaces in which a helper
    of conntrack's may rewrite them.
    """
    made = Tracking()
    entries: dict[str, list[ConntrackEvent]] = defaultdict(list)
    namespaces = {flow.node for flow in flows if flow.node is not None}
    for event in events:
        if isinstance(event, ConntrackEvent):
            entries[event.netns].append(event)
        if isinstance(event, ConntrackEvent | InvalidReason):
            namespaces.add(event.netns)
    ports = bridge_ports(topology)
    lost = dict(recording.lost)
    by_flow: dict[int, list[Draft]] = defaultdict(list)
    for draft in drafts:
        by_flow[draft.index].append(draft)
    for netns in sorted(namespaces):
        missing = sum(
            count
            for observer, count in recording.lost
            if (observer.kind, observer.netns) == (ObserverKind.PACKETS, netns)
        )
        if missing:
            why = f"{missing:,} packets were lost there, so what conntrack knew can't be computed"
            made.unverified.append(Unverified(netns, why))
            continue
        rules = _rules(recording, topology, netns)
        log = ObserverId(ObserverKind.REASONS, netns)
        heard = lost.get(log) == 0
        if not heard:
            why = f"{lost[log]:,} of its log lines were lost" if log in lost else "its log was not read"
            made.unverified.append(Unverified(netns, why))
        mine = _by_flow(entries[netns], flows)
        for index, theirs in by_flow.items():
            flow = flows[index]
            if topology is not None and untracks(topology, netns, flow.vip, flow.port):
                continue
            if (index, netns) in helped:
                made.unverified.append(
                    Unverified(netns, f"a helper rewrites what {flow.client_address} sends and gets there")
                )
                continue
            entries_here = mine.get(index, [])
            pairs = _follow(flow, theirs, netns, rules, entries_here, ports, made.lazily_expired)
            made.ran_out |= dict(_ran_out(entries_here, [check for _, check, _ in pairs], rules))
            numbers = {check.packet: draft.number for draft, check, _ in pairs}
            made.disagreements += [
                (numbers[differs.packet], differs)
                for differs in disagreements((check, reasons) for _, check, reasons in pairs)
                if heard or differs.kind is not Differs.PREDICTED_ONLY
            ]
    made.disagreements.sort(key=lambda item: item[0])
    return made


def _by_flow(entries: Iterable[ConntrackEvent], flows: Sequence[Flow]) -> dict[int, list[ConntrackEvent]]:
    """The entries of each flow, by its index: those whose tuples have one of its headers, in either direction."""
    owners = {header: index for index, flow in enumerate(flows) for header in flow.legs()}
    clients = {(flow.client_address, flow.client_port): index for index, flow in enumerate(flows)}
    found: dict[int, list[ConntrackEvent]] = defaultdict(list)
    for entry in entries:
        orig, reply = entry.tuple_orig, entry.tuple_reply
        index = owners.get(ends(orig), owners.get(ends(reply), clients.get((orig.src, orig.sport))))
        if index is not None:
            found[index].append(entry)
    return found


_Arrival = tuple[Packet, Draft]


def _arrivals(flow: Flow, drafts: Iterable[Draft], netns: str, ports: Mapping[tuple[str, str], str]) -> list[_Arrival]:
    """The packets that the namespace's conntrack sees, once each, in order: as they come in, or as they are made there.

    What stays on a bridge conntrack doesn't see. What is made in the namespace has left it translated before it was
    seen: it is given back the header that it had before. One that conntrack logged with the header that it left with
    was made so: as the RST of a kernel that has no socket for an untranslated reply.
    """
    found: list[_Arrival] = []
    for draft in drafts:
        here = [place for place in draft.places if place[0] == netns]
        if not here or bridged(here, ports):
            continue
        own_is_first = next(iter(draft.places)) == here[0] and here[0][2] is Direction.OUT
        entered = next((place for place in here if place[2] is Direction.IN), None)
        if own_is_first:
            logged = {ends(reason.segment) for reason in draft.reasons if reason.netns == netns}
            for part in draft.places[here[0]]:
                as_made = part if ends(part.segment) in logged else _before_nat(flow, netns, part)
                found.append((as_made, draft))
        elif entered is not None:
            found += [(part, draft) for part in draft.places[entered]]
    found.sort(key=lambda arrival: arrival[0].time_ns)
    return found


def _before_nat(flow: Flow, netns: str, packet: Packet) -> Packet:
    """A packet of the client's, made where the connection is translated, with the header that it was made with."""
    headers = flow.headers()
    if netns != flow.node or flow.client != netns or len(headers) < 2 or ends(packet.segment) != headers[1]:
        return packet
    src, sport, dst, dport = headers[0]
    return replace(packet, segment=replace(packet.segment, src=src, sport=sport, dst=dst, dport=dport))


def _follow(
    flow: Flow,
    drafts: Iterable[Draft],
    netns: str,
    rules: Rules,
    entries: Sequence[ConntrackEvent],
    ports: Mapping[tuple[str, str], str],
    lazily_expired: dict[ConntrackEvent, int],
) -> list[tuple[Draft, Checked, Sequence[InvalidReason]]]:
    arrivals = _arrivals(flow, drafts, netns, ports)
    whole = bool(arrivals) and bool(arrivals[0][0].segment.flags & SYN)
    heard = [
        (packet, draft, tuple(r for r in draft.reasons if r.netns == netns and r.segment.seq == packet.segment.seq))
        for packet, draft in arrivals
    ]
    sound = [packet for packet, _, here in heard if not any(map(_tells_bad_checksum, here))]
    lazily_expired.update(
        {entry: arrival.time_ns for entry in entries if (arrival := _finder(entry, netns, arrivals, entries))}
    )
    in_step = [replace(entry, time_ns=lazily_expired[entry]) if entry in lazily_expired else entry for entry in entries]
    translations = flow.translations() if netns == flow.node else {}
    checked = iter(tracker.follow(sound, rules, translations=translations, entries=in_step, whole=whole))
    pairs: list[tuple[Draft, Checked, Sequence[InvalidReason]]] = []
    for packet, draft, here in heard:
        bad = next(filter(_tells_bad_checksum, here), None)
        way = CtDirection.ORIGINAL if draft.to_server else CtDirection.REPLY
        check = unsound(packet, way, bad.text) if bad is not None else next(checked)
        draft.checks.append(NodeCheck(netns, check, here))
        pairs.append((draft, check, here))
    return pairs


def _ran_out(
    entries: Iterable[ConntrackEvent], checks: Sequence[Checked], rules: Rules
) -> Iterator[tuple[ConntrackEvent, int]]:
    """The ends of entries that no packet had renewed for as long as they live without one, with their timeout."""
    for entry in entries:
        if entry.change is not EntryChange.DESTROY:
            continue
        before = [check for check in checks if check.packet.time_ns < entry.time_ns and check.state_after is not None]
        last = before[-1].state_after if before else None
        if last is None or last.unmodelled or last.timeout not in rules.timeouts_s:
            continue
        timeout_s = rules.timeouts_s[last.timeout]
        if entry.time_ns - last.refreshed_ns >= timeout_s * 1_000_000_000:
            yield entry, timeout_s


def _finder(
    entry: ConntrackEvent,
    netns: str,
    arrivals: Sequence[tuple[Packet, Draft]],
    entries: Iterable[ConntrackEvent],
) -> Packet | None:
    """The packet whose look-up ended an entry that had run out; None where it ended otherwise."""

    def came_by(time_ns: int) -> int:
        return bisect.bisect_right(arrivals, time_ns, key=lambda arrival: arrival[0].time_ns)

    orig, reply, came = entry.tuple_orig, entry.tuple_reply, came_by(entry.time_ns)
    translates = ends(orig) != (reply.dst, reply.dport, reply.src, reply.sport)
    if entry.change is not EntryChange.DESTROY or came == 0:
        return None
    packet, draft = arrivals[came - 1]
    if packet.segment.flags & SYN:  # it may reopen the connection: that ends an entry that was still there
        return None
    header = ends(packet.segment)
    for new in entries:
        mine = new.change is EntryChange.NEW and ends(new.tuple_orig) == header and new.time_ns >= entry.time_ns
        if mine and came_by(new.time_ns) == came:
            return packet
    left = [parts[0] for (where, _, way), parts in draft.places.items() if (where, way) == (netns, Direction.OUT)]
    if left and not translates:
        return None  # it looks the same whether it found the entry or not
    if left:
        return packet if left[0].time_ns >= entry.time_ns and ends(left[0].segment) == header else None
    return packet if called_invalid(draft.trace, netns) else None


def _tells_bad_checksum(reason: InvalidReason) -> bool:
    return BAD_CHECKSUM in reason.text


def _rules(recording: Recording, topology: Topology | None, netns: str) -> Rules:
    """The kernel's rules with the sysctls that the topology sets in the namespace."""
    values: dict[str, str] = {}
    for candidate in topology.namespaces if topology else ():
        if candidate.name == netns:
            values = {key.replace("/", ".").rpartition(".")[2]: value for key, value in candidate.sysctls}
    return kernels.rules(recording.kernel, recording.capabilities, values)
