"""Fifty downloads at once through a lab's Service, one of them with a stale window: traffic in which to find one flow.

All sockets are this process's, each of its own namespace, driven by the thread that reads the observers.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from netlab.experiments.experiment import Experiment
from netlab.experiments.roles import assign
from netlab.experiments.stimuli.stale_window import set_stale_window
from netlab.model import Topology
from netlab.observe import Namespaces
from netlab.observe.recorder import Recorder, Source
from netlab.observe.sockets import error_event, tcp_info
from netlab.record.events import SocketEvent
from netlab.record.recording import Recording

_CHUNK_BYTES = 65536
BURST_BYTES = 32768
_SETUP_TIMEOUT_S, _TRANSFER_TIMEOUT_S = 10.0, 120.0


@dataclass(frozen=True, slots=True)
class Downloads:
    """What became of it: the recording, the client port with the stale window, bytes received by client port."""

    recording: Recording
    victim_port: int
    received: dict[int, int]


class _Download:
    """One connection: the server writes, the client reads."""

    def __init__(self, client: socket.socket, server: socket.socket, size_bytes: int) -> None:
        self.client, self.server = client, server
        self.port, self.server_port = int(client.getsockname()[1]), int(server.getsockname()[1])
        self.left, self.received = size_bytes, 0
        self.errors: list[SocketEvent] = []
        self.done = False

    def write(self, most_bytes: int, netns: str) -> None:
        try:
            while self.left and most_bytes > 0:
                sent = self.server.send(bytes(min(self.left, most_bytes, _CHUNK_BYTES)))
                self.left, most_bytes = self.left - sent, most_bytes - sent
            if not self.left:
                self.server.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # shut down before
                self.errors.append(error_event(error.errno or 0, netns, self.server_port, self.port))
                self.left = 0

    def read(self, netns: str) -> None:
        try:
            while chunk := self.client.recv(_CHUNK_BYTES):
                self.received += len(chunk)
            self.done = True
        except BlockingIOError:
            pass
        except OSError as error:
            self.errors.append(error_event(error.errno or 0, netns, self.port))
            self.done = True


def download(
    topology: Topology, experiment: Experiment, namespaces: Namespaces, flows: int = 50, size_bytes: int = 200_000
) -> Downloads:
    """Make the traffic in a lab that is up, observed by everything; the flow in the middle gets the stale window."""
    roles = assign(topology, experiment)
    with ExitStack() as stack:
        ports = {roles.port, roles.target_port}
        recorder = stack.enter_context(Recorder(topology, namespaces, roles.netns, ports))
        listener = stack.enter_context(namespaces.socket(roles.server, socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * BURST_BYTES)
        listener.bind((str(roles.endpoint), roles.target_port))
        listener.listen(flows)
        downloads = []
        for _ in range(flows):
            client = stack.enter_context(namespaces.socket(roles.client, socket.AF_INET, socket.SOCK_STREAM))
            client.settimeout(_SETUP_TIMEOUT_S)
            client.connect((str(roles.vip), roles.port))
            server = stack.enter_context(listener.accept()[0])
            client.setblocking(False)
            server.setblocking(False)
            downloads.append(_Download(client, server, size_bytes))
        victim = downloads[flows // 2]
        _overrun(recorder, victim, roles.server)
        finished = recorder.watch.until(
            lambda: _step(downloads, recorder, roles.client, roles.server), _TRANSFER_TIMEOUT_S, _sockets(downloads)
        )
        assert finished, "the downloads did not end in time"
        recorder.sample_sockets()
        recorder.note_counters()
        recorder.take()
        received = {download.port: download.received for download in downloads}
        return Downloads(recorder.recording(Source()), victim.port, received)


def _overrun(recorder: Recorder, victim: _Download, netns: str) -> None:
    """The victim's client doesn't read until its window is full; then the server's socket gets the stale window."""
    victim.write(BURST_BYTES, netns)

    def quiet() -> bool:
        info = tcp_info(victim.server)
        return info.unacked == 0 and info.snd_wnd_bytes < info.snd_mss_bytes

    assert recorder.watch.until(quiet, _SETUP_TIMEOUT_S), "the victim's window did not close"
    recorder.watch.note(set_stale_window(victim.server, netns))
    victim.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _sockets(downloads: Sequence[_Download]) -> list[socket.socket]:
    return [download.client for download in downloads]


def _step(downloads: Sequence[_Download], recorder: Recorder, client: str, server: str) -> bool:
    for download in downloads:
        if not download.done or download.left:
            download.write(_CHUNK_BYTES, server)
            download.read(client)
        for event in download.errors:
            recorder.watch.note(event)
        download.errors.clear()
    return all(download.done for download in downloads)
