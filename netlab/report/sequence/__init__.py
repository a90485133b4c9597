"""One connection's packets across the namespaces as a sequence diagram: the model that text and HTML draw. Pure.

A packet is one arrow from the namespace that sent it to the last one that saw it, whatever number of interfaces it
crossed; `analysis/timeline.py` followed it. The arrow has a tip in each namespace that saw it, and passes others by.
What is said of it comes from what was seen: "NAT" where it was sent on with other addresses; "INVALID" where a rule
found it so, or conntrack gave a reason, and NAT left the packet alone or it went no further; "DROP" where it was last
seen although its destination was watched and no event was lost; "LOGGED" where conntrack gave a reason and let it pass;
"NEW", "ESTABLISHED", "RELATED", "UNTRACKED" where it matched a rule for that state alone, in a table of the topology's
own. Runs of like packets are folded into one row that counts them.

Beside the connection's own packets the diagram has what conntrack calls RELATED to it: the connections that it made
conntrack expect, and ICMP's errors about it; of a trial, also all UDP, SCTP and ICMP that was seen while it lasted.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from netlab.analysis.answers import Maker
from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.findings import Findings, PacketFinding
from netlab.analysis.paths import Fate, Hop, PacketPath, Rewrite, window_probes
from netlab.analysis.result import Evidence, TrialResult
from netlab.analysis.transitions import transitions
from netlab.analysis.translation import Nat, invalid_at
from netlab.record import words as datagrams
from netlab.record.events import (
    ACK,
    FIN,
    RST,
    SYN,
    DatagramPacket,
    Segment,
    SocketEvent,
    SocketEventKind,
    flag_names,
)
from netlab.record.flow import Flow, ends
from netlab.record.wire import IPPROTO_TCP
from netlab.record.words import endpoint
from netlab.report.sequence.diagram import Arrow, Column, Ladder, Mark, Remark
from netlab.report.sequence.fold import folded
from netlab.report.sequence.sightings import moment, seen, within_ns

THROWN_AWAY = "the client's kernel throws it away: its checksum is wrong"
"""What becomes of an untranslated packet with a wrong checksum (tcp_v4_rcv(), net/ipv4/tcp_ipv4.c)."""

_ONE_STATE = re.compile(r"\bct state (new|established|related|invalid|untracked)(?!,)\b")
"""What a rule says that asks for one state of conntrack's."""


def build(findings: Findings, flow: Flow, trial: TrialResult | None = None) -> Ladder:
    """The diagram of one of the recording's connections.

    With the trial it was, its evidence is marked and never folded, and times count from the trial's beginning;
    otherwise from the connection's first packet.
    """
    return _Builder(findings, findings.timeline.known(flow), trial).ladder()


@dataclass(slots=True)
class _Fate:
    """What is told of one packet."""

    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    qualifier: str = ""


class _Builder:
    """columns are given where the diagram is another connection's, in which this one is drawn."""

    def __init__(
        self, findings: Findings, flow: Flow, trial: TrialResult | None, columns: Sequence[str] | None = None
    ) -> None:
        timeline = findings.timeline
        self._flow, self._trial = flow, trial
        self._recording = timeline.recording
        self._findings, self._timeline = findings, timeline
        self._of = {each.path.number: each for found in findings.of(flow) for each in found.packets}
        self._paths = timeline.of(flow)
        self._datagram_paths = list(self._told_of()) if columns is None else []
        self._others = timeline.expected_by(flow) if columns is None else []
        self._netns = list(columns) if columns is not None else self._columns()
        self._at = {netns: column for column, netns in enumerate(self._netns)}
        self._lost = any(count for _, count in self._recording.lost)
        self._watched = {tap.netns for tap in self._recording.taps}
        self._evidence = {moment(piece.event): piece for piece in trial.evidence} if trial else {}
        self._told: set[str] = set()
        self._probes = window_probes(self._paths)
        self._challenged = _challenged(self._paths)
        self._syns: dict[bool, list[Segment]] = {True: [], False: []}
        for path in self._paths:
            if path.segment.flags & SYN:
                self._syns[path.to_server].append(path.segment)

    def _columns(self) -> list[str]:
        paths = [*self._paths, *(path for other in self._others for path in self._timeline.of(other))]
        order = _order(self._flow, paths)
        for packet in (packet for datagram_path in self._datagram_paths for packet in datagram_path.hops):
            if packet.netns not in order:
                order.insert(-1, packet.netns)
        return order

    def _told_of(self) -> Iterator[DatagramPath]:
        """The packets without TCP that belong here: a trial's all, otherwise those about this connection."""
        legs = self._flow.legs()
        for datagram_path in self._timeline.datagram_paths:
            about = datagram_path.datagram.about
            of_trial = self._trial and self._trial.started_ns <= datagram_path.time_ns <= _until_ns(self._trial)
            if of_trial or (about and about.proto == IPPROTO_TCP and ends(about) in legs):
                yield datagram_path

    def ladder(self) -> Ladder:
        arrows = [self._arrow(path) for path in self._paths]
        arrows += [arrow for other in self._others for arrow in self._of_other(other)]
        arrows += [self._datagram(datagram_path) for datagram_path in self._datagram_paths]
        rows: list[Arrow | Remark] = [*arrows, *self._remarks()]
        rows.sort(key=lambda row: row.time_ns)
        labels = {
            self._flow.node or "": f"VIP {self._flow.vip}" if self._flow.vip != self._flow.endpoint else "",
            self._flow.client: str(self._flow.client_address),
            self._flow.server: str(self._flow.endpoint),
        }
        columns = tuple(Column(netns, labels.get(netns, "")) for netns in self._netns)
        began_ns = self._trial.started_ns if self._trial else rows[0].time_ns if rows else self._recording.started_ns
        isn = self._syns[False][0].seq if self._syns[False] else None
        empty = Ladder(self._flow, columns, (), began_ns, isn)
        return replace(empty, rows=folded(rows, empty.ms))

    def _arrow(self, path: PacketPath) -> Arrow:
        fate = self._fate(path)
        pieces = list(self._pieces(path))
        return Arrow(
            path=path,
            start=self._at[path.hops[0].netns],
            end=self._at[path.last.netns],
            came_to=self._came_to(path.hops),
            words=tuple(self._words(path)),
            kind=(
                "window probe" if path.number in self._probes else _noun(path.segment),
                fate.qualifier or ("again" if path.copy_of else ""),
            ),
            marks=tuple(sorted(fate.marks, key=lambda mark: mark.column)),
            notes=tuple(dict.fromkeys((*(piece.note for piece in pieces if piece.note), *fate.notes))),
            evidence=bool(pieces),
        )

    def _came_to(self, hops: Sequence[Hop] | Sequence[DatagramPacket]) -> frozenset[int]:
        """The columns of the namespaces that saw a packet after the one that sent it."""
        sender = hops[0].netns
        return frozenset(self._at[hop.netns] for hop in hops if hop.netns != sender)

    def _of_other(self, other: Flow) -> Iterator[Arrow]:
        """The packets of a connection that this one made conntrack expect, its numbers relative to its own."""
        builder = _Builder(self._findings, other, self._trial, self._netns)
        whose = endpoint(other.client_address, other.client_port), endpoint(other.vip, other.port)
        told = f"a connection of its own, {whose[0]} to {whose[1]}, which conntrack expected: RELATED"
        for index, path in enumerate(self._timeline.of(other)):
            arrow = builder._arrow(path)
            notes = (told, *arrow.notes) if index == 0 else arrow.notes
            yield replace(arrow, words=(*arrow.words, f"(:{other.port})"), notes=notes)

    def _datagram(self, datagram_path: DatagramPath) -> Arrow:
        datagram, last = datagram_path.datagram, datagram_path.last
        header, about = datagram.header, datagram.about
        ports = (f":{header.sport} > :{header.dport}",) if header.sport or header.dport else ()
        marks: list[Mark] = []
        notes: list[str] = []
        if about is not None:
            notes.append(f"about the packet {datagrams.ends(about)} ({datagrams.protocol(about.proto)})")
        for before, after in pairwise(datagram_path.hops):
            one, other = before.datagram.header, after.datagram.header
            if one != other and before.netns == after.netns:
                marks.append(Mark(self._at[before.netns], "NAT"))
                too = ", and the packet that it quotes, too" if about is not None else ""
                notes += self._once(_translation(Rewrite(before.netns, ends(one), ends(other))) + too)
        marks += self._states(datagram_path)
        drop = next((step for step in datagram_path.trace if step.verdict == "drop"), None)
        if drop is not None:
            marks.append(Mark(self._at[drop.netns], "DROP"))
            notes.append(f"DROP: {drop.netns}, chain {drop.chain}: {drop.rule or 'policy'}")
        elif not datagram_path.delivered:
            notes.append(f"not seen after {last.netns}/{last.ifname}")
        pieces = [self._evidence[moment(packet)] for packet in datagram_path.hops if moment(packet) in self._evidence]
        return Arrow(
            path=datagram_path,
            start=self._at[datagram_path.hops[0].netns],
            end=self._at[last.netns],
            came_to=self._came_to(datagram_path.hops),
            words=(*datagrams.kind(datagram).split(), *ports, f"len {datagram.payload_bytes}"),
            kind=(f"{datagrams.kind(datagram)} packet", "dropped" if drop else ""),
            marks=tuple(sorted(marks, key=lambda mark: mark.column)),
            notes=(*(piece.note for piece in pieces if piece.note), *notes),
            evidence=bool(pieces),
        )

    def _states(self, packet: PacketPath | DatagramPath) -> list[Mark]:
        """The states of conntrack's that rules of the topology's own tables found it in, where they ask for one."""
        found: dict[Mark, None] = {}
        for step in packet.trace:
            own = (step.netns, step.family, step.table) in self._timeline.own_tables
            if own and (asked := _ONE_STATE.search(step.rule)):
                found[Mark(self._at[step.netns], asked[1].upper())] = None
        return list(found)

    def _pieces(self, path: PacketPath) -> Iterator[Evidence]:
        """The evidence that the packet, or conntrack's reason for it, is."""
        for event in seen(path):
            if moment(event) in self._evidence:
                yield self._evidence[moment(event)]

    def _fate(self, path: PacketPath) -> _Fate:
        """The answer it is, NAT, conntrack's reasons, and the end of the way, in this order."""
        flow, fate, found = self._flow, _Fate(), self._of[path.number]
        fate.notes += self._answer(found)
        if path.number in self._probes:
            asker, asked = (flow.client, flow.server) if path.to_server else (flow.server, flow.client)
            fate.notes += self._once(f"{asker} asks whether {asked}'s window is open again")
        for rewrite in path.rewrites:
            if rewrite.netns:  # else it happened out of sight, and there is no column to put it in
                fate.marks.append(Mark(self._at[rewrite.netns], "NAT"))
            fate.notes += self._once(_translation(rewrite))
        fate.notes += _rewritten(path)
        for reason in path.reasons:
            said = f"conntrack on {reason.netns}: {self._relative_bound(reason.text, path)}"
            if invalid_at(path, reason.netns):
                fate.marks.append(Mark(self._at[reason.netns], "INVALID"))
                fate.notes.append(f"INVALID: {said}")
                fate.qualifier = "INVALID"
            else:
                rewritten = any(rewrite.netns == reason.netns for rewrite in path.rewrites)
                fate.marks += [] if rewritten else [Mark(self._at[reason.netns], "LOGGED")]
                fate.notes.append(f"{said}: logged, but let pass")
        for netns in self._found_invalid(path):
            fate.marks.append(Mark(self._at[netns], "INVALID"))
            unlogged = "" if self._lost else "; conntrack logged no reason"
            fate.notes.append(f"INVALID: a rule on {netns} found it so{unlogged}")
            fate.qualifier = "INVALID"
        fate.marks += [mark for mark in self._states(path) if mark not in fate.marks]
        fate.notes += self._left_alone(found)
        if _comes_back(path):
            fate.notes += self._once(f"it comes back to {path.last.netns}")
        if path.fate is not Fate.DELIVERED:
            self._end(fate, path, flow.server if path.to_server else flow.client)
        if path.ambiguous:
            fate.notes.append(path.ambiguous)
        return fate

    def _left_alone(self, found: PacketFinding) -> Iterator[str]:
        """Why NAT did not translate it, and who gets it so."""
        path, visit = found.path, found.left_alone
        if visit is None or path.fate is not Fate.DELIVERED:
            return
        match visit.nat:
            case Nat.INVALID:
                nat = "NAT skipped it"
            case Nat.BRIDGED:
                nat = f"it stayed on {visit.netns}'s bridge, and NAT never saw it"
            case Nat.UNKNOWN:
                nat = "NAT left it alone"
            case _:
                nat = "NAT has no translation for it"
        src, sport, _, _ = path.last.ends
        yield f"{nat}: it reaches {path.last.netns} with {endpoint(src, sport)} as its source"
        if path.corrupt:
            yield THROWN_AWAY

    def _answer(self, found: PacketFinding) -> list[str]:
        """What a RST answers, and why; and which SYN an ACK does that is another connection's."""
        path, flow, answer = found.path, self._flow, found.answer
        if answer is None:
            syn = self._challenged.get(path.number)
            told = f"{flow.server} answers the SYN #{syn} with an ACK of the connection that it still has"
            return [told] if syn is not None else []
        number = f"#{answer.answers.number}" if answer.answers is not None else ""
        match answer.maker:
            case Maker.NO_SOCKET if answer.answers is not None:
                _, _, dst, dport = path.hops[0].ends
                whence = f", whose seq is {number}'s ack" if not path.segment.flags & ACK else ""
                unknown = endpoint(dst, dport)
                return [f"{answer.sender} has no connection with {unknown}, and answers with a RST{whence}"]
            case Maker.REFUSAL:
                why = f"{answer.sender} has sent nothing that {number} could acknowledge"
                return [f"{why}, and answers with a RST, whose seq is {number}'s ack"]
            case Maker.GONE:
                why = f"{answer.sender} has no such connection any more"
                return [f"{why}, and answers with a RST, whose seq is {number}'s ack"]
            case Maker.RULE:
                assert answer.rule is not None
                return [f"rule `{answer.rule.rule}` of chain {answer.rule.chain} rejects {number} with a RST"]
            case Maker.ABORT:
                return [f"{answer.sender} aborts the connection of its own accord"]
            case Maker.STIMULUS:
                return ["a step of the experiment made it"]
            case Maker.NOT_TCP:
                return [f"{answer.sender}'s TCP did not make it: a rule that was not seen did, or a raw socket"]
            case _:
                return []

    def _found_invalid(self, path: PacketPath) -> list[str]:
        """Where it is known to be INVALID though conntrack logged nothing about it."""
        logged = {reason.netns for reason in path.reasons}
        way = dict.fromkeys(hop.netns for hop in path.hops)
        return [netns for netns in way if netns not in logged and path.called_invalid(netns)]

    def _once(self, note: str) -> list[str]:
        """The note, unless it was told before."""
        if note in self._told:
            return []
        self._told.add(note)
        return [note]

    def _end(self, fate: _Fate, path: PacketPath, goal: str) -> None:
        last = path.last
        where = f"{last.netns}/{last.ifname}"
        drops = [step for step in path.trace if step.verdict == "drop"]
        if drops:
            step = drops[-1]
            fate.marks.append(Mark(self._at[step.netns], "DROP"))
            fate.notes.append(f"DROP: {step.netns}, chain {step.chain}: {step.rule or 'policy'}")
        elif self._lost:
            fate.notes.append(f"not seen after {where}; but events were lost")
            return
        elif goal not in self._watched:
            fate.notes.append(f"not seen after {where}; but {goal} was not watched")
            return
        else:
            fate.marks.append(Mark(self._at[last.netns], "DROP"))
            astray = last.ends[2] == self._flow.vip and any(mark.word == "INVALID" for mark in fate.marks)
            whither = ", on its way to the VIP, where nobody is" if astray else ""
            fate.notes.append(f"DROP: it was last seen at {where}{whither}")
        fate.qualifier = f"{fate.qualifier}, dropped" if fate.qualifier else "dropped"

    def _words(self, path: PacketPath) -> Iterator[str]:
        segment = path.segment
        own, other = self._syns[path.to_server], self._syns[not path.to_server]
        yield ",".join(flag_names(segment.flags)) or "no flags"
        yield f"seq {_relative(segment.seq, own)}"
        if segment.flags & ACK:
            yield f"ack {_relative(segment.ack, other)}"
        if segment.payload_bytes:
            yield f"len {segment.payload_bytes}"
        if path.to_server and not segment.flags & RST:
            yield f"win {segment.window << self._shift(segment)}"
        if path.copy_of is not None:
            yield f"(again: #{path.copy_of})"

    def _shift(self, segment: Segment) -> int:
        """How far the client's window is shifted: not in a SYN, and only where both ends have the option."""
        client, server = self._syns[True], self._syns[False]
        if segment.flags & SYN or not client or not server or server[0].wscale is None:
            return 0
        return client[0].wscale or 0

    def _relative_bound(self, text: str, path: PacketPath) -> str:
        """The kernel's reason, the bound that it names also as numbers are counted here."""
        bound = re.search(r"bound (\d+)", text)
        own_is_client = path.to_server != (text.startswith("ACK") or "ignored ACK" in text)
        syns = self._syns[own_is_client]
        if bound is None or not syns:
            return text
        relative = _relative(int(bound[1]), syns)
        return f"{text[: bound.end()]} [{relative} here]{text[bound.end() :]}"

    def _remarks(self) -> Iterator[Remark]:
        """What became of conntrack's entries; of a trial, also its steps, and what happened to the sockets."""
        timeline = self._timeline
        for transition in transitions(self._flow, timeline.events, timeline.lazily_expired, timeline.ran_out):
            time_ns = self._timeline.moment(transition.event)
            if transition.event.netns in self._at and (self._trial is None or time_ns <= _until_ns(self._trial)):
                yield Remark(time_ns, transition.text)
        if self._trial is None:
            return
        until_ns = _until_ns(self._trial)
        for stimulus in (each for each in self._recording.stimuli if each.text):
            if self._trial.started_ns <= stimulus.time_ns <= until_ns:
                yield Remark(stimulus.time_ns, f"step: {stimulus.text}")
        for event in self._recording.events:
            if not isinstance(event, SocketEvent) or event.netns not in self._at:
                continue
            if self._trial.started_ns <= event.time_ns <= until_ns:
                whose = f"connection {event.connection!r}: " if event.connection else ""
                text = f"{event.netns}: {whose}{_socket_words(event)}"
                yield Remark(event.time_ns, text)


def _comes_back(path: PacketPath) -> bool:
    """Whether a packet ended in the namespace that sent it, after it had been in others."""
    netns = path.last.netns
    return netns == path.hops[0].netns and any(hop.netns != netns for hop in path.hops)


def _challenged(paths: Sequence[PacketPath]) -> dict[int, int]:
    """The ACKs that the server answers a SYN with, of the connection that it still has, and the SYN of each.

    They have the numbers of that connection (RFC 5961, section 4.2; from TIME_WAIT RFC 9293, section 3.10.7.4).
    """
    found: dict[int, int] = {}
    syn: PacketPath | None = None
    for path in paths:
        segment = path.segment
        if path.to_server and path.fate is Fate.DELIVERED:
            syn = path if segment.flags & (SYN | ACK) == SYN else None
        elif not path.to_server and syn and (segment.flags, segment.payload_bytes) == (ACK, 0):
            challenged = segment.ack != syn.segment.end
            found |= {path.number: syn.number} if challenged else {}
    return found


def _until_ns(trial: TrialResult) -> int:
    return within_ns(trial)[1]


def _order(flow: Flow, paths: Sequence[PacketPath]) -> list[str]:
    """The namespaces from the client's to the server's, each further one where the packets say it lies."""
    cast = (flow.client, flow.node, flow.server_node, flow.server)
    order = list(dict.fromkeys(netns for netns in cast if netns is not None))
    for path in paths:
        way = list(dict.fromkeys(hop.netns for hop in path.hops))
        if not path.to_server:
            way.reverse()
        for before, netns in pairwise([flow.client, *way]):
            if netns not in order:
                order.insert(min(order.index(before) + 1, len(order) - 1), netns)
    return order


def _translation(rewrite: Rewrite) -> str:
    before, after = rewrite.before, rewrite.after
    changes = [
        f"{which} {endpoint(*old)} becomes {endpoint(*new)}"
        for which, old, new in (("source", before[:2], after[:2]), ("destination", before[2:], after[2:]))
        if old != new
    ]
    where = f" on {rewrite.netns}" if rewrite.netns else ", out of sight"
    return f"NAT{where}: {', '.join(changes)}"


def _rewritten(path: PacketPath) -> Iterator[str]:
    """Where a helper of conntrack's gave the packet another length."""
    for before, after in pairwise(path.hops):
        was, now = before.parts[0].segment.payload_bytes, after.parts[0].segment.payload_bytes
        if was != now and before.netns == after.netns and len(before.parts) == len(after.parts) == 1:
            yield f"conntrack's helper on {before.netns} rewrote what it carries: len {was} becomes {now}"


def _noun(segment: Segment) -> str:
    for flag, noun in ((RST, "RST"), (SYN, "SYN"), (FIN, "FIN")):
        if segment.flags & flag:
            return noun
    if segment.payload_bytes:
        return "data segment"
    return "ACK" if segment.window else "window-0 ACK"


def _relative(number: int, syns: Sequence[Segment]) -> int:
    """A sequence number counted from the SYN before it: a flow has several where a port was used again."""
    return min(((number - syn.seq) & 0xFFFFFFFF for syn in syns), default=number)


def _socket_words(event: SocketEvent) -> str:
    if event.kind is SocketEventKind.ERROR:
        return f"its socket has {errno.errorcode.get(event.errno, str(event.errno))}"
    return f"its socket believes in a send window of {event.window_bytes:,} bytes from now on (was {event.was_bytes:,})"
