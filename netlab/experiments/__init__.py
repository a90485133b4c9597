"""Experiments: each file one trigger, with its claim, its stimulus and what must be seen.

`run` is what they share: observers before the first packet, trial after trial, each between two canaries, and the
judge's word on what was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from netlab.errors import UsageError
from netlab.events import Event, InvalidReason
from netlab.experiments import window_overrun
from netlab.experiments.scene import Scene, scene
from netlab.experiments.transfer import Transfer
from netlab.flow import CANARY_PORT, Flow, FlowEvents
from netlab.judge import Observed, Proof, Result, TrialResult, judge_trial
from netlab.model import Topology
from netlab.observe import Namespaces
from netlab.observe.canary import send_canary
from netlab.observe.watch import Watch
from netlab.recorder import Recorder, Source
from netlab.recording import Recording


class _Experiment(Protocol):
    """What a trigger's module has."""

    CLAIM: str

    def stimulate(self, transfer: Transfer, watch: Watch, server: str) -> str: ...

    def prove(self, events: FlowEvents) -> Proof: ...


TRIGGERS: dict[str, _Experiment] = {"window-overrun": window_overrun}
"""The triggers by the name that a topology's `experiment.trigger` has."""

TRIAL_TIMEOUT_S = 10.0
"""After this long a transfer counts as stalled: some five doublings of TCP's smallest retransmission timeout, 0.2 s."""

_CONNECT_TIMEOUT_S = 5.0
_CLIENT_ERROR_TIMEOUT_S = 0.5
_CANARY_TIMEOUT_S = 0.5


def run(
    topology: Topology,
    fixes: tuple[str, ...],
    namespaces: Namespaces,
    trials: int,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """The Result of `observe_run`, without the Recording."""
    result, _ = observe_run(topology, fixes, namespaces, trials, progress)
    return result


def observe_run(
    topology: Topology,
    fixes: tuple[str, ...],
    namespaces: Namespaces,
    trials: int,
    progress: Callable[[int, int], None] | None = None,
    keep_frames: bool = False,
    source: Source | None = None,
) -> tuple[Result, Recording]:
    """Run the topology's experiment `trials` times, one after the other, in a lab that is up; and judge what was seen.

    fixes are the names of those the lab was built with. progress is called with (trials done, trials in all).
    keep_frames keeps the packets' bytes, up to the end of their headers. The Recording has the events of all trials,
    and their flows in order; source is what it says of where the lab came from. UsageError for a topology without a
    playable experiment, LabError where the lab isn't as the topology says, UnsupportedError where this kernel or user
    can't.
    """
    stage = scene(topology)
    trigger = topology.experiment.trigger if topology.experiment else ""
    if trigger not in TRIGGERS:
        raise UsageError(f"there is no trigger {trigger!r}", f"the triggers are: {', '.join(TRIGGERS)}")
    experiment = TRIGGERS[trigger]
    results = []
    ports = {stage.port, stage.target_port}
    with Recorder(topology, namespaces, stage.netns, ports, keep_frames=keep_frames, needs_reasons=True) as recorder:
        for number in range(trials):
            results.append(_trial(experiment, stage, namespaces, recorder, number))
            if progress is not None:
                progress(number + 1, trials)
        recording = recorder.recording(source or Source(fixes=fixes), [trial.flow for trial in results])
    return Result(trigger, experiment.CLAIM, topology.name, fixes, recording.kernel, tuple(results)), recording


def _trial(
    experiment: _Experiment, stage: Scene, namespaces: Namespaces, recorder: Recorder, number: int
) -> TrialResult:
    watch = recorder.watch
    started_ns, started = time.time_ns(), time.monotonic()
    canaries = (2 * number, 2 * number + 1)
    _canary(stage, namespaces, watch, canaries[0])
    with Transfer(stage, namespaces, watch) as transfer:
        failed = ""
        if not transfer.connect(_CONNECT_TIMEOUT_S):
            failed = f"a connection from {stage.client} to {stage.vip} port {stage.port}"
        else:
            transfer.sample()
            failed = experiment.stimulate(transfer, watch, stage.server)
            transfer.sample()
        if not failed:
            transfer.run(TRIAL_TIMEOUT_S)
            if transfer.server_broken():
                transfer.await_client_error(_CLIENT_ERROR_TIMEOUT_S)
            transfer.sample()
        address, port = transfer.client_address()
        _canary(stage, namespaces, watch, canaries[1])
        duration_s = time.monotonic() - started
        recorder.note_counters()
        events, lost = recorder.take()
    flow = Flow(
        client=stage.client,
        node=stage.node,
        server=stage.server,
        server_node=stage.server_node,
        client_address=address,
        client_port=port,
        vip=stage.vip,
        port=stage.port,
        endpoint=stage.endpoint,
        target_port=stage.target_port,
    )
    observed = Observed(
        flow=flow,
        events=events,
        lost=lost,
        canaries=canaries,
        payload_bytes=stage.payload_bytes,
        bytes_received=transfer.bytes_received,
        intact=transfer.intact,
        ended=transfer.ended,
        started_ns=started_ns,
        duration_s=duration_s,
        failed=failed,
        dead=watch.dead,
    )
    return judge_trial(observed, experiment.prove)


def _canary(stage: Scene, namespaces: Namespaces, watch: Watch, seq: int) -> None:
    """Send a canary, and give the observers the time to see it: whether they did is for the judge."""

    def reported(event: Event) -> bool:
        return isinstance(event, InvalidReason) and event.segment.sport == CANARY_PORT and event.segment.seq == seq

    with suppress(OSError):  # no route to the Service: then nobody sees it
        send_canary(namespaces, stage.client, stage.vip, stage.port, seq)
    watch.until(lambda: watch.saw(reported), _CANARY_TIMEOUT_S)
