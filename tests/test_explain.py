"""What is said of a connection, as whole texts: `explained/` has one for each of `stories.py`. And the command."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import stories
from conftest import Netlab
from crossings import Crossings
from private_lab import PrivateLab

from netlab import explain
from netlab.errors import LabError, UsageError
from netlab.experiments.window_overrun import set_stale_window
from netlab.observe.sockets import error_event, tcp_info
from netlab.recorder import Recorder, Source
from netlab.recording import Recording, to_json
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

FLOWS, EACH_BYTES = 50, 1_000_000
VICTIM = 31
LARGE = (("vars.client_window", "1048576"),)


class Crowd:
    """FLOWS connections through the flagship's Service at once, each with EACH_BYTES to come; one has a small window."""

    def __init__(self, lab: PrivateLab, recorder: Recorder) -> None:
        self._lab, self._recorder = lab, recorder
        self._payload = bytes(EACH_BYTES)
        listener = lab.socket("server", socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("10.0.1.2", 80))
        listener.listen(FLOWS)
        self.clients = [self._client(listener, number) for number in range(FLOWS)]
        self.ports = [client.getsockname()[1] for client in self.clients]
        accepted = {peer[1]: server for server, peer in (listener.accept() for _ in range(FLOWS))}
        self.servers = [accepted[port] for port in self.ports]
        self.received, self.sent = [0] * FLOWS, [0] * FLOWS
        self.broken: set[int] = set()
        for sock in (*self.clients, *self.servers):
            sock.setblocking(False)
        self._sockets = [listener, *self.clients, *self.servers]

    def _client(self, _listener: socket.socket, number: int) -> socket.socket:
        client = self._lab.socket("client", socket.AF_INET, socket.SOCK_STREAM)
        if number == VICTIM:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("192.168.0.2", 80))
        return client

    def overrun(self) -> None:
        """Let the victim's server send past its client's window."""
        server = self.servers[VICTIM]
        self.sent[VICTIM] = server.send(self._payload[: 32 * 1024])

        def quiet() -> bool:
            info = tcp_info(server)
            return info.unacked == 0 and info.snd_wnd_bytes < info.snd_mss_bytes

        assert self._recorder.watch.until(quiet, 5.0)
        self._recorder.watch.note(set_stale_window(server, "server"))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def step(self, at_bytes: int) -> bool:
        """Move all connections on, up to that byte; whether they have come so far."""
        for number in range(FLOWS):
            if number in self.broken or (number == VICTIM and at_bytes < EACH_BYTES):
                continue
            try:
                if self.sent[number] < at_bytes:
                    self.sent[number] += self.servers[number].send(self._payload[self.sent[number] : at_bytes][:65536])
            except BlockingIOError:
                pass
            except OSError as error:
                self._broke(number, "server", error)
            try:
                while chunk := self.clients[number].recv(1 << 20):
                    self.received[number] += len(chunk)
            except BlockingIOError:
                pass
            except OSError as error:
                self._broke(number, "client", error)
        others = (count for number, count in enumerate(self.received) if number != VICTIM)
        return all(count >= at_bytes for count in others)

    def _broke(self, number: int, netns: str, error: OSError) -> None:
        self.broken.add(number)
        event = error_event(error.errno or 0, netns)
        self._recorder.watch.note(replace(event, local_port=self.ports[number]) if netns == "client" else event)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def observed_crowd() -> tuple[Recording, int]:
    """A recording of the crowd, and the victim's port."""
    topology = load(FLAGSHIP.read_text(), FLAGSHIP.name, LARGE)
    with PrivateLab(topology) as lab, Recorder(topology, lab, ("client", "client-node", "server"), {80}) as recorder:
        crowd = Crowd(lab, recorder)
        try:
            assert recorder.watch.until(lambda: crowd.step(EACH_BYTES // 2), 60.0)
            crowd.overrun()
            assert recorder.watch.until(lambda: crowd.step(EACH_BYTES), 60.0)
        finally:
            crowd.close()
        recorder.take()
        return recorder.recording(Source(FLAGSHIP.read_text(), LARGE)), crowd.ports[VICTIM]


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
def test_of_fifty_flows_at_once_the_one_that_was_reset_is_explained() -> None:
    recording, port = observed_crowd()
    story = explain.explain(build(recording))
    assert (story.ending, story.flow.client_port, story.others) == (explain.Ending.RESET, port, ())
    text = " ".join(explain.render(story).split())
    pattern = (
        r"-> #(\d+) leaves server: .* INVALID, \"SEQ is over upper bound .* "
        r"-> NAT on client-node skips it: its source stays 10\.0\.1\.2 .* "
        r"-> client knows no connection with 10\.0\.1\.2:80 -> RST #(\d+), seq = #\1's ack .* "
        r"-> #\2 reaches server"
    )
    assert re.search(pattern, text), text
    lost = [(observer, count) for observer, count in recording.lost if count]
    assert [line for line in story.unseen if " lost by " in line] == [
        f"{count:,} events lost by {observer}" for observer, count in lost
    ]
