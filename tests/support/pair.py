"""Two namespaces, left and right, joined by a veth pair; and a connection between them."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_interface

from private_lab import PrivateLab

from netlab.links.veth import Veth
from netlab.model import Interface, Netns, Role, Topology

LEFT, RIGHT = ip_address("10.9.0.1"), ip_address("10.9.0.2")

PAIR = Topology(
    name="pair",
    namespaces=(Netns("left", Role.HOST), Netns("right", Role.HOST)),
    links=(
        Veth(
            Interface("left", "eth0", (ip_interface(f"{LEFT}/24"),)),
            Interface("right", "eth0", (ip_interface(f"{RIGHT}/24"),)),
        ),
    ),
)


def connect(lab: PrivateLab, port: int = 80) -> tuple[socket.socket, socket.socket]:
    """A connection from left to a port on the right: both ends' sockets."""
    with lab.socket("right", socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(RIGHT), port))
        listener.listen()
        client = lab.socket("left", socket.AF_INET, socket.SOCK_STREAM)
        client.connect((str(RIGHT), port))
        return client, listener.accept()[0]
