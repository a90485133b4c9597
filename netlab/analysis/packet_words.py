"""A packet of a connection in words: its way, what conntrack and NAT made of it, who sent a RST, what it did. Pure."""

from __future__ import annotations

from itertools import pairwise

from netlab.analysis.acceptance import Acceptance
from netlab.analysis.answers import Answer, Maker
from netlab.analysis.explanation import Step
from netlab.analysis.findings import ConnectionFinding, PacketFinding
from netlab.analysis.numbers import Numbers
from netlab.analysis.paths import Fate, NodeCheck, PacketPath, window_probes
from netlab.analysis.timeline import Timeline
from netlab.analysis.translation import Nat, Visit, invalid_at, picked_up
from netlab.conntrack.values import CheckName, CtOutcome, Failure
from netlab.record.events import SYN, Direction
from netlab.record.words import endpoint, rule


class PacketWords:
    """Words what became of the packets of one connection, and who sent them. told are the numbers of those told of."""

    def __init__(self, timeline: Timeline, found: ConnectionFinding) -> None:
        self._timeline, self._found, self._flow = timeline, found, found.flow
        self._paths = found.incarnation.paths
        self.numbers = Numbers(timeline.of(found.flow), window_probes(self._paths))
        self.told: set[int] = set()

    def began(self, asked: PacketFinding) -> list[Step]:
        """A packet from its sender on: what conntrack and NAT made of it."""
        path = asked.path
        self.told.add(path.number)
        first = path.hops[0]
        verb = "leaves" if first.direction is Direction.OUT else "comes to"
        whose = " (a step of the experiment made it)" if path.number in self._timeline.forged else ""
        text = f"#{path.number} {verb} {first.netns}: {self.numbers.describe(path)}{whose}"
        steps = [Step(text, path.number, path.time_ns), *self._overtaken(path), *self.judged(path)]
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
        if visit.due is not None and visit.due[:2] == header[:2]:
            stays = f"its destination stays {header[2]}"
        elif visit.due is not None and visit.due[2:] != header[2:] and path.fate is Fate.DELIVERED:
            # Both were to change: it is where the packet goes that tells.
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
        arrived = path.at(self._flow.client, Direction.IN) if not path.to_server else None
        return Step(text, path.number, (arrived or after).time_ns)

    def _overtaken(self, path: PacketPath) -> list[Step]:
        """Where a packet was held up until a copy of its data had come through."""
        for copy in self._paths:
            if copy.copy_of == path.number and copy.last.time_ns < path.last.time_ns:
                before, after = max(pairwise(path.hops), key=lambda pair: pair[1].time_ns - pair[0].time_ns)
                inside = before.netns == after.netns
                where = f"in {before.netns}" if inside else f"between {before.netns} and {after.netns}"
                held_ms = (after.time_ns - before.time_ns) / 1e6
                text = (
                    f"it is held up {where} for {held_ms:,.1f} ms; meanwhile its data goes out again as "
                    f"#{copy.number}, which {whither(copy)}"
                )
                return [Step(text, path.number, after.time_ns)]
        return []

    def judged(self, path: PacketPath) -> list[Step]:
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
                found = "; `ct state invalid` matched it" if path.called_invalid(check.netns) else ""
                text = f"conntrack on {check.netns}: INVALID ({check.checked.note}), without a log line{found}"
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
        receiver = self._flow.server if way else self._flow.client
        match checked.failure:
            case Failure.OVERSHOT | Failure.SEQ_OVER:
                edge = bounds[CheckName.SEQ_UPPER].bound
                wire = f", {edge} on the wire" if self.numbers.known(way) else ""
                known = f"the window that conntrack on {check.netns} allows"
                return (
                    f"it ends {checked.beyond_bytes:,} bytes past {known} (td_maxend "
                    f"{self.numbers.relative(edge, way)}{wire}); kernels since 6.1 forgive "
                    f"{checked.forgiven_bytes:,} here"
                )
            case Failure.SEQ_UNDER:
                short = -bounds[CheckName.SEQ_LOWER].margin_bytes
                return f"it ends {short:,} bytes before the oldest data that {receiver} may still need"
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
            unread = any(gap.netns == check.netns for gap in self._timeline.unverified)
            own = "was not read" if unread else "has nothing"
            return f'conntrack on {check.netns}: {outcome} by the model, "{checked.log}"; its own log {own}'
        return f"conntrack on {check.netns}: {outcome} by the model"

    def rst(self, rst: PacketFinding, answer: Answer) -> list[Step]:
        """A RST: who sends it, why, and what conntrack and NAT made of it."""
        path = rst.path
        self.told.add(path.number)
        steps = [Step(f"{self._why_sent(path, answer)} ({self.numbers.describe(path)})", path.number, path.time_ns)]
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
                end = "" if src == self._flow.client_address else f" as {endpoint(src, sport)}"
                return f"{sender} knows no connection with {unknown}{end} -> {number}, seq = {asked}'s ack"
            case Maker.REFUSAL:
                return f"{sender} has sent nothing that {asked} could acknowledge -> {number}, seq = {asked}'s ack"
            case Maker.GONE:
                why = "netlab has closed the socket" if answer.by_netlab else "it has no such connection any more"
                return f"{sender} answers {asked} with {number}: {why}"
            case Maker.ABORT:
                if answer.by_netlab:
                    return f"netlab closes {sender}'s socket before all is read: {number} to {path.last.netns}"
                return f"{sender} aborts the connection itself: {number} to {path.last.netns}"
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
                where = f"{sender} sends" if answer.seen else f"{sender} receives, from somewhere unobserved,"
                why = f"it answers {asked}" if asked else "it answers no packet that was seen"
                return f"{where} {number} to {path.last.netns}; {why}"

    def arrives(self, rst: PacketFinding, *, reset: bool = False, told: bool = False) -> Step:
        """A RST at the end of its way, and what it does there."""
        path, netns = rst.path, rst.path.last.netns
        arrives = f"#{path.number} reaches {netns}"
        match rst.acceptance:
            case None:
                return Step(f"#{path.number} {whither(path)}", path.number, path.last.time_ns)
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

    def fate(self, found: PacketFinding) -> Step:
        path, number = found.path, found.path.number
        if found.drop is not None:
            text = f"dropped on {found.drop.netns} by {rule(found.drop)}"
            return Step(text, number, path.last.time_ns)
        if path.corrupt and path.fate is Fate.DELIVERED:
            netns = path.last.netns
            text = f"#{number} reaches {netns}, whose kernel drops what has a wrong checksum, and answers nothing"
            return Step(text, number, path.last.time_ns)
        thrown = found.thrown_away
        if thrown is not None and path.fate is not Fate.DELIVERED:
            return Step(f"{thrown.netns}'s kernel drops #{number}: {thrown.reason}", number, thrown.time_ns)
        as_if = f", as if from {path.last.ends[0]}" if found.untranslated and not path.to_server else ""
        return Step(f"#{number} {whither(path)}{as_if}", number, path.last.time_ns)


def outside(path: PacketPath) -> bool:
    """Whether a packet was out of the window somewhere, and let pass."""
    return any(
        (check.checked.failure is not None and not _unchecked(check)) or check.reasons for check in path.checks
    ) or any(reason for reason in path.reasons if not invalid_at(path, reason.netns))


def _unchecked(check: NodeCheck) -> bool:
    """Whether conntrack holds no window against the sender's packets, since it found the connection in mid-stream."""
    before = check.checked.state_before
    return before is not None and before.side(check.checked.direction).be_liberal


def whither(path: PacketPath) -> str:
    last = path.last
    if path.fate is Fate.DELIVERED:
        return f"reaches {last.netns}"
    if path.fate is Fate.DROPPED:
        return "is dropped"
    verb = "coming into" if last.direction is Direction.IN else "leaving"
    return f"is not seen after {verb} {last.netns}/{last.ifname}"
