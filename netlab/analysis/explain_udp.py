"""How a conversation of UDP went, in plain words with packet numbers: what `explain.py` does for TCP. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.explanation import Explanation, Step, in_order, name, not_observed
from netlab.analysis.timeline import Timeline
from netlab.analysis.udp import (
    PORT_UNREACHABLE,
    Conversation,
    Refusal,
    Refuser,
    StaleEntry,
    Translation,
    UdpEnding,
    Why,
    translations,
)
from netlab.record.events import Direction, TraceStep, Tuple
from netlab.record.flow import Ends, Flow, ends
from netlab.record.wire import IPPROTO_UDP
from netlab.record.words import arrow, endpoint, kind, rule

_UDP_HEADER_BYTES = 8
_SHOWN = 5


def explain_udp(timeline: Timeline, conversation: Conversation, others: Sequence[str] = ()) -> Explanation:
    """The story of one conversation; others are lines about more of them."""
    recording, words = timeline.recording, _Words(conversation)
    parts = [(conversation.client, "the client"), (conversation.node, "the node that translates")]
    parts.append((conversation.server, "the server"))
    return Explanation(
        recording.lab,
        recording.kernel,
        recording.fixes,
        flow_of(conversation),
        conversation.ending,
        conversation.packets,
        conversation.first_ns,
        tuple(words.chain()),
        (*words.notes(), *others),
        unseen=tuple(not_observed(recording, parts)),
        protocol="udp",
    )


def flow_of(conversation: Conversation) -> Flow:
    """A conversation as a Flow, whose way is UDP's; a namespace that isn't known is empty."""
    header, last = conversation.header, conversation.last_header
    way = (header,) if header == last else (header, last)
    return Flow(
        client=conversation.client or "",
        node=conversation.node,
        server=conversation.server or "",
        server_node=None,
        client_address=header[0],
        client_port=header[1],
        vip=header[2],
        port=header[3],
        endpoint=last[2],
        target_port=last[3],
        way=tuple(Tuple(*each, IPPROTO_UDP) for each in way),
    )


def headline(conversation: Conversation) -> str:
    """A conversation and how it ended, in a line."""
    return f"{conversation.ending.upper().replace('-', ' ')}: udp {name(flow_of(conversation))}"


class _Words:
    """Words one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.found = conversation
        self._refusal_of = {refusal.asked.number: refusal for refusal in reversed(conversation.refusals)}

    def chain(self) -> list[Step]:
        """The links in order of time."""
        found = self.found
        groups: Sequence[list[Step]]
        match found.ending:
            case UdpEnding.STALE_ENTRY:
                groups = list(self._stale(found.stale[0]))
            case UdpEnding.REFUSED:
                refusal = found.refusals[0]
                groups = [self._asked(refusal.asked), self._refused(refusal), self._more_refused()]
            case UdpEnding.ANSWERED:
                groups = list(self._answered())
            case _:
                groups = list(self._unanswered())
        return in_order(groups)

    # --- steps

    def _asked(self, path: DatagramPath) -> list[Step]:
        """A datagram from its sender on, and what NAT made of it."""
        first = path.hops[0]
        verb = "leaves" if first.direction is Direction.OUT else "comes to"
        text = f"#{path.number} {verb} {first.netns}: {_size(path)} to {endpoint(*ends(first.datagram.header)[2:])}"
        return [Step(text, path.number, path.time_ns), *(_translated(path, each) for each in translations(path))]

    def _refused(self, refusal: Refusal) -> list[Step]:
        asked, error = refusal.asked, refusal.error
        sender, to = error.hops[0].netns, endpoint(*ends(asked.last.datagram.header)[2:])
        match refusal.refuser:
            case Refuser.RULE:
                assert refusal.rule is not None
                text = f"{rule(refusal.rule)} on {sender} rejects it"
            case Refuser.NO_SOCKET:
                text = f"it reaches {sender}, where no socket takes what comes to {to}"
            case Refuser.UNKNOWN:
                text = f"{sender} refuses it; whether a rule rejects it or no socket takes it was not seen"
        return [Step(text, asked.number, asked.last.time_ns), *self._error(error)]

    def _error(self, error: DatagramPath) -> list[Step]:
        """An ICMP error on its way to the client, and what its socket makes of it."""
        first, client = error.hops[0], self.found.client
        verb = f"{first.netns} answers with" if first.direction is Direction.OUT else f"into {first.netns} comes"
        steps = [Step(f"{verb} #{error.number}: {kind(error.datagram)}", error.number, error.time_ns)]
        if error.last.netns == client and error.last.direction is Direction.IN:
            text = f"#{error.number} reaches {client}: a connected socket there gets the error"
            if (error.datagram.icmp_type, error.datagram.icmp_code) in PORT_UNREACHABLE:
                text += " (ECONNREFUSED)"
            text += ", an unconnected one gets none"
        else:
            text = f"#{error.number} {_whither(error, delivered=error.delivered)}: the client is not told"
        return [*steps, Step(text, error.number, error.last.time_ns)]

    def _more_refused(self) -> list[Step]:
        rest = self.found.refusals[1:]
        return _more([refusal.asked for refusal in rest], "the same holds for")

    def _answered(self) -> Iterator[list[Step]]:
        asked = self.found.requests[0] if self.found.requests else None
        if asked is not None:
            yield [*self._asked(asked), self._fate(asked)]
        answer = next(path for path in self.found.answers if self._came(path))
        yield [*self._answer(answer), self._fate(answer)]
        rest = len(self.found.requests) - 1
        if rest > 0:
            count = sum(map(self._came, self.found.answers))
            text = f"so it goes on: {_count(rest + 1, 'datagram')} of the client, {_count(count, 'answer')} in all"
            yield [Step(text, None, self.found.answers[-1].last.time_ns)]

    def _answer(self, path: DatagramPath) -> list[Step]:
        first = path.hops[0]
        verb = "answers with" if first.direction is Direction.OUT else "passes on"
        text = f"{first.netns} {verb} #{path.number}: {_size(path)}"
        return [Step(text, path.number, path.time_ns), *(_translated(path, each) for each in translations(path))]

    def _unanswered(self) -> Iterator[list[Step]]:
        found = self.found
        came = [path for path in found.answers if self._came(path)]
        last_ns = came[-1].last.time_ns if came else 0
        open_ = [path for path in found.requests if path.time_ns > last_ns]
        if came:
            text = f"{_count(len(came), 'answer')} came to the client up to then"
            yield [Step(text, came[-1].number, last_ns)]
        for path in open_[:1]:
            yield [*self._asked(path), *self._lost(path)]
        for error in found.errors[:1]:
            yield self._error(error)
        for path in [path for path in found.answers if not self._came(path)][:1]:
            yield [*self._answer(path), self._fate(path)]
        for error in found.unheard[:1]:
            yield self._unheard(error)
        yield _more(open_[1:], "no answer came to")

    def _lost(self, path: DatagramPath) -> list[Step]:
        """Where a request ended, and what is known of why."""
        steps = [self._fate(path)]
        drop = _drop(path)
        if drop is None and self.found.gone:
            to = ends(path.last.datagram.header)[2]
            steps.append(Step(f"no namespace had {to} at the end", path.number, path.last.time_ns))
        else:
            steps += self._no_answer(path)
        return steps

    def _no_answer(self, path: DatagramPath) -> list[Step]:
        """That nothing came of a datagram that arrived."""
        answered = any(answer.time_ns >= path.time_ns for answer in self.found.answers)
        if answered or not path.delivered or self.found.gone:
            return []
        return [Step(f"no answer of {path.last.netns} to it was seen", path.number, path.last.time_ns)]

    def _unheard(self, error: DatagramPath) -> list[Step]:
        what = f"#{error.number}, {kind(error.datagram)}"
        text = f"{error.hops[0].netns} refuses the answer with {what}: no socket takes it"
        return [Step(text, error.number, error.time_ns)]

    def _came(self, path: DatagramPath) -> bool:
        return path.delivered and path.last.netns == self.found.client

    def _fate(self, path: DatagramPath) -> Step:
        drop = _drop(path)
        if drop is not None:
            return Step(f"dropped on {drop.netns} by {rule(drop)}", path.number, path.last.time_ns)
        gone = self.found.gone and path in self.found.requests
        text = f"#{path.number} {_whither(path, delivered=path.delivered and not gone)}"
        return Step(text, path.number, path.last.time_ns)

    # --- a stale entry

    def _stale(self, stale: StaleEntry) -> Iterator[list[Step]]:
        found, entry, asked = self.found, stale.entry, stale.asked
        to = endpoint(*stale.leads_to)
        does = f"which leads to {to}" if entry.translates else "which translates nothing"
        before = [path for path in found.answers if self._came(path) and path.time_ns < asked.time_ns]
        if before:
            text = f"{_count(len(before), 'answer')} came to the client up to then"
            yield [Step(text, before[-1].number, before[-1].last.time_ns)]
        if stale.before:
            text = f"conntrack on {entry.netns} has an entry from before the observation, {does}"
            yield [Step(text), *self._met(stale)]
        else:
            yield [Step(f"conntrack on {entry.netns} makes an entry, {does}", None, entry.from_ns)]
            yield self._met(stale)
        refusal = self._refusal_of.get(asked.number)
        if refusal is not None:
            yield self._refused(refusal)
        else:
            yield [self._fate(asked)]
            yield from (self._error(error) for error in found.errors[:1])
        answers = [path for path in found.answers if path.time_ns >= asked.time_ns]
        for path in answers[:1]:
            yield [*self._answer(path), self._fate(path)]
        if refusal is None:
            yield self._no_answer(asked)
        yield _more([each.asked for each in found.stale[1:]], "the entry is found for")

    def _met(self, stale: StaleEntry) -> list[Step]:
        """The datagram that met the entry: it is not what the rules decide."""
        asked, entry, portal = stale.asked, stale.entry, stale.portal
        first, came_ns = asked.hops[0], _in(asked, entry.netns)
        verb = "leaves" if first.direction is Direction.OUT else "comes to"
        number, to = asked.number, endpoint(*ends(first.datagram.header)[2:])
        steps = [Step(f"#{number} {verb} {first.netns}: {_size(asked)} to {to}", number, asked.time_ns)]
        text = f"conntrack on {entry.netns} finds that entry for #{number}, so the rules of NAT are not asked"
        steps.append(Step(text, number, came_ns))
        steps += [_translated(asked, each) for each in translations(asked)]
        leads_to, done_ns = endpoint(*stale.leads_to), steps[-1].time_ns
        whose = f"the rules of {portal.name}" if portal is not None else "the rules"
        match stale.why:
            case Why.UNTRANSLATED:
                text = f"its destination stays {leads_to}; {whose} lead to {_sockets(stale)}"
            case Why.NO_ENDPOINT if not stale.rules.now:
                text = f"no rule leads to {leads_to}, or to anywhere"
            case Why.NO_ENDPOINT:
                text = f"no rule leads to {leads_to}; {whose} lead to {_sockets(stale)}"
            case Why.ADDRESS_GONE:
                text = f"no namespace had {stale.leads_to[0]} any more at the end of the observation"
                if stale.rules_differ:
                    text += f"; {whose} lead to {_sockets(stale)}"
        return [*steps, Step(text, number, done_ns)]

    def notes(self) -> list[str]:
        """What else a reader wants to know: how an entry ends, and what was rewritten."""
        found = self.found
        notes = []
        if found.stale:
            entry = found.stale[0].entry
            src, sport = entry.original[:2]
            notes.append(
                f"each datagram keeps the entry for another while; on {entry.netns} "
                f"`conntrack -D -p udp --orig-src {src} --orig-port-src {sport}` ends it"
            )
            if found.stale[0].rules_differ or found.stale[0].why is not Why.ADDRESS_GONE:
                read = found.stale[0].rules.read
                source = "as they were read at the end" if read else "taken to be those of the topology"
                notes.append(f"the rules are {source}")
        rewrites: dict[tuple[str, Ends, Ends], None] = {}
        for path in (*found.requests, *found.answers):
            rewrites |= dict.fromkeys((each.netns, each.before, each.after) for each in translations(path))
        return [
            *notes,
            *(f"NAT on {netns}: {arrow(before)} becomes {arrow(after)}" for netns, before, after in rewrites),
        ]


def _translated(path: DatagramPath, done: Translation) -> Step:
    (src, sport, dst, dport), changed = done.after, []
    if done.before[:2] != (src, sport):
        changed.append(f"its source becomes {endpoint(src, sport)}")
    if done.before[2:] != (dst, dport):
        changed.append(f"its destination becomes {endpoint(dst, dport)}")
    why = f", by {rule(done.rule)}" if done.rule is not None else ""
    return Step(f"NAT on {done.netns}: {' and '.join(changed)}{why}", path.number, done.time_ns)


def _more(paths: Sequence[DatagramPath], what: str) -> list[Step]:
    """What holds for other datagrams, too."""
    if not paths:
        return []
    rest = ", ".join(f"#{path.number}" for path in paths[:_SHOWN]) + (" ..." if len(paths) > _SHOWN else "")
    return [Step(f"{what} {len(paths):,} more: {rest}", None, paths[0].time_ns)]


def _in(path: DatagramPath, netns: str) -> int:
    return next(hop.time_ns for hop in path.hops if hop.netns == netns)


def _size(path: DatagramPath) -> str:
    return f"UDP, {_count(path.datagram.payload_bytes - _UDP_HEADER_BYTES, 'byte')}"


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


def _drop(path: DatagramPath) -> TraceStep | None:
    return next((step for step in path.trace if step.verdict == "drop"), None)


def _sockets(stale: StaleEntry) -> str:
    names = [endpoint(*socket) for socket in sorted(stale.rules.now)]
    rest = f" or {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return " or ".join(names[:_SHOWN]) + rest


def _whither(path: DatagramPath, *, delivered: bool) -> str:
    last = path.last
    if delivered:
        return f"reaches {last.netns}"
    verb = "coming into" if last.direction is Direction.IN else "leaving"
    return f"is not seen after {verb} {last.netns}/{last.ifname}"
