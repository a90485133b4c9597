"""BIG TCP between real sockets: packets of more than 64 KiB, whose IPv6 header doesn't say how long they are."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest
from pair import PAIR
from private_lab import PrivateLab

from netlab.observe.packets import PacketObserver
from netlab.record.events import Packet

pytestmark = pytest.mark.kernel

MOST_BYTES = 64 << 20
PIECE = bytes(1 << 20)


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, joined by a veth pair that takes packets of 200,000 bytes."""
    with PrivateLab(PAIR) as lab:
        for netns, address in (("left", "fd00::1/64"), ("right", "fd00::2/64")):
            lab.run(netns, "ip", "address", "add", address, "dev", "eth0", "nodad")
            with lab.inside(netns):
                larger = ("gso_max_size", "200000", "gro_max_size", "200000")
                done = subprocess.run(["ip", "link", "set", "eth0", *larger], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no BIG TCP: {done.stderr.strip()}")
        yield lab


def test_a_packet_of_more_than_64_kib_is_read_with_its_length(pair: PrivateLab) -> None:
    observer = PacketObserver(pair, "right", "eth0", (80,))
    with pair.socket("right", socket.AF_INET6, socket.SOCK_STREAM) as listener:
        listener.bind(("fd00::2", 80))
        listener.listen()
        with pair.socket("left", socket.AF_INET6, socket.SOCK_STREAM) as client:
            client.connect(("fd00::2", 80))
            server, _ = listener.accept()
            reader = threading.Thread(target=drain, args=(server,))
            reader.start()
            longest, sent = 0, 0
            while longest <= 1 << 16 and sent < MOST_BYTES:
                client.sendall(PIECE)
                sent += len(PIECE)
                lengths = [packet.segment.payload_bytes for packet in observer.read() if isinstance(packet, Packet)]
                assert min(lengths, default=0) >= 0
                longest = max(longest, *lengths, 0)
        reader.join()
    observer.close()
    assert longest > 1 << 16


def drain(sock: socket.socket) -> None:
    """Read all that comes."""
    with sock:
        while sock.recv(1 << 20):
            pass
