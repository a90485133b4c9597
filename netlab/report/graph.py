"""A topology as a picture: namespaces as boxes with their interfaces, links as lines, SVG. Pure.

Which namespaces stand in the upper row, and in what order, is the caller's to say; all others stand below the node they
hang on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from netlab.model import Netns, Protocol, Role, Service, ServicePort, Topology
from netlab.record.words import endpoint
from netlab.report.markup import Markup, join, tag, wrap_text
from netlab.report.markup import path as draw

BOX_WIDTH = 190
"""Every box's, in the user units that are CSS pixels when the picture is drawn at its own width."""

_GAP, _DROP = 32, 36
_MARGIN = 28
_LINE, _HEAD, _PAD = 16, 18, 12
_WIDEST, _WIDEST_HEAD = 13, 15
"""Font sizes that lines and names are broken for: a little more than theirs, for fonts that run wide, and for bold."""

_Line = tuple[str, str]
"""A class for the style, and the text."""


_STYLE = """
  .graph { --ground: #fff; --ink: #1b1d20; --quiet: #565b62; --line: #868c94; --good: #0a5a9c; }
  .graph { background: var(--ground); font: 14px system-ui, sans-serif; }
  @media (prefers-color-scheme: dark) {
    .graph { --ground: #15181c; --ink: #eceef0; --quiet: #b3b9c1; --line: #8b929b; --good: #7dbdf2; }
  }
  text { fill: var(--ink); }
  .quiet { fill: var(--quiet); font-size: 12px; font-weight: normal; }
  .head { font-weight: 650; }
  .plain, .strong { font-size: 12px; }
  .strong { font-weight: 650; fill: var(--good); }
  .box { fill: var(--ground); stroke: var(--line); stroke-width: 1.5; }
  .box.node { stroke-width: 3; }
  .box.host { stroke-dasharray: 6 4; }
  .link { fill: none; stroke: var(--line); stroke-width: 3; }
"""


def svg_file(topology: Topology) -> str:
    """The picture as a file of its own, with its style; the nodes stand in the upper row."""
    return svg(topology, (), tag("style", _STYLE), xmlns="http://www.w3.org/2000/svg") + "\n"


def svg(topology: Topology, path: Sequence[str], *first: Markup, xmlns: str | None = None) -> Markup:
    """The picture; path are the names of the upper row's namespaces, from left to right.

    first are elements to begin with, xmlns the namespace that a file of SVG names.
    """
    lines, boxes = _laid_out(topology, path)
    width = _width(boxes)
    height = max(box.y + box.height for box in boxes.values()) + _MARGIN
    joined = topology.pairs()
    ends = dict.fromkeys((a.netns, b.netns) for a, b in joined)
    links = [
        tag("path", class_="link", d=draw(route(boxes[a], boxes[b], number)))
        for number, (a, b) in enumerate(ends)
        if a != b
    ]
    pairs = "; ".join(f"{a.netns} {a.ifname} to {b.netns} {b.ifname}" for a, b in joined)
    return tag(
        "svg",
        *first,
        tag("title", f"The lab {topology.name}: {len(topology.namespaces)} namespaces"),
        tag("desc", f"Links: {pairs}."),
        *links,
        *(_draw_box(topology.netns(name), box, lines[name]) for name, box in boxes.items()),
        xmlns=xmlns,
        class_="graph",
        role="img",
        aria_label=f"The lab {topology.name}. Links: {pairs}.",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
    )


def width(topology: Topology, path: Sequence[str]) -> float:
    """How wide `svg` is, in its user units."""
    return _width(_laid_out(topology, path)[1])


def _laid_out(topology: Topology, path: Sequence[str]) -> tuple[dict[str, list[_Line]], dict[str, Box]]:
    """The lines and the box of each namespace."""
    lines = {netns.name: list(_lines(topology, netns)) for netns in topology.namespaces}
    heads = {netns.name: len(_head(netns)) for netns in topology.namespaces}
    return lines, _boxes(_places(topology, path), lines, heads)


def _width(boxes: Mapping[str, Box]) -> float:
    return max(box.x for box in boxes.values()) + BOX_WIDTH + _MARGIN


@dataclass(frozen=True, slots=True)
class Box:
    """Where a namespace stands: its column and row, and its place in the picture."""

    column: int
    row: int
    x: float
    y: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """The point in its middle."""
        return self.x + BOX_WIDTH / 2, self.y + self.height / 2


def _boxes(places: dict[str, tuple[int, int]], lines: dict[str, list[_Line]], heads: dict[str, int]) -> dict[str, Box]:
    tall = {name: float(_PAD * 2 + 4 + _HEAD * heads[name] + _LINE * len(lines[name])) for name in places}
    rows = max(row for _, row in places.values()) + 1
    # In the upper row all are as tall as the tallest, so that the links between them are level.
    level = max(tall[name] for name, (_, row) in places.items() if row == 0)
    tops = [float(_MARGIN)]
    for row in range(rows - 1):
        below = level if row == 0 else max(tall[name] for name, (_, at) in places.items() if at == row)
        tops.append(tops[-1] + below + _DROP)
    return {
        name: Box(column, row, _MARGIN + column * (BOX_WIDTH + _GAP), tops[row], level if row == 0 else tall[name])
        for name, (column, row) in places.items()
    }


def route(a: Box, b: Box, number: int) -> list[tuple[float, float]]:
    """The corners of a link between two boxes, by the gaps between columns and rows: it touches no other box.

    number sets it off a little from others that take the same way.
    """
    off = 5.0 * (number % 4)
    if (a.row, a.column) > (b.row, b.column):
        a, b = b, a
    (ax, ay), (bx, by) = a.middle, b.middle
    beside = a.row == b.row and b.column - a.column == 1
    below = a.column == b.column and b.row - a.row == 1
    if beside or below:
        return [(ax, ay), (bx, ay if beside else by)]
    # Below the middle, where the links to the boxes beside are.
    ay = a.y + a.height - 12 - off
    if a.column == b.column:
        trunk = a.x - 6 - off
        return [(a.x, ay), (trunk, ay), (trunk, by), (b.x, by)]
    side, gap = (a.x + BOX_WIDTH, a.x + BOX_WIDTH + 6 + off) if b.column > a.column else (a.x, a.x - 6 - off)
    channel = b.y - 6 - off
    return [(side, ay), (gap, ay), (gap, channel), (bx + off, channel), (bx + off, b.y)]


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
    room = BOX_WIDTH - 2 * _PAD
    for link in topology.links:
        for interface in link.interfaces():
            if interface.netns == netns.name:
                words = (interface.ifname, *map(str, interface.addresses), link.note(interface))
                for line in wrap_text(" ".join(words), room, _WIDEST):
                    yield "plain", line
    for address in netns.loopback:
        for line in wrap_text(f"lo {address}", room, _WIDEST):
            yield "plain", line
    for key, value in netns.sysctls:
        short = key.removeprefix("net.").removeprefix("ipv4.").removeprefix("netfilter.").replace("conf.", "", 1)
        for line in wrap_text(f"{short} = {value}", room, _WIDEST):
            yield "quiet", line
    if netns.name in topology.kube_proxy.nodes:
        for service in topology.services:
            for port in service.ports:
                for line in wrap_text(_nat(service, port), room, _WIDEST):
                    yield "strong", line
        if topology.drops_invalid(netns.name):
            yield "strong", "Drops INVALID packets"


def _nat(service: Service, port: ServicePort) -> str:
    addresses = (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
    vips = [endpoint(address, port.port) for address in addresses]
    vips += [] if port.node_port is None else [f"node port {port.node_port}"]
    to = [endpoint(address, port.target_port) for backend in service.endpoints for address in backend.addresses]
    protocol = "" if port.protocol is Protocol.TCP else f" ({port.protocol})"
    return f"NAT here{protocol}: {', '.join(vips)} ⇄ {' or '.join(to) or 'no endpoint'}"


def _head(netns: Netns) -> list[str]:
    """The name and the role in lines; the role is the last line's last word."""
    return wrap_text(f"{netns.name}  {netns.role}", BOX_WIDTH - 2 * _PAD, _WIDEST_HEAD)


def _draw_box(netns: Netns, box: Box, lines: Sequence[_Line]) -> Markup:
    x, y = box.x + _PAD, box.y + _PAD
    *above, last = _head(netns)
    name = last.removesuffix(str(netns.role)).rstrip()
    heads: list[Markup | str] = [
        *above,
        join([name, tag("tspan", f"{'  ' if name else ''}{netns.role}", class_="quiet")]),
    ]
    below = y + 10 + _HEAD * len(heads)
    return tag(
        "g",
        tag("rect", class_=f"box {netns.role}", x=box.x, y=box.y, width=BOX_WIDTH, height=box.height, rx=8),
        *(tag("text", head, class_="head", x=x, y=y + 10 + row * _HEAD) for row, head in enumerate(heads)),
        *(tag("text", line, class_=kind, x=x, y=below + row * _LINE) for row, (kind, line) in enumerate(lines)),
    )
