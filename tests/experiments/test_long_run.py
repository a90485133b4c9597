"""A run of many trials: judged some at a time, it keeps what is to be shown and no more."""

from __future__ import annotations

import pytest
from flagship import part
from private_lab import PrivateLab

from netlab.analysis.result import Outcome
from netlab.experiments import trials
from netlab.experiments.trials import Ran, observe_run
from netlab.report import html, ladder
from netlab.report.sequence import build

pytestmark = [pytest.mark.kernel, pytest.mark.inside, pytest.mark.usefixtures("as_root")]


SYSCTLS = "{net.ipv4.tcp_rmem: 4096 4096 4096, net.ipv4.ip_local_port_range: 40000 40007}"


def run(monkeypatch: pytest.MonkeyPatch, *settings: tuple[str, str], whole: bool) -> Ran:
    """Five trials, judged two at a time."""
    monkeypatch.setattr(trials, "_TOGETHER", 2)
    flagship = part(settings)
    with PrivateLab(flagship.topology) as namespaces:
        return observe_run(flagship.topology, flagship.experiment, (), namespaces, 5, whole=whole)  # type: ignore[arg-type]


def test_the_trials_that_are_shown_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    result, findings, disagreements = run(monkeypatch, whole=False)
    assert [trial.outcome for trial in result.trials] == [Outcome.RESET] * 5
    assert disagreements == ()
    recording = findings.timeline.recording
    assert recording.flows == tuple(trial.flow for trial in result.trials[:2])
    assert recording.ended_ns < result.trials[2].started_ns
    assert all(event.time_ns < recording.ended_ns for event in recording.events)
    _, shown = result.shown()
    assert "INVALID" in ladder.render(build(findings, shown.flow, shown))
    assert "of 5" in html.render(result, findings)


def test_for_a_bundle_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    result, findings, _ = run(monkeypatch, whole=True)
    assert findings.timeline.recording.flows == tuple(trial.flow for trial in result.trials)


def test_for_a_bundle_only_so_many_are_that_it_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    result, findings, _ = run(monkeypatch, whole=True)
    a_trial = len(findings.timeline.recording.events) // 5
    monkeypatch.setattr(trials, "_MOST_EVENTS", a_trial * 5 // 2)
    result, findings, _ = run(monkeypatch, whole=True)
    assert [trial.outcome for trial in result.trials] == [Outcome.RESET] * 5
    assert findings.timeline.recording.flows == tuple(trial.flow for trial in result.trials[:2])


def test_no_trial_meets_an_entry_of_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry stays for ten seconds after a RST: the next SYN from the same port makes none."""
    result, _, disagreements = run(monkeypatch, ("namespaces.client.sysctls", SYSCTLS), whole=False)
    assert [trial.outcome for trial in result.trials] == [Outcome.RESET] * 5
    assert len({trial.flow.client_port for trial in result.trials}) == 5
    assert disagreements == ()
