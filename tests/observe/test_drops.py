"""The kernel's own reasons for drops: read by root, named as not observed for others, gone with who asked."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import labs
import pytest
from command import Netlab
from flagship import FLAGSHIP
from pair import LEFT, PAIR, RIGHT, connect
from private_lab import PrivateLab

from netlab.errors import UnsupportedError
from netlab.linux import bpf
from netlab.observe import tracepoints
from netlab.observe.drops import DropObserver, function_at
from netlab.observe.network import network_state
from netlab.observe.watch import Watch
from netlab.record.events import RST, SYN, Event, PacketDrop
from netlab.record.observers import ObserverId, ObserverKind
from netlab.report import bundle

DROPS = ObserverId(ObserverKind.DROPS, "")


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, left and right, joined by a veth pair; skips where the kernel can't say why it drops."""
    with PrivateLab(PAIR) as lab:
        try:
            DropObserver(lab, ["left"], ()).close()
        except UnsupportedError as error:
            pytest.skip(error.message)
        yield lab


def dropped(pair: PrivateLab, cause: Callable[[], None], ports: tuple[int, ...] = ()) -> PacketDrop:
    """The first packet that is dropped in consequence."""
    with Watch() as watch:
        watch.add(DropObserver(pair, ["left", "right"], ports))
        cause()
        assert watch.until(lambda: watch.saw(lambda event: isinstance(event, PacketDrop)), labs.DEADLINE_S)
        events, lost = watch.take()
    assert lost == ((DROPS, 0),)
    return next(event for event in events if isinstance(event, PacketDrop))


def send(pair: PrivateLab, netns: str, address: object, port: int) -> None:
    refused = suppress(PermissionError)  # what a rule in the output hook makes of it
    with pair.socket(netns, socket.AF_INET, socket.SOCK_DGRAM) as udp, refused:
        udp.sendto(b"hello", (str(address), port))


@pytest.mark.kernel
def test_a_rule_that_drops_what_comes(pair: PrivateLab) -> None:
    pair.run("right", "nft", "table ip t { chain c { type filter hook input priority 0; tcp dport 80 drop; }; }")

    def try_to_connect() -> None:
        with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            assert client.connect_ex((str(RIGHT), 80)) == errno.EINPROGRESS

    drop = dropped(pair, try_to_connect, (80,))
    assert drop.segment is not None
    assert (drop.netns, drop.reason, drop.function, drop.ifname) == ("right", "NETFILTER_DROP", "", "eth0")
    assert (drop.segment.src, drop.segment.dst, drop.segment.dport, drop.segment.flags) == (LEFT, RIGHT, 80, SYN)


@pytest.mark.kernel
def test_a_rule_that_drops_what_leaves(pair: PrivateLab) -> None:
    pair.run("left", "nft", "table ip t { chain c { type filter hook output priority 0; udp dport 53 drop; }; }")
    drop = dropped(pair, lambda: send(pair, "left", RIGHT, 53))
    assert drop.datagram is not None
    assert (drop.netns, drop.reason, drop.datagram.header.dport) == ("left", "NETFILTER_DROP", 53)


@pytest.mark.kernel
def test_a_datagram_that_no_socket_takes(pair: PrivateLab) -> None:
    assert dropped(pair, lambda: send(pair, "left", RIGHT, 53)).reason == "NO_SOCKET"


@pytest.mark.kernel
def test_a_source_that_the_reverse_path_filter_refuses(pair: PrivateLab) -> None:
    pair.run("right", "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    pair.run("left", "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    lladdr = next(each.lladdr for each in network_state(pair, "right").interfaces if each.ifname == "eth0")
    # Known beforehand: the filter would refuse the question after it, too.
    pair.run("left", "ip", "neigh", "replace", str(RIGHT), "dev", "eth0", "lladdr", lladdr)

    def spoof() -> None:
        with pair.socket("left", socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("192.0.2.1", 0))
            udp.sendto(b"x", (str(RIGHT), 53))

    drop = dropped(pair, spoof)
    assert (drop.netns, drop.reason) == ("right", "IP_RPFILTER")


@pytest.mark.kernel
def test_a_reset_that_its_socket_does_not_accept(pair: PrivateLab) -> None:
    """Past the window: the kernel says so itself (RFC 5961 has it thrown away without an answer)."""
    with Watch() as watch:
        watch.add(DropObserver(pair, ["left", "right"], (80,)))
        client, server = connect(pair)
        with client, server:
            header = struct.pack("!HHIIBBHHH", client.getsockname()[1], 80, 7, 0, 5 << 4, RST, 0, 0, 0)
            pseudo = struct.pack("!4s4sxBH", LEFT.packed, RIGHT.packed, 6, len(header))
            total = sum(struct.unpack(f"!{len(pseudo + header) // 2}H", pseudo + header))
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16)
            header = header[:16] + struct.pack("!H", ~total & 0xFFFF) + header[18:]
            with pair.socket("left", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
                raw.sendto(header, (str(RIGHT), 0))

            def is_reset(event: Event) -> bool:
                return isinstance(event, PacketDrop) and event.segment is not None and bool(event.segment.flags & RST)

            assert watch.until(lambda: watch.saw(is_reset), labs.DEADLINE_S)
            assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            (drop,) = (event for event in watch.gathered() if is_reset(event))
    assert isinstance(drop, PacketDrop)
    assert drop.netns == "right"
    assert drop.reason in ("TCP_INVALID_SEQUENCE", "TCP_OLD_SEQUENCE")  # the server's numbers are anyone's guess


def is_datagram(event: Event) -> bool:
    """Whether a datagram was dropped; no ICMP error, whose socket may be gone when it comes."""
    return isinstance(event, PacketDrop) and event.datagram is not None and event.datagram.icmp_type is None


@pytest.mark.kernel
def test_neither_other_ports_nor_other_namespaces_are_told(pair: PrivateLab) -> None:
    with Watch() as watch:
        watch.add(DropObserver(pair, ["right"], (53,)))
        send(pair, "right", LEFT, 53)
        send(pair, "left", RIGHT, 54)
        send(pair, "left", RIGHT, 53)
        assert watch.until(lambda: watch.saw(is_datagram), labs.DEADLINE_S)
        events, _ = watch.take()
    assert [event.netns for event in events if is_datagram(event)] == ["right"]


@pytest.mark.kernel
def test_what_the_buffer_has_no_room_for_is_counted_once(pair: PrivateLab) -> None:
    pair.run("right", "nft", "table ip t { chain c { type filter hook input priority 0; udp dport 53 drop; }; }")
    counted = DropObserver(pair, ["right"], (53,), buffer_bytes=4096)
    other = DropObserver(pair, ["right"], (53,))
    sent, seen, kept, lost = 100, 0, 0, 0
    with Watch() as watch:
        for _ in range(sent):
            send(pair, "left", RIGHT, 53)

        def all_dropped() -> bool:
            nonlocal seen
            seen += len(other.read())
            return seen == sent

        def all_counted() -> bool:  # the last of them after the other has seen it, perhaps
            nonlocal kept, lost
            kept += len(counted.read())
            lost += counted.lost()
            return kept + lost >= sent

        assert watch.until(all_dropped, labs.DEADLINE_S)
        assert watch.until(all_counted, labs.DEADLINE_S)
    assert kept + lost < sent + 20  # of what is lost nobody knows the port: some may be IPv6's own, which begins here
    assert 0 < kept < sent
    assert (counted.lost(), other.lost()) == (0, 0)
    send(pair, "left", RIGHT, 53)
    counted.close()
    other.close()


HOLD = """
import time
from pathlib import Path
from pair import PAIR
from private_lab import PrivateLab
from netlab.observe.drops import DropObserver
lab = PrivateLab(PAIR)
observer = DropObserver(lab, ["left"], ())
told = [file.read_text() for file in Path("/proc/self/fdinfo").iterdir() if file.exists()]
print(*(line.split()[1] for text in told for line in text.splitlines() if line.startswith("prog_id:")), flush=True)
time.sleep(60)
"""
_PROG_GET_FD_BY_ID = 13


def is_loaded(number: int) -> bool:
    try:
        os.close(bpf._bpf(_PROG_GET_FD_BY_ID, struct.pack("=I", number), "the program"))
    except FileNotFoundError:
        return False
    return True


@pytest.mark.kernel
def test_nothing_is_left_in_the_kernel_of_who_was_killed(pair: PrivateLab) -> None:
    argv = [sys.executable, "-c", HOLD]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}) as holding:
        try:
            assert holding.stdout is not None
            (number,) = map(int, holding.stdout.readline().split())
            assert is_loaded(number)
        finally:
            holding.kill()
    with Watch() as watch:
        assert watch.until(lambda: not is_loaded(number), labs.DEADLINE_S)


@pytest.mark.kernel
def test_a_run_has_the_kernels_reasons_or_says_that_it_has_not(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    options = ("--name", lab_name, privilege, "--trials", "1", "--fix", "drop-invalid")
    done = netlab("run", FLAGSHIP, *options, "--bundle", tmp_path / "b.zip")
    assert done.returncode == 0, done.stderr
    recording = bundle.read(tmp_path / "b.zip").recording
    (flow,) = recording.flows
    of_flow = [
        (event.netns, event.reason)
        for event in recording.events
        if isinstance(event, PacketDrop) and event.segment and event.segment.dport == flow.client_port
    ]
    if DROPS in dict(recording.lost):
        assert ("client-node", "NETFILTER_DROP") in of_flow
    else:
        (untold,) = (each for each in recording.unobserved if each.observer == DROPS)
        assert untold.reason == "only the host's root may read them" or untold.reason.startswith("this kernel")
    if privilege == "--rootless":
        assert DROPS not in dict(recording.lost)


def test_a_kernel_that_does_not_describe_its_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracepoints, "_BTF", tmp_path / "vmlinux")
    tracepoints.described.cache_clear()
    with pytest.raises(UnsupportedError, match="this kernel doesn't describe its types"):
        tracepoints.described()
    (tmp_path / "vmlinux").write_bytes(b"no such thing at all, but long enough")
    with pytest.raises(UnsupportedError, match="this kernel has other types: no BTF"):
        tracepoints.described()
    tracepoints.described.cache_clear()


@pytest.mark.kernel
def test_where_the_kernel_gives_no_reason_its_function_is_told(as_root: None) -> None:
    lines = Path("/proc/kallsyms").read_text().splitlines()
    (begin,) = (int(line.split()[0], 16) for line in lines if line.endswith(" T ip_rcv"))
    assert function_at(begin + 4) == "ip_rcv"
    assert function_at(1) == "0x1"
