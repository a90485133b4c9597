"""What is said of a connection, as whole texts: `explained/` has one for each of `stories.py`. And the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import stories
from conftest import Netlab
from crossings import Crossings
from crowd import crowd
from private_lab import PrivateLab

from netlab import explain
from netlab.errors import LabError, UsageError
from netlab.recording import to_json
from netlab.timeline import build
from netlab.topology import load

EXPLAINED = Path(__file__).parent / "explained"
FLAGSHIP = Path(__file__).parent.parent / "topologies" / "kube-proxy-reset.yaml"
STORIES = (
    *("reset", "without_log", "with_losses", "without_node", "dropped", "liberal"),
    *("completed", "stalled", "aborted", "expired", "crowd"),
)


@pytest.mark.parametrize("name", STORIES)
def test_a_story(name: str) -> None:
    text = explain.render(explain.explain(build(getattr(stories, name)())))
    assert text == (EXPLAINED / f"{name}.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [1, 60, 132])
def test_another_width(width: int) -> None:
    text = explain.render(explain.explain(build(stories.reset())), width)
    assert max(map(len, text.splitlines())) <= max(width, 60)
    assert " ".join(text.split()) == " ".join((EXPLAINED / "reset.txt").read_text().split())


def test_a_flow_by_name() -> None:
    timeline = build(stories.crowd())
    third = explain.explain(timeline, "10.0.0.2:40002")
    assert (third.ending, third.flow.client_port) == (explain.Ending.RESET, 40002)
    assert third.others == ("10.0.0.2:40001 > 192.168.0.2:80 (endpoint 10.0.1.2:8080)",)
    assert {step.number for step in third.chain if step.number} == {24, 25}
    first = explain.explain(timeline, "10.0.0.2:40000")
    assert first.ending is explain.Ending.COMPLETED
    assert len(first.others) == 2


def test_a_flow_that_is_not_there() -> None:
    with pytest.raises(UsageError) as error:
        explain.explain(build(stories.crowd()), "10.0.0.2:1")
    assert str(error.value) == (
        "no flow of 10.0.0.2:1 was seen\n  hint: those that were: 10.0.0.2:40000, 10.0.0.2:40001, 10.0.0.2:40002"
    )


def test_no_flow_at_all() -> None:
    with pytest.raises(LabError, match="there is no connection to explain"):
        explain.explain(build(Crossings().recording(flows=())))


def test_a_disagreement_is_told() -> None:
    recording = stories.reset()
    events = tuple(event for event in recording.events if getattr(event, "text", "") != stories.OVER)
    story = explain.explain(build(replace(recording, events=events)))
    assert story.disagreements == (f'#8: the model expects "{stories.OVER}", and the kernel logged nothing',)


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
        traffic = crowd(topology, namespaces)
    recording = traffic.recording
    timeline = build(recording)
    story = explain.explain(timeline)
    assert (len(timeline.flows), story.ending) == (50, explain.Ending.RESET)
    assert (story.flow.client_port, story.others) == (traffic.victim_port, ())
    text = " ".join(explain.render(story).split())
    pattern = (
        r"#(\d+) leaves server: .* INVALID, \"SEQ is over upper bound .* "
        r"-> NAT on client-node skips it: its source stays 10\.0\.1\.2 .* "
        r"-> client knows no connection with 10\.0\.1\.2:80 -> RST #(\d+), seq = #\1's ack .* "
        r"-> #\2 reaches server"
    )
    assert re.search(pattern, text), text
    lost = [(observer, count) for observer, count in recording.lost if count]
    assert [line for line in story.unseen if " lost by " in line] == [
        f"{count:,} events lost by {observer}" for observer, count in lost
    ]
