"""A Result for a terminal: what it says, and the picture of one trial. Pure.

The picture is the Kubernetes post's: numbered packets between client, node and server, with the addresses, flags and
sequence numbers that were seen. ASCII only, no line longer than the width.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from netlab.analysis.result import Claim, Conclusion, Evidence, Link, Outcome, Result, TrialResult
from netlab.model import Address
from netlab.record.events import ACK, ConntrackEvent, InvalidReason, Packet, SocketEvent, flag_names
from netlab.report import lanes
from netlab.report.wrapping import wrap
from netlab.style import Piece, Style, plain

_MARGIN = "  "


def render(result: Result, width: int = 80) -> str:
    """The whole text, ending in a newline. width is in columns; below 60 it is taken as 60."""
    return plain(pieces(result, width))


def pieces(result: Result, width: int = 80) -> list[Piece]:
    """The same, its headline styled."""
    width = max(width, 60)
    lines = [*wrap(_setting(result), width), *wrap(account(result), width)]
    lines += [line for each in load(result) or rate(result) for line in wrap(each, width)]
    lines += wrap(expectation(result), width)
    lines += _missing(result, width)
    if result.trials:
        number, trial = result.shown()
        one = ", one of its connections" if result.trials[number - 1].load else ""
        lines += [
            "",
            f"Trial {number} of {len(result.trials)}{one}, as seen in the kernel:",
            "",
            *_Picture(width, trial).lines,
        ]
    return [Piece(headline(result), _STYLES[result.result]), Piece("\n" + "\n".join(lines) + "\n")]


_STYLES = {
    Conclusion.REPRODUCED: Style.BAD,
    Conclusion.NOT_REPRODUCED: Style.GOOD,
    Conclusion.INCONCLUSIVE: Style.UNSURE,
}


def headline(result: Result) -> str:
    """What the run showed, in two or three words and a fraction of its trials."""
    total = len(result.trials)
    if (found := result.per_thousand()) and result.result is not Conclusion.INCONCLUSIVE:
        said = "REPRODUCED" if result.result is Conclusion.REPRODUCED else "NOT REPRODUCED"
        return f"{said} {found.resets:,}/{found.connections:,} connections reset"
    if result.claim_is is Claim.UNDECIDED:
        unclear = result.count(Outcome.INCONCLUSIVE)
        unclear += result.count(Outcome.STALLED) if result.expected is None else 0
        return f"INCONCLUSIVE {unclear}/{total} undecided"
    if refuted(result):
        return f"REFUTED {sum(bool(trial.refuted) for trial in result.trials)}/{total}"
    if result.prevents is not None:
        said = "PREVENTED" if result.prevents else "NOT PREVENTED"
        return f"{said} {_shares(result)}"
    resets = result.expected in (None, Outcome.RESET) and not result.fixes
    if resets and result.claim_is is Claim.CONFIRMED:
        return f"REPRODUCED {result.count(Outcome.RESET)}/{total}"
    if result.expected is None or resets:
        others = "" if result.count(Outcome.COMPLETED) == total else f", {_shares(result, Outcome.RESET)}"
        return f"NOT REPRODUCED {result.count(Outcome.RESET)}/{total} reset{others}"
    return f"{result.claim_is.upper()} {_shares(result)}"


def _shares(result: Result, but: Outcome | None = None) -> str:
    """How many of the trials ended in which way: "3/4 reset, 1/4 completed"."""
    counts = ((outcome, result.count(outcome)) for outcome in Outcome if outcome is not but)
    return ", ".join(f"{count}/{len(result.trials)} {outcome}" for outcome, count in counts if count)


def _setting(result: Result) -> str:
    fixes = f"with {', '.join(result.fixes)}" if result.fixes else "no fix"
    return f"{result.experiment} in lab {result.lab}, {fixes}, kernel {result.kernel}"


def how_ended(result: Result) -> str:
    """How many trials ended in which way."""
    ended = Counter(trial.ended for trial in result.trials)
    return ", ".join(f"{ended[word]} {word}" for word in (*Outcome, "refuted") if ended[word]) or "no trial"


def account(result: Result) -> str:
    """How the trials ended, how long they took, what arrived and what was lost."""
    took_s = sum(trial.duration_s for trial in result.trials)
    lost = sum(trial.lost for trial in result.trials)
    received = sum(trial.bytes_received for trial in result.trials)
    sent = sum(trial.payload_bytes for trial in result.trials)
    arrived = f"{received:,} of {sent:,} bytes arrived; " if sent else ""
    return f"{how_ended(result)} in {took_s:.1f} s; {arrived}events lost: {lost:,}"


def rate(result: Result) -> list[str]:
    """How often trials are reset, as the 95% confidence interval; nothing where not two of them told."""
    interval = result.reset_rate()
    if interval is None or len(result.trials) - result.count(Outcome.INCONCLUSIVE) < 2:
        return []
    low, high = interval
    return [f"resets in {low:.0%} to {high:.0%} of trials (95% confidence)"]


def load(result: Result) -> list[str]:
    """How many connections of a load were reset, per thousand; what came late, and what limited the server."""
    loads = [trial.load for trial in result.trials if trial.load is not None]
    if not loads:
        return []
    ended = ((outcome, sum(load.count(outcome) for load in loads)) for outcome in Outcome)
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in ended if count)
    lines = [f"{sum(load.connections for load in loads):,} connections: {counts}"]
    if found := result.per_thousand():
        between = f"{found.low:.1f} to {found.high:.1f} with 95% confidence"
        lines.append(f"resets per thousand connections: {found.rate:.1f} ({between})")
    late, logged = sum(load.late for load in loads), sum(load.logged for load in loads)
    lines.append(f"{late:,} segments came after a copy of their data; conntrack logged something about {logged:,}")
    limits = {
        f"the server's CPU was not limited: {load.unlimited}"
        if load.unlimited
        else f"the server had {load.cpu_percent} % of a CPU"
        for load in loads
        if load.unlimited or load.cpu_percent
    }
    return [*lines, *sorted(limits)]


def expectation(result: Result) -> str:
    """What the experiment's document expects of each trial, and whether it was so; empty where it says nothing."""
    if result.expected is None:
        return ""
    total = len(result.trials)
    if result.count(result.expected) == total and result.claim_is is Claim.CONFIRMED:
        return f"{total} of {total} {result.expected}, as expected"
    return f"expected {result.expected}; {result.count(result.expected)} of {total} were"


def missing(result: Result) -> Counter[str]:
    """What the undecided trials lack, each piece once with the number of trials that lack it."""
    return Counter(piece for trial in result.trials if not trial.refuted for piece in trial.missing)


def _missing(result: Result, width: int) -> list[str]:
    lines = []
    for said, pieces in (("missing in {}: {}", missing(result)), ("in {}: expected {}", refuted(result))):
        for piece, count in pieces.items():
            trials = "1 trial" if count == 1 else f"{count} trials"
            lines += wrap(said.format(trials, piece), width, subsequent_indent=_MARGIN)
    return lines


def refuted(result: Result) -> Counter[str]:
    """What was to be observed and was seen not to be so, each piece once with the number of its trials."""
    return Counter(trial.refuted for trial in result.trials if trial.refuted)


class _Picture:
    """Three columns (client, who is between them, server) and two lanes between these, filled from top to bottom.

    Between them is the node that translates, or who sent the RST where that is neither end. Each packet is drawn in the
    lane at which it was seen, in the direction in which it went.
    """

    def __init__(self, width: int, trial: TrialResult) -> None:
        room = width - len(_MARGIN) - 3
        self._left, self._right = room // 2, room - room // 2
        self._trial, self._flow = trial, trial.flow
        self._seen: dict[Link, list[Evidence]] = {}
        for piece in trial.evidence:
            self._seen.setdefault(piece.link, []).append(piece)
        self._between = lanes.middle(trial)
        self.lines: list[str] = []
        self._heads()
        self._requests()
        self._reply()
        self._arrival()
        self._rst()
        self._ends()

    def _one(self, link: Link) -> Evidence | None:
        return self._seen[link][0] if link in self._seen else None

    def _heads(self) -> None:
        flow = self._flow
        names = (flow.client, self._between, flow.server)
        vip = f"VIP {flow.vip}" if flow.translated and self._between == flow.node else ""
        addresses = (str(flow.client_address), vip, str(flow.endpoint))
        room = self._left + self._right + 3
        for words in (names, addresses):
            columns = [wrap(word, (room - 4) // 3) for word in words]
            for first, middle, last in zip_longest(*columns, fillvalue=""):
                head = first.ljust(self._left + 1 - len(middle) // 2) + middle
                self.lines.append((_MARGIN + head + last.rjust(room - len(head))).rstrip())
        self._row()

    def _requests(self) -> None:
        if request := self._one(Link.REQUEST):
            self._draw("(1)", request, self._packet(request))
        if translated := self._one(Link.REQUEST_TRANSLATED):
            self._draw("(2)", translated, self._packet(translated))

    def _reply(self) -> None:
        if stale := self._one(Link.STALE_WINDOW):
            self._row(right=[stale.note])
            self._row()
        for piece in self._seen.get(Link.OBSERVED, []):
            if isinstance(piece.event, ConntrackEvent) and piece.note:
                self._row(left=[f"{piece.note}, {self._at(piece)}"])
                self._row()
        reply = self._one(Link.REPLY)
        if reply is None:
            return
        arrived = Link.REPLY_UNTRANSLATED in self._seen or Link.REPLY_TRANSLATED in self._seen
        # Only of a trial that was seen whole can one say what did not happen in it.
        dropped = not arrived and self._trial.outcome in (Outcome.COMPLETED, Outcome.STALLED)
        verdict: list[str] = []
        for piece in (*self._seen.get(Link.INVALID, []), *self._seen.get(Link.ADOPTED, [])):
            words = piece.event.text if isinstance(piece.event, InvalidReason) else piece.note
            verdict.append(f"conntrack on {piece.event.netns}: {words}")
        if untranslated := self._one(Link.REPLY_UNTRANSLATED):
            verdict.append(self._left_alone(untranslated))
        elif dropped:
            verdict.append("dropped: this packet never reached the client")
        notes = [*self._packet(reply), *([reply.note] if reply.note else [])]
        self._draw("(3)", reply, notes, verdict, tip="x" if dropped else "")

    def _left_alone(self, untranslated: Evidence) -> str:
        if Link.INVALID in self._seen:
            why = "INVALID: NAT skips it"
        else:
            why = "NAT has nothing to translate" if Link.ADOPTED in self._seen else "NAT leaves it alone"
        assert isinstance(untranslated.event, Packet)
        reply = untranslated.event.segment.dst == self._flow.client_address
        return f"{why}, its {'source' if reply else 'destination'} stays"

    def _arrival(self) -> None:
        if untranslated := self._one(Link.REPLY_UNTRANSLATED):
            notes = [*self._packet(untranslated), *([untranslated.note] if untranslated.note else [])]
            self._draw("(4)", untranslated, notes)
        elif translated := self._one(Link.REPLY_TRANSLATED):
            self._draw("(4)", translated, [*self._packet(translated), "NAT gave it the VIP as source"])

    def _rst(self) -> None:
        rst = self._one(Link.RST)
        if rst is None:
            return
        assert isinstance(rst.event, Packet)
        text = self._packet(rst)
        if Link.REPLY_UNTRANSLATED in self._seen and not rst.event.segment.flags & ACK:
            who = "the client" if rst.event.netns == self._flow.client else rst.event.netns
            text.append(f"{who} knows no such connection; its seq is (4)'s ack")
        arrived = self._one(Link.RST_AT_SERVER) or self._one(Link.RST_AT_CLIENT)
        if arrived is None or self._lane(arrived) == self._lane(rst):
            self._draw("(5)", rst, text)
            return
        at = self._at(arrived)
        if self._to_server(rst):
            start = self._to_right("(5)", rst, self._left, tip="-")
            end = f"{'-' * (self._right - len(at) - 4)} {at} ->"
            self.lines.append(f"{_MARGIN}|{start}+{end}|")
            self._row(left=text)
        else:
            start = self._to_left("(5)", rst, self._right, tip="-")
            end = f"<- {at} {'-' * (self._left - len(at) - 4)}"
            self.lines.append(f"{_MARGIN}|{end}+{start}|")
            self._row(right=text)

    def _ends(self) -> None:
        left: list[str] = []
        right: list[str] = []
        for link, side in ((Link.CLIENT_RESET, left), (Link.SERVER_RESET, right)):
            if reset := self._one(link):
                assert isinstance(reset.event, SocketEvent)
                side.append(f"{errno.errorcode.get(reset.event.errno, str(reset.event.errno))}, {self._at(reset)}")
        received, sent = self._trial.bytes_received, self._trial.payload_bytes
        left.append(f"got {received:,} of {sent:,} bytes: {self._trial.ended}" if sent else self._trial.ended)
        self._row(left=left, right=right)

    def _packet(self, piece: Evidence) -> list[str]:
        assert isinstance(piece.event, Packet)
        segment = piece.event.segment
        source, destination = _endpoint(segment.src, segment.sport), _endpoint(segment.dst, segment.dport)
        length = f" len {segment.payload_bytes}" if segment.payload_bytes else ""
        lines = [f"{source} > {destination}", f"{','.join(flag_names(segment.flags))}{length}"]
        lines.append(f"seq {_number(segment.seq, piece.relative_seq)}")
        if piece.relative_ack is not None:
            lines.append(f"ack {_number(segment.ack, piece.relative_ack)}")
        return lines

    def _at(self, piece: Evidence) -> str:
        return f"+{(piece.event.time_ns - self._trial.started_ns) / 1e6:.3f} ms"

    def _to_right(self, label: str, piece: Evidence, room: int, tip: str = ">") -> str:
        start = f"-{label}- {self._at(piece)} "
        return start + "-" * (room - len(start) - 1) + tip

    def _to_left(self, label: str, piece: Evidence, room: int, tip: str = "<") -> str:
        end = f" {self._at(piece)} -{label}-"
        return tip + "-" * (room - len(end) - 1) + end

    def _to_server(self, piece: Evidence) -> bool:
        assert isinstance(piece.event, Packet)
        return lanes.to_server(self._flow, piece.event)

    def _lane(self, piece: Evidence) -> bool:
        """Whether a packet was seen in the right lane."""
        assert isinstance(piece.event, Packet)
        return lanes.beyond(self._flow, piece.event)

    def _draw(
        self, label: str, piece: Evidence, text: Sequence[str], other: Sequence[str] = (), *, tip: str = ""
    ) -> None:
        """A packet's arrow in its lane, with its text below and another in the other lane."""
        right, to_server = self._lane(piece), self._to_server(piece)
        room = self._right if right else self._left
        if to_server:
            arrow = self._to_right(label, piece, room, tip or ">")
        else:
            arrow = self._to_left(label, piece, room, tip or "<")
        if right:
            self._arrow(right=arrow)
            self._row(left=other, right=text)
        else:
            self._arrow(left=arrow)
            self._row(left=text, right=other)

    def _arrow(self, left: str = "", right: str = "") -> None:
        self.lines.append(f"{_MARGIN}|{left:<{self._left}}|{right:<{self._right}}|")

    def _row(self, left: Sequence[str] = (), right: Sequence[str] = ()) -> None:
        """Text in the lanes, each line wrapped to its lane; an empty row without any."""
        cells = zip_longest(_fold(left, self._left - 2), _fold(right, self._right - 2), fillvalue="")
        for first, second in list(cells) or [("", "")]:
            self._arrow(f" {first}" if first else "", f" {second}" if second else "")


def _fold(lines: Iterable[str], room: int) -> list[str]:
    return [piece for line in lines for piece in wrap(line, room)]


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _number(absolute: int, relative: int | None) -> str:
    return str(absolute) if relative is None else f"{relative} ({absolute})"
