"""Packet filter rules as data: a Table holds Chains, a Chain holds Rules, a Rule is a match and a statement.

Only what kube-proxy's iptables mode uses is here; the nftables mode has its own words (`objects.py`). Nothing in this
file knows how a rule is written down: `nft.py` and `iptables_save.py` do, and each Rule is exactly one line in either.
Names (of chains, and in comments) come from a Topology, whose loader has checked their characters.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

from netlab.model import Address, Network, Protocol

Family: TypeAlias = Literal["ip", "ip6"]
"""nftables' address families, one iptables program each: iptables and ip6tables."""


class CtState(StrEnum):
    """What conntrack says of a packet, in nftables' spelling; DNAT is that its connection's destination is translated.

    nftables asks for that as a status, iptables in one breath with the states.
    """

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    DNAT = "dnat"


class Recent(NamedTuple):
    """A list of sources and when each was last seen, as xt_recent keeps them by name.

    With within_s a packet matches whose source was seen no more than so many seconds ago; without, any packet does,
    and its source is seen now. Beyond 100 sources (its parameter ip_list_tot) xt_recent forgets the one that it has not
    seen for longest; a set of nftables holds 65,535, where nft is told no other size.
    """

    name: str
    within_s: int | None = None


class Match(NamedTuple):
    """What a packet must have, all of it; a field left at None asks nothing.

    source_outside and destination_outside hold for a packet whose address is not in that network; the port is the
    destination's and needs protocol. ct_state is one of several, ct_state_not none of several. marked and unmarked are
    bits of the packet's mark that are all set, or not all set. one_in is chance: the rule is taken by one packet in so
    many.
    """

    source: Address | Network | None = None
    source_outside: Network | None = None
    source_is_local: bool = False
    destination: Address | Network | None = None
    destination_outside: Network | None = None
    destination_is_local: bool = False
    protocol: Protocol | None = None
    port: int | None = None
    ct_state: tuple[CtState, ...] = ()
    ct_state_not: tuple[CtState, ...] = ()
    marked: int | None = None
    unmarked: int | None = None
    one_in: int | None = None
    recent: Recent | None = None


ANY = Match()
"""Every packet."""


class Verdict(StrEnum):
    """Statements that need nothing more said.

    REJECT answers with ICMP port unreachable, and a connect() fails with ECONNREFUSED. Over veths the answer can come
    while connect() still holds its socket: the kernel then drops it (TcpExtLockDroppedIcmps), and the next SYN, a
    second later, brings the one that counts. MASQUERADE takes the address of the interface that the packet leaves by,
    and a source port at random. COUNT does nothing but that.
    """

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    REJECT = "reject"
    MASQUERADE = "masquerade"
    COUNT = "count"


class Jump(NamedTuple):
    """Go on in another chain of the same table, and come back at its end."""

    chain: str


class Dnat(NamedTuple):
    """Translate the destination of the connection that this packet opens."""

    address: Address
    port: int


class SetMark(NamedTuple):
    """Set these bits of the packet's mark."""

    bits: int


class FlipMark(NamedTuple):
    """Turn these bits of the packet's mark over: where they are set, clear them."""

    bits: int


Statement: TypeAlias = Verdict | Jump | Dnat | SetMark | FlipMark


class Rule(NamedTuple):
    """One rule: packets that match meet the statement. comment is kube-proxy's own, without quotes; may be empty."""

    statement: Statement
    match: Match = ANY
    comment: str = ""


class Hook(NamedTuple):
    """Where a base chain hangs: `type nat hook prerouting priority -100`."""

    type: Literal["nat", "filter"]
    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int


class Chain(NamedTuple):
    """Rules in order. A chain with a hook is a base chain (iptables: built-in) whose policy is accept."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None


class Table(NamedTuple):
    """Chains of one family under a table's name: ("ip", "nat") is what `nft list table ip nat` lists.

    written are the names of the chains that are no base chains, once for each of their rules, in the order in which
    kube-proxy writes the rules of all of them down. timeouts_s are how long the lists of Match.recent remember, by
    name: iptables has that in each rule that asks, nftables in the list. unwritten are empty chains that kube-proxy
    makes together with the jumps to them, and never writes down.
    """

    family: Family
    name: str
    chains: tuple[Chain, ...]
    written: tuple[str, ...] = ()
    timeouts_s: tuple[tuple[str, int], ...] = ()
    unwritten: tuple[str, ...] = ()
