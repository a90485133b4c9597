"""A bundle: all of one run in a file, to be looked at anywhere. docs/bundle.md says what is in it. Pure.

A zip whose members come in the same order with the same date, so that the same run makes the same bytes. `events.json`
and `judged.json` are what it is read from; everything else is for people and their other tools. What those say is
`report/bundle.py`'s to write, the format is this file's.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from netlab.errors import UsageError
from netlab.record import archive, codec
from netlab.record.events import DatagramPacket, Packet
from netlab.record.recording import Recording, from_json, recording_from_json

FORMAT = 2
"""Grows when a reader of the former one could not understand a bundle any more; new members may come without."""

_KIND = "netlab bundle"


class Member:
    """The members, but those of `rules_of`."""

    MANIFEST = "manifest.json"
    REPORT = "report.txt"
    PAGE = "report.html"
    RESULT = "result.json"
    TOPOLOGY = "topology.yaml"
    EXPERIMENT = "experiment.yaml"
    PLAN = "plan.txt"
    SCRIPT = "plan.sh"
    SYSCTLS = "sysctls.json"
    KERNEL = "kernel.json"
    EVENTS = "events.json"
    JUDGED = "judged.json"
    FRAMES = "frames.json"
    PACKETS = "packets.pcapng"
    ALL_PACKETS = "all-packets.pcapng"
    """Its name ends like the other's: a reader passes over both, one that is older too."""


def rules_of(netns: str, spelling: str) -> str:
    """The member with a namespace's rules; spelling is "nft", "iptables-save", or "listed": what the kernel says."""
    return f"rules/{netns}.{spelling}"


_MOST_JSON_BYTES = 96 << 20
_MOST_TEXT_BYTES = 64 << 20
_AGAIN = "get the file again, or run again with `netlab run --bundle FILE`"

_NOT_TEXT = (Member.PACKETS, Member.EVENTS, Member.JUDGED, "/")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle was read to. The recording's packets have no frames: those are in packets.pcapng.

    judged is the result as `codec.to_json` wrote it; texts are all other members by their names, as they are.
    """

    recording: Recording
    judged: Any
    texts: Mapping[str, str]


def manifest(about: Mapping[str, Any]) -> bytes:
    """The first member, which says what this is, and what is told about the run."""
    return as_json({"is": _KIND, "format": FORMAT, **about}).encode(errors="backslashreplace")


def pack(members: Mapping[str, bytes], time_ns: int) -> bytes:
    """The members as a zip, each dated with the time."""
    date = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (max(date.year, 1980), *date.timetuple()[1:6]))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            made.writestr(info, content)
    return file.getvalue()


def as_json(value: Any, indent: int | None = 2) -> str:
    """JSON as it stands in a member."""
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"


def events(recording: Recording) -> str:
    """The member events.json: the recording, but the frames of its packets."""
    without_frames = tuple(
        replace(event, frame=b"") if isinstance(event, Packet | DatagramPacket) and event.frame else event
        for event in recording.events
    )
    return as_json(codec.to_json(replace(recording, events=without_frames)), indent=None)


def is_bundle(path: Path) -> bool:
    """Whether the file may be one: it is a zip."""
    return zipfile.is_zipfile(path)


def read(path: Path) -> Contents:
    """What is in a bundle's file; UsageError, saying why, for one that is none, is damaged, or is of a newer format."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file", "`netlab run --bundle FILE` writes a bundle")
    with damage_named(path), archive.opened(path) as members:
        number = _format(members, path)
        if number > FORMAT:
            raise UsageError(
                f"{path} is a bundle of format {number}; this netlab understands {FORMAT} and less",
                "read it with the netlab that wrote it, or a newer one",
            )
        with _place(Member.EVENTS):
            recording = recording_from_json(codec.parse(members.read(Member.EVENTS, _MOST_JSON_BYTES)))
        with _place(Member.JUDGED):
            judged = codec.parse(members.read(Member.JUDGED, _MOST_JSON_BYTES))
        texts: dict[str, str] = {}
        room = _MOST_TEXT_BYTES
        for name in members.names:
            if not name.endswith(_NOT_TEXT):
                data = members.read(name, room)
                room -= len(data)
                texts[name] = data.decode()
        return Contents(recording, judged, texts)


def recording_of(path: Path) -> Recording:
    """The recording in a bundle, or in a file of its own as JSON; UsageError where there is none."""
    if is_bundle(path):
        return read(path).recording
    try:
        with path.open("rb") as file:
            recording = from_json(codec.parse(file.read(_MOST_JSON_BYTES)))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is neither a bundle nor a recording", "`netlab run --bundle FILE` writes a bundle"
        ) from error
    if not isinstance(recording, Recording):
        raise UsageError(f"{path} is no recording, but a {type(recording).__name__}")
    return recording


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """What a file that is no sound bundle raises becomes a UsageError that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except archive.ArchiveError as error:
        raise UsageError(f"{path} is not a bundle, or is damaged: {error}", _AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: {error}", _AGAIN) from error


@contextmanager
def _place(member: str) -> Iterator[None]:
    """What is wrong in here is told with the member's name."""
    try:
        yield
    except archive.ArchiveError:
        raise
    except ValueError as error:
        raise ValueError(f"{member}: {error}") from error


def _format(members: archive.Archive, path: Path) -> int:
    if Member.MANIFEST in members.names:
        match codec.parse(members.read(Member.MANIFEST, _MOST_TEXT_BYTES)):
            case {"is": kind, "format": int(number)} if kind == _KIND:
                return number
    raise UsageError(f"{path} is not a bundle", "`netlab run --bundle FILE` writes one")
