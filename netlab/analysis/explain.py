"""Why a connection ended as it did: findings as a chain of causes in plain words, with packet numbers. Pure.

`explain` picks the flow and words its findings; `report/explanation.py` prints them. Whatever was not seen is named: a
chain with a gap says where the gap is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from netlab.analysis.acceptance import Acceptance
from netlab.analysis.answers import Answer, Maker
from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.findings import RESETS, ConnectionFinding, Ending, Findings, PacketFinding, socket_events
from netlab.analysis.numbers import Numbers
from netlab.analysis.paths import Fate, NodeCheck, PacketPath, window_probes
from netlab.analysis.stalls import Stall, describe_stall, stalls
from netlab.analysis.timeline import Timeline
from netlab.analysis.transitions import transitions
from netlab.analysis.translation import Nat, Visit, invalid_at, picked_up
from netlab.analysis.udp import UdpEnding
from netlab.conntrack import kernels
from netlab.conntrack.values import CheckName, CtOutcome, Failure
from netlab.errors import LabError, UsageError
from netlab.record.events import SYN, Direction, SocketEventKind
from netlab.record.flow import Ends, Flow
from netlab.record.observers import describe_observer, describe_unobserved
from netlab.record.recording import Recording
from netlab.record.words import arrow, endpoint, rule

_SHOWN = 5
"""So many of what is alike are named one by one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain. number is the packet's it speaks of, time_ns when it was; None where it has none."""

    text: str
    number: int | None = None
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A flow's story. chain are its links in order of time; notes what else is worth knowing of the flow.

    others names the other flows that were reset. unseen is what could not be observed, or not be told for sure, and
    disagreements where the kernel's log is not what the window model computes. protocol is the flow's, "tcp" or "udp".
    """

    lab: str
    kernel: str
    fixes: tuple[str, ...]
    flow: Flow
    ending: Ending | UdpEnding
    packets: int
    started_ns: int
    chain: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()
    protocol: str = "tcp"


# --- which flow ------------------------------------------------------------------------------------------------------


def choose(findings: Findings, wanted: str | None = None) -> tuple[Flow, tuple[Flow, ...]]:
    """The flow to explain, and the others that were reset, in the order in which they were.

    wanted is the client's "ADDRESS:PORT"; without it: the flow that was reset first, else the first that did not
    complete, else the first one. UsageError where there is no such flow, LabError where there is none at all.
    """
    flows = findings.timeline.flows
    if not flows:
        raise LabError("there is no connection to explain", "no TCP connection was seen while the lab was observed")
    endings = {flow: _told(findings, flow) for flow in flows}
    ended = [(found.killer.time_ns, flow) for flow, found in endings.items() if found.ending in RESETS and found.killer]
    reset = [flow for _, flow in sorted(ended, key=lambda pair: pair[0])]
    reset += [flow for flow, found in endings.items() if found.ending in RESETS and flow not in reset]
    if wanted is not None:
        named = [flow for flow in flows if endpoint(flow.client_address, flow.client_port) == wanted]
        if not named:
            raise UsageError(f"no flow of {wanted} was seen", f"those that were: {_list(flows)}")
        chosen = named[0]
    else:
        failed = [flow for flow, found in endings.items() if found.ending is not Ending.COMPLETED and found.packets]
        chosen = (reset or failed or list(flows))[0]
    return chosen, tuple(flow for flow in reset if flow != chosen)


def _told(findings: Findings, flow: Flow, within_ns: tuple[int, int] | None = None) -> ConnectionFinding:
    """The incarnation to tell of, of those that began in a stretch of time: the first that was reset, else the last."""
    found = findings.of(flow)
    if within_ns is not None:
        begun = [each for each in found if each.packets and each.packets[0].path.time_ns <= within_ns[1]]
        found = tuple(each for each in begun if each.packets[-1].path.time_ns >= within_ns[0]) or found
    return next((each for each in found if each.ending in RESETS), found[-1])


def _list(flows: Sequence[Flow], most: int = 8) -> str:
    names = [endpoint(flow.client_address, flow.client_port) for flow in flows[:most]]
    return ", ".join(names) + (f" and {len(flows) - most:,} more" if len(flows) > most else "")


# --- the chain -------------------------------------------------------------------------------------------------------


def explain(findings: Findings, wanted: str | None = None, *, within_ns: tuple[int, int] | None = None) -> Explanation:
    """The story of one flow; `choose` says which, and what is raised.

    within_ns is the stretch of time, of a trial, in which its connection began.
    """
    timeline = findings.timeline
    flow, others = choose(findings, wanted)
    words = _Words(timeline, _told(findings, flow, within_ns))
    recording = timeline.recording
    return Explanation(
        recording.lab,
        recording.kernel,
        recording.fixes,
        flow,
        words.found.ending,
        len(timeline.of(flow)),
        words.paths[0].time_ns if words.paths else recording.started_ns,
        tuple(words.chain()),
        tuple(words.notes()),
        tuple(name(other) for other in others),
        tuple(_unseen(timeline, flow, words)),
        tuple(_disagreements(timeline, words)),
    )


class _Words:
    """Words the findings of one of a flow's connections."""

    def __init__(self, timeline: Timeline, found: ConnectionFinding) -> None:
        self.timeline, self.found, self.flow = timeline, found, found.flow
        self.paths = found.incarnation.paths
        self._numbers = Numbers(timeline.of(self.flow), window_probes(self.paths))
        self._told: set[int] = set()

    def chain(self) -> list[Step]:
        """The links in order of time; what has no time stays behind what it belongs to."""
        found = self.found
        groups: list[list[Step]] = []
        until_ns = found.completed_ns
        if found.ending in RESETS or found.ending is Ending.REFUSED:
            groups += [self._reopened(), *self._reset()]
            until_ns = found.killer.time_ns if found.killer is not None else None
        else:
            groups += [self._reopened(), *self._survived()]
        steps = in_order([self._entries(until_ns), *groups])
        return steps or [Step("no packet of it was seen")]

    # --- a connection that was reset

    def _reset(self) -> Iterator[list[Step]]:
        found = self.found
        if isinstance(found.refusal, DatagramPath):
            yield self._icmp_refusal(found.refusal)
            return
        death = found.killer
        if death is None:
            error = found.errors[0]
            text = f"the socket in {error.netns} has ECONNRESET, and no RST was seen that came to it"
            yield [Step(text, None, error.time_ns)]
            return
        rst, answer = death.rst, death.rst.answer
        assert answer is not None, "a death is a RST's"
        yield self._stale()
        if answer.answers is not None and (asked := found.of(answer.answers.number)) is not None:
            yield self._began(asked)
        yield self._rst(rst, answer)
        yield self._ends()

    def _icmp_refusal(self, error: DatagramPath) -> list[Step]:
        sender, last = error.hops[0].netns, error.last
        what = f"ICMP type {error.datagram.icmp_type} code {error.datagram.icmp_code}"
        text = f"{sender} refuses the connection: {what} about the SYN leaves it"
        return [
            Step(text, error.number, error.time_ns),
            Step(f"#{error.number} reaches {last.netns}: connecting fails", error.number, last.time_ns),
        ]

    def _stale(self) -> list[Step]:
        return [
            Step(
                f"the kernel in {event.netns} is made to believe in a send window of {event.window_bytes:,} bytes "
                f"(it was {event.was_bytes:,})",
                None,
                event.time_ns,
            )
            for event in socket_events(self.timeline, self.flow, SocketEventKind.STALE_WINDOW)
            if self.found.incarnation.has(event.time_ns)
        ]

    def _entries(self, until_ns: int | None) -> list[Step]:
        """What became of the connection's conntrack entries up to then; the answered packet's own is told with it."""
        timeline = self.timeline
        told = transitions(self.flow, timeline.events, timeline.lazily_expired, timeline.ran_out)
        steps = [Step(each.text, None, timeline.moment(each.event)) for each in told if not each.adopts_answer]
        own = [step for step in steps if self.found.incarnation.has(step.time_ns or 0)]
        return [step for step in own if until_ns is None or (step.time_ns or 0) <= until_ns]

    def _began(self, asked: PacketFinding) -> list[Step]:
        """A packet from its sender on: what conntrack and NAT made of it."""
        path = asked.path
        self._told.add(path.number)
        first = path.hops[0]
        verb = "leaves" if first.direction is Direction.OUT else "comes to"
        whose = " (a step of the experiment made it)" if path.number in self.timeline.forged else ""
        text = f"#{path.number} {verb} {first.netns}: {self._numbers.describe(path)}{whose}"
        steps = [Step(text, path.number, path.time_ns), *self._overtaken(path), *self._judged(path)]
        visit = asked.left_alone
        goes_astray = visit is not None and path.fate is Fate.UNSEEN and visit.netns == path.last.netns
        if visit is not None and (visit.left is not None or path.fate is Fate.DELIVERED or goes_astray):
            steps.append(self._left_alone(asked, visit))
        return steps

    def _left_alone(self, found: PacketFinding, visit: Visit) -> Step:
        """Why NAT did not translate a packet, and what that makes of it."""
        path, netns = found.path, visit.netns
        header = visit.hops[0].ends
        stays = f"its source stays {header[0]}"
        if path.to_server:
            stays = f"its destination stays {header[2]}"
        elif header[2] != self.flow.client_address:
            stays = f"its destination stays {header[2]}, {path.last.netns}'s own address"
        match visit.nat:
            case Nat.INVALID:
                text = f"NAT on {netns} skips it: {stays}"
            case Nat.ANOTHER_ENTRY | Nat.NO_ENTRY:
                text = f"NAT on {netns} has no translation for it: {stays}"
            case Nat.BRIDGED:
                text = f"it stays on the bridge of {netns}: {netns}'s IP layer and NAT never see it, {stays}"
            case Nat.UNTRACKED:
                text = f"a rule keeps it from conntrack on {netns}, and nothing translates it: {stays}"
            case _:
                text = f"NAT on {netns} left it alone: {stays}, and why was not seen"
        after = visit.left or visit.hops[-1]
        arrived = path.at(self.flow.client, Direction.IN) if not path.to_server else None
        return Step(text, path.number, (arrived or after).time_ns)

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
        for check in sorted(path.checks, key=lambda check: check.checked.packet.time_ns):
            time_ns = check.checked.packet.time_ns
            if check.checked.outcome is CtOutcome.ACCEPT and not check.reasons:
                if picked_up(check):
                    text = f"conntrack on {check.netns} has no entry for it: {check.checked.note}"
                    steps.append(Step(text, path.number, time_ns))
                if check.checked.failure is None:
                    continue
            if margin := self._margin(path, check):
                steps.append(Step(margin, path.number, time_ns))
            if check.invalid and not check.reasons and not check.checked.log:
                found = ", but a rule found it so" if path.called_invalid(check.netns) else ""
                text = f"conntrack on {check.netns}: INVALID ({check.checked.note}), which it doesn't log{found}"
                steps.append(Step(text, path.number, time_ns))
                continue
            steps.append(Step(self._conntrack(check), path.number, time_ns))
        seen = {check.netns for check in path.checks}
        for reason in path.reasons:
            if reason.netns not in seen:
                text = f'conntrack on {reason.netns} logs "{reason.text}"'
                steps.append(Step(text, path.number, reason.time_ns))
        return steps

    def _margin(self, path: PacketPath, check: NodeCheck) -> str:
        """By how many bytes a packet fell out of the window."""
        checked, way = check.checked, path.to_server
        bounds = {bound.name: bound for bound in checked.checks}
        receiver = self.flow.server if way else self.flow.client
        match checked.failure:
            case Failure.OVERSHOT | Failure.SEQ_OVER:
                edge = bounds[CheckName.SEQ_UPPER].bound
                wire = f", {edge} on the wire" if self._numbers.known(way) else ""
                known = f"what {check.netns} knows {receiver} to allow"
                return (
                    f"it ends {checked.beyond_bytes:,} bytes past {known} (td_maxend "
                    f"{self._numbers.relative(edge, way)}{wire}); kernels since 6.1 forgive "
                    f"{checked.forgiven_bytes:,} here"
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
            unread = any(gap.netns == check.netns for gap in self.timeline.unverified)
            own = "was not read" if unread else "has nothing"
            return f'conntrack on {check.netns}: {outcome} by the model, "{checked.log}"; its own log {own}'
        return f"conntrack on {check.netns}: {outcome} by the model"

    def _rst(self, rst: PacketFinding, answer: Answer) -> list[Step]:
        """A RST: who sends it, why, and what conntrack and NAT made of it."""
        path = rst.path
        self._told.add(path.number)
        steps = [Step(f"{self._why_sent(path, answer)} ({self._numbers.describe(path)})", path.number, path.time_ns)]
        found = [check for check in path.checks if check.invalid]
        return steps + [Step(self._conntrack(one), path.number, one.checked.packet.time_ns) for one in found[:1]]

    def _why_sent(self, path: PacketPath, answer: Answer) -> str:
        sender, number = answer.sender, f"RST #{path.number}"
        asked = f"#{answer.answers.number}" if answer.answers is not None else ""
        match answer.maker:
            case Maker.NO_SOCKET:
                assert answer.answers is not None
                if answer.answers.segment.flags & SYN and path.to_server is False and not answer.answers.segment.ack:
                    return f"{sender} has no socket that listens for {asked} -> {number}"
                src, sport, dst, dport = path.hops[0].ends
                unknown = endpoint(dst, dport)
                end = "" if src == self.flow.client_address else f" as {endpoint(src, sport)}"
                return f"{sender} knows no connection with {unknown}{end} -> {number}, seq = {asked}'s ack"
            case Maker.REFUSAL:
                return f"{sender} has sent nothing that {asked} could acknowledge -> {number}, seq = {asked}'s ack"
            case Maker.GONE:
                why = "netlab has closed its socket" if answer.by_netlab else "it has no such connection any more"
                return f"{sender} answers {asked} with {number}: {why}"
            case Maker.ABORT:
                if answer.by_netlab:
                    return f"netlab closes {sender}'s socket before all is read: {number} to {path.last.netns}"
                return f"{sender} aborts the connection of its own accord: {number} to {path.last.netns}"
            case Maker.RULE:
                assert answer.rule is not None
                return f"{rule(answer.rule)} on {sender} rejects {asked} with {number}"
            case Maker.STIMULUS:
                return f"a step of the experiment sends {number} from {sender}"
            case Maker.NOT_TCP:
                made = "a rule that was not seen, or a program's raw socket"
                whose = f"; it looks like the answer to {asked}" if asked else ""
                return f"{sender}'s TCP did not make {number}, the kernel says: {made}, did{whose}"
            case Maker.UNKNOWN:
                where = f"{sender} sends" if answer.seen else f"{sender} gets, from out of sight,"
                why = f"it answers {asked}" if asked else "it answers no packet that was seen"
                return f"{where} {number} to {path.last.netns}; {why}"

    def _ends(self) -> list[Step]:
        """What the RST did to the sockets at both ends."""
        found, death = self.found, self.found.killer
        assert death is not None
        rst = death.rst.path
        steps = [self._arrives(death.rst, reset=death.error is not None, told=death.told)]
        others = [each for each in found.deaths if each.netns != death.netns and each.time_ns > death.time_ns]
        if others:
            other = others[0].rst
            self._told.add(other.path.number)
            asked = other.answer.answers if other.answer is not None else None
            told = f"{death.netns} answers #{asked.number} with" if asked else f"{other.path.hops[0].netns} sends"
            learnt = ": its socket is reset too" if others[0].error is not None or others[0].told else ""
            text = f"{told} RST #{other.path.number}, and {others[0].netns} learns of it{learnt}"
            steps.append(Step(text, other.path.number, other.path.time_ns))
        elif found.ending is Ending.RESET and not any(error.netns != death.netns for error in found.errors):
            far = self.flow.client if death.netns == self.flow.server else self.flow.server
            steps.append(Step(f"{far} was not told: no RST came to it", rst.number))
        return steps

    def _arrives(self, rst: PacketFinding, *, reset: bool = False, told: bool = False) -> Step:
        """A RST at the end of its way, and what it does there."""
        path, netns = rst.path, rst.path.last.netns
        arrives = f"#{path.number} reaches {netns}"
        match rst.acceptance:
            case None:
                return Step(f"#{path.number} {_whither(path)}", path.number, path.last.time_ns)
            case Acceptance.ENDS | Acceptance.UNKNOWN if reset:
                text = f"{arrives}: its socket is reset (ECONNRESET)"
            case Acceptance.ENDS if told:
                text = f"{arrives}: its socket accepts it, the kernel says, and is reset"
            case Acceptance.ENDS:
                text = f"{arrives}; what its socket made of it was not observed"
            case Acceptance.CHALLENGED:
                text = f"{arrives}: it lies in the window, but not where {netns} waits; {netns} asks with an ACK"
            case Acceptance.IGNORED:
                text = f"{arrives}: its number is outside of what {netns} waits for, and {netns} ignores it"
            case Acceptance.STRAY:
                text = f"{arrives}, which has no such socket, or has closed it: it does no harm"
            case Acceptance.UNKNOWN:
                text = f"{arrives}; whether it is what {netns} waits for can't be told"
        return Step(text, path.number, path.last.time_ns)

    # --- a connection that was not

    def _survived(self) -> Iterator[list[Step]]:
        found = self.found
        left = [each for each in found.packets if each.path.number not in self._told]
        odd = [each for each in left if each.invalid_in() or each.left_alone is not None]
        passed = [each for each in left if each not in odd and _outside(each.path)]
        if odd or passed:
            yield self._stale()
        for group in (odd, passed):
            for each in group[:1]:
                yield [*self._began(each), self._fate(each)]
            if len(group) > 1:
                rest = ", ".join(f"#{each.path.number}" for each in group[1 : _SHOWN + 1])
                rest += " ..." if len(group) > _SHOWN + 1 else ""
                yield [Step(f"the same holds for {len(group) - 1:,} more: {rest}", None, group[1].path.time_ns)]
        again = [path for path in self.paths if odd and path.copy_of == odd[0].path.number]
        for path in again[:1]:
            text = f"#{odd[0].path.number}'s data is sent again as #{path.number}, which {_whither(path)}"
            yield [Step(text, path.number, path.time_ns)]
        for each in (*found.harmless, *found.doubtful)[:_SHOWN]:
            if each.path.number not in self._told and each.answer is not None:
                yield [*self._rst(each, each.answer), self._arrives(each)]
        if found.completed_ns is not None:
            last_ns = found.server_closed_ns
            yield [Step("the server's FIN reaches the client, after all that came before it", None, last_ns)]
            return
        yield from self._unfinished()

    def _unfinished(self) -> Iterator[list[Step]]:
        """Where a connection stands that is not over: what closed, the last of each end, and what held it up."""
        found = self.found
        for closed_ns, one in ((found.server_closed_ns, self.flow.server), (found.client_closed_ns, self.flow.client)):
            if closed_ns is not None:
                yield [Step(f"{one} closes its side: its FIN arrives, after all that came before it", None, closed_ns)]
        yield from ([step] for step in self._stuck())
        for stall in stalls(self.timeline, found):
            yield [self._stall(stall)]

    def _stall(self, stall: Stall) -> Step:
        numbers = stall.numbers[:_SHOWN]
        last = next((path for path in reversed(self.paths) if path.number in stall.numbers), None)
        time_ns = last.last.time_ns if last is not None else self.paths[-1].last.time_ns if self.paths else None
        return Step(describe_stall(stall), numbers[0] if numbers else None, time_ns)

    def _reopened(self) -> list[Step]:
        """How the client got through, or not, to a server and a conntrack that knew an earlier connection."""
        incarnation = self.found.incarnation
        if not incarnation.earlier or not self.paths:
            return []
        flow, syn = self.flow, self.paths[0]
        earlier = f"{incarnation.earlier:,} packets of another connection"
        text = f"{flow.client} uses port {flow.client_port} again, after the {earlier}"
        steps = [Step(text, None, syn.time_ns)]
        first = self.found.of(syn.number)
        steps += self._began(first) if first is not None else []
        steps += self._anew(syn)
        refusals = [each for path in incarnation.refusals() if (each := self.found.of(path.number)) is not None]
        for rst in refusals:
            self._told.add(rst.path.number)
            if rst.answer is not None and rst.answer.answers is not None:
                self._told.add(rst.answer.answers.number)
        for rst in refusals[:1]:
            steps += self._refused(rst)
        if len(refusals) > 1:
            more = "once more" if len(refusals) == 2 else f"{len(refusals) - 1:,} times more"
            steps.append(Step(f"the same happens {more}", refusals[1].path.number, refusals[1].path.time_ns))
        again = [path for path in self.paths[1:] if refusals and path.segment.flags == SYN]
        self._told |= {path.number for path in again}
        for path in again[:1]:
            text = f"{flow.client} sends its SYN again, as #{path.number}, which {_whither(path)}"
            steps += [Step(text, path.number, path.time_ns), *self._anew(path)]
        return steps

    def _anew(self, syn: PacketPath) -> list[Step]:
        """Where conntrack began a new entry for a SYN."""
        return [
            Step(f"conntrack on {check.netns}: {check.checked.note}", syn.number, check.checked.packet.time_ns)
            for check in syn.checks
            if check.checked.state_before is None and check.checked.state_after is not None
        ]

    def _refused(self, rst: PacketFinding) -> list[Step]:
        """An answer of the earlier connection's, the client's RST to it, and what became of that."""
        flow, steps, path = self.flow, [], rst.path
        asked = rst.answer.answers if rst.answer is not None else None
        if asked is not None:
            what = self._numbers.describe(asked)
            text = f"{flow.server} answers with #{asked.number}, an ACK of the other connection ({what})"
            steps = [Step(text, asked.number, asked.time_ns), *self._judged(asked)]
        whose = f", seq = #{asked.number}'s ack" if asked is not None else ""
        text = f"{flow.client} has sent nothing that this could acknowledge -> RST #{path.number}{whose}"
        steps += [Step(text, path.number, path.time_ns), *self._judged(path)]
        if path.fate is not Fate.DELIVERED:
            return [*steps, self._fate(rst)]
        errors = socket_events(self.timeline, flow, SocketEventKind.ERROR)
        reset = any(event.connection and event.netns == flow.server for event in errors)
        ends = ": its socket has ECONNRESET" if reset else ""
        text = f"#{path.number} reaches {flow.server}, and ends what was left there of the other connection{ends}"
        return [*steps, Step(text, path.number, path.last.time_ns)]

    def _fate(self, found: PacketFinding) -> Step:
        path, number = found.path, found.path.number
        if found.drop is not None:
            text = f"dropped on {found.drop.netns} by {rule(found.drop)}"
            return Step(text, number, path.last.time_ns)
        if path.corrupt and path.fate is Fate.DELIVERED:
            netns = path.last.netns
            text = f"#{number} reaches {netns}, whose kernel throws away what has a wrong checksum, and answers nothing"
            return Step(text, number, path.last.time_ns)
        thrown = found.thrown_away
        if thrown is not None and path.fate is not Fate.DELIVERED:
            return Step(f"{thrown.netns}'s kernel drops #{number}: {thrown.reason}", number, thrown.time_ns)
        as_if = f", as if from {path.last.ends[0]}" if found.untranslated and not path.to_server else ""
        return Step(f"#{number} {_whither(path)}{as_if}", number, path.last.time_ns)

    def _stuck(self) -> list[Step]:
        """The last that was seen in each direction."""
        steps = []
        for to_server, end in ((False, self.flow.server), (True, self.flow.client)):
            there = [path for path in self.paths if path.to_server is to_server]
            if not there:
                if self.paths:
                    steps.append(Step(f"nothing was seen of {end}", None, self.paths[-1].last.time_ns))
                continue
            last = there[-1]
            if last.number in self._told:
                continue
            again = f", for the {_nth(last, there)} time" if last.copy_of is not None else ""
            text = f"the last of {end} is #{last.number}: {self._numbers.describe(last)}{again}; it {_whither(last)}"
            if last.segment.window == 0 and not last.is_reset:
                text += "; its window is closed"
            steps.append(Step(text, last.number, last.time_ns))
        return steps

    def _reasons(self) -> Iterator[str]:
        """Why each namespace's own TCP sent its RSTs, in the kernel's words."""
        numbers: dict[tuple[str, str], list[int]] = {}
        for each in self.found.packets:
            if each.answer is not None and each.answer.reason:
                numbers.setdefault((each.answer.sender, each.answer.reason), []).append(each.path.number)
        for (sender, reason), sent in numbers.items():
            more = f" and {len(sent) - 1:,} more" if len(sent) > 1 else ""
            yield f"the kernel says that {sender}'s TCP sent RST #{sent[0]}{more}: {reason}"

    def notes(self) -> list[str]:
        """What else a reader wants to know: how much was retransmitted, and what was rewritten."""
        copies = sum(path.copy_of is not None for path in self.paths)
        carry = "1 packet carries" if copies == 1 else f"{copies:,} packets carry"
        notes = [f"{carry} data that was sent before"] if copies else []
        notes += self._reasons()
        rewrites = dict.fromkeys((r.netns, r.before, r.after) for path in self.paths for r in path.rewrites)
        notes += [
            f"NAT {f'on {netns}' if netns else 'out of sight'}: {arrow(before)} becomes {arrow(after)}"
            for netns, before, after in rewrites
        ]
        return notes


def in_order(groups: Iterable[Sequence[Step]]) -> list[Step]:
    """All steps by time; one without a time stays behind the step before it in its group."""
    keyed: list[tuple[int, int, Step]] = []
    for group in groups:
        timed = [step.time_ns for step in group if step.time_ns is not None]
        time_ns = timed[0] if timed else 0
        for step in group:
            time_ns = step.time_ns if step.time_ns is not None else time_ns
            keyed.append((time_ns, len(keyed), step))
    return [step for _, _, step in sorted(keyed, key=lambda item: item[:2])]


def _outside(path: PacketPath) -> bool:
    """Whether a packet was out of the window somewhere, and let pass."""
    return any(
        (check.checked.failure is not None and not _unchecked(check)) or check.reasons for check in path.checks
    ) or any(reason for reason in path.reasons if not invalid_at(path, reason.netns))


def _unchecked(check: NodeCheck) -> bool:
    """Whether conntrack holds no window against the sender's packets, since it found the connection in mid-stream."""
    before = check.checked.state_before
    return before is not None and before.side(check.checked.direction).be_liberal


def _whither(path: PacketPath) -> str:
    last = path.last
    if path.fate is Fate.DELIVERED:
        return f"reaches {last.netns}"
    if path.fate is Fate.DROPPED:
        return "is dropped"
    verb = "coming into" if last.direction is Direction.IN else "leaving"
    return f"is seen nowhere after {verb} {last.netns}/{last.ifname}"


def _nth(path: PacketPath, there: Sequence[PacketPath]) -> str:
    count = 1 + sum(other.copy_of == path.copy_of for other in there)
    return {2: "second", 3: "third"}.get(count, f"{count}th")


def name(flow: Flow) -> str:
    """A connection in words: "10.0.0.2:40000 > 192.168.0.2:80 (endpoint 10.0.1.2:8080)"."""
    header: Ends = flow.headers()[0]
    behind = f" (endpoint {endpoint(flow.endpoint, flow.target_port)})" if flow.translated else ""
    masqueraded = flow.peer != (flow.client_address, flow.client_port)
    seen = f", which sees {endpoint(*flow.peer)}" if masqueraded else ""
    return f"{arrow(header)}{behind[:-1] + seen + ')' if behind else ''}"


# --- what was not seen -----------------------------------------------------------------------------------------------


def _disagreements(timeline: Timeline, words: _Words) -> list[str]:
    own = {path.number for path in words.paths}
    found = [f"#{number}: {differs}" for number, differs in timeline.disagreements if number in own]
    others = len(timeline.disagreements) - len(found)
    if others:
        found.append(f"and about {others:,} packets of other flows")
    guessed = kernels.rules(timeline.recording.kernel, timeline.recording.capabilities).guessed if found else ()
    if guessed:
        found.append(f"not probed on that kernel, and taken from its release: {', '.join(guessed)}")
    return found


def not_observed(recording: Recording, parts: Iterable[tuple[str | None, str]]) -> list[str]:
    """What the observers didn't see, or lost, in a line each. parts are the namespaces that matter, and why."""
    tapped = {tap.netns for tap in recording.taps}
    found = [
        f"the packets in {netns} ({part}): no interface of it was observed"
        for netns, part in parts
        if netns is not None and netns not in tapped
    ]
    found += map(describe_unobserved, recording.unobserved)
    found += [f"{count:,} events lost by {describe_observer(observer)}" for observer, count in recording.lost if count]
    return found


def _unseen(timeline: Timeline, flow: Flow, words: _Words) -> list[str]:
    parts = [(flow.client, "the client"), (flow.node, "the node that translates"), (flow.server, "the server")]
    found = not_observed(timeline.recording, parts)
    found += [f"whether conntrack's log is as computed on {netns}: {why}" for netns, why in timeline.unverified]
    if words.paths and not any(path.segment.flags & SYN for path in words.paths):
        found.append("the connection's beginning: sequence numbers are those on the wire")
    loose = [reason for reason in timeline.loose if flow.client_address in (reason.segment.src, reason.segment.dst)]
    if loose:
        found.append(f'the packets of {len(loose):,} of conntrack\'s log lines, as "{loose[0].text}"')
    ambiguous = dict.fromkeys(path.ambiguous for path in words.paths if path.ambiguous)
    found += list(ambiguous)[:_SHOWN]
    if len(ambiguous) > _SHOWN:
        found.append(f"{len(ambiguous) - _SHOWN:,} more groups of packets that look alike")
    return found
