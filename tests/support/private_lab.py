"""A topology built with `ip` and `nft` in nameless network namespaces, which go when this process closes them.

For tests of what happens in a lab, independent of how netlab builds one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import skips

from netlab.kubeproxy import ruleset
from netlab.linux.syscalls import CLONE_NEWNET, setns, unshare
from netlab.model import Interface, Topology


class PrivateLab:
    """The namespaces of a topology, with the two methods that observers need. Skips the test unless this is root."""

    def __init__(self, topology: Topology) -> None:
        skips.skip_unless_root()
        self._fds = {netns.name: _new_netns() for netns in topology.namespaces}
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._build(topology)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the namespaces: the kernel removes them and all that is in them."""
        for fd in (*self._fds.values(), self._home):
            os.close(fd)

    @contextmanager
    def inside(self, name: str, /) -> Iterator[None]:
        """The calling thread is in the namespace meanwhile."""
        setns(self._fds[name], CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self._home, CLONE_NEWNET)

    def socket(self, name: str, family: int, kind: int, proto: int = 0, /) -> socket.socket:
        """A socket that belongs to the namespace."""
        with self.inside(name):
            return socket.socket(family, kind, proto)

    def run(self, name: str, *argv: str, stdin: str = "") -> str:
        """Run a program in the namespace; its stdout."""
        with self.inside(name):
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def sysctl(self, name: str, key: str) -> str:
        """The value of a sysctl in the namespace; key is "net.ipv4.ip_forward"."""
        with self.inside(name):
            return Path("/proc/sys", key.replace(".", "/")).read_text().strip()

    def _build(self, topology: Topology) -> None:
        links = _Batches()
        for link in topology.links:
            first, *others = link.interfaces()
            words = [first.ifname, "type", link.kind]
            for other in others:
                place = f"/proc/{os.getpid()}/fd/{self._fds[other.netns]}"
                words += ["peer", "name", other.ifname, "netns", place]
            links.add(first.netns, "link", "add", *words)
        links.run(self)
        for netns in topology.namespaces:
            for key, value in netns.sysctls:  # after the links: some of them are a link's own
                with self.inside(netns.name):
                    Path("/proc/sys", key.replace(".", "/")).write_text(value)
            for key, value in netns.sysctls_if_there:
                with self.inside(netns.name), suppress(FileNotFoundError):
                    Path("/proc/sys", key.replace(".", "/")).write_text(value)
        interfaces = _Batches()
        for netns in topology.namespaces:
            interfaces.add(netns.name, "link", "set", "lo", "up")
        for interface in topology.interfaces():
            _dress(interface, interfaces)
        interfaces.run(self)
        routes = _Batches()
        for netns in topology.namespaces:
            for route in netns.routes:
                via = ("via", str(route.via)) if route.via else ()
                dev = ("dev", route.dev) if route.dev else ()
                routes.add(netns.name, "route", "add", str(route.dst), *via, *dev)
        routes.run(self)
        for netns in topology.namespaces:
            rules = ruleset(topology, netns.name)
            if rules is not None:
                self.run(netns.name, "nft", "-f", "-", stdin=rules.nft())
            for table in netns.tables:
                text = f"table {table.family} {table.name} {{\n{table.body}\n}}\n"
                self.run(netns.name, "nft", "-f", "-", stdin=text)


class _Batches:
    """What `ip` is to do, one process a namespace."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, netns: str, *words: str) -> None:
        self._lines.setdefault(netns, []).append(" ".join(words))

    def run(self, lab: PrivateLab) -> None:
        for netns, lines in self._lines.items():
            lab.run(netns, "ip", "-batch", "-", stdin="\n".join(lines))


def _dress(interface: Interface, batches: _Batches) -> None:
    ifname, segs = interface.ifname, interface.attributes.gso_max_segs
    for address in interface.addresses:
        nodad = ("nodad",) if address.version == 6 else ()
        plain = () if interface.prefix_route else ("noprefixroute",)
        batches.add(interface.netns, "address", "add", str(address), "dev", ifname, *nodad, *plain)
    limit = ("gso_max_segs", str(segs)) if segs else ()
    master = ("master", interface.master) if interface.master else ()
    batches.add(interface.netns, "link", "set", ifname, "up", *limit, *master)


def _new_netns() -> int:
    fds: list[int] = []

    def make() -> None:
        unshare(CLONE_NEWNET)
        fds.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    # In a thread of its own, so that the calling thread stays where it is.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return fds[0]
