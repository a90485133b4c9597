"""Capabilities: each probe held against what programs or sockets that know nothing of it find on the same kernel."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import skips

from netlab import capabilities
from netlab.capabilities import PROBES, scratch
from netlab.capability import CAPABILITIES, Capability
from netlab.errors import NetlabError
from netlab.events import ACK, PSH, SYN, Segment
from netlab.wire import decode_ip

ETH_P_IP = 0x0800


def test_every_capability_is_probed() -> None:
    assert list(PROBES) == list(CAPABILITIES)


def test_an_unknown_name_is_the_callers_mistake() -> None:
    with pytest.raises(KeyError, match="no-such-thing"):
        capabilities.probe(["no-such-thing"])


def test_the_page_has_every_capability_with_its_meaning() -> None:
    page = (Path(__file__).parent.parent / "docs" / "capabilities.md").read_text()
    assert dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", page, re.MULTILINE)) == CAPABILITIES


# --- an attempt ------------------------------------------------------------------------------------------------------


def test_attempt_that_fails_is_an_answer_and_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> str:
        raise NetlabError("it can't\nbecause of this", "do without")

    outcome = scratch.attempt(body, enter=False)
    assert isinstance(outcome, NetlabError)
    assert (outcome.message, outcome.hint) == ("it can't", "do without")
    assert capfd.readouterr() == ("", "")


def test_attempt_that_dies_is_an_answer() -> None:
    def body() -> str:
        os._exit(3)

    assert str(scratch.attempt(body, enter=False)) == "the probe ended without an answer"


def test_attempt_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "TIMEOUT_S", 0.05)
    read, write = os.pipe()

    def body() -> str:
        os.close(write)
        return os.read(read, 1).decode()

    assert str(scratch.attempt(body, enter=False)) == "the kernel gave no answer in time"
    os.close(read)
    os.close(write)


# --- probes on this kernel -------------------------------------------------------------------------------------------


@pytest.fixture
def userns() -> None:
    """Skips the test unless this user can make a network namespace."""
    if os.geteuid() != 0:
        skips.skip_unless_userns()


def probed(name: str) -> bool:
    return capabilities.probe([name])[name].there


def in_scratch(body: Callable[[], object]) -> Any:
    """What body returns, as JSON brings it over, called in a network namespace of its own."""
    outcome = scratch.attempt(lambda: json.dumps(body()))
    if isinstance(outcome, NetlabError):
        raise outcome
    return json.loads(outcome)


def surroundings() -> list[object]:
    """What a probe could change in the process that calls it, or leave in its namespaces."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return [
        [Path(f"/proc/thread-self/ns/{kind}").readlink() for kind in ("net", "mnt", "user")],
        socket.if_nameindex(),
        sorted(Path("/proc/self/fd").iterdir()),
        children.read_text() if children.exists() else "",
    ]


@pytest.mark.kernel
def test_probes_say_why_and_leave_nothing_behind(userns: None) -> None:
    capabilities.probe(CAPABILITIES)  # whatever is imported, and whatever module is loaded, is then
    before = surroundings()
    found = capabilities.probe(CAPABILITIES)
    assert surroundings() == before
    assert list(found) == list(CAPABILITIES)
    for name, capability in found.items():
        assert capability == Capability(name, capability.there, capability.reason)
        assert re.fullmatch(r"[^\n]+", capability.reason)


@pytest.mark.kernel
def test_a_process_that_is_rootless_already_finds_the_same(rootless: None) -> None:
    script = (
        "from netlab.holder import become_rootless; become_rootless()\n"
        "import json; from netlab import capabilities; from netlab.capability import CAPABILITIES\n"
        "print(json.dumps({name: one.there for name, one in capabilities.probe(CAPABILITIES).items()}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: one.there for name, one in capabilities.probe(CAPABILITIES).items()}


@pytest.mark.kernel
@pytest.mark.parametrize("name", list(PROBES))
def test_without_privilege_it_is_missing(as_root: None, name: str) -> None:
    def body() -> str:
        os.setresuid(65534, 65534, 65534)
        return PROBES[name]()

    assert isinstance(scratch.attempt(body), NetlabError)


# --- held against others ---------------------------------------------------------------------------------------------


RULES = """
table ip t {
  chain input {
    type filter hook input priority 0
    tcp sport 80 ct state invalid counter
  }
}
"""


class Connected(NamedTuple):
    """A connection on lo whose client offers little: the last ACK of each end, as it was seen; and the edge of what the
    server may send."""

    client: Segment
    server: Segment
    edge: int

    def send(self, seq: int) -> int:
        """A byte from the server; how many INVALID ones the rule has counted then."""
        payload, (sport, dport) = b"x", (self.server.sport, self.server.dport)
        header = struct.pack("!HHIIBBHHH", sport, dport, seq % 2**32, self.server.ack, 5 << 4, PSH | ACK, 500, 0, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.sendto(header + payload, ("127.0.0.1", 0))
        told = subprocess.run(["nft", "list", "table", "ip", "t"], capture_output=True, text=True, check=True).stdout
        return int(told.partition("counter packets ")[2].split()[0])


@contextmanager
def connected() -> Iterator[Connected]:
    """A connection of the kernel's own TCP, in the calling thread's network namespace, tracked there."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as sniffer,
        socket.create_server(("127.0.0.1", 80)) as listener,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", 80))
        server, _ = listener.accept()
        with server:
            server.send(b"hello")
            client.recv(5)
            client.send(b"hello")
            server.recv(5)
            seen: list[Segment] = []
            while select.select([sniffer], [], [], 0)[0]:
                found = decode_ip(sniffer.recv(2048))
                assert found is not None
                seen.append(found)
            from_client = [segment for segment in seen if segment.dport == 80]
            from_server = [segment for segment in seen if segment.sport == 80 and not segment.flags & SYN]
            shift = from_client[0].wscale or 0
            edge = max(each.ack + (each.window << shift) for each in from_client[1:])
            yield Connected(from_client[-1], from_server[-1], edge)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "seq"),
    [
        ("forgives-late-segments", lambda connection: connection.server.seq - 100_000),
        ("forgives-small-overshoot", lambda connection: connection.edge + 1),
    ],
)
def test_forgiveness_is_that_of_a_connection_between_sockets(
    userns: None, name: str, seq: Callable[[Connected], int]
) -> None:
    for program in ("ip", "nft"):
        skips.skip_unless_program(program)

    def body() -> list[int]:
        with connected() as connection:
            return [connection.send(connection.edge + 500_000), connection.send(seq(connection))]

    far, after = in_scratch(body)
    assert far == 1, "a byte far over the window is INVALID on every kernel"
    assert probed(name) == (after == 1)


@pytest.mark.kernel
@pytest.mark.parametrize(
    "words",
    ["tbf rate 1mbit burst 16kb latency 50ms", "htb default 10", "netem delay 10ms"],
)
def test_a_qdisc_is_there_when_tc_can_add_it(userns: None, words: str) -> None:
    skips.skip_unless_program("tc")
    kind, *parameters = words.split()
    argv = ["tc", "qdisc", "add", "dev", "lo", "root", kind, *parameters]
    assert probed(kind) == in_scratch(lambda: subprocess.run(argv, capture_output=True).returncode == 0)


@pytest.mark.kernel
def test_a_repaired_window_is_what_tcp_info_says(userns: None) -> None:
    """TCP_INFO's tcpi_snd_wnd, told by another road than TCP_REPAIR_WINDOW."""
    from netlab.observe.sockets import tcp_info

    def body() -> tuple[int, int]:
        scratch.set_loopback_up()
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as one,
        ):
            before = tcp_info(one).snd_wnd_bytes
            one.setsockopt(socket.IPPROTO_TCP, 19, 1)
            window = bytearray(one.getsockopt(socket.IPPROTO_TCP, 29, 20))
            struct.pack_into("=2I", window, 4, before + 1000, before + 1000)
            one.setsockopt(socket.IPPROTO_TCP, 29, window)
            return before, tcp_info(one).snd_wnd_bytes

    try:
        before, after = in_scratch(body)
    except NetlabError:
        assert not probed("tcp-repair")
    else:
        assert probed("tcp-repair") == (after == before + 1000)
