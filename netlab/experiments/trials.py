"""Trials of an experiment: observers before the first packet, trial after trial, each between two canaries.

A document's steps are carried out by `stimuli/` and waited for by `conditions/`; what was seen is the judge's to say.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import NamedTuple

from netlab.analysis.connections import completed, connections_in
from netlab.analysis.crosscheck import crosscheck
from netlab.analysis.findings import Findings, analyse
from netlab.analysis.judge import Observed, judge_trial
from netlab.analysis.judge_load import Member, by_connection, client_port, judge_load
from netlab.analysis.result import Advice, Evidence, Outcome, Proof, Result, TrialResult
from netlab.errors import LabError, StepError
from netlab.experiments.conditions import Condition, conditions, is_live
from netlab.experiments.connection import Connection
from netlab.experiments.context import Context
from netlab.experiments.experiment import FIRST, Action, Experiment, Step
from netlab.experiments.load import Told
from netlab.experiments.moment import Moment
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.roles import Roles, assign
from netlab.experiments.stimuli import stimuli
from netlab.kubeproxy.fixes import PLAIN
from netlab.kubeproxy.notrack import untracks
from netlab.lab.netns import Namespaces
from netlab.linux import interrupts
from netlab.linux.deadlines import within
from netlab.model import Address, Topology
from netlab.observe.canary import send_canary
from netlab.observe.packets import Outline
from netlab.observe.recorder import Recorder, Source
from netlab.observe.watch import Watch
from netlab.record.events import Event, InvalidReason, Packet
from netlab.record.flow import CANARY_PORT, Flow, FlowEvents
from netlab.record.observers import ObserverId
from netlab.record.recording import Stimulus

_CANARY_TIMEOUT_S = 0.5

_TOGETHER = 20
"""So many trials are judged together, and what was seen in them is forgotten then, but for what is to be shown: a long
run takes no more memory than a short one."""


_MOST_EVENTS = 100_000
"""So many events of a run's trials at most are kept for a bundle, if they aren't of a single one: with more, its reader
would take more memory than it takes (`record/codec.py`, MOST_MEMORY_BYTES)."""


class Ran(NamedTuple):
    """What a run showed, and the Findings of the trials that were judged together with the one to draw.

    disagreements are all packets of which conntrack's model and the kernel's log tell different things, in sentences.
    """

    result: Result
    findings: Findings
    disagreements: tuple[str, ...]


def observe_run(
    topology: Topology,
    experiment: Experiment,
    fixes: tuple[str, ...],
    namespaces: Namespaces,
    trials: int,
    progress: Callable[[int, int], None] | None = None,
    keep_frames: bool = False,
    source: Source | None = None,
    capabilities: Collection[str] = (),
    *,
    whole: bool = False,
) -> Ran:
    """Run an experiment `trials` times, one after the other, in a lab that is up; and judge what was seen.

    fixes are the names of those the lab was built with, capabilities what this kernel has of those the experiment asks
    for. progress is called with (trials done, trials in all). keep_frames keeps the packets' bytes, up to the end of
    their headers. The recording of the Findings has the events of its trials, and their flows in order: with `whole`,
    of all trials of the run, or of as many as a bundle has room for. source is what it says of where the lab came from.
    UsageError where the topology can't run it, LabError where the lab isn't as the topology says, UnsupportedError
    where this kernel or user can't.
    """
    as_fixed = experiment.with_fixes(fixes)
    roles = _with_own_address(assign(topology, experiment), namespaces)
    together = trials if whole else _TOGETHER
    judged: list[TrialResult] = []
    used_ports: set[int] = set()
    shows: dict[Outcome, Findings] = {}
    disagreements: list[str] = []
    with (
        interrupts.held_back(),
        Recorder(
            topology,
            namespaces,
            roles.netns,
            roles.ports,
            keep_frames=keep_frames,
            needs_reasons=True,
            outline=_outline(roles) if experiment.has("load") else None,
        ) as recorder,
        interrupts.let_through(),
    ):
        while len(judged) < trials:
            first = len(judged)
            if first:
                recorder.begin_anew()
            ended: list[_Ended] = []
            for number in range(first, min(first + together, trials)):
                if number > first and recorder.kept() * (len(ended) + 1) > len(ended) * _MOST_EVENTS:
                    break  # another one like these would be too much
                under_way = _Trial(topology, as_fixed, roles, namespaces, recorder, number, used_ports)
                ended.append(under_way.run())
                if progress is not None:
                    progress(number + 1, trials)
            findings = _findings(recorder, ended, source or Source(fixes=fixes))
            results = [each.of_load or judge_trial(each.observed, each.proof, findings) for each in ended]
            noted, differing = crosscheck(results, findings.timeline, first + 1)
            judged += noted
            disagreements += differing
            for trial in noted:
                shows.setdefault(trial.outcome, findings)
    expected = experiment.expected(fixes, capabilities)
    result = Result(
        experiment=experiment.name,
        claim=experiment.claim,
        lab=topology.name,
        fixes=fixes,
        kernel=findings.timeline.recording.kernel,
        trials=tuple(judged),
        expected=expected,
        explanation=experiment.explanation,
        plain=experiment.expected((), capabilities),
        advice=_advice(experiment, capabilities),
    )
    drawn, _ = result.shown()
    return Ran(result, shows[result.trials[drawn - 1].outcome], tuple(disagreements))


def _advice(experiment: Experiment, capabilities: Collection[str]) -> Advice:
    """What the document says of each fix alone, on a kernel with these capabilities, and beside the fixes."""
    fixes = (name for name, _ in experiment.expect if name != PLAIN and "+" not in name)
    expected = ((name, experiment.expected((name,), capabilities)) for name in fixes)
    outcomes = tuple((name, outcome) for name, outcome in expected if outcome is not None)
    return Advice(outcomes, experiment.kernels, experiment.remedy, experiment.see)


def _findings(recorder: Recorder, ended: Sequence[_Ended], source: Source) -> Findings:
    """What was seen in these trials, which are all of what the recorder has."""
    _forget_many(recorder, [each.of_load for each in ended if each.of_load is not None])
    flows = [each.of_load.flow if each.of_load else each.observed.flow for each in ended]
    return analyse(recorder.recording(source, flows))


_WHOLE = 8
"""So many of a load's connections are observed in full."""

_WHOLE_PORTS = range(20000, 28000)
"""Their client's ports, below those that the kernel picks from (net.ipv4.ip_local_port_range)."""


def _outline(roles: Roles) -> Outline:
    """What is observed of a load: what the server sends where it leaves and where the client's node gets it, what NAT
    leaves alone, how each connection begins and ends; all of the packets of some."""
    where = frozenset(name for name in (roles.client, roles.node, roles.server) if name is not None)
    return Outline(frozenset({roles.port, roles.target_port}), _WHOLE_PORTS, roles.endpoint, where)


def _own_ports(number: int) -> range:
    """Those of one trial: a port that was used stays taken for a while, at the server and in conntrack."""
    first = _WHOLE_PORTS.start + number * _WHOLE % len(_WHOLE_PORTS)
    return range(first, first + _WHOLE)


def _forget_many(recorder: Recorder, results: Sequence[TrialResult]) -> None:
    """Of loads keep the packets of the connections that were observed whole, or did not complete."""
    loads = [trial.load for trial in results if trial.load is not None]
    if loads:
        like = results[0].flow
        told = {other.flow.client_port for load in loads for other in load.others} | {0, CANARY_PORT}

        def is_told(event: Event) -> bool:
            port = client_port(event, like)
            return port in told or port in _WHOLE_PORTS

        recorder.forget(is_told)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A trial that is over: all there is to judge it by. With a load it is judged while all of its events are there."""

    observed: Observed
    proof: Proof
    of_load: TrialResult | None = None


@dataclass(slots=True)
class _Awaited:
    """A condition: since when it is looked for, and what a live one was last found to be.

    carried_out: its step was; it is looked for, too, where a step before was the last.
    """

    action: Action
    since_ns: int
    found: Proof
    carried_out: bool = True


class _Trial:
    """One trial: canary, steps, canary, judgement."""

    def __init__(
        self,
        topology: Topology,
        experiment: Experiment,
        roles: Roles,
        namespaces: Namespaces,
        recorder: Recorder,
        number: int,
        used_ports: set[int],
    ) -> None:
        self._topology, self._experiment, self._roles = topology, experiment, roles
        self._namespaces, self._recorder, self._watch = namespaces, recorder, recorder.watch
        self._canaries = (2 * number, 2 * number + 1)
        self._tracked = roles.node is not None and not untracks(topology, roles.node, roles.vip, roles.port)
        self._awaited: list[_Awaited] = []
        self._own_ports, self._used_ports = _own_ports(number), used_ports
        self._unmet = ""

    def run(self) -> _Ended:
        started_ns, started = time.time_ns(), time.monotonic()
        experiment, roles = self._experiment, self._roles
        _canary(roles, self._namespaces, self._watch, self._canaries[0], tracked=self._tracked)
        with (
            interrupts.held_back(),
            Context(
                self._topology,
                roles,
                self._namespaces,
                self._watch,
                experiment.timeout_s,
                self._own_ports,
                self._used_ports,
                listens=experiment.listens,
            ) as context,
            interrupts.let_through(),
        ):
            for arguments in experiment.observes("counter"):
                context.count(arguments["in"])
            failed = self._carry_out(context)
            context.restore()
            _canary(roles, self._namespaces, self._watch, self._canaries[1], tracked=self._tracked)
            context.pump()  # what came before the canary may have ended a connection that nobody has looked at since
            duration_s = time.monotonic() - started
            load = context.load
            members = [self._member(told) for told in load.told()] if load else []
            self._recorder.note_counters()
            events, lost = self._recorder.take()
            flow = self._whole_flow(context, events)
            first = context.connections.get(FIRST)
            client = first.client if first else None
            closed = Stimulus(time.time_ns(), "", context.still_open())
        self._recorder.note_stimulus(closed)
        observed = Observed(
            flow=flow,
            events=events,
            lost=lost,
            canaries=self._canaries,
            payload_bytes=self._to_send(first),
            bytes_received=client.received_bytes if client else 0,
            intact=client.intact if client else True,
            ended=client.ended if client else False,
            started_ns=started_ns,
            duration_s=duration_s,
            failed=failed,
            failed_observers=self._watch.failed,
            connects=first is not None and first.accepted is not None,
            transfers=experiment.has("finish", FIRST),
            tracked=self._tracked,
            since_ns=first.began_ns if first else 0,
        )
        failed_observers = {observer for observer, _ in self._watch.failed}
        whole = frozenset(observer for observer, count in lost if not count) - failed_observers
        if load is None:
            return _Ended(observed, self._proof(events, FlowEvents(flow, events), (), whole))
        each = by_connection([member.flow for member in members], events)
        proof = self._proof(events, FlowEvents(flow, ()), each, whole)
        flows = [member.flow for member in members]
        findings = analyse(replace(self._recorder.recording(Source(), flows), events=events))
        judged = judge_load(observed, members, each, proof, findings, load.cpu_percent, load.unlimited)
        return _Ended(observed, proof, judged)

    def _to_send(self, first: Connection | None) -> int:
        """How much the server was to send: the payload, or, where no step has it finish, what the steps told it to."""
        if self._experiment.has("finish", FIRST) or self._experiment.has("load"):
            return self._roles.payload_bytes
        return sum(end.goal_bytes for end in first.ends() if end is not first.client) if first else 0

    def _carry_out(self, context: Context) -> str:
        """Carry the steps out, up to the first after which something is missing.

        Returns what kept a stimulus from being applied, empty if nothing did.
        """
        for number, step in enumerate(self._experiment.steps):
            since_ns = time.time_ns()
            try:
                if step.stimulus is not None:
                    self._apply(context, step.stimulus, since_ns)
            except NotApplied as missing:
                return str(missing)
            except (StepError, OSError) as refusal:
                assert step.stimulus is not None
                return f"a success of {step.stimulus.name} ({_words(refusal)})"
            awaited = self._await(step, since_ns)
            if awaited and not self._wait(context, awaited, step.within_s):
                unmet = next(each.found.missing for each in awaited if each.found.missing)
                place = f"steps[{number}]" + (f", {step.stimulus.name}" if step.stimulus else "")
                self._unmet = f"{unmet} (within {step.within_s:g} s of {place})"
                for later in self._experiment.steps[number + 1 :]:
                    self._await(later, time.time_ns(), carried_out=False)
                return ""
        return ""

    def _apply(self, context: Context, stimulus: Action, since_ns: int) -> None:
        """Do it, and note it, whatever comes of it."""
        try:
            stimuli()[stimulus.name].apply(context, stimulus.arguments)
        finally:
            self._recorder.note_stimulus(Stimulus(since_ns, stimulus.describe(), context.take_made()))

    def _await(self, step: Step, since_ns: int, *, carried_out: bool = True) -> list[_Awaited]:
        """What is to be observed after a step, to be looked for from now on."""
        awaited = [_Awaited(action, since_ns, Proof((), action.describe()), carried_out) for action in step.observe]
        self._awaited += awaited
        return awaited

    def _wait(self, context: Context, awaited: list[_Awaited], within_s: float) -> bool:
        seen = -1

        def all_hold() -> bool:
            nonlocal seen
            events, news = self._watch.gathered(), False
            if len(events) != seen:
                seen, news = len(events), True
            flow_events = None
            for each in awaited:
                condition = conditions()[each.action.name]
                if context.load and not is_live(condition):
                    each.found = Proof(())  # of so many connections it is asked once, when the trial is judged
                    continue
                if not (news or is_live(condition)):
                    continue
                if flow_events is None and context.connections:
                    flow_events = FlowEvents(self._flow(context, events), events)
                moment = Moment(events, flow_events, each.since_ns, context)
                each.found = _found(condition, moment, each.action)
            return not any(each.found.missing for each in awaited)

        if context.wait(all_hold, within_s):
            return True
        for each in awaited:  # what is to be asked now can't be asked later
            condition = conditions()[each.action.name]
            if is_live(condition):
                moment = Moment(self._watch.gathered(), None, each.since_ns, context, whole=frozenset())
                each.found = condition.look(moment, each.action.arguments)
        return False

    def _proof(
        self,
        events: tuple[Event, ...],
        flow_events: FlowEvents,
        load: tuple[FlowEvents, ...],
        whole: frozenset[ObserverId],
    ) -> Proof:
        """Whether all that was to be observed was, over the whole trial; whole are the observers that lost nothing."""
        evidence: list[Evidence] = []
        missing, only_states, refuted = self._unmet, True, ""
        for each in self._awaited:
            condition = conditions()[each.action.name]
            live = is_live(condition)
            if not live:
                moment = Moment(events, flow_events, each.since_ns, None, load, whole)
                each.found = _found(condition, moment, each.action)
            evidence += each.found.evidence
            missing = missing or each.found.missing
            only_states = only_states and (live or not each.found.missing)
            refuted = refuted or (each.found.refuted if each.carried_out else "")
        return Proof(tuple(evidence), missing, only_states, refuted)

    def _member(self, told: Told) -> Member:
        flow = self._flow_of(self._roles.client_address, told.port)
        whole = told.port in self._own_ports
        return Member(flow, told.received_bytes, told.intact, told.ended, told.duration_s, whole)

    def _flow(self, context: Context, events: tuple[Event, ...]) -> Flow:
        """The connection under study, or the first one before there is it, as far as it is known.

        Before a server has it, only conntrack says where it leads.
        """
        first = context.connections.get(FIRST) or next(iter(context.connections.values()), None)
        if first is None:
            return self._flow_of(self._roles.client_address, 0)
        return first.flow() if first.accepted else self._found(first.flow(), events)

    def _found(self, flow: Flow, events: tuple[Event, ...]) -> Flow:
        """A connection as conntrack's tuples tell of it, where they do: with all that translate it."""
        return completed((flow,), connections_in(self._topology, events))[0]

    def _whole_flow(self, context: Context, events: tuple[Event, ...]) -> Flow:
        """The connection once it is over; an entry that leads elsewhere than it came first is another's."""
        flow = self._flow(context, events)
        found = self._found(flow, events)
        return found if found.headers()[-1] == flow.headers()[-1] else flow

    def _flow_of(self, client_address: Address, client_port: int) -> Flow:
        roles = self._roles
        return Flow(
            client=roles.client,
            node=roles.node,
            server=roles.server,
            server_node=roles.first.node,
            client_address=client_address,
            client_port=client_port,
            vip=roles.vip,
            port=roles.port,
            endpoint=roles.endpoint,
            target_port=roles.target_port,
        )


_LOOK_S = 20.0
"""How long it may take to look for what is to be observed in what was seen, however much that is."""


def _found(condition: Condition, moment: Moment, action: Action) -> Proof:
    """What a condition says that asks no kernel; LabError where its regular expression comes to no end."""
    try:
        with within(_LOOK_S):
            return condition.look(moment, action.arguments)
    except TimeoutError:
        hint = "don't repeat a repetition, as in (a+)+"
        raise LabError(f"{action.describe()}: looking for it takes longer than {_LOOK_S:g} s", hint) from None


def _with_own_address(roles: Roles, namespaces: Namespaces) -> Roles:
    """The roles with the address that the client's own routes have it connect from, where there is a way."""
    family = socket.AF_INET if roles.vip.version == 4 else socket.AF_INET6
    with namespaces.socket(roles.client, family, socket.SOCK_DGRAM) as own, suppress(OSError):
        own.connect((str(roles.vip), roles.port))
        return replace(roles, client_address=ip_address(own.getsockname()[0]))
    return roles


def _words(refusal: StepError | OSError) -> str:
    if isinstance(refusal, StepError):
        return refusal.message
    where = f"{refusal.filename}: " if refusal.filename else ""
    return f"{where}{refusal.strerror or refusal}"


def _canary(roles: Roles, namespaces: Namespaces, watch: Watch, seq: int, *, tracked: bool) -> None:
    """Send a canary, and give the observers the time to see it: whether they did is for the judge."""

    def reported(event: Event) -> bool:
        if not isinstance(event, InvalidReason if tracked else Packet) or event.netns != roles.node:
            return False
        return event.segment.sport == CANARY_PORT and event.segment.seq == seq

    with suppress(OSError):  # no route to the Service: then nobody sees it
        send_canary(namespaces, roles.client, roles.vip, roles.port, seq)
    watch.until(lambda: watch.saw(reported), _CANARY_TIMEOUT_S)
