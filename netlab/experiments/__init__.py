"""Experiments played: observers before the first packet, trial after trial, each between two canaries.

A document's steps are carried out by `stimuli/` and waited for by `conditions/`; what was seen is the judge's to say.
`language.py` reads documents, `catalogue.py` finds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from netlab.conditions import Moment, conditions, is_live
from netlab.errors import StepError
from netlab.events import Event, InvalidReason, Packet
from netlab.experiment import FIRST, Action, Experiment
from netlab.experiments.scene import Scene, scene
from netlab.experiments.stage import Stage
from netlab.flow import CANARY_PORT, Flow, FlowEvents
from netlab.judge import Evidence, Observed, Proof, Result, TrialResult, judge_trial
from netlab.kubeproxy.notrack import untracks
from netlab.model import Topology
from netlab.netns import Namespaces
from netlab.observe.canary import send_canary
from netlab.observe.watch import Watch
from netlab.recorder import Recorder, Source
from netlab.recording import Recording
from netlab.stimuli import NotApplied, stimuli

_CANARY_TIMEOUT_S = 0.5


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
) -> tuple[Result, Recording]:
    """Play an experiment `trials` times, one after the other, in a lab that is up; and judge what was seen.

    fixes are the names of those the lab was built with, capabilities what this kernel has of those the experiment asks
    for. progress is called with (trials done, trials in all). keep_frames keeps the packets' bytes, up to the end of
    their headers. The Recording has the events of all trials, and their flows in order; source is what it says of where
    the lab came from. UsageError where the topology can't play it, LabError where the lab isn't as the topology says,
    UnsupportedError where this kernel or user can't.
    """
    played = experiment.with_fixes(fixes)
    cast = scene(topology, experiment)
    results = []
    with Recorder(
        topology, namespaces, cast.netns, cast.ports, keep_frames=keep_frames, needs_reasons=True
    ) as recorder:
        for number in range(trials):
            results.append(_Trial(topology, played, cast, namespaces, recorder, number).play())
            if progress is not None:
                progress(number + 1, trials)
        recording = recorder.recording(source or Source(fixes=fixes), [trial.flow for trial in results])
    expected = experiment.expected(fixes, capabilities)
    result = Result(
        experiment=experiment.name,
        claim=experiment.claim,
        lab=topology.name,
        fixes=fixes,
        kernel=recording.kernel,
        trials=tuple(results),
        expected=expected,
        explanation=experiment.explanation,
    )
    return result, recording


@dataclass(slots=True)
class _Awaited:
    """A condition of a step that was played: since when it is looked for, and what a live one was last found to be."""

    action: Action
    since_ns: int
    found: Proof


class _Trial:
    """One trial: canary, steps, canary, judgement."""

    def __init__(
        self,
        topology: Topology,
        experiment: Experiment,
        cast: Scene,
        namespaces: Namespaces,
        recorder: Recorder,
        number: int,
    ) -> None:
        self._topology, self._experiment, self._scene = topology, experiment, cast
        self._namespaces, self._recorder, self._watch = namespaces, recorder, recorder.watch
        self._canaries = (2 * number, 2 * number + 1)
        self._tracked = not untracks(topology, cast.node, cast.vip, cast.port)
        self._awaited: list[_Awaited] = []
        self._unmet = ""

    def play(self) -> TrialResult:
        started_ns, started = time.time_ns(), time.monotonic()
        experiment, cast = self._experiment, self._scene
        _canary(cast, self._namespaces, self._watch, self._canaries[0], tracked=self._tracked)
        with Stage(self._topology, cast, self._namespaces, self._watch, experiment.timeout_s) as stage:
            for arguments in experiment.observes("counter"):
                stage.count(arguments["in"])
            failed = self._play_steps(stage)
            flow = self._flow(stage)
            stage.restore()
            _canary(cast, self._namespaces, self._watch, self._canaries[1], tracked=self._tracked)
            stage.pump()  # what came before the canary may have ended a connection that nobody has looked at since
            duration_s = time.monotonic() - started
            self._recorder.note_counters()
            events, lost = self._recorder.take()
            first = stage.connections.get(FIRST)
            client = first.client if first else None
        observed = Observed(
            flow=flow,
            events=events,
            lost=lost,
            canaries=self._canaries,
            payload_bytes=cast.payload_bytes,
            bytes_received=client.received_bytes if client else 0,
            intact=client.intact if client else True,
            ended=client.ended if client else False,
            started_ns=started_ns,
            duration_s=duration_s,
            failed=failed,
            dead=self._watch.dead,
            connects=experiment.plays("connect"),
            transfers=experiment.plays("finish", FIRST),
            tracked=self._tracked,
            since_ns=first.began_ns if first else 0,
        )
        return judge_trial(observed, lambda seen: self._proof(events, seen))

    def _play_steps(self, stage: Stage) -> str:
        """Carry the steps out, up to the first after which something is missing.

        Returns what kept a stimulus from being applied, empty if nothing did.
        """
        for step in self._experiment.steps:
            since_ns = time.time_ns()
            try:
                if step.stimulus is not None:
                    stimuli()[step.stimulus.name].apply(stage, step.stimulus.arguments)
            except NotApplied as missing:
                return str(missing)
            except (StepError, OSError) as refusal:
                assert step.stimulus is not None
                return f"a success of {step.stimulus.name} ({_words(refusal)})"
            awaited = [_Awaited(action, since_ns, Proof((), action.describe())) for action in step.observe]
            self._awaited += awaited
            if awaited and not self._wait(stage, awaited, step.within_s):
                self._unmet = next(each.found.missing for each in awaited if each.found.missing)
                return ""
        return ""

    def _wait(self, stage: Stage, awaited: list[_Awaited], within_s: float) -> bool:
        seen = -1

        def all_hold() -> bool:
            nonlocal seen
            events, news = self._watch.gathered(), False
            if len(events) != seen:
                seen, news = len(events), True
            flow_events = None
            for each in awaited:
                condition = conditions()[each.action.name]
                if not (news or is_live(condition)):
                    continue
                if flow_events is None and stage.connections:
                    flow_events = FlowEvents(self._flow(stage), events)
                moment = Moment(events, flow_events, each.since_ns, stage)
                each.found = condition.look(moment, each.action.arguments)
            return not any(each.found.missing for each in awaited)

        return stage.wait(all_hold, within_s)

    def _proof(self, events: tuple[Event, ...], flow_events: FlowEvents) -> Proof:
        """Whether all that was to be observed was, over the whole trial."""
        evidence: list[Evidence] = []
        missing = self._unmet
        for each in self._awaited:
            condition = conditions()[each.action.name]
            if not is_live(condition):
                moment = Moment(events, flow_events, each.since_ns, None)
                each.found = condition.look(moment, each.action.arguments)
            evidence += each.found.evidence
            missing = missing or each.found.missing
        return Proof(tuple(evidence), missing)

    def _flow(self, stage: Stage) -> Flow:
        cast = self._scene
        first = stage.connections.get(FIRST) or next(iter(stage.connections.values()), None)
        return Flow(
            client=cast.client,
            node=cast.node,
            server=cast.server,
            server_node=cast.server_node,
            client_address=first.client_address if first else cast.client_address,
            client_port=first.client_port if first else 0,
            vip=cast.vip,
            port=cast.port,
            endpoint=cast.endpoint,
            target_port=cast.target_port,
        )


def _words(refusal: StepError | OSError) -> str:
    if isinstance(refusal, StepError):
        return refusal.message
    where = f"{refusal.filename}: " if refusal.filename else ""
    return f"{where}{refusal.strerror or refusal}"


def _canary(cast: Scene, namespaces: Namespaces, watch: Watch, seq: int, *, tracked: bool) -> None:
    """Send a canary, and give the observers the time to see it: whether they did is for the judge."""

    def reported(event: Event) -> bool:
        if not isinstance(event, InvalidReason if tracked else Packet) or event.netns != cast.node:
            return False
        return event.segment.sport == CANARY_PORT and event.segment.seq == seq

    with suppress(OSError):  # no route to the Service: then nobody sees it
        send_canary(namespaces, cast.client, cast.vip, cast.port, seq)
    watch.until(lambda: watch.saw(reported), _CANARY_TIMEOUT_S)
