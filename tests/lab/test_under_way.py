"""Edits by chance while connections are under way: those of pods that no edit touches go on, and when `up` returns the
first packet to everyone else is answered.

The edits are the same in every run; NETLAB_LAB_TEST_EDITS says how many there are.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import labs
import pytest
import skips
from command import Netlab

pytestmark = pytest.mark.kernel

EDITS = int(os.environ.get("NETLAB_LAB_TEST_EDITS", "8"))
CHAIN = 4
"""How many edits one lab goes through."""

ECHO = """
import socket, threading
def serve(connection):
    while data := connection.recv(100):
        connection.sendall(data)
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=50)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
TALK = """
import select, socket, sys
connections = {place: socket.create_connection((place, 80), 10) for place in sys.argv[1:]}
print("talking", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for place, connection in connections.items():
        connection.sendall(b"x")
        assert connection.recv(10) == b"x", place
print("done")
"""
"""Says something over each connection again and again until it is told to stop."""

ASK = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((address, 9))
        asking.send(b"?")
        try:
            asking.recv(1)
        except ConnectionRefusedError:
            continue
        except OSError as error:
            print(address, error)
"""
"""One datagram, never sent again, to a port that nobody has: whoever has the address says so."""


class Chance(random.Random):
    """Labs in which the client, two servers and their Service are the same, and everything around them isn't."""

    def end(self, name: str, last: list[int]) -> Any:
        """The port of a pod that edits touch: its address and its MAC are its own, or left open."""
        found: dict[str, Any] = {"netns": name}
        if self.random() < 0.4:
            number = last.pop(self.randrange(len(last)))
            found["addresses"] = [f"10.244.0.{number}/24", f"fd00:10:244::{number:x}/64"]
        if self.random() < 0.3:
            found["mac"] = f"02:00:00:00:00:{self.choice([1, 2, 255]):02x}"
        return found if len(found) > 1 else name

    def topology(self) -> str:
        """Another one each time."""
        others = self.sample(["a", "b", "c", "d"], self.randrange(5))
        echo = {"name": "echo", "command": ["python3", "-c", ECHO], "ready": {"listening": 80}}
        pods: dict[str, Any] = {name: {"role": "pod"} for name in ("client", *others)}
        servers: dict[str, Any] = {name: {"role": "pod", "programs": [echo]} for name in ("one", "two")}
        last = list(range(20, 24))
        ports: list[Any] = ["client", "one", "two", *(self.end(name, last) for name in others)]
        macs: set[str] = set()
        for port in ports:
            if isinstance(port, dict) and (mac := port.get("mac")) in macs:
                del port["mac"]
            elif isinstance(port, dict) and mac:
                macs.add(mac)
        if self.random() < 0.7:
            self.shuffle(ports)
        far = self.sample(["far", "farther"], self.randrange(3))
        more = self.sample(["aa", "web", "zz"], self.randrange(4))
        services: dict[str, Any] = {name: {"port": 7, "endpoints": ["one"]} for name in more}
        services["front"] = {"port": 80, "endpoints": ["one", "two"]}
        namespaces = {"node": {"role": "node"}, **pods, **servers, **{name: {} for name in far}}
        unlimited = {"net.ipv4.icmp_ratelimit": 0, "net.ipv6.icmp.ratelimit": 0}
        return json.dumps(
            {
                "ipv6": True,
                "namespaces": {name: {**netns, "sysctls": unlimited} for name, netns in namespaces.items()},
                "bridges": [{"name": "cni0", "netns": "node", "ports": ports}],
                "links": [{"ends": ["node", name]} for name in far],
                "services": dict(sorted(services.items())),
            }
        )


@contextmanager
def talking(lab: labs.Lab, *names: str) -> Iterator[None]:
    """A client that talks over a connection to each name all the while; the test fails where it stops."""
    command = lab.netlab.argv("exec", "-l", lab.name, "client", "--", "python3", "-c", TALK, *names)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=lab.netlab.environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as talk:
        try:
            assert talk.stdout is not None
            assert talk.stdout.readline() == "talking\n"
            yield
            told, complaint = talk.communicate("stop\n", timeout=60)
            assert (told, complaint) == ("done\n", "")
        finally:
            talk.kill()


@pytest.mark.parametrize("seed", range((EDITS + CHAIN - 1) // CHAIN))
def test_connections_under_way_go_on_and_everyone_answers_at_once(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, seed: int
) -> None:
    skips.skip_unless_program("python3")
    chance = Chance(seed)
    text = chance.topology()
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    with talking(lab, "one", "two", "front"):
        for _ in range(CHAIN):
            before, text = text, chance.topology()
            lab.write(text)
            lab.up()
            story = f"from {before}\nto {text}"
            told = [netns["addresses"] for netns in lab.status()["namespaces"]]
            addresses = [address.partition("/")[0] for each in told for address in each]
            assert len(addresses) > 6, told
            assert lab.exec("client", "python3", "-c", ASK, *addresses) == "", story
            assert lab.exec("one", "python3", "-c", ASK, *addresses) == "", story
