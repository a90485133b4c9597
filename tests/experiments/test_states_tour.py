"""The tour of conntrack's states, and a connection that is RELATED to another: on the real kernel."""

from __future__ import annotations

import json
import re

import pytest
import skips
from command import Netlab
from flagship import Part, document
from places import TOPOLOGIES
from private_lab import PrivateLab

from netlab.analysis.findings import analyse
from netlab.analysis.result import Outcome, Result
from netlab.capabilities.capability import CAPABILITIES
from netlab.observe.recorder import Source
from netlab.record.events import CounterChange, DatagramPacket, Event
from netlab.record.recording import Recording
from netlab.report import sequence, text
from netlab.report.sequence.diagram import Ladder

TOUR = TOPOLOGIES / "states-tour.yaml"
EXPERIMENTS = ("states-tour", "related-ftp")

pytestmark = pytest.mark.kernel


def run(name: str, fix: str | None = None, text: str | None = None) -> tuple[Part, Result, Recording]:
    part = document(name, fix, text)
    for capability in part.experiment.needs:
        skips.skip_unless_capability(capability)
    with PrivateLab(part.topology) as namespaces:
        return (part, *part.run(namespaces, 1, fix, source=Source(text or TOUR.read_text())))


def drawn(result: Result, recording: Recording) -> Ladder:
    (trial,) = result.trials
    return sequence.build(analyse(recording), trial.flow, trial)


def states(ladder: Ladder) -> list[str]:
    """Each packet of the ladder's: what it is, which way it goes, and its marks."""
    return [
        " ".join(
            [
                arrow.kind[0],
                "to the server:" if arrow.start < arrow.end else "to the client:",
                *(mark.word for mark in arrow.marks),
            ]
        )
        for arrow in ladder.arrows()
    ]


def counted(events: tuple[Event, ...]) -> dict[str, int]:
    changes = [event for event in events if isinstance(event, CounterChange)]
    return {change.name: change.by for change in changes if change.name.startswith("tour.")}


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", [None, "drop-invalid", "be-liberal", "nftables-mode", "notrack"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_trial_ends_as_its_document_expects(name: str, fix: str | None) -> None:
    part, result, _ = run(name, fix)
    expected = part.experiment.expected((fix,) if fix else (), tuple(CAPABILITIES))
    assert [(trial.outcome, trial.missing) for trial in result.trials] == [(expected, ())]


@pytest.mark.usefixtures("as_root")
def test_the_ladder_shows_a_packet_of_each_state_and_rules_count_them() -> None:
    _, result, recording = run("states-tour")
    ladder = drawn(result, recording)
    assert states(ladder) == [
        "UDP packet to the server: NAT NEW",
        "ICMP port unreachable packet to the client: NAT RELATED",
        "SYN to the server: NAT NEW",
        "SYN to the client: NAT ESTABLISHED",
        "ACK to the server: NAT ESTABLISHED",
        "data segment to the server: NAT ESTABLISHED",
        "ACK to the client: NAT ESTABLISHED",
        "data segment to the client: NAT ESTABLISHED",
        "ACK to the server: NAT ESTABLISHED",
        "data segment to the client: INVALID",
        "data segment to the client: INVALID",
        "RST to the server: INVALID",
    ]
    # The two canaries are INVALID, too.
    assert counted(recording.events) == {"tour.NEW": 2, "tour.RELATED": 1, "tour.ESTABLISHED": 6, "tour.INVALID": 5}
    error = next(arrow for arrow in ladder.arrows() if arrow.kind[0].startswith("ICMP"))
    port = next(event for event in recording.events if isinstance(event, DatagramPacket)).datagram.header.sport
    assert error.notes == (
        f"about the packet 10.0.0.2:{port} > 10.0.1.2:53 (udp)",
        "NAT on node: source 10.0.1.2 becomes 192.168.0.3, and the packet that it quotes, too",
    )


@pytest.mark.usefixtures("as_root")
def test_the_ladder_shows_the_connection_that_was_announced() -> None:
    _, result, recording = run("related-ftp")
    assert result.count(Outcome.COMPLETED) == 1
    assert result.trials[0].payload_bytes == 0  # no step has the server's program send anything
    assert text.render(result).splitlines()[-1] == f"  | {'completed':<36}|{'':<38}|"
    ladder = drawn(result, recording)
    data = [arrow for arrow in ladder.arrows() if "(:30000)" in arrow.words]
    assert [(arrow.kind[0], [mark.word for mark in arrow.marks]) for arrow in data[:2]] == [
        ("SYN", ["NAT", "RELATED"]),
        ("SYN", ["NAT", "ESTABLISHED"]),
    ]
    assert re.fullmatch(
        r"a connection of its own, 10\.0\.0\.2:\d+ to 192\.168\.0\.4:30000, which conntrack expected: RELATED",
        data[0].notes[0],
    )
    # "10,0,1,2" becomes "192,168,0,4" on the way.
    assert [note for arrow in ladder.arrows() for note in arrow.notes if "helper" in note] == [
        "conntrack's helper on node rewrote what it carries: len 45 becomes 48"
    ]
    assert not [arrow for arrow in ladder.arrows() if arrow.marked("DROP")]
    assert counted(recording.events)["tour.RELATED"] == 1


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_over_ipv6(name: str) -> None:
    text = TOUR.read_text()
    for ipv4, ipv6 in (
        (r"192\.168\.0\.(\d)", r'"fd00:ffff::\1"'),
        (r"10\.0\.0\.(\d)/24", r'"fd00:a::\1/64"'),
        (r"10\.0\.1\.(\d)/24", r'"fd00:b::\1/64"'),
    ):
        text = re.sub(ipv4, ipv6, text)
    _, result, recording = run(name, text=text)
    assert [trial.missing for trial in result.trials] == [()]
    assert counted(recording.events)["tour.RELATED"] == 1


@pytest.mark.usefixtures("as_root")
def test_the_helper_goes_with_the_trial() -> None:
    part = document("related-ftp")
    skips.skip_unless_capability("ftp-helper")
    with PrivateLab(part.topology) as namespaces:
        part.run(namespaces, 1)
        assert "netlab_helper" not in namespaces.run("node", "nft", "list", "tables")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_run_plays_them_rootless_too(netlab: Netlab, lab_name: str, privilege: str, name: str) -> None:
    options = ("--name", lab_name, privilege, "--trials", "2", "--experiment", name)
    done = netlab("run", TOUR, *options, "--format", "json")
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stderr) == (0, "")
    expected = json.loads(done.stdout)["expected"]
    assert [(trial["outcome"], trial["missing"]) for trial in json.loads(done.stdout)["trials"]] == [(expected, [])] * 2
