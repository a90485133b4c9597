"""What became of a connection in words: how it began anew, was reset, went on or got stuck, packet by packet. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab.analysis.answers import by_netlab, rejection
from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.explanation import Step, in_order
from netlab.analysis.findings import RESETS, ConnectionFinding, Ending, PacketFinding, socket_events
from netlab.analysis.packet_words import PacketWords, outside, whither
from netlab.analysis.paths import Fate, PacketPath
from netlab.analysis.stalls import Stall, describe_stall, stalls
from netlab.analysis.timeline import Timeline
from netlab.analysis.transitions import transitions
from netlab.record.events import SYN, SocketEventKind
from netlab.record.words import arrow, kind, rule

_SHOWN = 5
"""So many of what is alike are named one by one."""


class ConnectionWords:
    """Words the findings of one of a flow's connections."""

    def __init__(self, timeline: Timeline, found: ConnectionFinding) -> None:
        self._timeline, self.found, self._flow = timeline, found, found.flow
        self.paths = found.incarnation.paths
        self._packets = PacketWords(timeline, found)

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
            yield self._packets.began(asked)
        yield self._packets.rst(rst, answer)
        yield self._ends()

    def _icmp_refusal(self, error: DatagramPath) -> list[Step]:
        sender, last = error.hops[0].netns, error.last
        what = f"{kind(error.datagram)} #{error.number}"
        earlier = [each for each in self.found.packets if each.path.to_server and each.path.time_ns <= error.time_ns]
        syn = earlier[-1] if earlier else None
        by = rejection(syn.path.trace, sender) if syn is not None else None
        asked = f"#{syn.path.number}" if syn is not None else "the SYN"
        text = f"{rule(by)} on {sender} rejects {asked} with {what}" if by else f"{sender} answers {asked} with {what}"
        return [
            *(self._packets.began(syn) if syn is not None else []),
            Step(text, error.number, error.time_ns),
            Step(f"#{error.number} reaches {last.netns}: connecting fails", error.number, last.time_ns),
        ]

    def _stale(self) -> list[Step]:
        return [
            Step(
                f"a step sets the send window of {event.netns}'s socket to {event.window_bytes:,} bytes "
                f"(it was {event.was_bytes:,})",
                None,
                event.time_ns,
            )
            for event in socket_events(self._timeline, self._flow, SocketEventKind.STALE_WINDOW)
            if self.found.incarnation.has(event.time_ns)
        ]

    def _entries(self, until_ns: int | None) -> list[Step]:
        """What became of the connection's conntrack entries up to then; the answered packet's own is told with it."""
        timeline = self._timeline
        told = transitions(self._flow, timeline.events, timeline.lazily_expired, timeline.ran_out)
        steps = [Step(each.text, None, timeline.moment(each.event)) for each in told if not each.adopts_answer]
        own = [step for step in steps if self.found.incarnation.has(step.time_ns or 0)]
        return [step for step in own if until_ns is None or (step.time_ns or 0) <= until_ns]

    def _ends(self) -> list[Step]:
        """What the RST did to the sockets at both ends."""
        found, death = self.found, self.found.killer
        assert death is not None
        rst = death.rst.path
        steps = [self._packets.arrives(death.rst, reset=death.error is not None, told=death.told)]
        others = [each for each in found.deaths if each.netns != death.netns and each.time_ns > death.time_ns]
        later = [each for each in found.doubtful if each.path.last.time_ns > death.time_ns]
        maybe = [each for each in later if each.path.last.netns != death.netns]
        if others:
            learnt = ": its socket is reset too" if others[0].error is not None or others[0].told else ""
            steps.append(self._back(others[0].rst, death.netns, f", and {others[0].netns} learns of it{learnt}"))
        elif maybe:
            where = maybe[0].path.last.netns
            unseen = f", which reaches {where}; what its socket made of it was not observed"
            steps.append(self._back(maybe[0], death.netns, unseen))
        elif found.ending is Ending.RESET and not any(error.netns != death.netns for error in found.errors):
            far = self._flow.client if death.netns == self._flow.server else self._flow.server
            steps.append(Step(f"{far} was not told: no RST came to it", rst.number))
        return steps

    def _back(self, rst: PacketFinding, dead: str, then: str) -> Step:
        """The RST by which the other end can learn that the one in `dead` is gone."""
        self._packets.told.add(rst.path.number)
        asked = rst.answer.answers if rst.answer is not None else None
        told = f"{dead} answers #{asked.number} with" if asked else f"{rst.path.hops[0].netns} sends"
        return Step(f"{told} RST #{rst.path.number}{then}", rst.path.number, rst.path.time_ns)

    def _survived(self) -> Iterator[list[Step]]:
        found = self.found
        left = [each for each in found.packets if each.path.number not in self._packets.told]
        odd = [each for each in left if each.invalid_in() or each.left_alone is not None]
        passed = [each for each in left if each not in odd and outside(each.path)]
        if odd or passed:
            yield self._stale()
        for group in (odd, passed):
            for each in group[:1]:
                yield [*self._packets.began(each), self._packets.fate(each)]
            if len(group) > 1:
                rest = ", ".join(f"#{each.path.number}" for each in group[1 : _SHOWN + 1])
                rest += " ..." if len(group) > _SHOWN + 1 else ""
                yield [Step(f"the same holds for {len(group) - 1:,} more: {rest}", None, group[1].path.time_ns)]
        again = [path for path in self.paths if odd and path.copy_of == odd[0].path.number]
        for path in again[:1]:
            text = f"#{odd[0].path.number}'s data is sent again as #{path.number}, which {whither(path)}"
            yield [Step(text, path.number, path.time_ns)]
        for each in (*found.harmless, *found.doubtful)[:_SHOWN]:
            if each.path.number not in self._packets.told and each.answer is not None:
                yield [*self._packets.rst(each, each.answer), self._packets.arrives(each)]
        if found.completed_ns is not None:
            last_ns = found.server_closed_ns
            yield [Step("the server's FIN reaches the client, after all that came before it", None, last_ns)]
            return
        yield from self._unfinished()

    def _unfinished(self) -> Iterator[list[Step]]:
        """Where a connection stands that is not over: what closed, the last of each end, and what held it up."""
        found = self.found
        for closed_ns, one in (
            (found.server_closed_ns, self._flow.server),
            (found.client_closed_ns, self._flow.client),
        ):
            if closed_ns is not None:
                to_server = one == self._flow.client
                ours = by_netlab(self._timeline.closed, self._flow, closed_ns, to_server=to_server)
                closes = f"netlab closes {one}'s socket" if ours else f"{one} closes its side"
                yield [Step(f"{closes}: its FIN arrives, after all that came before it", None, closed_ns)]
        yield from ([step] for step in self._stuck())
        for stall in stalls(self._timeline, found):
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
        flow, syn = self._flow, self.paths[0]
        earlier = f"{incarnation.earlier:,} packets of another connection"
        text = f"{flow.client} uses port {flow.client_port} again, after the {earlier}"
        steps = [Step(text, None, syn.time_ns)]
        first = self.found.of(syn.number)
        steps += self._packets.began(first) if first is not None else []
        steps += self._anew(syn)
        refusals = [each for path in incarnation.refusals() if (each := self.found.of(path.number)) is not None]
        for rst in refusals:
            self._packets.told.add(rst.path.number)
            if rst.answer is not None and rst.answer.answers is not None:
                self._packets.told.add(rst.answer.answers.number)
        for rst in refusals[:1]:
            steps += self._refused(rst)
        if len(refusals) > 1:
            more = "once more" if len(refusals) == 2 else f"{len(refusals) - 1:,} times more"
            steps.append(Step(f"the same happens {more}", refusals[1].path.number, refusals[1].path.time_ns))
        again = [path for path in self.paths[1:] if refusals and path.segment.flags == SYN]
        self._packets.told |= {path.number for path in again}
        for path in again[:1]:
            text = f"{flow.client} sends its SYN again, as #{path.number}, which {whither(path)}"
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
        flow, steps, path = self._flow, [], rst.path
        asked = rst.answer.answers if rst.answer is not None else None
        if asked is not None:
            what = self._packets.numbers.describe(asked)
            text = f"{flow.server} answers with #{asked.number}, an ACK of the other connection ({what})"
            steps = [Step(text, asked.number, asked.time_ns), *self._packets.judged(asked)]
        whose = f", seq = #{asked.number}'s ack" if asked is not None else ""
        text = f"{flow.client} has sent nothing that this could acknowledge -> RST #{path.number}{whose}"
        steps += [Step(text, path.number, path.time_ns), *self._packets.judged(path)]
        if path.fate is not Fate.DELIVERED:
            return [*steps, self._packets.fate(rst)]
        errors = socket_events(self._timeline, flow, SocketEventKind.ERROR)
        reset = any(event.connection and event.netns == flow.server for event in errors)
        ends = ": its socket has ECONNRESET" if reset else ""
        text = f"#{path.number} reaches {flow.server}, and ends what was left there of the other connection{ends}"
        return [*steps, Step(text, path.number, path.last.time_ns)]

    def _stuck(self) -> list[Step]:
        """The last that was seen in each direction."""
        steps = []
        for to_server, end in ((False, self._flow.server), (True, self._flow.client)):
            there = [path for path in self.paths if path.to_server is to_server]
            if not there:
                if self.paths:
                    steps.append(Step(f"nothing was seen of {end}", None, self.paths[-1].last.time_ns))
                continue
            last = there[-1]
            if last.number in self._packets.told:
                continue
            again = f", for the {_nth(last, there)} time" if last.copy_of is not None else ""
            what = self._packets.numbers.describe(last)
            text = f"the last of {end} is #{last.number}: {what}{again}; it {whither(last)}"
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
            f"NAT {f'on {netns}' if netns else 'where it was not observed'}: {arrow(before)} becomes {arrow(after)}"
            for netns, before, after in rewrites
        ]
        return notes


def _nth(path: PacketPath, there: Sequence[PacketPath]) -> str:
    count = 1 + sum(other.copy_of == path.copy_of for other in there)
    tens = {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th") if count // 10 % 10 != 1 else "th"
    return {2: "second", 3: "third"}.get(count, f"{count}{tens}")
