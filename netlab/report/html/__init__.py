"""A Result and its Recording as one HTML file: the lab, the packets, the window, the rules, the evidence. Pure.

All of it can be read without the script, which only shows a packet's details where the packet is. The pictures come
from `ladder_svg.py`, `chart.py` and `graph.py`, the page around them from `page.py`; the script is `report.js`.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.explain import explain
from netlab.analysis.explanation import Explanation, Step
from netlab.analysis.findings import Findings
from netlab.analysis.paths import Hop, PacketPath
from netlab.analysis.result import Claim, Evidence, Link, Outcome, Result, TrialResult
from netlab.conntrack.kernels import rules
from netlab.conntrack.values import CtOutcome
from netlab.errors import NetlabError
from netlab.kubeproxy import ruleset
from netlab.model import Topology
from netlab.record.events import (
    ConntrackEvent,
    CounterChange,
    DatagramPacket,
    InvalidReason,
    Packet,
    SocketEvent,
    TraceStep,
    Witness,
    flag_names,
    seq_diff,
)
from netlab.record.observers import describe_observer, describe_unobserved
from netlab.record.recording import Recording
from netlab.record.words import describe, endpoint, ends
from netlab.report import chart, graph, ladder_svg, text
from netlab.report.markup import Markup, join, tag
from netlab.report.page import bullets, code, document, facts, figure, section, table
from netlab.report.sequence import build
from netlab.report.sequence.diagram import Arrow, Ladder
from netlab.report.sequence.sightings import moment, seen, within_ns

LINKS = {
    Link.REQUEST: "The client's request to the VIP",
    Link.REQUEST_TRANSLATED: "NAT: the request goes on to the server pod",
    Link.STALE_WINDOW: "The server's kernel believes in a window that the client did not offer",
    Link.REPLY: "The reply leaves the server",
    Link.INVALID: "Conntrack finds it INVALID",
    Link.ADOPTED: "Conntrack takes it for the beginning of another connection",
    Link.REPLY_UNTRANSLATED: "The reply reaches the client without NAT",
    Link.REPLY_TRANSLATED: "The reply reaches the client with the VIP as its source",
    Link.RST: "The client answers with a RST",
    Link.RST_AT_SERVER: "The RST reaches the server",
    Link.RST_AT_CLIENT: "The RST reaches the client",
    Link.SERVER_RESET: "The server's socket dies",
    Link.CLIENT_RESET: "The client learns of it",
    Link.OBSERVED: "What a step was to bring about",
}

_CHAIN = "Each link of the chain, from the reply to the reset socket, was seen in the kernel, in order."
_UNHARMED = (
    "What the experiment does was seen to take place in every trial, no connection was reset, and every byte arrived."
)


_MOST_MEMBERS = 50
"""So many of a load's connections are told one by one."""


def render(result: Result, findings: Findings) -> str:
    """The whole file. The trial that is drawn is the one that the text report draws."""
    return _Page(result, findings).markup()


class _Page:
    def __init__(self, result: Result, findings: Findings) -> None:
        self._result, self._timeline = result, findings.timeline
        recording = self._recording = findings.timeline.recording
        self._number: int = 0
        self._trial: TrialResult | None = None
        if result.trials:
            self._number, self._trial = text.shown(result)
        self._ladder: Ladder | None = None
        self._story: Explanation | None = None
        if self._trial:
            flow = self._trial.flow
            self._ladder = build(findings, flow, self._trial)
            self._story = explain(
                findings, endpoint(flow.client_address, flow.client_port), within_ns=within_ns(self._trial)
            )
        self._topology, self._unreadable = _topology(recording)
        self._numbers = {
            moment(event): path.number
            for path in (self._timeline.of(self._trial.flow) if self._trial else ())
            for event in seen(path)
        }
        self._shown = {row.number for row in self._ladder.rows if isinstance(row, Arrow)} if self._ladder else set()

    def markup(self) -> str:
        title = f"{text.headline(self._result)}: {self._result.experiment} in {self._result.lab}"
        sections = [each for each in self._sections() if each]
        return document(title, "netlab: what the kernel did", [self._summary(), *sections], script="report.js")

    def _sections(self) -> Iterator[Markup]:
        yield self._lab()
        yield self._load()
        if self._trial and self._ladder:
            yield self._chain(self._trial)
            yield self._packets(self._ladder)
            yield self._window(self._ladder)
            yield self._rules(self._ladder)
            yield self._table(self._trial)
        yield self._unseen()
        yield self._trials()
        yield self._repeat()

    # --- the answer --------------------------------------------------------------------------------------------------

    def _summary(self) -> Markup:
        result = self._result
        fixes = ", ".join(result.fixes) or "none"
        about = [
            ("Experiment", result.experiment),
            ("Claim", result.claim),
            ("Lab", result.lab),
            ("Fixes", fixes),
            ("Kernel", result.kernel),
            ("Trials", "; ".join([text.account(result), *(text.load(result) or text.rate(result))])),
        ]
        if result.expected is not None:
            about.append(("Expected", text.expectation(result)))
        if result.explanation:
            about.insert(2, ("Explanation", " ".join(result.explanation.split())))
        if self._topology and self._topology.description:
            about.insert(3, ("About the lab", self._topology.description))
        missing = [
            tag("li", f"{piece} (in {count} of {len(result.trials)} trials)")
            for piece, count in (*text.missing(result).items(), *text.refuted(result).items())
        ]
        return tag(
            "section",
            tag("h1", text.headline(result), id="result", class_=result.result, tabindex=-1),
            tag("p", _meaning(result), class_="meaning"),
            *([tag("ul", *missing, class_="missing")] if missing else []),
            facts(about),
            aria_labelledby="result",
        )

    def _lab(self) -> Markup:
        if self._topology is None:
            return section("lab", "The lab", tag("p", f"No picture: {self._unreadable}"))
        path = [column.netns for column in self._ladder.columns] if self._ladder else []
        return section("lab", "The lab", figure("The lab's namespaces", [graph.svg(self._topology, path)]))

    def _load(self) -> Markup:
        """The connections of a load: how they ended in each trial, and each that did not complete."""
        result = self._result
        loads = [(number, each.load) for number, each in enumerate(result.trials, 1) if each.load is not None]
        if not loads:
            return Markup("")
        outcomes = [outcome for outcome in Outcome if any(load.count(outcome) for _, load in loads)]
        ended = [
            (str(number), f"{load.connections:,}", *(f"{load.count(outcome):,}" for outcome in outcomes))
            for number, load in loads
        ]
        others = [_member(number, other) for number, load in loads for other in load.others]
        shown = others[:_MOST_MEMBERS]
        what = f"the first {len(shown)} of {len(others):,}" if len(shown) < len(others) else f"all {len(others):,}"
        names = ("Trial", "Client's port", "Outcome", "Bytes", "What was seen, in ms since the trial began")
        return section(
            "load",
            "The connections of the load",
            bullets(text.load(result)),
            table(("Trial", "Connections", *(outcome.capitalize() for outcome in outcomes)), ended),
            *(
                [tag("details", tag("summary", f"Those that did not complete: {what}"), table(names, shown))]
                if others
                else []
            ),
        )

    # --- one trial ---------------------------------------------------------------------------------------------------

    def _chain(self, trial: TrialResult) -> Markup:
        """The chain of causes in plain words."""
        story, flow = self._story, trial.flow
        assert story is not None
        items = [tag("li", step.text, *self._at(step)) for step in story.chain]
        received, sent = trial.bytes_received, trial.payload_bytes
        got = f": the client got {received:,} of {sent:,} bytes" if sent else ""
        items.append(tag("li", tag("strong", str(trial.outcome)), f"{got}."))
        ends = f"{endpoint(flow.client_address, flow.client_port)} to {endpoint(flow.vip, flow.port)}"
        one = ", one connection of its load" if self._result.trials[self._number - 1].load else ""
        lead = f"Trial {self._number} of {len(self._result.trials)}{one}, {ends}."
        also = [tag("h3", "Also"), bullets(story.notes)] if story.notes else []
        return section("chain", "What happened, step by step", tag("p", lead), tag("ol", *items, class_="chain"), *also)

    def _at(self, step: Step) -> Iterator[Markup]:
        """When a step was, and the way to its packet."""
        if step.time_ns is not None:
            yield tag("span", f" {self._ms(step.time_ns)} ms", class_="quiet")
        if step.number in self._shown:
            yield join([" ", tag("a", f"see #{step.number}", href=f"#packet-{step.number}")])

    def _packet_link(self, event: Witness) -> Markup:
        number = self._numbers.get(moment(event))
        if number is None or number not in self._shown:
            return Markup("")
        return join([tag("a", f"#{number}", href=f"#packet-{number}"), " "])

    def _ms(self, time_ns: int) -> str:
        return self._ladder.ms(time_ns) if self._ladder else str(time_ns)

    def _packets(self, ladder: Ladder) -> Markup:
        shown = [row for row in ladder.rows if isinstance(row, Arrow)]
        total = sum(1 for _ in ladder.arrows())
        beside = " and of what is beside it" if len(self._timeline.of(ladder.flow)) < total else ""
        drawn = "all are drawn"
        if len(shown) < total:
            drawn = f"{len(shown):,} are drawn, the others are like those beside them"
        lead = (
            f"{total:,} packets of one connection{beside}; {drawn}. "
            "Time runs downwards, in milliseconds since the trial began; sequence numbers are relative, windows in "
            "bytes. "
            "Choose a packet to see where it was and what befell it."
        )
        legend = (
            "NAT: addresses were rewritten there. INVALID: conntrack found the packet so there, and NAT skips it "
            "(thick line). DROP: it went no further. LOGGED: conntrack noted something, and let it pass. Dashed line: "
            "a RST."
        )
        if any(arrow.marked(state) for arrow in ladder.arrows() for state in ("NEW", "ESTABLISHED", "RELATED")):
            legend += " NEW, ESTABLISHED, RELATED: the state of conntrack's that a rule of the lab's own found it in."
        pictures = ladder_svg.figures(ladder)
        return section(
            "packets",
            "The packets, across the namespaces",
            tag("p", lead),
            tag("p", legend, class_="legend"),
            *(
                figure(f"Sequence diagram, part {index} of {len(pictures)}", [picture])
                for index, picture in enumerate(pictures, 1)
            ),
            tag(
                "div",
                id="panel",
                class_="panel",
                hidden=True,
                role="region",
                aria_label="The chosen packet",
                aria_live="polite",
            ),
            tag(
                "details",
                tag("summary", f"Details of each of the {len(shown):,} packets drawn"),
                *(self._detail(ladder, arrow) for arrow in shown),
            ),
        )

    def _detail(self, ladder: Ladder, arrow: Arrow) -> Markup:
        hops = [
            (
                ladder.ms(hop.time_ns),
                hop.netns,
                hop.ifname,
                hop.direction,
                _ends(hop),
            )
            for hop in arrow.path.hops
        ]
        marks = [
            tag("span", f", {mark.word} at {ladder.columns[mark.column].netns}", class_=mark.word.lower())
            for mark in arrow.marks
        ]
        return tag(
            "details",
            tag("summary", tag("b", f"#{arrow.number} "), " ".join(arrow.words), *marks),
            *(tag("p", note) for note in arrow.notes),
            table(("ms", "Namespace", "Interface", "Way", "Addresses"), hops),
            tag("p", _absolute(arrow.path), class_="quiet"),
            id=f"packet-{arrow.number}",
            class_="packet-detail",
        )

    def _window(self, ladder: Ladder) -> Markup:
        points = list(_points(ladder, self._recording))
        if not points:
            return section(
                "window", "The window", tag("p", f"No chart: the connection was not seen whole on {ladder.flow.node}.")
            )
        about = chart.culprit(points)
        assert about is not None
        return section(
            "window",
            "The window",
            tag("p", chart.sentence(about)),
            figure("Window chart", [chart.svg(points)]),
        )

    def _rules(self, ladder: Ladder) -> Markup:
        """The way through the rules, where it was traced; else the rules themselves."""
        traced = [arrow for arrow in ladder.arrows() if arrow.path.trace and arrow.number in self._shown]
        shown = [_trace(arrow) for arrow in traced if arrow.evidence]
        others = [_trace(arrow) for arrow in traced if not arrow.evidence]
        if others:
            shown.append(tag("details", tag("summary", f"{len(others):,} more packets"), *others))
        if not traced:
            shown.append(
                tag("p", "The way of the packets through the rules was not recorded. These are the rules of the lab:")
            )
            shown += self._ruleset(ladder.flow.node) if ladder.flow.node else []
        entries = [
            (self._ms(e.time_ns), e.netns, e.change, e.tcp_state or "", ", ".join(e.status))
            for e in self._recording.events
            if isinstance(e, ConntrackEvent) and _is_of(e, ladder)
        ]
        if entries:
            shown += [
                tag("h3", "Conntrack's entry"),
                table(("ms", "Namespace", "Change", "TCP state", "Status"), entries),
            ]
        return section("rules", "The way through the rules", *shown)

    def _ruleset(self, node: str) -> Iterator[Markup]:
        found = ruleset(self._topology, node) if self._topology else None
        if found is None:
            yield tag("p", f"{node} has no rules of kube-proxy's.")
            return
        yield tag("details", tag("summary", f"nft rules on {node}"), code(found.nft(replace=False)))

    def _table(self, trial: TrialResult) -> Markup:
        rows = []
        for piece in trial.evidence:
            event = piece.event
            interface = event.ifname if isinstance(event, Packet | DatagramPacket | InvalidReason) else ""
            rows.append(
                (
                    LINKS[piece.link],
                    event.netns,
                    interface or "(socket)" if isinstance(event, SocketEvent) else interface,
                    f"{self._ms(event.time_ns)} ms",
                    join([self._packet_link(event), evidence_words(piece)]),
                    piece.note,
                )
            )
        return section(
            "evidence",
            "Evidence",
            table(("What it shows", "Namespace", "Interface", "Time", "Packet", "In numbers"), rows),
        )

    # --- the run -----------------------------------------------------------------------------------------------------

    def _unseen(self) -> Markup:
        recording = self._recording
        lost = [(describe_observer(observer), f"{count:,}") for observer, count in recording.lost if count]
        disagreements: tuple[str, ...] = ()
        unseen = tuple(map(describe_unobserved, recording.unobserved))
        said = [
            tag("p", f"{len(recording.lost)} observers were open; none lost an event.")
            if not lost
            else table(("Observer", "Events lost"), lost)
        ]
        if self._story:
            unseen, disagreements = self._story.unseen, self._story.disagreements
        if unseen:
            said += [tag("p", "Not observed, or not told for sure:"), bullets(unseen)]
        if disagreements:
            said += [tag("p", "Where the kernel's log is not what the window model computes:"), bullets(disagreements)]
        counters = [
            (event.netns, event.name, f"{event.by:+,}")
            for event in recording.events
            if isinstance(event, CounterChange) and event.by
        ]
        if counters:
            grid = table(("Namespace", "Counter", "Change"), counters)
            said.append(tag("details", tag("summary", "The kernel's counters, from beginning to end"), grid))
        return section("unseen", "What was not seen", *said)

    def _trials(self) -> Markup:
        rows = [
            (
                str(number),
                trial.outcome,
                f"{trial.duration_s:.3f} s",
                f"{trial.bytes_received:,} of {trial.payload_bytes:,}",
                "; ".join(trial.missing),
            )
            for number, trial in enumerate(self._result.trials, 1)
        ]
        counts = ", ".join(f"{self._result.count(outcome)} {outcome}" for outcome in Outcome)
        grid = table(("Trial", "Outcome", "Took", "Bytes", "Missing"), rows)
        return section("trials", "All trials", tag("details", tag("summary", counts), grid))

    def _repeat(self) -> Markup:
        result, recording = self._result, self._recording
        settings = [*recording.settings, *recording.experiment_settings]
        texts = [tag("details", tag("summary", "The topology"), code(recording.topology))]
        if recording.experiment:
            topology, document = "topology.yaml", f"{result.experiment}.yaml"
            saved = f"the topology below saved as {topology} and the experiment as {document}"
            words = [document, "--name", result.lab]
            settings.append(("experiment.topology", topology))
            texts.append(tag("details", tag("summary", "The experiment"), code(recording.experiment)))
        else:
            topology = f"{result.lab}.yaml"
            saved = f"the topology below saved as {topology}"
            words = [topology, "--experiment", result.experiment]
        for path, value in settings:
            words += ["--set", f"{path}={value}"]
        for fix in result.fixes:
            words += ["--fix", fix]
        command = shlex.join(["netlab", "run", *words, "--trials", str(len(result.trials))])
        return section(
            "repeat",
            "How to repeat it",
            tag("p", f"On Linux {recording.kernel}, with {saved}:"),
            code(command),
            *texts,
        )


def _member(number: int, other: TrialResult) -> tuple[str, ...]:
    """One connection of a load as a row: its evidence in a few words each, or what is missing."""
    seen = [f"{LINKS[p.link]} {(p.event.time_ns - other.started_ns) / 1e6:+,.1f}" for p in other.evidence]
    bytes_of = f"{other.bytes_received:,} of {other.payload_bytes:,}"
    return (
        str(number),
        str(other.flow.client_port),
        other.outcome,
        bytes_of,
        "; ".join([*seen, *(f"missing: {piece}" for piece in other.missing)]),
    )


def _trace(arrow: Arrow) -> Markup:
    rows = [
        (step.netns, f"{step.family} {step.table} {step.chain}", step.rule or "(policy or end of chain)", step.verdict)
        for step in arrow.path.trace
    ]
    return tag(
        "details",
        tag("summary", tag("b", f"#{arrow.number} "), " ".join(arrow.words)),
        table(("Namespace", "Chain", "Rule", "Verdict"), rows),
        open=arrow.evidence,
    )


def _ends(hop: Hop | DatagramPacket) -> str:
    if isinstance(hop, DatagramPacket):
        return ends(hop.datagram.header).replace(">", "→")
    return f"{endpoint(*hop.ends[:2])} → {endpoint(*hop.ends[2:])}"


def _absolute(packet: PacketPath | DatagramPath) -> str:
    if isinstance(packet, DatagramPath):
        return f"As it was first seen: {describe(packet.datagram)}, IP id {packet.datagram.ip_id}."
    segment = packet.segment
    return f"Absolute: seq {segment.seq}, ack {segment.ack}, window field {segment.window}, IP id {segment.ip_id}."


def _points(ladder: Ladder, recording: Recording) -> Iterator[chart.Point]:
    """The server's data as the node's conntrack met it; none where the window model could not follow it."""
    if ladder.server_isn is None:
        return
    forgives = rules(recording.kernel, recording.capabilities).forgiving
    for arrow in ladder.arrows():
        path = arrow.path
        if isinstance(path, DatagramPath):
            continue
        checked = next((check.checked for check in path.checks if check.netns == ladder.flow.node), None)
        if path.to_server or not path.segment.payload_bytes or checked is None or checked.state_before is None:
            continue
        if not checked.checks:
            continue
        ignored = checked.outcome is CtOutcome.IGNORE
        yield chart.Point(
            number=path.number,
            when_ms=(path.time_ns - ladder.began_ns) / 1e6,
            seq=seq_diff(path.segment.seq, ladder.server_isn),
            end=seq_diff(path.segment.end, ladder.server_isn),
            edge=seq_diff(checked.state_before.side(checked.direction).td_maxend, ladder.server_isn),
            forgiven_bytes=checked.forgiven_bytes if forgives else None,
            fate="INVALID" if arrow.marked("INVALID") else "ignored" if ignored else "accepted",
            evidence=arrow.evidence,
        )


def _topology(recording: Recording) -> tuple[Topology | None, str]:
    """The lab as it was built; None, and why, where this netlab can't read it."""
    try:
        return recording.spec(), ""
    except NetlabError as error:
        return None, str(error)


def _meaning(result: Result) -> str:
    """What the headline means, in a sentence or two."""
    if not result.trials:
        return "No trial was run."
    ended = ", ".join(f"{result.count(outcome)} {outcome}" for outcome in Outcome if result.count(outcome))
    match result.claim_is:
        case Claim.UNDECIDED:
            return "This run proves nothing either way. What is missing:"
        case Claim.REFUTED:
            return f"What the document claims was seen not to be so: {ended}, expected {_wanted(result)}."
        case Claim.CONFIRMED if result.count(Outcome.RESET) == len(result.trials):
            return _CHAIN
        case Claim.CONFIRMED if result.count(Outcome.COMPLETED) == len(result.trials):
            return _UNHARMED
        case Claim.CONFIRMED:
            return f"What the document claims was seen: {ended}."


def _wanted(result: Result) -> str:
    if result.expected is not None:
        return str(result.expected)
    return "no reset" if result.fixes else "reset"


def _is_of(event: ConntrackEvent, ladder: Ladder) -> bool:
    header = event.tuple_orig
    return (header.src, header.sport, header.dst, header.dport) in ladder.flow.legs()


def _socket(event: SocketEvent) -> str:
    if event.errno:
        return errno.errorcode.get(event.errno, str(event.errno))
    return f"send window {event.window_bytes:,} bytes (was {event.was_bytes:,})"


def evidence_words(piece: Evidence) -> str:
    event = piece.event
    if isinstance(event, SocketEvent):
        return _socket(event)
    if isinstance(event, InvalidReason):
        return event.text
    if isinstance(event, ConntrackEvent):
        state = f" ({event.tcp_state})" if event.tcp_state else ""
        return f"conntrack entry of {endpoint(event.tuple_orig.src, event.tuple_orig.sport)}: {event.change}{state}"
    if isinstance(event, TraceStep):
        return f"{event.table} {event.chain}: {event.verdict}"
    if isinstance(event, DatagramPacket):
        return describe(event.datagram)
    segment = event.segment
    words = [
        f"{endpoint(segment.src, segment.sport)} → {endpoint(segment.dst, segment.dport)}",
        ",".join(flag_names(segment.flags)),
        f"seq {segment.seq if piece.relative_seq is None else piece.relative_seq}",
    ]
    if piece.relative_ack is not None:
        words.append(f"ack {piece.relative_ack}")
    if segment.payload_bytes:
        words.append(f"len {segment.payload_bytes}")
    return " ".join(words)
