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
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import skips
from labs import until
from places import DOCS
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from netlab.capabilities import conntrack as capability_probes
from netlab.capabilities import probes as capabilities
from netlab.capabilities import scratch
from netlab.capabilities.capability import CAPABILITIES, Capability
from netlab.capabilities.probes import PROBES
from netlab.conntrack.kernels import DECIDING
from netlab.errors import NetlabError, UnsupportedError
from netlab.linux import cgroups, ctnetlink
from netlab.record.events import ACK, PSH, RST, SYN, Segment, Tuple
from netlab.record.wire import decode_ip

ETH_P_IP = 0x0800
LOOPBACK = ip_address("127.0.0.1")


def test_every_capability_is_probed() -> None:
    assert list(PROBES) == list(CAPABILITIES)


def test_an_unknown_name_is_the_callers_mistake() -> None:
    with pytest.raises(KeyError, match="no-such-thing"):
        capabilities.probe(["no-such-thing"])


def test_the_page_has_every_capability_with_its_meaning() -> None:
    page = (DOCS / "capabilities.md").read_text().partition("## Seen")[0]
    assert dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", page, re.MULTILINE)) == CAPABILITIES


HYBRID = """\
7:memory:/some/group
1:cpu,cpuacct:/
0::/user.slice/session-3.scope
"""
HYBRID_MOUNTS = """\
21 1 0:20 / /proc rw,relatime shared:5 - proc proc rw
29 23 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 master:2 - cgroup2 cgroup rw,nsdelegate
30 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
"""


def test_the_unified_hierarchy_comes_before_the_old_one() -> None:
    unified, cpu = Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/cpu")
    assert cgroups.hierarchies(HYBRID, HYBRID_MOUNTS) == [
        cgroups.Hierarchy(unified, unified / "user.slice/session-3.scope", True),
        cgroups.Hierarchy(cpu, cpu, False),
    ]


def test_a_container_sees_a_part_of_the_hierarchy() -> None:
    mounts = "29 23 0:26 /pods/7 /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    mount = Path("/sys/fs/cgroup")
    assert cgroups.hierarchies("0::/pods/7/inner\n", mounts) == [cgroups.Hierarchy(mount, mount / "inner", True)]


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
        "from netlab.lab.holder import become_rootless; become_rootless()\n"
        "import json; from netlab.capabilities import probes as capabilities\n"
        "from netlab.capabilities.capability import CAPABILITIES\n"
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

    def send(self, seq: int, flags: int = PSH | ACK, payload: bytes = b"x") -> int:
        """A segment from the server; how many INVALID ones the rule has counted then."""
        sport, dport = self.server.sport, self.server.dport
        header = struct.pack("!HHIIBBHHH", sport, dport, seq % 2**32, self.server.ack, 5 << 4, flags, 500, 0, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.sendto(header + payload, ("127.0.0.1", 0))
        told = subprocess.run(["nft", "list", "table", "ip", "t"], capture_output=True, text=True, check=True).stdout
        return int(told.partition("counter packets ")[2].split()[0])


@contextmanager
def connected(receive_buffer_bytes: int = 4096) -> Iterator[Connected]:
    """A connection of the kernel's own TCP, in the calling thread's network namespace, tracked there."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as sniffer,
        socket.create_server(("127.0.0.1", 80)) as listener,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
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
def test_a_rst_from_before_is_forgiven_where_the_sysctl_is(userns: None) -> None:
    skips.skip_unless_program("ip")
    skips.skip_unless_program("nft")
    sysctl = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_ignore_invalid_rst")

    def body() -> list[int] | None:
        with connected() as connection:
            if not sysctl.exists():
                return None
            sysctl.write_text("0")
            checked = connection.send(connection.server.seq - 1, RST, b"")
            sysctl.write_text("1")
            return [checked, connection.send(connection.server.seq - 1, RST, b"")]

    assert in_scratch(body) == ([1, 1] if probed("invalid-rst-ignored") else None)


def conntrack(*argv: str) -> str:
    """What the program conntrack prints, in the calling thread's network namespace."""
    return subprocess.run(["conntrack", *argv], capture_output=True, text=True, check=True).stdout


@pytest.mark.kernel
def test_deleted_is_an_entry_that_conntrack_lists_no_more(userns: None) -> None:
    for program in ("ip", "nft", "conntrack"):
        skips.skip_unless_program(program)

    def body() -> list[object]:
        with connected() as connection:
            port = connection.client.sport
            header = Tuple(LOOPBACK, port, LOOPBACK, 80, socket.IPPROTO_TCP)
            before = conntrack("-L", "-p", "tcp", "--sport", str(port)).count("ESTABLISHED")
            deleted = [ctnetlink.delete(header), ctnetlink.delete(header)]
            return [before, *deleted, conntrack("-L", "-p", "tcp", "--sport", str(port))]

    assert in_scratch(body) == [1, True, False, ""]
    assert probed("ctnetlink-delete")


def scales() -> list[int]:
    """The window scales of the one entry, as pyroute2 decodes it; in the calling thread's network namespace."""
    with NFCTSocket() as sock:
        [entry] = sock.dump()
        tcp = entry.get_attr("CTA_PROTOINFO").get_attr("CTA_PROTOINFO_TCP")
        return [tcp.get_attr(f"CTA_PROTOINFO_TCP_WSCALE_{side}") for side in ("ORIGINAL", "REPLY")]


@pytest.mark.kernel
def test_window_scales_are_kept_where_pyroute2_decodes_those_of_the_second_syn(userns: None) -> None:
    for program in ("ip", "nft"):
        skips.skip_unless_program(program)

    def body() -> list[int]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        track = "table ip t { chain c { type filter hook output priority 0; ct state established accept; }; }"
        subprocess.run(["nft", "-f", "-"], input=track, text=True, check=True)
        scale = bytes([1, 3, 3, 9])
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            for sport, dport, seq, ack, flags in (
                (5000, 6000, 10, 0, SYN),
                (5000, 6000, 20, 0, SYN),
                (6000, 5000, 70, 21, SYN | ACK),
            ):
                header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 6 << 4, flags, 500, 0, 0)
                raw.sendto(header + scale, ("127.0.0.1", 0))
        return scales()

    assert probed("keeps-window-scale") == (in_scratch(body) == [9, 9])


@pytest.mark.kernel
def test_window_scales_are_those_that_pyroute2_decodes(userns: None) -> None:
    for program in ("ip", "nft"):
        skips.skip_unless_program(program)

    def body() -> list[object]:
        with connected(receive_buffer_bytes=1 << 20) as connection:
            header = Tuple(LOOPBACK, connection.client.sport, LOOPBACK, 80, socket.IPPROTO_TCP)
            missing = Tuple(LOOPBACK, 1, LOOPBACK, 80, socket.IPPROTO_TCP)
            return [
                min(scales()) > 0 and list(ctnetlink.window_scales(header) or ()) == scales(),
                ctnetlink.set_window_scales(header, 0, 3),
                ctnetlink.window_scales(header),
                scales(),
                ctnetlink.set_window_scales(missing, 0, 3),
                ctnetlink.window_scales(missing),
            ]

    assert in_scratch(body) == [True, True, [0, 3], [0, 3], False, None]
    assert probed("ctnetlink-window-scale")


@pytest.mark.kernel
def test_ftp_is_followed_where_nft_and_sockets_see_it(userns: None) -> None:
    for program in ("ip", "nft"):
        skips.skip_unless_program(program)
    rules = """
table ip t {
  ct helper ftp { type "ftp" protocol tcp; }
  chain out { type filter hook output priority 0; tcp dport 21 ct helper set "ftp"; }
  chain input { type filter hook input priority 0; ct state related counter; }
}
"""

    def body() -> str:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        done = subprocess.run(["nft", "-f", "-"], input=rules, text=True, capture_output=True)
        if done.returncode:
            return done.stderr
        with (
            socket.create_server(("127.0.0.1", 21)) as control,
            socket.create_server(("127.0.0.1", 0)) as data,
            socket.create_connection(("127.0.0.1", 21)) as client,
        ):
            session, _ = control.accept()
            high, low = divmod(data.getsockname()[1], 256)
            for line in (b"USER someone\r\n", b"PORT 127,0,0,1,%d,%d\r\n" % (high, low)):
                client.send(line)
                assert session.recv(100) == line
            session.close()
            socket.create_connection(data.getsockname()).close()
        told = subprocess.run(["nft", "list", "chain", "ip", "t", "input"], capture_output=True, text=True, check=True)
        return told.stdout

    assert probed("ftp-helper") == ("counter packets 1 " in in_scratch(body))


@pytest.mark.kernel
def test_sctp_needs_sockets_and_an_entry_that_conntrack_lists_as_translated(userns: None) -> None:
    skips.skip_unless_program("conntrack")

    def body() -> list[bool]:
        try:
            capability_probes.translates_sctp()
            found = True
        except UnsupportedError:
            found = False
        return [found, "sport=8080 dport=40000" in conntrack("-L", "-p", "sctp", "--dport", "80")]

    found, listed = in_scratch(body)
    assert found == listed
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        sockets = True
    except OSError:
        sockets = False
    assert probed("sctp") == (sockets and listed)


@pytest.mark.kernel
def test_a_cgroup_with_a_limit_throttles() -> None:
    """Its cpu.stat counts the periods in which a process that never sleeps had to wait."""
    skips.skip_unless_capability("cgroup-cpu")
    with cgroups.limited_cpu(1000) as group:
        burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            (group / "cgroup.procs").write_text(str(burner.pid))
            until(lambda: re.search(r"nr_throttled [1-9]", (group / "cpu.stat").read_text()) is not None, "throttling")
        finally:
            burner.kill()
            burner.wait()
    assert not group.exists()


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


@pytest.mark.kernel
def test_what_decides_is_found_in_one_go_as_by_itself(userns: None) -> None:
    assert dict(capabilities.deciding()) == {name: probed(name) for name in DECIDING}


def test_what_this_user_cannot_try_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(body: Callable[[], str], *, enter: bool = True) -> NetlabError:
        return NetlabError("no namespaces for you")

    monkeypatch.setattr(capabilities, "attempt", refused)
    assert capabilities.deciding() == ()
