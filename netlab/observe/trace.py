"""The path of packets through a namespace's rules: what `nft monitor trace` shows.

While one of these observers is open, a table (TRACE_TABLE) marks packets for tracing, before and after conntrack has
seen them; a namespace has one, of the ports of all its observers, and its keeper makes it (`keeper.py`). Each packet
passes its few rules; a marked one costs the kernel a message for each rule it matches and each chain it leaves. So not
all are marked: those that open, end or reset a connection, those that conntrack calls INVALID, and ICMP's errors
always; of the rest as many as `LIMIT` allows. Equivalent to `nft monitor trace`: traces are told to all who ask.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Collection
from contextlib import ExitStack

from netlab.linux import netdevice, nft
from netlab.linux.netlink import Subscription, attributes
from netlab.observe import Namespaces
from netlab.observe.keeper import Share
from netlab.record.events import TRACE_INVALID_CHAIN, TRACE_TABLE, TraceStep
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import decode_datagram, decode_ip

_NFNLGRP_NFTRACE = 9
# include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
_NFT_MSG_TRACE = 10 << 8 | 17
_TABLE, _CHAIN, _RULE_HANDLE, _TYPE, _VERDICT, _ID, _NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2, 3, 4, 5, 6, 8, 9
_IIF, _OIF, _POLICY = 10, 12, 16
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_TYPE_POLICY, _TYPE_RULE = 1, 3
# enum nft_verdicts, which goes on where the verdicts of include/uapi/linux/netfilter.h end.
_VERDICTS = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    4: "repeat",
    5: "stop",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # enum of NFPROTO_*, netfilter.h

_TABLE_LINE = re.compile(r"table (\S+) (\S+) \{")
_CHAIN_LINE = re.compile(r"\tchain (\S+) \{")
_RULE_END = re.compile(r" # handle (\d+)$")


class TraceObserver:
    """The path of packets of TCP, UDP and SCTP from or to one of `ports` (any without), and of ICMP's errors.

    Packets that another observer or program has marked come, too. conntrack says whether the namespace tracks
    connections: a rule that asks conntrack would make it begin to. OSError where the kernel can't trace or refuses the
    table.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        netns: str,
        ports: Collection[int],
        *,
        conntrack: bool,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self.id = ObserverId(ObserverKind.TRACES, netns)
        self._netns = netns
        with ExitStack() as opening:
            with namespaces.inside(netns):
                self._subscription = Subscription([_NFNLGRP_NFTRACE], receive_buffer_bytes)
            opening.callback(self._subscription.close)
            opening.callback(Share(namespaces, netns, "marks", ports=sorted(ports), conntrack=conntrack).close)
            with namespaces.inside(netns):
                self._ifnames = netdevice.ifnames()
                self._rules = rules_by_handle(nft.ruleset_with_handles())
            self._closing = opening.pop_all()

    def fileno(self) -> int:
        """The descriptor that is readable when steps wait."""
        return self._subscription.fileno()

    def read(self) -> list[TraceStep]:
        """The steps that wait, in the packets' order. Of our own table only the verdict INVALID is told."""
        steps = []
        for message_type, _, body in self._subscription.read():
            if message_type != _NFT_MSG_TRACE:
                continue
            step = decode_step(body, self._netns, self._rules, self._ifnames)
            if step.table != TRACE_TABLE or (step.rule and step.chain.startswith(TRACE_INVALID_CHAIN)):
                steps.append(step)
        return steps

    def lost(self) -> int:
        """How many steps found the buffer full since this was last asked."""
        return self._subscription.lost()

    def close(self) -> None:
        """Stop observing; with the last of these observers, the table goes."""
        self._closing.close()


def rules_by_handle(ruleset: str) -> dict[tuple[str, str, int], str]:
    """The rules of `nft -sa list ruleset` by family, table and handle, as nft prints them."""
    rules: dict[tuple[str, str, int], str] = {}
    family = table = ""
    in_chain = False
    parts: list[str] = []
    for line in ruleset.splitlines():
        if found := _TABLE_LINE.match(line):
            family, table = found.groups()
        elif line.startswith("\t\t"):
            parts.append(line.strip())
            if in_chain and (handle := _RULE_END.search(line)):
                rules[family, table, int(handle[1])] = _RULE_END.sub("", " ".join(parts))
                parts = []
            elif line.endswith(";") or not in_chain or parts[0].startswith("comment "):
                parts = []  # the chain's hook and policy, a set's members, the chain's own comment
        else:
            in_chain, parts = bool(_CHAIN_LINE.match(line)), []
    return rules


def decode_step(body: bytes, netns: str, rules: dict[tuple[str, str, int], str], ifnames: dict[int, str]) -> TraceStep:
    """One step from an NFT_MSG_TRACE message's body, nfgenmsg first. A rule not in `rules` is named by its handle."""
    told = attributes(body[4:])
    family, table = _FAMILIES.get(body[0], str(body[0])), _text(told, _TABLE)
    rule, handle = "", 0
    if _RULE_HANDLE in told and _number(told, _TYPE) == _TYPE_RULE:
        handle = _number(told, _RULE_HANDLE)
        rule = rules.get((family, table, handle), f"handle {handle}")
    if _number(told, _TYPE) == _TYPE_POLICY:
        verdict = _VERDICTS.get(_number(told, _POLICY), "")
    else:
        verdict = _verdict(attributes(told.get(_VERDICT, b"")))
    packet = told.get(_NETWORK_HEADER, b"") and told[_NETWORK_HEADER] + told.get(_TRANSPORT_HEADER, b"")
    return TraceStep(
        time_ns=time.time_ns(),
        netns=netns,
        trace_id=_number(told, _ID),
        family=family,
        table=table,
        chain=_text(told, _CHAIN),
        rule=rule,
        verdict=verdict,
        ifname_in=ifnames.get(_number(told, _IIF), ""),
        ifname_out=ifnames.get(_number(told, _OIF), ""),
        segment=decode_ip(packet),
        datagram=decode_datagram(packet),
        rule_handle=handle,
    )


def _verdict(told: dict[int, bytes]) -> str:
    (code,) = struct.unpack("!i", told.get(_VERDICT_CODE, b"\xff\xff\xff\xff"))
    # The upper half of drop and queue holds an errno or a queue's number.
    name = _VERDICTS.get(code if code < 0 else code & 0xFF, str(code))
    chain = _text(told, _VERDICT_CHAIN)
    return f"{name} {chain}" if chain else name


def _number(told: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(told.get(kind, b""), "big")


def _text(told: dict[int, bytes], kind: int) -> str:
    return told.get(kind, b"").rstrip(b"\0").decode(errors="replace")
