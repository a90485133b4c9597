"""`netlab capture`: what is in its files, and how it ends. tshark reads them where it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import labs
import pytest
import skips
from captures import tshark
from command import Netlab, new_lab_name
from labs import Lab

from netlab.errors import UnsupportedError
from netlab.linux import libpcap
from netlab.observe.capture import compiled

pytestmark = pytest.mark.kernel

SEND = """
import socket, sys
host, port, count, size = sys.argv[1], *map(int, sys.argv[2:])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for number in range(count):
        s.sendto(b"%d" % number + b"x" * (size - 1), (host, port))
"""
"""Sends datagrams whose first byte is their number."""

INTERFACE, DIRECTION = "frame.interface_name", "frame.packet_flags_direction"
IN, OUT = "0x00000001", "0x00000002"


def built(netlab: Netlab, name: str, directory: Path, privilege: str) -> Lab:
    """Client and server, up. Nothing but what a test sends crosses their link: each knows the other's MAC address."""
    lab = labs.make(netlab, name, directory, privilege)
    lab.up()
    for here, there, address in (("client", "server", "10.255.0.2"), ("server", "client", "10.255.0.1")):
        mac = lab.exec(there, "cat", "/sys/class/net/eth0/address").strip()
        lab.exec(here, "ip", "neigh", "replace", address, "dev", "eth0", "lladdr", mac)
    return lab


@pytest.fixture(scope="module")
def lab(shared_netlab: Netlab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab as this user has it; what differs between root's and others' is the first test's."""
    privilege = "--root" if os.geteuid() == 0 else "--rootless"
    if privilege == "--rootless":
        skips.skip_unless_userns()
    return built(shared_netlab, new_lab_name(), tmp_path_factory.mktemp("lab"), privilege)


def send(
    lab: Lab, count: int = 1, port: int = 9, size: int = 10, host: str = "10.255.0.2", netns: str = "client"
) -> None:
    lab.exec(netns, sys.executable, "-c", SEND, host, str(port), str(count), str(size))


@contextmanager
def capturing(
    lab: Lab, *arguments: str | Path, stdout: int | None = subprocess.PIPE
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`netlab capture`, ready; and what it says it is capturing on. The process ends with the block, or a deadline."""
    arguments = ("capture", "--lab", lab.name, "--for", str(labs.DEADLINE_S), *arguments)
    with labs.observing(lab, *arguments, stdout=stdout) as (process, first):
        assert first.startswith("capturing on ")
        yield process, first


def ended(process: subprocess.Popen[bytes], number: int | None = signal.SIGINT) -> tuple[int, str]:
    """Send the signal; the exit code, and what was said at the end."""
    if number is not None:
        process.send_signal(number)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    return process.wait(labs.DEADLINE_S), said


def captured(lab: Lab, file: Path, *arguments: str, datagrams: int = 1, size: int = 10) -> tuple[list[str], str]:
    """Send datagrams meanwhile, and end with SIGINT once the file has them; interface and direction of each packet."""
    with capturing(lab, *arguments, "-w", file) as (process, _):
        send(lab, datagrams, size=size)
        code, said = ended(process)
    assert code == 0
    return tshark(file, INTERFACE, DIRECTION), said


def test_both_ends_in_one_file_in_the_order_of_time(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = built(netlab, lab_name, tmp_path, privilege)
    lines, said = captured(lab, tmp_path / "f", "client", "server:eth0", "--filter", "udp port 9", datagrams=2)
    hop = [f"client/eth0|{OUT}", f"server/eth0|{IN}"]
    assert lines == hop * 2
    assert said == "4 packets captured, 0 dropped\n"


def test_all_namespaces_where_none_is_named(lab: Lab, tmp_path: Path) -> None:
    with capturing(lab, "-w", tmp_path / "f") as (process, first):
        assert first == "capturing on client/lo, client/eth0, server/lo, server/eth0\n"
        code, _ = ended(process)
    assert code == 0


def test_each_packet_is_there_once_where_it_was_first_seen(lab: Lab, tmp_path: Path) -> None:
    wanted = ("--filter", "udp port 9")
    lines, said = captured(lab, tmp_path / "f", *wanted, datagrams=2)
    assert (lines, said) == ([f"client/eth0|{OUT}"] * 2, "2 packets captured, 0 dropped\n")
    lines, _ = captured(lab, tmp_path / "f", *wanted, "client", "server")
    assert lines == [f"client/eth0|{OUT}", f"server/eth0|{IN}"]
    lines, _ = captured(lab, tmp_path / "f", *wanted, "--every-interface")
    assert lines == [f"client/eth0|{OUT}", f"server/eth0|{IN}"]


ONE_ARMED = """
namespaces:
  client: {routes: [{to: 10.9.2.2/32, via: 10.9.3.1}]}
  server: {routes: [{to: 10.9.1.2/32, via: 10.9.3.1}]}
  router: {sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.all.send_redirects: 0, net.ipv4.conf.eth0.send_redirects: 0}}
  switch: {}
bridges:
  - name: br0
    netns: switch
    subnet: 10.9.0.0/16
    ports:
      - {netns: client, addresses: 10.9.1.2/16}
      - {netns: server, addresses: 10.9.2.2/16}
      - {netns: router, addresses: 10.9.3.1/16}
"""


def test_what_a_router_with_one_interface_forwards_is_there_once(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    """As of virtual machines that share a router's interface (github.com/ucsb-seclab/CVEX/issues/6)."""
    lab = labs.make(netlab, lab_name, tmp_path, privilege, ONE_ARMED)
    lab.up()
    for named, seen in (("router", [IN]), ("router:eth0", [IN, OUT])):
        with capturing(lab, named, "--filter", "udp port 9", "-w", tmp_path / "f") as (process, _):
            send(lab, host="10.9.2.2")
            code, _ = ended(process)
        assert code == 0
        assert tshark(tmp_path / "f", INTERFACE, DIRECTION) == [f"router/eth0|{way}" for way in seen]


def test_a_packet_on_lo_is_there_once(lab: Lab, tmp_path: Path) -> None:
    with capturing(lab, "client", "--filter", "udp", "-w", tmp_path / "f") as (process, _):
        send(lab, host="127.0.0.1")
        assert ended(process) == (0, "1 packet captured, 0 dropped\n")
    assert tshark(tmp_path / "f", INTERFACE, DIRECTION) == [f"client/lo|{IN}"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_whole_file(lab: Lab, tmp_path: Path, number: int) -> None:
    file = tmp_path / "f"
    with capturing(lab, "client:eth0", "--filter", "udp port 9", "-w", file) as (process, _):
        send(lab, 3)
        assert ended(process, number) == (0, "3 packets captured, 0 dropped\n")
    assert len(tshark(file, "frame.number")) == 3
    assert statistics(file.read_bytes()) == [(3, 0)]


def statistics(written: bytes) -> list[tuple[int, int]]:
    """What a file says was received and dropped, by interface; its blocks fill it to its last byte."""
    found, at = [], 0
    while at < len(written):
        kind, length = (int.from_bytes(written[at + 4 * n : at + 4 * n + 4], "little") for n in (0, 1))
        assert written[at + length - 4 : at + length] == length.to_bytes(4, "little")
        if kind == 5:
            options = written[at + 20 : at + length]
            assert (options[24:28], options[36:40]) == (b"\4\0\x08\0", b"\5\0\x08\0")
            found.append((int.from_bytes(options[28:36], "little"), int.from_bytes(options[40:48], "little")))
        at += length
    assert at == len(written)
    return found


def test_it_ends_after_so_many_packets(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "f"
    with capturing(lab, "client:eth0", "--filter", "udp port 9", "--count", "2", "-w", file) as (process, _):
        send(lab, 5)
        assert ended(process, None) == (0, "2 packets captured, 0 dropped\n")
    assert tshark(file, "data.data") == [(b"%d" % number + b"x" * 9).hex() for number in (0, 1)]


def test_it_ends_after_so_many_seconds(lab: Lab, tmp_path: Path) -> None:
    done = lab.netlab("capture", "--lab", lab.name, "server", "--for", "0.1", "-w", tmp_path / "f")
    assert done.returncode == 0
    assert done.stderr.startswith("capturing on server/lo, server/eth0\n")
    assert len(statistics((tmp_path / "f").read_bytes())) == 2


def test_a_file_that_is_there_is_written_over(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 100_000)
    lines, _ = captured(lab, file, "client:eth0", "--filter", "udp port 9")
    assert lines == [f"client/eth0|{OUT}"]


def test_what_is_cut_off_still_says_how_long_it_was(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "f"
    captured(lab, file, "client:eth0", "--filter", "udp port 9", "--snaplen", "60", size=1000)
    assert tshark(file, "frame.cap_len", "frame.len") == ["60|1042"]


def test_a_packet_larger_than_the_mtu_is_there_whole(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "f"
    with capturing(lab, "client:eth0", "--filter", "tcp and len > 60000", "--count", "1", "-w", file) as (process, _):
        drain = "import socket\nc = socket.create_server(('', 9)).accept()[0]\nwhile c.recv(1 << 20): pass"
        sender = (
            "import socket, time\n"
            "while True:\n"
            "    try:\n"
            "        s = socket.create_connection(('10.255.0.2', 9)); break\n"
            "    except ConnectionRefusedError:\n"
            "        time.sleep(0.01)\n"
            "s.sendall(bytes(8 << 20))"
        )
        argv = lab.netlab.argv("exec", "--lab", lab.name, "server", "--", sys.executable, "-c", drain)
        with subprocess.Popen(argv, env=lab.netlab.environment()) as server:
            lab.exec("client", sys.executable, "-c", sender)
            assert server.wait(labs.DEADLINE_S) == 0
        assert ended(process, None)[0] == 0
    ((cap_len, length),) = (line.split("|") for line in tshark(file, "frame.cap_len", "frame.len"))
    assert cap_len == length


def test_packets_come_through_a_pipe_at_once(lab: Lab) -> None:
    with capturing(lab, "client:eth0", "--filter", "udp port 9", "-w", "-") as (process, _):
        assert process.stdout is not None
        for number in range(3):
            send(lab)
            seen = b""
            while not seen.endswith(b"\2\0\4\0\2\0\0\0\0\0\0\0" + seen[-4:]) or seen.count(b"0xxxxxxxxx") != 1:
                seen += os.read(process.stdout.fileno(), 65536)
            assert number == 0 or seen[0] == 6
        assert ended(process) == (0, "3 packets captured, 0 dropped\n")
        assert statistics(process.stdout.read()) == [(3, 0)]


def test_it_ends_when_nobody_reads(lab: Lab) -> None:
    with capturing(lab, "client:eth0", "--filter", "udp port 9") as (process, _):
        assert process.stdout is not None
        process.stdout.close()
        assert ended(process, None) == (128 + signal.SIGPIPE, "")


def test_an_interface_that_is_down_is_captured_once_it_is_up(lab: Lab, tmp_path: Path) -> None:
    lab.exec("server", "ip", "link", "set", "eth0", "down")
    with capturing(lab, "server:eth0", "--filter", "udp port 9", "-w", tmp_path / "f") as (process, _):
        assert process.stderr is not None
        assert process.stderr.readline() == b"server/eth0: Network is down\n"
        lab.exec("server", "ip", "link", "set", "eth0", "up")
        send(lab)
        assert ended(process) == (0, "1 packet captured, 0 dropped\n")


def test_an_interface_that_goes_ends_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.exec("client", "ip", "link", "add", "br7", "type", "bridge")
    lab.exec("client", "ip", "link", "set", "br7", "up")
    with capturing(lab, "client:br7", "client:eth0", "--filter", "udp port 9", "-w", tmp_path / "f") as (process, _):
        lab.exec("client", "ip", "link", "del", "br7")
        assert process.stderr is not None
        # It was down before it was gone; who looks late sees only the latter.
        said = [line for line in iter(process.stderr.readline, b"client/br7: the interface is gone\n") if line]
        assert said in ([], [b"client/br7: Network is down\n"])
        send(lab)
        assert ended(process) == (0, "1 packet captured, 0 dropped\n")


def test_frames_that_the_ring_has_no_room_for_are_counted(lab: Lab, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    send(lab)  # from now on the neighbour is known: datagrams that wait for its address are lost where they are many
    with capturing(lab, "client:eth0", "--filter", "udp port 9", "-w", fifo) as (process, _):
        # Nobody reads: the pipe fills, and then the ring.
        send(lab, 3000, size=1000)
        os.set_blocking(reader, True)
        process.send_signal(signal.SIGINT)
        with os.fdopen(reader, "rb") as file:
            written = file.read()
        code, said = ended(process, None)
    assert code == 0
    ((received, dropped),) = statistics(written)
    assert received == 3000
    assert dropped > 0
    assert said == (f"{received - dropped} packets captured, {dropped} dropped\n  client/eth0: {dropped} dropped\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "the lab has no namespace nobody\n  hint: it has: client, server"),
        (["client:eth7"], "client has no interface eth7\n  hint: it has: lo, eth0"),
        (
            ["client", "--filter", "tcp prt 80"],
            "--filter 'tcp prt 80': can't parse filter expression: syntax error\n"
            "  hint: the language is tcpdump's (man pcap-filter): for instance 'tcp port 80 and host 10.0.0.2'",
        ),
        (["client", "-w", "/nowhere/f"], "/nowhere/f: No such file or directory"),
    ],
)
def test_what_can_not_be_captured(lab: Lab, arguments: Sequence[str], said: str) -> None:
    done = lab.netlab("capture", "--lab", lab.name, *arguments)
    assert done.stderr == f"netlab: {said}\n"
    assert done.stdout == ""
    assert done.returncode in (1, 2)


def test_a_tunnel_is_left_out_unless_it_is_named(lab: Lab, tmp_path: Path) -> None:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("this user can't open /dev/net/tun")
    lab.exec("client", "ip", "tuntap", "add", "t0", "mode", "tun")
    with capturing(lab, "client", "-w", tmp_path / "f") as (process, first):
        assert first == "capturing on client/lo, client/eth0\n"
        ended(process)
    done = lab.netlab("capture", "--lab", lab.name, "client:t0")
    lab.exec("client", "ip", "link", "del", "t0")
    assert done.stderr == "netlab: client's interface t0 carries no Ethernet frames\n"
    assert done.returncode == 2


def test_nothing_is_written_to_a_terminal(lab: Lab) -> None:
    ours, terminal = os.openpty()
    done = subprocess.run(
        lab.netlab.argv("capture", "--lab", lab.name),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=lab.netlab.environment(),
        text=True,
    )
    os.close(terminal)
    os.close(ours)
    assert done.stderr == (
        "netlab: refusing to write pcapng to a terminal\n  hint: -w FILE, or a pipe: netlab capture | tshark -r -\n"
    )
    assert done.returncode == 2


# --- filters ---------------------------------------------------------------------------------------------------------


def test_a_filter_without_libpcap_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libpcap, "_LIBRARIES", ("libnothing-of-the-sort.so",))
    with pytest.raises(UnsupportedError) as caught:
        compiled("tcp", 100)
    assert str(caught.value) == (
        "a filter needs libpcap, which isn't here\n"
        "  hint: install it (Debian's libpcap0.8, or libpcap0.8t64), or capture without a filter and use one in "
        "Wireshark"
    )


def test_a_filter_is_the_program_that_tcpdump_makes() -> None:
    argv = ["tcpdump", "-ddd", "-y", "EN10MB", "-s", "100", "tcp port 80 and host 10.0.0.2"]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"tcpdump: {done.stderr.strip()}")
    count, *instructions = done.stdout.splitlines()
    program = b""
    for line in instructions:
        code, yes, no, operand = map(int, line.split())
        program += code.to_bytes(2, sys.byteorder) + bytes([yes, no]) + operand.to_bytes(4, sys.byteorder)
    assert len(program) == 8 * int(count)
    assert libpcap.compile_filter("tcp port 80 and host 10.0.0.2", 100) == program
