"""Observers by their ids: in words, in recordings of both formats; and a recording's topology, read once."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from typing import Any

import pictures
import pytest
from places import ROOT

from netlab.errors import NetlabError
from netlab.record import format1, recording
from netlab.record.observers import (
    Gap,
    ObserverId,
    ObserverKind,
    Unobserved,
    describe_observer,
    describe_unobserved,
)
from netlab.record.recording import Recording, from_json, to_json
from netlab.report import bundle
from netlab.topology import load, load_with_fixes

PACKETS = ObserverId(ObserverKind.PACKETS, "client", "eth0")
NODE, SERVER_NODE, SERVER = "client-node", "server-node", "server"


def test_observers_in_words() -> None:
    observers = [PACKETS, *(ObserverId(kind, NODE) for kind in ObserverKind if kind is not ObserverKind.PACKETS)]
    assert [describe_observer(observer) for observer in observers] == [
        "the packets on client/eth0",
        "conntrack's reasons on client-node",
        "conntrack's events on client-node",
        "the rules' traces on client-node",
        "the rules on client-node",
        "the sockets in client-node",
        "the kernel's reasons for drops",
        "the resets that the kernel sends and accepts",
        "the closed sockets of client-node",
        "the routes and neighbours of client-node",
    ]


def test_what_was_not_observed_in_words() -> None:
    reason = "this kernel has none"
    assert [describe_unobserved(Unobserved(PACKETS, reason, gap)) for gap in Gap] == [
        "the packets on client/eth0: this kernel has none",
        "the packets on client/eth0, which could not be read to the end: this kernel has none",
        "most packets: this kernel has none",
    ]
    assert describe_unobserved(Unobserved(None, reason)) == reason


# --- format 1 --------------------------------------------------------------------------------------------------------

OLD = ROOT / "tests" / "data" / "bundles" / "format-1.zip"
"""Written by da9e62f: a reset of pictures.py, with losses and words of every kind."""


def test_a_bundle_of_format_1_is_read() -> None:
    read = bundle.read(OLD)
    assert read.recording.lost == (
        (PACKETS, 0),
        (ObserverId(ObserverKind.PACKETS, NODE, "veth-client"), 0),
        (ObserverId(ObserverKind.REASONS, NODE), 2),
        (ObserverId(ObserverKind.ENTRIES, NODE), 0),
        (ObserverId(ObserverKind.TRACES, NODE), 0),
    )
    assert read.recording.unobserved == (
        Unobserved(
            ObserverId(ObserverKind.PACKETS, ""),
            "of a connection whose client's port isn't one of 20000 to 27999, what is between its ends",
            Gap.MOST,
        ),
        Unobserved(
            ObserverId(ObserverKind.REASONS, SERVER_NODE), "this kernel has no NFLOG (nfnetlink_log): EOPNOTSUPP"
        ),
        Unobserved(ObserverId(ObserverKind.RULES, SERVER_NODE), "nft: refused"),
        Unobserved(ObserverId(ObserverKind.SOCKETS, SERVER), "this kernel has no sock_diag: Protocol not supported"),
        Unobserved(ObserverId(ObserverKind.TRACES, NODE), "Bad file descriptor", Gap.END),
    )
    with zipfile.ZipFile(OLD) as archive:
        raw = json.loads(archive.read("events.json"))
    assert [describe_unobserved(each) for each in read.recording.unobserved] == raw["blind"]
    assert [[describe_observer(observer), count] for observer, count in read.recording.lost] == raw["lost"]


def test_what_format_1_said_in_other_words_stays_as_it_is() -> None:
    _, whole = pictures.run(pictures.reset())
    raw = {**to_json(whole), "lost": [], "blind": ["nothing: at all"]}
    assert from_json(raw).unobserved == (Unobserved(None, "nothing: at all"),)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lost": [["the weather on client", 0]]}, r"Recording.lost: \['the weather on client', 0\] names no observer"),
        ({"lost": ["x"]}, "Recording.lost: 'x' names no observer"),
        ({"lost": 3}, "Recording.lost or Recording.blind is no list"),
        ({"blind": 3}, "Recording.lost or Recording.blind is no list"),
        ({"blind": [3]}, "Recording.blind: 3 is no str"),
    ],
)
def test_a_damaged_recording_of_format_1(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        format1.upgraded({"lost": [], "blind": [], **changes})


# --- the topology ----------------------------------------------------------------------------------------------------


def test_a_recording_comes_back_from_json_with_its_observers() -> None:
    _, whole = pictures.run(pictures.reset(), lost=((PACKETS, 3),))
    assert from_json(json.loads(json.dumps(to_json(whole)))) == whole


def test_a_topology_that_is_known_is_neither_read_again_nor_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = pictures.run(pictures.reset())
    known = load(whole.topology, "-")
    told = replace(whole, described=known)
    assert told == whole
    assert to_json(told) == to_json(whole)
    monkeypatch.setattr(recording, "load_with_fixes", lambda *_: pytest.fail("it was read"))
    assert told.spec() is known


def test_a_topologys_text_is_read_once_for_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = pictures.run(pictures.reset())
    read = load_with_fixes
    texts: list[str] = []

    def counted(text: str, *rest: Any) -> object:
        texts.append(text)
        return read(text, *rest)

    monkeypatch.setattr(recording, "load_with_fixes", counted)
    changed = replace(whole, topology=f"{whole.topology}\n# another text\n")
    assert changed.spec() is changed.spec() is replace(changed, events=()).spec()
    assert changed.spec().name == whole.lab
    assert texts == [changed.topology]


def test_a_topology_that_cannot_be_read_is_an_error_each_time() -> None:
    _, whole = pictures.run(pictures.reset())
    unreadable: Recording = replace(whole, topology="no: topology")
    raised = []
    for _ in range(2):
        with pytest.raises(NetlabError, match=r"kube-proxy-reset\.yaml") as caught:
            unreadable.spec()
        raised.append(caught.value)
    first, second = raised
    assert first is not second  # with its traceback it would keep what each of its raisers worked on
    assert (type(first), vars(first)) == (type(second), vars(second))
