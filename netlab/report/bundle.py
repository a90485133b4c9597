"""What is in a bundle: everything that can be said of a run, each in a file for whoever reads it. Pure.

The zip around it is `record/bundle.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from netlab.analysis.findings import Findings
from netlab.analysis.result import Result
from netlab.escapes import lines
from netlab.kubeproxy import ruleset
from netlab.lab import plan
from netlab.model import Mode, Topology
from netlab.record import bundle, codec
from netlab.record.bundle import Member, as_json, rules_of
from netlab.record.environment import Environment
from netlab.record.recording import Recording
from netlab.report import html, packets, text
from netlab.report import json as report_json


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read: as `record.bundle.Contents`, with the result, and where its packets are in its capture.

    Of a bundle from before that was noted capture is None.
    """

    recording: Recording
    result: Result
    texts: Mapping[str, str]
    capture: packets.Written | None


def render(topology: Topology, result: Result, findings: Findings, environment: Environment) -> bytes:
    """The bundle's file. topology is what the run was of, with its fixes; findings are of the trials that it keeps."""
    members = contents(topology, result, findings, environment)
    return bundle.pack(members, findings.timeline.recording.ended_ns)


def contents(topology: Topology, result: Result, findings: Findings, environment: Environment) -> dict[str, bytes]:
    """The members by name, in their order."""
    recording = findings.timeline.recording
    notes = packets.said_of_all(result, findings)
    written = packets.render(Member.PACKETS, result, findings, notes=notes)
    about = {
        "lab": result.lab,
        "experiment": result.experiment,
        "result": result.result,
        "fixes": list(result.fixes),
        "settings": [f"{path}={value}" for path, value in (*recording.settings, *recording.experiment_settings)],
        "kernel": result.kernel,
        "began": _time(recording.started_ns),
        "ended": _time(recording.ended_ns),
        "trials": len(result.trials),
        "recorded": [number for number, trial in enumerate(result.trials, 1) if trial.flow in recording.flows],
    }
    steps = plan.up(topology)
    texts: dict[str, str] = {
        Member.REPORT: lines(text.render(result)),
        Member.PAGE: html.render(result, findings, written),
        Member.RESULT: report_json.render(result),
        Member.TOPOLOGY: recording.topology,
        **({Member.EXPERIMENT: recording.experiment} if recording.experiment else {}),
        Member.PLAN: plan.as_text(steps, f"{topology.name}-"),
        Member.SCRIPT: plan.as_shell(steps, topology),
        **_rules(topology, environment),
        Member.SYSCTLS: as_json(environment.sysctls),
        Member.KERNEL: as_json(environment.kernel),
        Member.EVENTS: bundle.events(recording),
        Member.JUDGED: as_json(codec.to_json(result), indent=None),
        Member.FRAMES: as_json(codec.to_json(tuple(written.frames.items())), indent=None),
    }
    return {
        Member.MANIFEST: bundle.manifest(about),
        **{name: content.encode(errors="backslashreplace") for name, content in texts.items()},
        Member.PACKETS: written.data,
        Member.ALL_PACKETS: packets.render(
            Member.ALL_PACKETS, result, findings, every_interface=True, notes=notes
        ).data,
    }


def read(path: Path) -> Bundle:
    """A bundle from its file; UsageError as `record.bundle.read`."""
    contents = bundle.read(path)
    with bundle.damage_named(path):
        result = codec.from_json(contents.judged, Result)
        capture = _capture(contents.texts.get(Member.FRAMES))
    return Bundle(contents.recording, result, contents.texts, capture)


def _capture(frames: str | None) -> packets.Written | None:
    """The file of packets, but for its bytes; ValueError for frames that are none."""
    if frames is None:
        return None
    numbered = codec.from_json(codec.parse(frames.encode()), tuple[tuple[int, tuple[int, ...]], ...])
    return packets.Written(Member.PACKETS, b"", dict(numbered))


def _rules(topology: Topology, environment: Environment) -> dict[str, str]:
    """What kube-proxy's nodes were given, in both spellings, and what the kernel then listed where there was any."""
    found = {}
    for netns in topology.namespaces:
        if (spec := ruleset(topology, netns.name)) is not None:
            found[rules_of(netns.name, "nft")] = spec.nft()
            if topology.kube_proxy.mode is Mode.IPTABLES:
                found[rules_of(netns.name, "iptables-save")] = spec.iptables_save()
        if listed := environment.rules.get(netns.name):
            found[rules_of(netns.name, "listed")] = listed
    return found


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
