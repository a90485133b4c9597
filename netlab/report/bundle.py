"""A bundle: all of one run in a file, to be looked at anywhere. docs/bundle.md says what is in it.

A zip whose members come in the same order with the same date, so that the same run makes the same bytes. `events.json`
and `judged.json` are what it is read from; everything else is for people and their other tools.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from netlab.analysis.result import Result
from netlab.errors import UsageError
from netlab.kubeproxy import ruleset
from netlab.lab import plan
from netlab.linux.files import write_whole
from netlab.model import Mode, Topology
from netlab.record import codec
from netlab.record.events import DatagramPacket, Packet
from netlab.record.recording import Recording, recording_from_json
from netlab.report import html, packets, text
from netlab.report import json as report_json

FORMAT = 2
"""Grows when a reader of the former one could not understand a bundle any more; new members may come without."""

_KIND = "netlab bundle"
_MANIFEST, _EVENTS, _JUDGED = "manifest.json", "events.json", "judged.json"
_NOT_TEXT = ".pcapng"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run depended on beside its topology.

    kernel is JSON: version, configuration, modules. sysctls are the values by name, rules what `nft list ruleset`
    says, both by namespace.
    """

    kernel: Mapping[str, Any]
    sysctls: Mapping[str, Mapping[str, str]]
    rules: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read. The recording's packets have no frames: those are in packets.pcapng.

    texts are all other members by their names, as they are.
    """

    recording: Recording
    result: Result
    texts: Mapping[str, str]


def write(path: Path, topology: Topology, result: Result, recording: Recording, facts: Facts) -> None:
    """Write a bundle, whole or not at all; OSError."""
    write_whole(path, pack(contents(topology, result, recording, facts), recording.ended_ns))


def contents(topology: Topology, result: Result, recording: Recording, facts: Facts) -> dict[str, bytes]:
    """The members by name, in their order. topology is what the run was of, with its fixes."""
    steps = plan.up(topology)
    texts = {
        "report.txt": text.render(result),
        "report.html": html.render(result, recording),
        "result.json": report_json.render(result),
        "topology.yaml": recording.topology,
        **({"experiment.yaml": recording.experiment} if recording.experiment else {}),
        "plan.txt": plan.as_text(steps, f"{topology.name}-"),
        "plan.sh": plan.as_shell(steps, topology),
        **_rules(topology, facts),
        "sysctls.json": _json(facts.sysctls),
        "kernel.json": _json(facts.kernel),
        _EVENTS: _json(codec.to_json(_without_frames(recording)), indent=None),
        _JUDGED: _json(codec.to_json(result), indent=None),
    }
    manifest = {
        "is": _KIND,
        "format": FORMAT,
        "lab": result.lab,
        "experiment": result.experiment,
        "result": result.result,
        "fixes": list(result.fixes),
        "settings": [f"{path}={value}" for path, value in (*recording.settings, *recording.experiment_settings)],
        "kernel": result.kernel,
        "began": _time(recording.started_ns),
        "ended": _time(recording.ended_ns),
    }
    return {
        _MANIFEST: _json(manifest).encode(),
        **{name: content.encode() for name, content in texts.items()},
        "packets.pcapng": packets.render(result, recording),
    }


def pack(members: Mapping[str, bytes], time_ns: int) -> bytes:
    """The members as a zip, each dated with the time."""
    date = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (max(date.year, 1980), *date.timetuple()[1:6]))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return file.getvalue()


def is_bundle(path: Path) -> bool:
    """Whether the file may be one: it is a zip."""
    return zipfile.is_zipfile(path)


def read(path: Path) -> Bundle:
    """A bundle from its file; UsageError, saying why, for a file that is none, is damaged, or is of a newer format."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, path)
            if manifest["format"] > FORMAT:
                raise UsageError(
                    f"{path} is a bundle of format {manifest['format']}; this netlab understands {FORMAT} and less",
                    "read it with the netlab that wrote it, or a newer one",
                )
            recording = recording_from_json(json.loads(archive.read(_EVENTS)))
            result = codec.from_json(json.loads(archive.read(_JUDGED)), Result)
            names = [name for name in archive.namelist() if not name.endswith((_NOT_TEXT, "/", _EVENTS, _JUDGED))]
            return Bundle(recording, result, {name: archive.read(name).decode() for name in names})
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except KeyError as error:
        raise UsageError(f"{path} is damaged: {error.args[0]}") from error
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path} is no bundle, or is damaged: {error}") from error
    # What zipfile raises beside BadZipFile: encryption, a compression it doesn't know; and JSON that nests too deep.
    except (ValueError, EOFError, zlib.error, RuntimeError, NotImplementedError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if _MANIFEST in archive.namelist():
        manifest = json.loads(archive.read(_MANIFEST))
        if isinstance(manifest, dict) and manifest.get("is") == _KIND and isinstance(manifest.get("format"), int):
            return manifest
    raise UsageError(f"{path} is no bundle", "`netlab run --bundle FILE` writes one")


def _rules(topology: Topology, facts: Facts) -> dict[str, str]:
    """What kube-proxy's nodes were given, in both spellings, and what the kernel then listed where there was any."""
    found = {}
    for netns in topology.namespaces:
        if (wanted := ruleset(topology, netns.name)) is not None:
            found[f"rules/{netns.name}.nft"] = wanted.nft()
            if topology.kube_proxy.mode is Mode.IPTABLES:
                found[f"rules/{netns.name}.iptables-save"] = wanted.iptables_save()
        if listed := facts.rules.get(netns.name):
            found[f"rules/{netns.name}.listed"] = listed
    return found


def _without_frames(recording: Recording) -> Recording:
    events = tuple(
        replace(event, frame=b"") if isinstance(event, Packet | DatagramPacket) and event.frame else event
        for event in recording.events
    )
    return replace(recording, events=events)


def _json(value: Any, indent: int | None = 2) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
