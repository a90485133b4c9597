"""Why a connection ended as it did: a timeline to the chain of causes in plain words, with packet numbers. Pure.

`explain` picks the flow and reads the chain, `render` and `as_json` say it. Whatever was not seen is named: a chain
with a gap says where the gap is.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from textwrap import wrap

from netlab.analysis.incarnations import Incarnation, incarnations
from netlab.analysis.timeline import ACCURACY, Fate, NodeCheck, PacketPath, Timeline, window_probes
from netlab.analysis.transitions import transitions
from netlab.conntrack.agreement import BAD_CHECKSUM
from netlab.conntrack.values import ANEW, CheckName, CtOutcome, Failure
from netlab.errors import LabError, UsageError
from netlab.model import Address
from netlab.record.events import ACK, FIN, RST, SYN, Direction, SocketEvent, SocketEventKind, flag_names, seq_diff
from netlab.record.flow import Ends, Flow
from netlab.record.observers import describe_observer, describe_unobserved


class Ending(StrEnum):
    """How a connection ended, as far as it was seen."""

    RESET = "reset"
    COMPLETED = "completed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain. number is the packet's it speaks of, time_ns when it was; None where it has none."""

    text: str
    number: int | None = None
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A flow's story. chain are its links in order; notes what else is worth knowing of the flow.

    others names the other flows that were reset. unseen is what could not be observed, or not be told for sure, and
    disagreements where the kernel's log is not what the window model computes.
    """

    lab: str
    kernel: str
    fixes: tuple[str, ...]
    flow: Flow
    ending: Ending
    packets: int
    started_ns: int
    chain: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()


# --- which flow ------------------------------------------------------------------------------------------------------


def choose(timeline: Timeline, wanted: str | None = None) -> tuple[Flow, tuple[Flow, ...]]:
    """The flow to explain, and the others that were reset, in the order in which they were.

    wanted is the client's "ADDRESS:PORT"; without it: the flow that was reset first, else the first one. UsageError
    where there is no such flow, LabError where there is none at all.
    """
    if not timeline.flows:
        raise LabError("there is no connection to explain", "none through a Service was seen while it was observed")
    ended = [(moment, flow) for flow in timeline.flows if (moment := _reset_ns(timeline, flow)) is not None]
    reset = [flow for _, flow in sorted(ended, key=lambda pair: pair[0])]
    if wanted is not None:
        found = [flow for flow in timeline.flows if _endpoint(flow.client_address, flow.client_port) == wanted]
        if not found:
            raise UsageError(f"no flow of {wanted} was seen", f"those that were: {_list(timeline.flows)}")
        chosen = found[0]
    else:
        chosen = reset[0] if reset else timeline.flows[0]
    return chosen, tuple(flow for flow in reset if flow != chosen)


def _list(flows: Sequence[Flow], most: int = 8) -> str:
    names = [_endpoint(flow.client_address, flow.client_port) for flow in flows[:most]]
    return ", ".join(names) + (f" and {len(flows) - most:,} more" if len(flows) > most else "")


def _reset_ns(timeline: Timeline, flow: Flow) -> int | None:
    """When the flow was reset, the first of its connections that was; None if none was."""
    found = (_reset_of(timeline, incarnation) for incarnation in incarnations(flow, timeline.of(flow)))
    return next((moment for moment in found if moment is not None), None)


def _reset_of(timeline: Timeline, incarnation: Incarnation) -> int | None:
    """When a connection was reset: its first RST that came to an end, or an errno that must be its own.

    A RST that answers a closed connection's last packets is none of these: what came before it had ended properly.
    """
    done = _completed_ns(incarnation.flow, incarnation.paths)
    for path in incarnation.resets():
        if done is None or path.time_ns < done:
            return path.time_ns
    errors = _errors(timeline, incarnation)
    return errors[0].time_ns if errors else None


_LATE_NS = 100_000_000
"""How late a socket's event may be read after the last packet of its connection."""


def _sockets(timeline: Timeline, flow: Flow, kind: SocketEventKind) -> list[SocketEvent]:
    """The events of the flow's own sockets: by the client's port, or, without it, when no other flow lived."""

    def incarnations(other: Flow, time_ns: int) -> bool:
        paths = timeline.of(other)
        return bool(paths) and paths[0].time_ns <= time_ns <= paths[-1].last.time_ns + _LATE_NS

    def own(event: SocketEvent) -> bool:
        if event.netns == flow.client and event.local_port:
            return event.local_port == flow.client_port
        if event.netns == flow.server and event.peer_port:
            return (event.local_port, event.peer_port) == (flow.target_port, flow.client_port)
        if event.netns not in (flow.client, flow.server):
            return False
        return [other for other in timeline.flows if incarnations(other, event.time_ns)] == [flow]

    return [event for event in timeline.events if isinstance(event, SocketEvent) and event.kind is kind and own(event)]


def _errors(timeline: Timeline, incarnation: Incarnation) -> list[SocketEvent]:
    """ECONNRESET at the connection's own sockets."""
    errors = _sockets(timeline, incarnation.flow, SocketEventKind.ERROR)
    own = (event for event in errors if not event.connection and incarnation.has(event.time_ns))
    return [event for event in own if event.errno == errno.ECONNRESET]


def _completed_ns(flow: Flow, paths: Iterable[PacketPath]) -> int | None:
    """When the server's FIN reached the client with all before it; None if it didn't."""
    for path in paths:
        arrived = path.at(flow.client, Direction.IN)
        if not path.to_server and path.segment.flags & FIN and arrived and not path.untranslated:
            return arrived.time_ns
    return None


# --- the chain -------------------------------------------------------------------------------------------------------


def explain(timeline: Timeline, wanted: str | None = None) -> Explanation:
    """The story of one flow; `choose` says which, and what is raised."""
    flow, others = choose(timeline, wanted)
    story = _Story(timeline, flow)
    completed_ns = _completed_ns(flow, story.paths)
    if _reset_of(timeline, story.incarnation) is not None:
        ending, chain = Ending.RESET, story.reset()
    else:
        ending = Ending.COMPLETED if completed_ns is not None else Ending.UNFINISHED
        chain = story.survived(completed_ns)
    recording = timeline.recording
    return Explanation(
        recording.lab,
        recording.kernel,
        recording.fixes,
        flow,
        ending,
        len(timeline.of(flow)),
        story.paths[0].time_ns if story.paths else recording.started_ns,
        tuple(chain),
        tuple(story.notes()),
        tuple(_name(other) for other in others),
        tuple(_unseen(timeline, flow, story)),
        tuple(_disagreements(timeline, story)),
    )


class _Story:
    """Reads the paths of one of a flow's connections: the first that was reset, else the last."""

    def __init__(self, timeline: Timeline, flow: Flow) -> None:
        self.timeline, self.flow = timeline, flow
        found = incarnations(flow, timeline.of(flow))
        self.incarnation = next(
            (incarnation for incarnation in found if _reset_of(timeline, incarnation) is not None), found[-1]
        )
        self.paths = self.incarnation.paths
        self.probes = window_probes(self.paths)
        self._initial: dict[bool, list[int]] = {}
        for path in timeline.of(flow):
            if path.segment.flags & SYN:
                self._initial.setdefault(path.to_server, []).append(path.segment.seq)

    # --- numbers and names

    def _seq(self, number: int, to_server: bool) -> str:
        """A sequence number, counted from the initial one before it where that was seen."""
        return str(min((number - initial) & 0xFFFFFFFF for initial in self._initial.get(to_server, [0])))

    def _what(self, path: PacketPath) -> str:
        segment = path.segment
        flags = ",".join(flag_names(segment.flags))
        size = "1 byte" if segment.payload_bytes == 1 else f"{segment.payload_bytes:,} bytes"
        parts = [f"{flags} {size}" if segment.payload_bytes else flags]
        parts += ["a probe of the closed window"] if path.number in self.probes else []
        parts.append(f"seq {self._seq(segment.seq, path.to_server)}")
        if segment.flags & ACK:
            parts.append(f"ack {self._seq(segment.ack, not path.to_server)}")
        return ", ".join(parts)

    # --- a connection that was reset

    def reset(self) -> list[Step]:
        rst = self._killer()
        if rst is None:
            error = _errors(self.timeline, self.incarnation)[0]
            text = f"the socket in {error.netns} has ECONNRESET, and no RST was seen that came to it"
            return [Step(text, None, error.time_ns)]
        cause = self._cause(rst)
        steps = _in_time(self._turns(rst.time_ns), [*self._stale(), *self._began(cause)]) if cause else []
        steps.append(self._rst(rst, cause))
        checks = [check for check in rst.checks if check.invalid]
        if checks:
            steps.append(Step(self._conntrack(checks[0]), rst.number, rst.time_ns))
        steps += self._ends(rst, cause)
        return steps

    def _killer(self) -> PacketPath | None:
        """The RST that ended it: of those that arrived, the first whose seq is what its receiver waits for."""
        expected: dict[bool, int] = {}
        resets: list[tuple[PacketPath, bool]] = []
        own = self.incarnation.resets()
        for path in self.paths:
            segment, way = path.segment, path.to_server
            if path.fate is not Fate.DELIVERED:
                continue
            if path in own:
                resets.append((path, expected.get(way) == segment.seq))
            elif not (segment.flags & RST or path.untranslated) and (
                way not in expected or seq_diff(segment.end, expected[way]) > 0
            ):
                expected[way] = segment.end
        exact = [path for path, fits in resets if fits]
        return exact[0] if exact else resets[0][0] if resets else None

    def _cause(self, rst: PacketPath) -> PacketPath | None:
        """The packet that the RST answers: the last one before it at its sender that has the RST's seq as its ack.

        A RST with ACK answers a SYN, or nothing: a program that gives up sends one (RFC 9293, section 3.10.7.1).
        """
        sender = self.flow.client if rst.to_server else self.flow.server
        found: PacketPath | None = None
        for path in self.paths:
            segment, arrived = path.segment, path.at(sender, Direction.IN)
            if path.to_server is rst.to_server or arrived is None or arrived.time_ns > rst.time_ns:
                continue
            if rst.segment.flags & ACK:
                answered = segment.flags & (SYN | ACK) == SYN and segment.end == rst.segment.ack
            else:
                answered = bool(segment.flags & ACK) and segment.ack == rst.segment.seq
            if answered and not segment.flags & RST:
                found = path
        return found

    def _stale(self) -> list[Step]:
        return [
            Step(
                f"the kernel in {event.netns} is made to believe in a send window of {event.window_bytes:,} bytes "
                f"(it was {event.was_bytes:,})",
                None,
                event.time_ns,
            )
            for event in _sockets(self.timeline, self.flow, SocketEventKind.STALE_WINDOW)
        ]

    def _turns(self, until_ns: int | None) -> list[Step]:
        """What became of the connection's conntrack entries up to then; the answered packet's own is told with it."""
        found = transitions(self.flow, self.timeline.events, self.timeline.lazily_expired)
        steps = [
            Step(transition.text, None, self.timeline.moment(transition.event))
            for transition in found
            if not transition.adopts_answer
        ]
        own = [step for step in steps if self.incarnation.has(step.time_ns or 0)]
        return [step for step in own if until_ns is None or (step.time_ns or 0) <= until_ns]

    def _began(self, cause: PacketPath) -> list[Step]:
        """The packet that was answered by a RST, and why it was."""
        origin = cause.hops[0]
        steps = [Step(f"#{cause.number} leaves {origin.netns}: {self._what(cause)}", cause.number, cause.time_ns)]
        if origin.direction is Direction.IN:
            steps[0] = Step(
                f"#{cause.number} comes to {origin.netns}: {self._what(cause)}", cause.number, cause.time_ns
            )
        steps += [*self._overtaken(cause), *self._judged(cause)]
        if cause.untranslated:
            node = self.flow.node
            arrived = cause.at(self.flow.client, Direction.IN)
            assert arrived is not None
            if any(check.checked.note.startswith("picked up") for check in cause.checks):
                text = f"NAT on {node} has no translation for it: its source stays {self.flow.endpoint}"
            elif any(check.invalid for check in cause.checks) or (node and cause.called_invalid(node)) or cause.reasons:
                text = f"NAT on {node} skips it: its source stays {self.flow.endpoint}"
            else:
                text = f"NAT on {node} left it alone: its source stays {self.flow.endpoint}, and why was not seen"
            steps.append(Step(text, cause.number, arrived.time_ns))
        return steps

    def _overtaken(self, path: PacketPath) -> list[Step]:
        """Where a packet was held up until a copy of its data had come through."""
        for copy in self.paths:
            if copy.copy_of == path.number and copy.last.time_ns < path.last.time_ns:
                before, after = max(pairwise(path.hops), key=lambda pair: pair[1].time_ns - pair[0].time_ns)
                inside = before.netns == after.netns
                where = f"in {before.netns}" if inside else f"between {before.netns} and {after.netns}"
                held_ms = (after.time_ns - before.time_ns) / 1e6
                text = (
                    f"it is held up {where} for {held_ms:,.1f} ms; meanwhile its data goes out again as "
                    f"#{copy.number}, which {_whither(copy)}"
                )
                return [Step(text, path.number, after.time_ns)]
        return []

    def _judged(self, path: PacketPath) -> list[Step]:
        """What conntrack made of a packet, and by how many bytes."""
        steps = []
        for check in path.checks:
            if check.checked.outcome is CtOutcome.ACCEPT and not check.reasons:
                if check.checked.note.startswith("picked up"):
                    steps.append(Step(f"conntrack on {check.netns} has no entry for it: {check.checked.note}"))
                if check.checked.failure is None:
                    continue
            if margin := self._margin(check):
                steps.append(Step(margin, path.number))
            text = self._conntrack(check)
            if check.invalid and not check.reasons and not check.checked.log:
                found = ", but a rule found it so" if path.called_invalid(check.netns) else ""
                text = f"conntrack on {check.netns}: INVALID ({check.checked.note}), which it doesn't log{found}"
                steps.append(Step(text, path.number))
                continue
            steps.append(Step(text, path.number, check.checked.packet.time_ns))
        seen = {check.netns for check in path.checks}
        for reason in path.reasons:
            if reason.netns not in seen:
                text = f'conntrack on {reason.netns} logs "{reason.text}"'
                steps.append(Step(text, path.number, reason.time_ns))
        return steps

    def _margin(self, check: NodeCheck) -> str:
        """By how many bytes a packet fell out of the window."""
        checked = check.checked
        way = checked.packet.segment.src == self.flow.client_address
        bounds = {bound.name: bound for bound in checked.checks}
        receiver = self.flow.server if way else self.flow.client
        match checked.failure:
            case Failure.OVERSHOT | Failure.SEQ_OVER:
                edge = bounds[CheckName.SEQ_UPPER].bound
                wire = f", {edge} on the wire" if way in self._initial else ""
                known = f"what {check.netns} knows {receiver} to allow"
                return (
                    f"it ends {checked.beyond_bytes:,} bytes past {known} (td_maxend {self._seq(edge, way)}{wire}); "
                    f"kernels since 6.1 forgive {checked.forgiven_bytes:,} here"
                )
            case Failure.SEQ_UNDER:
                short = -bounds[CheckName.SEQ_LOWER].margin_bytes
                return f"it ends {short:,} bytes before the oldest data that {receiver} can still want"
            case Failure.ACK_OVER:
                over = -bounds[CheckName.ACK_UPPER].margin_bytes
                return f"it acknowledges {over:,} bytes more than {check.netns} has seen"
            case Failure.ACK_UNDER:
                under = -bounds[CheckName.ACK_LOWER].margin_bytes
                return f"its ack is {under:,} bytes older than conntrack believes"
        return ""

    def _conntrack(self, check: NodeCheck) -> str:
        """What conntrack said of a packet; where its log was not read, what the model makes of it."""
        checked = check.checked
        outcome = {CtOutcome.INVALID: "INVALID", CtOutcome.IGNORE: "ignored", CtOutcome.ACCEPT: "accepted"}.get(
            checked.outcome, "not modelled"
        )
        if check.reasons:
            return f'conntrack on {check.netns}: {outcome}, "{check.reasons[0].text}"'
        if checked.outcome is CtOutcome.UNMODELLED:
            return f"conntrack on {check.netns}: {checked.note}"
        if checked.failure is not None and checked.outcome is CtOutcome.ACCEPT:
            return f"conntrack on {check.netns}: {checked.note}"
        if checked.log:
            unread = any(why.startswith(f"{check.netns}: ") for why in self.timeline.unverified)
            own = "was not read" if unread else "has nothing"
            return f'conntrack on {check.netns}: {outcome} by the model, "{checked.log}"; its own log {own}'
        return f"conntrack on {check.netns}: {outcome} by the model"

    def _rst(self, rst: PacketPath, cause: PacketPath | None) -> Step:
        sender, receiver = rst.hops[0].netns, rst.last.netns
        if cause is not None and cause.untranslated:
            unknown = _endpoint(self.flow.endpoint, self.flow.target_port)
            why = f"{sender} knows no connection with {unknown} -> RST #{rst.number}, seq = #{cause.number}'s ack"
        elif cause is not None:
            why = f"{sender} answers #{cause.number} with RST #{rst.number}"
        elif rst.segment.flags & ACK:
            why = f"{sender} gives the connection up of its own accord: RST #{rst.number} to {receiver}"
        else:
            why = f"{sender} sends RST #{rst.number} to {receiver}; it answers no packet that was seen"
        return Step(f"{why} ({self._what(rst)})", rst.number, rst.time_ns)

    def _ends(self, rst: PacketPath, cause: PacketPath | None) -> list[Step]:
        """What the RST did to the sockets at both ends."""
        steps = []
        receiver = rst.last.netns
        errors = {event.netns: event for event in reversed(_errors(self.timeline, self.incarnation))}
        if receiver in errors:
            text = f"#{rst.number} reaches {receiver}: its socket is reset (ECONNRESET)"
            steps.append(Step(text, rst.number, rst.last.time_ns))
        else:
            text = f"#{rst.number} reaches {receiver}; what its socket made of it was not observed"
            steps.append(Step(text, rst.number, rst.last.time_ns))
        back = [
            path
            for path in self.paths
            if path.segment.flags & RST
            and path.to_server is not rst.to_server
            and path.time_ns > rst.last.time_ns
            and path.fate is Fate.DELIVERED
        ]
        if back:
            other, asked = back[0], self._cause(back[0])
            told = f"{receiver} answers #{asked.number} with" if asked else f"{receiver} sends"
            learnt = ": its socket is reset too" if other.last.netns in errors else ""
            text = f"{told} RST #{other.number}, and {other.last.netns} learns of it{learnt}"
            steps.append(Step(text, other.number, other.time_ns))
        elif cause is not None and cause.untranslated and not any(netns != receiver for netns in errors):
            far = self.flow.client if receiver == self.flow.server else self.flow.server
            steps.append(Step(f"{far} was not told: no RST came to it"))
        return steps

    # --- a connection that was not

    def survived(self, completed_ns: int | None) -> list[Step]:
        steps, told = self._reopened()
        left = [path for path in self.paths if path.number not in told]
        odd = [path for path in left if _invalid(path)]
        passed = [path for path in left if _outside(path) and not _invalid(path)]
        steps += self._stale() if odd or passed else []
        for group in sorted((odd, passed), key=lambda group: group[0].number if group else 0):
            for path in group[:1]:
                steps += [*self._began(path), self._fate(path)]
            if len(group) > 1:
                rest = ", ".join(f"#{path.number}" for path in group[1:6]) + (" ..." if len(group) > 6 else "")
                steps.append(Step(f"so it is with {len(group) - 1:,} more: {rest}"))
        again = [path for path in self.paths if odd and path.copy_of == odd[0].number]
        for path in again[:1]:
            text = f"#{odd[0].number}'s data is sent again as #{path.number}, which {_whither(path)}"
            steps.append(Step(text, path.number, path.time_ns))
        steps = _in_time(self._turns(completed_ns), steps)
        if completed_ns is not None:
            steps.append(Step("the server's FIN reaches the client, after all that came before it", None, completed_ns))
        elif self.paths:
            steps += self._stuck()
        else:
            steps.append(Step("no packet of it was seen"))
        return steps

    def _reopened(self) -> tuple[list[Step], set[int]]:
        """How the client got through, or not, to a server and a conntrack that knew an earlier connection of its port.

        Returns the numbers of the packets that this tells of, too.
        """
        if not self.incarnation.earlier:
            return [], set()
        flow, syn = self.flow, self.paths[0]
        earlier = f"{self.incarnation.earlier:,} packets of another connection"
        text = f"{flow.client} uses port {flow.client_port} again, after the {earlier}"
        steps = [Step(text, None, syn.time_ns), *self._began(syn)]
        steps += [
            Step(f"conntrack on {check.netns}: {check.checked.note}", syn.number, check.checked.packet.time_ns)
            for check in syn.checks
            if check.checked.note.startswith(ANEW)
        ]
        refusals = self.incarnation.refusals()
        told = {syn.number, *(rst.number for rst in refusals)}
        for rst in refusals:
            cause = self._cause(rst)
            if cause is not None:
                told.add(cause.number)
        for rst in refusals[:1]:
            steps += self._refused(rst, self._cause(rst))
        if len(refusals) > 1:
            steps.append(
                Step("so it is once more" if len(refusals) == 2 else f"so it is {len(refusals) - 1:,} times more")
            )
        again = [path for path in self.paths[1:] if refusals and path.segment.flags == SYN]
        told |= {path.number for path in again}
        for path in again[:1]:
            text = f"{flow.client} sends its SYN again, as #{path.number}, which {_whither(path)}"
            steps.append(Step(text, path.number, path.time_ns))
            steps += [
                Step(f"conntrack on {check.netns}: {check.checked.note}", path.number)
                for check in path.checks
                if check.checked.note.startswith(ANEW)
            ]
        return steps, told

    def _refused(self, rst: PacketPath, cause: PacketPath | None) -> list[Step]:
        """An answer of the earlier connection's, the client's RST to it, and what became of that."""
        flow, steps = self.flow, []
        if cause is not None:
            text = f"{flow.server} answers with #{cause.number}, an ACK of the other connection ({self._what(cause)})"
            steps = [Step(text, cause.number, cause.time_ns), *self._judged(cause)]
        whose = f", seq = #{cause.number}'s ack" if cause is not None else ""
        text = f"{flow.client} has sent nothing that this could acknowledge -> RST #{rst.number}{whose}"
        steps += [Step(text, rst.number, rst.time_ns), *self._judged(rst)]
        if rst.fate is not Fate.DELIVERED:
            return [*steps, self._fate(rst)]
        errors = _sockets(self.timeline, flow, SocketEventKind.ERROR)
        reset = any(event.connection and event.netns == flow.server for event in errors)
        ends = ": its socket has ECONNRESET" if reset else ""
        text = f"#{rst.number} reaches {flow.server}, and ends what was left there of the other connection{ends}"
        return [*steps, Step(text, rst.number, rst.last.time_ns)]

    def _fate(self, path: PacketPath) -> Step:
        number = path.number
        if path.fate is Fate.DROPPED:
            drop = next(step for step in path.trace if step.verdict == "drop")
            rule = f"rule `{drop.rule}`" if drop.rule else "the policy"
            text = f"dropped on {drop.netns} by {rule} of chain {drop.chain} ({drop.family} {drop.table})"
            return Step(text, number, path.last.time_ns)
        if path.untranslated and any(BAD_CHECKSUM in reason.text for reason in path.reasons):
            client = self.flow.client
            text = (
                f"#{number} reaches {client}, whose kernel throws away what has a wrong checksum, and answers nothing"
            )
            return Step(text, number, path.last.time_ns)
        return Step(f"#{number} {_whither(path)}", number, path.last.time_ns)

    def _stuck(self) -> list[Step]:
        """The last that was seen in each direction."""
        steps = []
        for to_server, end in ((False, self.flow.server), (True, self.flow.client)):
            there = [path for path in self.paths if path.to_server is to_server]
            if not there:
                steps.append(Step(f"nothing was seen of {end}"))
                continue
            last = there[-1]
            again = f", for the {_nth(last, there)} time" if last.copy_of is not None else ""
            text = f"the last of {end} is #{last.number}: {self._what(last)}{again}; it {_whither(last)}"
            if to_server and last.segment.window == 0 and not last.segment.flags & RST:
                text += "; its window is closed"
            steps.append(Step(text, last.number, last.time_ns))
        return steps

    def notes(self) -> list[str]:
        """What else a reader wants to know: how much was retransmitted, and what was rewritten."""
        copies = sum(path.copy_of is not None for path in self.paths)
        carry = "1 packet carries" if copies == 1 else f"{copies:,} packets carry"
        notes = [f"{carry} data that was sent before"] if copies else []
        rewrites = dict.fromkeys((r.netns, r.before, r.after) for path in self.paths for r in path.rewrites)
        notes += [
            f"NAT {f'on {netns}' if netns else 'out of sight'}: {_arrow(before)} becomes {_arrow(after)}"
            for netns, before, after in rewrites
        ]
        return notes


def _in_time(more: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """The steps with some more, each of which has a time, in their places: before what is as late or later."""
    left, merged = list(more), []
    for index, step in enumerate(steps):
        # What has no time belongs to the step after it.
        time_ns = next((later.time_ns for later in steps[index:] if later.time_ns is not None), None)
        while left and time_ns is not None and (left[0].time_ns or 0) <= time_ns:
            merged.append(left.pop(0))
        merged.append(step)
    return merged + left


def _invalid(path: PacketPath) -> bool:
    """Whether a packet was INVALID somewhere: by the model, by the rules, or by what is logged where it can't tell."""
    said = any(check.checked.outcome is CtOutcome.UNMODELLED and check.reasons for check in path.checks)
    unchecked = {reason.netns for reason in path.reasons} - {check.netns for check in path.checks}
    called = any(path.called_invalid(hop.netns) for hop in path.hops)
    return said or called or bool(unchecked) or any(check.invalid for check in path.checks)


def _outside(path: PacketPath) -> bool:
    """Whether a packet was out of the window somewhere, and let pass."""
    return any((check.checked.failure is not None and not _unchecked(check)) or check.reasons for check in path.checks)


def _unchecked(check: NodeCheck) -> bool:
    """Whether conntrack holds no window against the sender's packets, since it found the connection in mid-stream."""
    before = check.checked.state_before
    return before is not None and before.side(check.checked.direction).be_liberal


def _whither(path: PacketPath) -> str:
    last = path.last
    if path.fate is Fate.DELIVERED:
        return f"reaches {last.netns}" + (f", as if from {last.ends[0]}" if path.untranslated else "")
    if path.fate is Fate.DROPPED:
        return "is dropped"
    verb = "coming into" if last.direction is Direction.IN else "leaving"
    return f"is seen nowhere after {verb} {last.netns}/{last.ifname}"


def _nth(path: PacketPath, there: Sequence[PacketPath]) -> str:
    count = 1 + sum(other.copy_of == path.copy_of for other in there)
    return {2: "second", 3: "third"}.get(count, f"{count}th")


# --- what was not seen -----------------------------------------------------------------------------------------------


def _disagreements(timeline: Timeline, story: _Story) -> list[str]:
    own = {path.number for path in story.paths}
    found = [f"#{number}: {differs}" for number, differs in timeline.disagreements if number in own]
    others = len(timeline.disagreements) - len(found)
    if others:
        found.append(f"and about {others:,} packets of other flows")
    return found


def _unseen(timeline: Timeline, flow: Flow, story: _Story) -> list[str]:
    recording = timeline.recording
    tapped = {tap.netns for tap in recording.taps}
    parts = [(flow.client, "the client"), (flow.node, "the node that translates"), (flow.server, "the server")]
    found = [
        f"the packets in {netns} ({part}): no interface of it was observed"
        for netns, part in parts
        if netns not in tapped
    ]
    found += map(describe_unobserved, recording.unobserved)
    found += [f"{count:,} events lost by {describe_observer(observer)}" for observer, count in recording.lost if count]
    found += [f"whether conntrack's log is as computed on {why}" for why in timeline.unverified]
    if story.paths and not any(path.segment.flags & SYN for path in story.paths):
        found.append("the connection's beginning: sequence numbers are those on the wire")
    loose = [reason for reason in timeline.loose if flow.client_address in (reason.segment.src, reason.segment.dst)]
    if loose:
        found.append(f'the packets of {len(loose):,} of conntrack\'s log lines, as "{loose[0].text}"')
    ambiguous = dict.fromkeys(path.ambiguous for path in story.paths if path.ambiguous)
    found += list(ambiguous)[:5]
    if len(ambiguous) > 5:
        found.append(f"{len(ambiguous) - 5:,} more groups of packets that look alike")
    return found


# --- saying it -------------------------------------------------------------------------------------------------------

_TIME_COLUMNS = 16


def render(explanation: Explanation, width: int = 80) -> str:
    """The story as text, ending in a newline; no line is longer than width, which is at least 60 columns."""
    width = max(width, 60)
    flow = explanation.flow
    lines = wrap(f"{explanation.ending.upper()}: {_name(flow)}", width, subsequent_indent="  ")
    fixes = f"with {', '.join(explanation.fixes)}" if explanation.fixes else "no fix"
    packets = "1 packet" if explanation.packets == 1 else f"{explanation.packets:,} packets"
    lines += wrap(f"lab {explanation.lab}, {fixes}, kernel {explanation.kernel}; {packets} of this flow seen", width)
    lines.append("")
    for place, step in enumerate(explanation.chain):
        at = f"{_after(step, explanation.started_ns):>{_TIME_COLUMNS - 2}}  "
        text = step.text if place == 0 else f"-> {step.text}"
        hang = " " * _TIME_COLUMNS + ("" if place == 0 else "   ")
        lines += wrap(text, width, initial_indent=at, subsequent_indent=hang, break_on_hyphens=False)
    for title, items in (
        ("Also", explanation.notes),
        ("Also reset", explanation.others),
        ("Model and kernel disagree", explanation.disagreements),
        ("Not seen", explanation.unseen),
    ):
        if items:
            lines += ["", f"{title}:"]
            for item in items:
                lines += wrap(item, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def as_json(explanation: Explanation) -> str:
    """The story as one JSON object, ending in a newline; times are nanoseconds of CLOCK_REALTIME."""
    flow = explanation.flow
    value = {
        "ending": explanation.ending.value,
        "lab": explanation.lab,
        "kernel": explanation.kernel,
        "fixes": list(explanation.fixes),
        "flow": {
            "client": {"netns": flow.client, "address": str(flow.client_address), "port": flow.client_port},
            "service": {"address": str(flow.vip), "port": flow.port},
            "endpoint": {"netns": flow.server, "address": str(flow.endpoint), "port": flow.target_port},
            "node": flow.node,
        },
        "packets": explanation.packets,
        "started_ns": explanation.started_ns,
        "chain": [{"text": step.text, "packet": step.number, "time_ns": step.time_ns} for step in explanation.chain],
        "notes": list(explanation.notes),
        "also_reset": list(explanation.others),
        "disagreements": list(explanation.disagreements),
        "unseen": list(explanation.unseen),
        "accuracy": list(ACCURACY),
    }
    return json.dumps(value, indent=2) + "\n"


def _after(step: Step, started_ns: int) -> str:
    return "" if step.time_ns is None else f"{(step.time_ns - started_ns) / 1e6:+,.3f} ms"


def _name(flow: Flow) -> str:
    return (
        f"{_endpoint(flow.client_address, flow.client_port)} > {_endpoint(flow.vip, flow.port)} "
        f"(endpoint {_endpoint(flow.endpoint, flow.target_port)})"
    )


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _arrow(header: Ends) -> str:
    return f"{_endpoint(header[0], header[1])} > {_endpoint(header[2], header[3])}"
