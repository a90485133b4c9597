"""A topology as a list for a terminal, and as a graph for Mermaid and for Graphviz. Pure.

All three say the same: each namespace with its interfaces and addresses, and which interface leads to which. `graph.py`
draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netlab.escapes import line, lines
from netlab.model import Interface, Netns, Service, Topology
from netlab.record.words import endpoint
from netlab.report.wrapping import wrap


def text(topology: Topology, width: int = 80) -> str:
    """The namespaces with their interfaces, an interface a line, and the Services; ends in a newline."""
    ends = _ends(topology)
    every = [end for each in ends.values() for end in each]
    names = max((len(end.interface.ifname) for end in every), default=0)
    addresses = max((len(str(address)) for end in every for address in end.interface.addresses), default=0)
    told = [*wrap(f"{topology.name}: {topology.description}" if topology.description else topology.name, width)]
    for netns in topology.namespaces:
        told += ["", f"{netns.name} ({', '.join(_is(topology, netns))})"]
        for end in ends[netns.name]:
            first, *more = map(str, end.interface.addresses or [""])
            told.append(f"  {end.interface.ifname:{names}}  {first:{addresses}}  {end.leads()}".rstrip())
            told += [f"  {'':{names}}  {address}" for address in more]
    told += [""] if topology.services else []
    for service in topology.services:
        told += wrap(f"Service {_service(service)}", width, subsequent_indent="  ")
    return lines("\n".join(told)) + "\n"


def mermaid(topology: Topology) -> str:
    """A Mermaid flowchart; ends in a newline."""
    ends = _ends(topology)
    ids = {netns.name: f"n{number}" for number, netns in enumerate(topology.namespaces)}
    told = ["flowchart LR"]
    for netns in topology.namespaces:
        label = "<br>".join(map(_entities, _label(topology, netns, ends[netns.name])))
        told.append(f'  {ids[netns.name]}["{label}"]')
    for a, b in topology.pairs():
        label = "<br>".join(_entities(" ".join(_words(end))) for end in (a, b))
        told.append(f'  {ids[a.netns]} ---|"{label}"| {ids[b.netns]}')
    return "\n".join(told) + "\n"


def dot(topology: Topology) -> str:
    """A graph in Graphviz's language, for `dot -Tsvg`; ends in a newline."""
    own = _ends(topology)
    told = [f"graph {_quoted([topology.name])} {{", "  node [shape=box]"]
    told += [
        f"  {_quoted([netns.name])} [label={_quoted(_label(topology, netns, own[netns.name]))}]"
        for netns in topology.namespaces
    ]
    for a, b in topology.pairs():
        ends = f"taillabel={_quoted(_words(a))}, headlabel={_quoted(_words(b))}"
        told.append(f"  {_quoted([a.netns])} -- {_quoted([b.netns])} [{ends}]")
    return "\n".join([*told, "}"]) + "\n"


class _End(NamedTuple):
    """An interface, the one at the other end of its link where there is one, and what else is to be said of it."""

    interface: Interface
    other: Interface | None
    note: str

    def leads(self) -> str:
        """Where it leads, in words."""
        to = self.note if self.other is None else f"-- {self.other.netns} {self.other.ifname}"
        return f"{to}, in {self.interface.master}" if self.interface.master else to


def _ends(topology: Topology) -> dict[str, list[_End]]:
    """The interfaces of each namespace."""
    found: dict[str, list[_End]] = {netns.name: [] for netns in topology.namespaces}
    for link in topology.links:
        ends = link.interfaces()
        for end, other in zip(ends, reversed(ends), strict=True):
            found[end.netns].append(_End(end, other if len(ends) == 2 else None, link.note(end)))
    return found


def _is(topology: Topology, netns: Netns) -> Iterator[str]:
    """What a namespace is, in words."""
    yield netns.role.value
    yield from (f"lo {address}" for address in netns.loopback)
    if netns.name in topology.kube_proxy.nodes:
        yield "kube-proxy's NAT"


def _label(topology: Topology, netns: Netns, ends: Iterable[_End]) -> list[str]:
    """A namespace's lines: its name, what it is, and the interfaces that lead to no other namespace."""
    alone = [" ".join((*_words(end.interface), end.note)) for end in ends if end.other is None]
    return [netns.name, ", ".join(_is(topology, netns)), *alone]


def _words(interface: Interface) -> list[str]:
    return [interface.ifname, *map(str, interface.addresses)]


def _service(service: Service) -> str:
    """A Service's addresses and where they lead."""
    vips = (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
    at = [f"{endpoint(address, port.port)}/{port.protocol}" for port in service.ports for address in vips]
    at += [f"node port {port.node_port}/{port.protocol}" for port in service.ports if port.node_port is not None]
    to = [
        f"{each.netns} {endpoint(address, port.target_port)}"
        for port in service.ports
        for each in service.endpoints
        for address in each.addresses
    ]
    return f"{service.name}: {', '.join(at)} -> {', '.join(to) or 'no endpoint'}"


def _entities(words: str) -> str:
    """Text for a Mermaid label: what could mean something there by its number (#35; is a number sign)."""
    return "".join(char if char.isalnum() or char in " .:/,-_()'" else f"#{ord(char)};" for char in line(words))


def _quoted(parts: list[str]) -> str:
    """A string of Graphviz's language, of these lines."""
    escaped = (line(part).replace("\\", "\\\\").replace('"', '\\"') for part in parts)
    return '"' + "\\n".join(escaped) + '"'
