"""Where a node's rules may send what comes to an address and port, read from nft's own listing of them. Pure.

Whoever wrote the rules: netlab, or somebody by hand. Matches that are not understood are taken to match, and no rule to
end the way, so the answer has every destination there can be, and may have more: what is not in it is certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from netlab.model import Address

_TABLE = re.compile(r"^table (\S+) (\S+) \{.*?^\}", re.MULTILINE | re.DOTALL)
_PART = re.compile(r"^\t(chain|map) (\S+) \{[^\n]*\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r' comment "[^"]*"| # handle \d+')
_BASE = re.compile(r"type nat hook (prerouting|output) ")
_DADDR, _DPORT = re.compile(r"\bip6? daddr ([0-9a-f:][0-9a-f.:]+)(?= |$)"), re.compile(r"\bdport (\d+)\b")
_PROTOCOL = re.compile(r"\b(?:meta l4proto )?(tcp|udp|sctp)\b")
_TO, _DNAT = re.compile(r"\b(?:jump|goto) ([^\s,;]+)"), re.compile(r"\bdnat (?:ip6? )?to (\S+)")
_MAP, _ELEMENT = re.compile(r"\bvmap @(\S+)"), re.compile(r"([^,{}=]+?) : ([^,{}]+)")
_UNREADABLE = re.compile(r"\bxt |\bredirect\b|\btproxy\b|\bcounter\s*$")
"""iptables' own targets among them: nft leaves out those whose extension it lacks, and shows nothing but a counter."""


class _UnreadableError(Exception):
    """A rule that can't be read."""


def leads(listing: str, address: Address, port: int) -> frozenset[tuple[Address, int]] | None:
    """Where datagrams of UDP to that address and port may be sent by destination NAT: the (address, port)s.

    listing is what `nft list ruleset` prints, with or without handles. None where it has rules that can't be read, as
    those of iptables' own extensions.
    """
    found: set[tuple[Address, int]] = set()
    for table in _TABLE.finditer(listing):
        if table[1] not in ("ip" if address.version == 4 else "ip6", "inet"):
            continue
        parts = {(part[1], part[2]): _COMMENT.sub("", part[3]) for part in _PART.finditer(table[0])}
        waiting = [name for (kind, name), body in parts.items() if kind == "chain" and _BASE.search(body)]
        try:
            found.update(_followed(parts, waiting, address, port))
        except _UnreadableError:
            return None
    return frozenset(found)


def _followed(
    parts: dict[tuple[str, str], str], waiting: list[str], address: Address, port: int
) -> Iterator[tuple[Address, int]]:
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in parts.get(("chain", name), "").splitlines():
            if not _may_match(line, address, port):
                continue
            if _UNREADABLE.search(line):
                raise _UnreadableError
            if " dnat " in f" {line.strip()} ":
                yield _socket(line, address, port)
            waiting += _TO.findall(line)
            for known in _MAP.findall(line):
                for key, verdict in _ELEMENT.findall(parts.get(("map", known), "")):
                    if _may_be(key, address, port):
                        waiting += _TO.findall(verdict)


def _may_match(line: str, address: Address, port: int) -> bool:
    daddr, dport, protocol = _DADDR.search(line), _DPORT.search(line), _PROTOCOL.search(line)
    if daddr is not None and ip_address(daddr[1]) != address:
        return False
    if protocol is not None and protocol[1] != "udp":
        return False
    return dport is None or int(dport[1]) == port


def _may_be(key: str, address: Address, port: int) -> bool:
    """Whether a map's key, "10.96.0.2 . udp . 53", can be that of the datagrams."""
    parts = [part.strip() for part in key.split(" . ")]
    if any(part in ("tcp", "sctp") for part in parts) or (parts[-1].isdigit() and int(parts[-1]) != port):
        return False
    try:
        return ip_address(parts[0]) == address
    except ValueError:
        return True


def _socket(line: str, address: Address, port: int) -> tuple[Address, int]:
    to = _DNAT.search(line)
    host, _, number = to[1].rpartition(":") if to is not None else ("", "", "")
    if to is not None and (not host or (address.version == 6 and not host.startswith("["))):
        host, number = to[1], str(port)
    try:
        return ip_address(host.strip("[]")), int(number)
    except ValueError:
        raise _UnreadableError from None
