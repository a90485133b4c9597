"""A port that is used again while somebody still knows its last connection, on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP, document, run_document
from private_lab import PrivateLab

from netlab.analysis.explain import explain
from netlab.analysis.findings import Ending, analyse
from netlab.analysis.result import Outcome
from netlab.experiments.trials import observe_run
from netlab.record.events import ACK, SYN, Direction, Event, Packet, SocketEvent
from netlab.record.flow import CANARY_PORT
from netlab.record.recording import Recording

pytestmark = pytest.mark.kernel

FIXES = (None, "drop-invalid", "be-liberal")
NAMES = ("half-open", "time-wait")


def sent_by_the_client(events: tuple[Event, ...]) -> Iterator[Packet]:
    for event in events:
        if not isinstance(event, Packet) or (event.netns, event.direction) != ("client", Direction.OUT):
            continue
        if event.segment.dport == 80 and event.segment.sport != CANARY_PORT:
            yield event


def syns(recording: Recording) -> list[int]:
    """The initial sequence numbers of the client's SYNs in turn, each once."""
    sent = (packet.segment for packet in sent_by_the_client(recording.events))
    return list(dict.fromkeys(segment.seq for segment in sent if segment.flags & (SYN | ACK) == SYN))


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("name", NAMES)
def test_each_trial_ends_as_its_document_expects(name: str, fix: str | None) -> None:
    result, recording, expected = run_document(name, 2, fix)
    assert [(trial.outcome, trial.missing) for trial in result.trials] == [(expected, ())] * 2
    assert len({trial.flow.client_port for trial in result.trials}) == 2, "each trial has a port of its own"
    story = explain(analyse(recording))
    assert (story.ending, story.disagreements) == (Ending.COMPLETED, ())
    assert " uses port " in story.chain[0].text


@pytest.mark.usefixtures("as_root")
def test_what_is_left_of_the_forgotten_connection_is_reset_and_that_is_told() -> None:
    _, recording, _ = run_document("half-open", 1)
    errors = [event for event in recording.events if isinstance(event, SocketEvent)]
    assert [(event.netns, event.connection) for event in errors] == [("server", "old")]


@pytest.mark.usefixtures("as_root")
def test_a_forgotten_connection_says_nothing() -> None:
    skips.skip_unless_capability("tcp-repair")
    part = document("half-open")
    steps = part.experiment.steps[:3]
    with PrivateLab(part.topology) as namespaces:
        alone = part.experiment._replace(steps=steps)
        _, findings, _ = observe_run(part.topology, alone, (), namespaces, 1)  # type: ignore[arg-type]
    assert {
        packet.segment.flags & ~(SYN | ACK | 8) for packet in sent_by_the_client(findings.timeline.recording.events)
    } == {0}


@pytest.mark.usefixtures("as_root")
def test_the_initial_sequence_numbers_are_those_that_the_document_says() -> None:
    _, recording, _ = run_document("time-wait", 1)
    assert syns(recording) == [3_000_000_000, 2_500_000_000]


@pytest.mark.usefixtures("as_root")
def test_a_connection_that_nobody_accepts_is_unanswered() -> None:
    skips.skip_unless_capability("tcp-repair")
    part = document("half-open")
    connects = [step for step in part.experiment.steps if step.stimulus and step.stimulus.name == "connect"]
    silent = connects[-1]._replace(observe=())
    assert silent.stimulus is not None
    lone = silent._replace(stimulus=silent.stimulus._replace(arguments={"wait": False}))
    alone = part.experiment._replace(steps=(lone, part.experiment.steps[-1]), timeout_s=0.3)
    with PrivateLab(part.topology) as namespaces:
        namespaces.run("server-node", "ip", "route", "replace", "blackhole", "10.0.0.0/24")
        result, _, _ = observe_run(part.topology, alone, (), namespaces, 1)  # type: ignore[arg-type]
    assert result.trials[0].bytes_received == 0
    assert result.trials[0].outcome is Outcome.SYN_UNANSWERED


@pytest.mark.parametrize("name", NAMES)
def test_as_an_ordinary_user(name: str, netlab: Netlab, lab_name: str, rootless: None) -> None:
    skips.skip_unless_capability("tcp-repair")
    file = FLAGSHIP.parent / "experiments" / f"{name}.yaml"
    done = netlab("run", file, "--name", lab_name, "--rootless", "--trials", "1")
    assert done.returncode == 0, done.stdout + done.stderr  # as the document expects
