"""What is said of a connection, as whole texts: `explained/` has one for each of `stories.py`. And the command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import stories
from command import Netlab
from downloads import download
from flagship import part
from hops import Hops, other_flow
from places import DATA, TOPOLOGIES
from private_lab import PrivateLab
from story import FLOW, START_NS

from netlab.analysis import explain
from netlab.analysis.findings import Ending, analyse
from netlab.conntrack.kernels import DECIDING
from netlab.errors import LabError, UsageError
from netlab.observe import recorder
from netlab.record.events import ACK, RST, SYN, SocketEvent, SocketEventKind
from netlab.record.observers import describe_observer
from netlab.record.recording import to_json
from netlab.report import explanation
from netlab.topology import load

EXPLAINED = DATA / "explained"
FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"
STORIES = (
    *("reset", "without_log", "with_losses", "without_node", "dropped", "liberal"),
    *(
        "completed",
        "stalled",
        "aborted",
        "expired",
        "remade",
        "strict",
        "crowd",
        "corrupted",
        "forged",
        "overtaken",
    ),
    *("reconnected", "reconnecting", "rescaled"),
)


@pytest.mark.parametrize("name", STORIES)
def test_a_story(name: str) -> None:
    text = explanation.render(explain.explain(analyse(getattr(stories, name)())))
    assert text == (EXPLAINED / f"{name}.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [1, 60, 132])
def test_another_width(width: int) -> None:
    text = explanation.render(explain.explain(analyse(stories.reset())), width)
    assert max(map(len, text.splitlines())) <= max(width, 60)
    assert " ".join(text.split()) == " ".join((EXPLAINED / "reset.txt").read_text().split())


def test_a_flow_by_name() -> None:
    findings = analyse(stories.crowd())
    third = explain.explain(findings, "10.0.0.2:40002")
    assert (third.ending, third.flow.client_port) == (Ending.RESET, 40002)
    assert third.others == ("10.0.0.2:40001 > 192.168.0.2:80 (endpoint 10.0.1.2:8080)",)
    assert {step.number for step in third.chain if step.number} == {24, 25}
    first = explain.explain(findings, "10.0.0.2:40000")
    assert first.ending is Ending.COMPLETED
    assert len(first.others) == 2


def test_a_flow_that_is_not_there() -> None:
    with pytest.raises(UsageError) as error:
        explain.explain(analyse(stories.crowd()), "10.0.0.2:1")
    assert str(error.value) == (
        "no flow of 10.0.0.2:1 was seen\n  hint: those that were: 10.0.0.2:40000, 10.0.0.2:40001, 10.0.0.2:40002"
    )


def test_no_flow_at_all() -> None:
    with pytest.raises(LabError, match="there is no connection to explain"):
        explain.explain(analyse(Hops().recording(flows=())))


def test_without_a_reset_the_first_that_did_not_complete_is_told() -> None:
    first, second = FLOW, other_flow()
    hops = Hops().opened(first).closed(2000, 1).opened(second, 5)
    story = explain.explain(analyse(hops.recording(flows=(first, second))))
    assert (story.flow.client_port, story.ending, story.others) == (40001, Ending.UNFINISHED, ())


def test_else_the_first_of_all() -> None:
    hops = Hops().opened().closed(2000, 1)
    story = explain.explain(analyse(hops.recording(flows=(FLOW, other_flow()))))
    assert (story.flow.client_port, story.ending) == (40000, Ending.COMPLETED)


def test_a_reset_that_only_its_socket_told_of_goes_before_what_did_not_complete() -> None:
    hops = Hops().opened().opened(other_flow(), 5)
    kind = SocketEventKind.ERROR
    hops.events.append(SocketEvent(START_NS + 500_000, "client", kind, errno=104, local_port=40001, peer_port=80))
    story = explain.explain(analyse(hops.recording(flows=(FLOW, other_flow()))))
    assert (story.flow.client_port, story.ending) == (40001, Ending.RESET_BY_PEER)


def test_of_two_connections_of_one_port_the_reset_one_is_told_or_that_of_the_trial() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    hops.to_server(9000, SYN, 500_000)
    hops.to_client(9100, SYN | ACK, 900_000, 500_001)
    findings = analyse(hops.recording())
    assert explain.explain(findings).ending is Ending.RESET_BY_PEER
    for begun_us, expected in ((0, Ending.RESET_BY_PEER), (8000, Ending.UNFINISHED)):
        within_ns = (START_NS + begun_us * 1000, START_NS + (begun_us + 2000) * 1000)
        assert explain.explain(findings, within_ns=within_ns).ending is expected


def test_a_disagreement_is_told() -> None:
    recording = stories.reset()
    events = tuple(event for event in recording.events if getattr(event, "text", "") != stories.OVER)
    differs = f'#8: the model expects "{stories.OVER}", and the kernel logged nothing'
    probed = tuple((name, True) for name in DECIDING)
    story = explain.explain(analyse(replace(recording, events=events, capabilities=probed)))
    assert story.disagreements == (differs,)
    # What was not probed is told: it may be why they disagree.
    story = explain.explain(analyse(replace(recording, events=events, capabilities=probed[1:])))
    assert story.disagreements == (differs, f"not probed on that kernel, and taken from its release: {DECIDING[0]}")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_on_a_recording(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    file.write_text(json.dumps(to_json(stories.reset())))
    done = netlab("explain", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (EXPLAINED / "reset.txt").read_text()
    told = json.loads(netlab("explain", file, "--format", "json", "--flow", "10.0.0.2:40000").stdout)
    assert (told["ending"], told["packets"]) == ("reset", 11)
    assert told["flow"]["client"] == {"netns": "client", "address": "10.0.0.2", "port": 40000}
    assert told["chain"][1] == {
        "text": "#8 leaves server: PSH,ACK 4,000 bytes, seq 3000, ack 5",
        "packet": 8,
        "time_ns": 1_700_000_000_000_700_000,
    }


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"is": "Tap"}', '{"is": "Recording"}', "[" * 5000])
def test_a_file_that_is_no_recording(netlab: Netlab, tmp_path: Path, text: str) -> None:
    file = tmp_path / "what.json"
    file.write_text(text)
    done = netlab("explain", file)
    assert done.returncode == 2
    assert done.stderr == (
        f"netlab: {file} is neither a bundle nor a recording\n  hint: `netlab run --bundle FILE` writes a bundle\n"
    )


def test_a_file_is_not_watched(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    file.write_text(json.dumps(to_json(stories.reset())))
    done = netlab("explain", file, "--for", "3")
    assert (done.returncode, done.stderr) == (2, "netlab: --for is how long to watch a lab, and this is a file\n")


# --- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
def test_of_fifty_flows_at_once_the_one_that_was_reset_is_explained() -> None:
    topology = load(FLAGSHIP.read_text(), FLAGSHIP.name)
    with PrivateLab(topology) as namespaces:
        traffic = download(topology, part().experiment, namespaces)
    recording = traffic.recording
    findings = analyse(recording)
    story = explain.explain(findings)
    assert (len(findings.timeline.flows), story.ending) == (50, Ending.RESET)
    assert (story.flow.client_port, story.others) == (traffic.victim_port, ())
    text = " ".join(explanation.render(story).split())
    pattern = (
        r"#(\d+) leaves server: .* INVALID, \"SEQ is over upper bound .* "
        r"-> NAT on client-node skips it: its source stays 10\.0\.1\.2 .* "
        r"-> client knows no connection with 10\.0\.1\.2:80 -> RST #(\d+), seq = #\1's ack .* "
        r"-> #\2 reaches server"
    )
    assert re.search(pattern, text), text
    lost = [(observer, count) for observer, count in recording.lost if count]
    assert [line for line in story.unseen if " lost by " in line] == [
        f"{count:,} events lost by {describe_observer(observer)}" for observer, count in lost
    ]


SERVER = """
import socket, struct
listener = socket.create_server(("10.0.1.2", 80))
print("ready", flush=True)
while True:
    peer, _ = listener.accept()
    peer.recv(4)
    # Closing with l_linger 0 sends a RST.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
"""
CLIENT = """
import socket
with socket.create_connection(("192.168.0.2", 80)) as sock:
    sock.send(b"GET\\n")
    try:
        sock.recv(1)
    except ConnectionResetError:
        print("reset")
"""


def spawn(netlab: Netlab, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        netlab.argv(*arguments),
        env=netlab.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.kernel
def test_a_lab_is_watched_until_a_connection_is_reset(netlab: Netlab, lab_name: str, privilege: str) -> None:
    own_server = ("--set", "namespaces.server.programs=[]")
    done = netlab("up", FLAGSHIP, "--name", lab_name, privilege, "-q", *own_server)
    assert done.returncode == 0, done.stderr
    with spawn(netlab, "exec", "server", "--", sys.executable, "-c", SERVER) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            with spawn(netlab, "explain", lab_name, "--for", "20") as watching:
                assert watching.stderr is not None
                assert watching.stderr.readline() == (
                    f"watching {lab_name} until a connection is reset, for 20 s at most; Ctrl-C ends it\n"
                )
                assert netlab("exec", "client", "--", sys.executable, "-c", CLIENT).stdout == "reset\n"
                told, errors = watching.communicate(timeout=30)
        finally:
            server.terminate()
    assert (watching.returncode, errors) == (0, "")
    text = " ".join(told.split())
    assert re.match(r"RESET BY PEER: 10\.0\.0\.2:\d+ > 192\.168\.0\.2:80 \(endpoint 10\.0\.1\.2:80\)", text), text
    gave_up = r"server aborts the connection itself: RST #(\d+) to client .* -> #\1 reaches client"
    assert re.search(gave_up, text), text
    assert "disagree" not in text


@pytest.mark.kernel
def test_ctrl_c_ends_the_watching_and_explains_what_was_seen(netlab: Netlab, lab_name: str, privilege: str) -> None:
    done = netlab("up", FLAGSHIP, "--name", lab_name, privilege, "-q")
    assert done.returncode == 0, done.stderr
    with spawn(netlab, "explain", lab_name) as watching:
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith(f"watching {lab_name}")
        watching.send_signal(signal.SIGINT)
        told, errors = watching.communicate(timeout=20)
    assert (watching.returncode, told) == (1, "")
    assert errors == (
        "netlab: there is no connection to explain\n  hint: no TCP connection was seen while the lab was observed\n"
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
def test_what_was_lost_is_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings of 64 packets, which fifty flows overrun at once."""
    monkeypatch.setattr(recorder, "_MOST_SLOTS", 64)
    monkeypatch.setattr(recorder, "_LEAST_SLOTS", 64)
    topology = load(FLAGSHIP.read_text(), FLAGSHIP.name)
    with PrivateLab(topology) as namespaces:
        recording = download(topology, part().experiment, namespaces, size_bytes=100_000).recording
    findings = analyse(recording)
    story = explain.explain(findings)
    lost = [f"{count:,} events lost by {describe_observer(observer)}" for observer, count in recording.lost if count]
    assert len(lost) >= 3
    assert [line for line in story.unseen if " lost by " in line] == lost
    assert [gap.netns for gap in findings.timeline.unverified if "packets were lost there" in gap.why] == [
        "client-node"
    ]
    assert (findings.timeline.disagreements, {path.checks for path in findings.timeline.paths}) == ((), {()})
