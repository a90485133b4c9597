"""A topology as a picture: namespaces as boxes with their interfaces, links as lines, SVG. Pure.

Which namespaces stand in the upper row, and in what order, is the caller's to say; all others stand below the node they
hang on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab.model import Netns, Protocol, Role, Service, ServicePort, Topology
from netlab.report.markup import Markup, join, tag, wrap_text
from netlab.report.sequence import endpoint

_BOX, _GAP, _DROP = 194, 32, 36
_LINE, _SIZE, _PAD = 16, 12, 12

_Line = tuple[str, str]
"""A class for the style, and the text."""


def svg(topology: Topology, path: Sequence[str]) -> Markup:
    """The picture; path are the names of the upper row's namespaces, from left to right."""
    places = _places(topology, path)
    lines = {netns.name: list(_lines(topology, netns)) for netns in topology.namespaces}
    rows = max(row for _, row in places.values()) + 1
    tall = [
        max(_PAD * 2 + 22 + _LINE * len(lines[name]) for name, (_, at) in places.items() if at == row)
        for row in range(rows)
    ]
    tops = [sum(tall[:row]) + _DROP * row + 6 for row in range(rows)]
    columns = max(column for column, _ in places.values()) + 1
    width, height = columns * (_BOX + _GAP) - _GAP + 12, tops[-1] + tall[-1] + 6
    corner = {name: (6.0 + column * (_BOX + _GAP), float(tops[row])) for name, (column, row) in places.items()}
    middle = {name: (x + _BOX / 2, y + tall[places[name][1]] / 2) for name, (x, y) in corner.items()}
    links = [
        tag("line", class_="link", x1=middle[a][0], y1=middle[a][1], x2=middle[b][0], y2=middle[b][1])
        for a, b in dict.fromkeys((veth.a.netns, veth.b.netns) for veth in topology.veths)
    ]
    boxes = [_box(topology.netns(name), *corner[name], tall[places[name][1]], lines[name]) for name in places]
    pairs = "; ".join(f"{v.a.netns} {v.a.ifname} to {v.b.netns} {v.b.ifname}" for v in topology.veths)
    return tag(
        "svg",
        tag("title", f"The lab {topology.name}: {len(topology.namespaces)} namespaces"),
        tag("desc", f"Links: {pairs}."),
        *links,
        *boxes,
        class_="graph",
        role="img",
        aria_label=f"The lab {topology.name}. Links: {pairs}.",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
    )


def _places(topology: Topology, path: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Column and row of each namespace."""
    names = [netns.name for netns in topology.namespaces]
    upper = [name for name in dict.fromkeys(path) if name in names]
    upper += [n.name for n in topology.namespaces if n.role is Role.NODE and n.name not in upper]
    upper = upper or names
    places = {name: (column, 0) for column, name in enumerate(upper)}
    used = dict.fromkeys(range(len(upper)), 1)
    for netns in topology.namespaces:
        if netns.name not in places:
            column = upper.index(netns.node) if netns.node in upper else min(used, key=lambda c: used[c])
            places[netns.name] = (column, used[column])
            used[column] += 1
    return places


def _lines(topology: Topology, netns: Netns) -> Iterator[_Line]:
    room = _BOX - 2 * _PAD
    bridges = {bridge.interface.ifname for bridge in topology.bridges if bridge.interface.netns == netns.name}
    peers = {(a.netns, a.ifname): b for veth in topology.veths for a, b in ((veth.a, veth.b), (veth.b, veth.a))}
    for interface in topology.interfaces():
        if interface.netns != netns.name:
            continue
        addresses = " ".join(str(address) for address in interface.addresses)
        peer = peers.get((netns.name, interface.ifname))
        what = "bridge" if interface.ifname in bridges else f"to {peer.netns}" if peer else ""
        for line in wrap_text(" ".join(word for word in (interface.ifname, addresses, what) if word), room, _SIZE):
            yield "plain", line
    for address in netns.loopback:
        yield "plain", f"lo {address}"
    for key, value in netns.sysctls:
        for line in wrap_text(f"{key.removeprefix('net.')} = {value}", room, _SIZE):
            yield "quiet", line
    if netns.name in topology.kube_proxy.nodes:
        for service in topology.services:
            for port in service.ports:
                for line in wrap_text(_nat(service, port), room, _SIZE + 1):
                    yield "strong", line
        if topology.kube_proxy.drop_invalid:
            yield "strong", "Drops INVALID packets"


def _nat(service: Service, port: ServicePort) -> str:
    vips = ", ".join(endpoint(address, port.port) for address in service.cluster_ips)
    to = [endpoint(address, port.target_port) for backend in service.endpoints for address in backend.addresses]
    protocol = "" if port.protocol is Protocol.TCP else f" ({port.protocol})"
    return f"NAT here{protocol}: {vips} ⇄ {' or '.join(to) or 'no endpoint'}"


def _box(netns: Netns, x: float, y: float, height: float, lines: Sequence[_Line]) -> Markup:
    texts = [
        tag("text", line, class_=kind, x=x + _PAD, y=y + _PAD + 28 + index * _LINE)
        for index, (kind, line) in enumerate(lines)
    ]
    return tag(
        "g",
        tag("rect", class_=f"box {netns.role}", x=x, y=y, width=_BOX, height=height, rx=8),
        tag(
            "text",
            join([netns.name, tag("tspan", f"  {netns.role}", class_="quiet")]),
            class_="head",
            x=x + _PAD,
            y=y + 22,
        ),
        *texts,
    )
