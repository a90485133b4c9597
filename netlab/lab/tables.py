"""The tables of a lab's own, in an empty namespace: what nft finds wrong with their text, and links for them to name.

Loading them into the lab is `apply.py`'s, comparing them `read.py`'s.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from netlab.errors import NetlabError, TopologyError, UnsupportedError, told
from netlab.escapes import Lines
from netlab.lab.holder import become_rootless
from netlab.lab.spec import Spec
from netlab.linux import children, nft, rtnl
from netlab.linux.deadlines import scaled
from netlab.linux.syscalls import CLONE_NEWNET, unshare
from netlab.model import NftTable, Topology
from netlab.topology import problem
from netlab.topology.words import OWN_TABLES
from netlab.yamlspec.limits import MAX_PROBLEMS


class Refusal(NamedTuple):
    """What nft says of a table's text. line and column count from 1 in the body; line 0 is the whole of it."""

    netns: str
    table: NftTable
    line: int
    column: int
    message: str


def interfaces_named(topology: Topology) -> Iterator[tuple[str, NftTable, tuple[str, ...]]]:
    """Each table with its namespace, and those of the namespace's interfaces whose names are in its text."""
    ifnames: dict[str, list[str]] = {netns.name: [] for netns in topology.namespaces if netns.tables}
    for interface in topology.interfaces():
        if interface.netns in ifnames:
            ifnames[interface.netns].append(interface.ifname)
    for netns in topology.namespaces:
        for table in netns.tables:
            yield netns.name, table, tuple(ifname for ifname in ifnames[netns.name] if ifname in table.body)


def pretend(ifnames: Iterable[str]) -> None:
    """Links of these names in the calling thread's namespace, where there are none: nft asks for their indexes.

    Equivalent to `ip link add IFNAME type bridge` for each; OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as rtnl_socket:
        for index, ifname in enumerate(ifnames, 2):
            message = rtnl.new_link(ifname, index, "bridge")
            rtnl_socket.send(rtnl.numbered(message, index, ack=True))
            for _, code, words in rtnl.errors(rtnl_socket.recv(1 << 16)):
                if code:
                    raise OSError(code, words or os.strerror(code), ifname)


def check(spec: Spec) -> None:
    """Ask nft about the tables of a topology; TopologyError with the place of each problem in its file.

    UnsupportedError where this user can make no namespaces to ask in.
    """
    found = refusals(spec.topology)
    if found:
        file = spec.file or "-"
        problems = []
        for one in found[:MAX_PROBLEMS]:
            path = ("namespaces", one.netns, "tables", f"{one.table.family} {one.table.name}")
            source = (spec.text, file, spec.settings, spec.fixes)
            problems.append(problem(*source, path, one.line, one.column, f"nft: {one.message}"))
        raise TopologyError(file, problems)


def refusals(topology: Topology) -> list[Refusal]:
    """What nft has against the tables of a topology, found by loading each into namespaces that end with this call.

    Those that netlab itself writes aren't asked about. UnsupportedError where this user can make none.
    """
    asked = [one for one in interfaces_named(topology) if not one[1].name.startswith(OWN_TABLES)]
    if not asked:
        return []

    def ask(told: BinaryIO) -> None:
        told.write(json.dumps(_answer([(table, named) for _, table, named in asked])).encode())

    found = json.loads(children.ask(ask).said or '{"unable": "the process that asks nft ended before it answered"}')
    if "unable" in found:
        raise UnsupportedError(Lines(found["unable"]))
    said = zip(asked, found["said"], strict=True)
    return [Refusal(netns, table, *one) for (netns, table, _), complaints in said for one in complaints]


_NFT_BYTES, _NFT_S = 400 << 20, 20
"""What nft may take: a `define` of defines doubles with each step, and the text of a table is anybody's."""


def _answer(asked: list[tuple[NftTable, tuple[str, ...]]]) -> dict[str, object]:
    """In a child: the complaints about each table, or why none can be asked for."""
    resource.setrlimit(resource.RLIMIT_DATA, (_NFT_BYTES, _NFT_BYTES))  # of each child in which nft reads a table
    most_s = round(scaled(_NFT_S))
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
    over = time.monotonic() + most_s
    try:
        if os.geteuid() != 0:
            become_rootless()
        known: dict[tuple[NftTable, tuple[str, ...]], list[tuple[int, int, str]]] = {}
        for table, ifnames in asked:
            if time.monotonic() > over:
                break
            if (table, ifnames) not in known:
                unshare(CLONE_NEWNET)
                pretend(ifnames)
                known[table, ifnames] = _complaints(table)
        if len(known) < len(set(asked)) and not any(known.values()):
            return {"unable": f"nft takes longer than {_NFT_S} s for them"}
        return {"said": [known.get(one, []) for one in asked]}
    except OSError as error:
        return {"unable": told(error)}
    except NetlabError as error:
        return {"unable": str(error)}


_COMPLAINT = re.compile(r"^[^\n]*?:([0-9]+):([0-9]+)-[0-9]+: Error: ([^\n]*)", re.MULTILINE)


def _complaints(table: NftTable) -> list[tuple[int, int, str]]:
    try:
        complaint = nft.complaint(f"table {table.family} {table.name} {{\n{table.body}\n}}\n")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return [(0, 0, error.strerror or str(error))]  # the text is more than libnftables can bear
    if not complaint:
        return []
    last = table.body.rstrip().count("\n") + 1
    found = _COMPLAINT.findall(complaint)
    # After a syntax error nft loses its way: what it says next of the end is no help.
    found = found[:1] + [one for one in found[1:] if not one[2].endswith("unexpected end of file")]
    return [(min(max(int(line) - 1, 1), last), int(column), message) for line, column, message in found] or [
        (0, 0, complaint.strip())
    ]
