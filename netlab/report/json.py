"""A Result as one JSON object, for programs. Pure; docs/run-json.md says what each member means."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from netlab import escapes
from netlab.analysis.result import Evidence, Load, Outcome, Result, TrialResult
from netlab.kubeproxy.remedies import REMEDIES, Remedy
from netlab.record.events import (
    ConntrackEvent,
    DatagramPacket,
    InvalidReason,
    Packet,
    Segment,
    SocketEventKind,
    TraceStep,
    flag_names,
)
from netlab.record.words import describe

FORMAT = 1
"""Grows when a member goes or changes its meaning; new members may come without."""


def render(result: Result) -> str:
    """The object, indented by two, ending in a newline."""
    return escapes.as_json(members(result))


def members(result: Result) -> dict[str, Any]:
    """The object's members."""
    found: dict[str, Any] = {
        "format": FORMAT,
        "result": result.result,
        "experiment": result.experiment,
        "claim": result.claim,
        "lab": result.lab,
        "fixes": list(result.fixes),
        "kernel": result.kernel,
        "expected": result.expected,
        "claim_is": result.claim_is,
        "prevents": result.prevents,
        "outcomes": {outcome: result.count(outcome) for outcome in Outcome},
        "reset_rate": _reset_rate(result),
        "advice": _advice(result),
        "trials": [trial_members(number, each) for number, each in enumerate(result.trials, 1)],
    }
    if rate := result.per_thousand():
        found["resets_per_thousand"] = {
            "connections": rate.connections,
            "resets": rate.resets,
            "rate": round(rate.rate, 3),
            "confidence": 0.95,
            "low": round(rate.low, 3),
            "high": round(rate.high, 3),
        }
    return found


def _advice(result: Result) -> dict[str, Any]:
    """What the document says of each fix, and netlab of those that come with it."""
    advice = result.advice
    return {
        "fixes": [
            {"name": name, "expected": outcome, **(_remedy(REMEDIES[name]) if name in REMEDIES else {})}
            for name, outcome in advice.outcomes
        ],
        "kernels": advice.kernels,
        "remedy": advice.remedy,
        "see": _links(advice.see),
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return remedy._asdict() | {"see": _links(remedy.see)}


def _links(see: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"text": text, "url": address} for text, address in see]


def _reset_rate(result: Result) -> dict[str, Any] | None:
    interval = result.reset_rate()
    if interval is None:
        return None
    low, high = interval
    return {"confidence": 0.95, "low": round(low, 6), "high": round(high, 6)}


def trial_members(number: int, trial: TrialResult) -> dict[str, Any]:
    """One trial as it stands among a run's."""
    flow = trial.flow
    members = {
        "number": number,
        "outcome": trial.outcome,
        "missing": list(trial.missing),
        "refuted": trial.refuted or None,
        "started": _time(trial.started_ns),
        "duration_s": round(trial.duration_s, 6),
        "bytes_received": trial.bytes_received,
        "payload_bytes": trial.payload_bytes,
        "events_lost": trial.lost,
        "invalid": trial.invalid,
        "retransmits": trial.retransmits,
        "client": {"netns": flow.client, "address": str(flow.client_address), "port": flow.client_port},
        "node": {"netns": flow.node},
        "vip": {"address": str(flow.vip), "port": flow.port},
        "server": {"netns": flow.server, "address": str(flow.endpoint), "port": flow.target_port},
        "evidence": [_evidence(piece, trial.started_ns) for piece in trial.evidence],
    }
    return members if trial.load is None else {**members, "load": _load(trial.load)}


def _load(load: Load) -> dict[str, Any]:
    return {
        "connections": load.connections,
        "outcomes": {outcome: load.count(outcome) for outcome in Outcome},
        "late_segments": load.late,
        "segments_logged": load.logged,
        "cpu_percent": load.cpu_percent,
        "unlimited": load.unlimited or None,
        "not_completed": [
            {
                "outcome": other.outcome,
                "missing": list(other.missing),
                "duration_s": round(other.duration_s, 6),
                "bytes_received": other.bytes_received,
                "client_port": other.flow.client_port,
                "evidence": [_evidence(piece, other.started_ns) for piece in other.evidence],
            }
            for other in load.others
        ],
    }


def _evidence(piece: Evidence, started_ns: int) -> dict[str, Any]:
    event = piece.event
    members: dict[str, Any] = {
        "link": piece.link,
        "netns": event.netns,
        "interface": None,
        "time": _time(event.time_ns),
        "elapsed_s": round((event.time_ns - started_ns) / 1e9, 9),
        "note": piece.note,
        "packet": None,
    }
    if isinstance(event, Packet):
        members |= {"interface": event.ifname, "direction": event.direction, "packet": _packet(event.segment, piece)}
    elif isinstance(event, DatagramPacket):
        members |= {"interface": event.ifname, "direction": event.direction, "datagram": describe(event.datagram)}
    elif isinstance(event, InvalidReason):
        members |= {"interface": event.ifname or None, "reason": event.text, "packet": _packet(event.segment, piece)}
    elif isinstance(event, ConntrackEvent):
        members |= {"entry": {"change": event.change, "tcp_state": event.tcp_state, "status": list(event.status)}}
    elif isinstance(event, TraceStep):
        members |= {"rule": {"table": event.table, "chain": event.chain, "verdict": event.verdict}}
    elif event.kind is SocketEventKind.ERROR:
        members |= {"errno": errno.errorcode.get(event.errno, str(event.errno))}
    else:
        members |= {"send_window_bytes": {"before": event.was_bytes, "after": event.window_bytes}}
    return members


def _packet(segment: Segment, piece: Evidence) -> dict[str, Any]:
    return {
        "src": str(segment.src),
        "sport": segment.sport,
        "dst": str(segment.dst),
        "dport": segment.dport,
        "flags": list(flag_names(segment.flags)),
        "seq": segment.seq,
        "ack": segment.ack,
        "relative_seq": piece.relative_seq,
        "relative_ack": piece.relative_ack,
        "window": segment.window,
        "payload_bytes": segment.payload_bytes,
    }


def _time(time_ns: int) -> str:
    """UTC, RFC 3339, with nanoseconds."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
