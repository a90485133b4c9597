"""Mitigations against the reset: what `--fix` and `netlab fix` know by name.

A fix changes the description only; plan and kernel then make the lab follow, as they do for any other difference. The
built-in ones, which are here, change a Topology. Those that a topology's file defines change the file's values before
they are read, as `--set` does: so they come first, and are `topology.load`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from netlab.errors import UsageError
from netlab.kubeproxy import notrack
from netlab.model import BE_LIBERAL, DropInvalid, Mode, Netns, Topology

PLAIN = "plain"
"""What a lab without any fix is called, where others are called by their fixes: no fix can have that name."""


class Fix(NamedTuple):
    """A built-in fix. summary is one line for a list; apply gives the changed topology, and may be repeated.

    lacks says why it has nothing to work on in a topology, and what to do about it; None where it has.
    """

    name: str
    summary: str
    apply: Callable[[Topology], Topology]
    lacks: Callable[[Topology], tuple[str, str] | None]


def apply(topology: Topology, names: Iterable[str]) -> Topology:
    """The topology with the named built-in fixes; what they make of it doesn't depend on the order of the names.

    UsageError for a name that is none, and where a fix would change nothing: a result would be told as if it had.
    """
    wanted = set()
    for name in names:
        check_name(topology, name)
        missing = FIXES[name].lacks(topology)
        if missing is not None:
            raise UsageError(f"the fix {name!r} has nothing to work on: {missing[0]}", missing[1])
        wanted.add(name)
    # The last one first: a mode brings its own rule against INVALID packets, or none, and where a rule is asked for
    # twice, the one that always drops has the last word.
    for name in reversed(FIXES):
        if name in wanted:
            topology = FIXES[name].apply(topology)
    return topology


def names(topology: Topology) -> tuple[str, ...]:
    """The fixes that can be applied to a topology: the built-in ones first, then those that its file defines."""
    return (
        *(fix.name for fix in FIXES.values() if fix.lacks(topology) is None),
        *(fix.name for fix in topology.fixes),
    )


def check_name(topology: Topology, name: str) -> None:
    """UsageError where there is no fix of that name, built-in or the topology's own: what there is, what was meant."""
    known = (*FIXES, *(fix.name for fix in topology.fixes))
    if name not in known:
        from difflib import get_close_matches

        close = get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(f"there is no fix {name!r}", hint=f"{meant}the fixes are: {', '.join(known)}")


def _no_node(topology: Topology) -> tuple[str, str] | None:
    if topology.kube_proxy.nodes:
        return None
    hint = "name the nodes that get the rules in the topology's kube_proxy"
    return f"no node of lab {topology.name!r} runs kube-proxy", hint


def _untrackable(topology: Topology) -> tuple[str, str] | None:
    if not any(notrack.tables(topology, node) for node in topology.kube_proxy.nodes):
        return _no_node(topology) or (
            f"in lab {topology.name!r} no service has a TCP port reached by cluster IPs only, with its own endpoints",
            "conntrack keeps ports with a node port, another virtual IP, an affinity, a Local policy or a shared"
            " endpoint",
        )
    return None


def _in_nftables_mode(topology: Topology) -> tuple[str, str] | None:
    proxy = topology.kube_proxy
    if (proxy.mode, proxy.drop_invalid) == (Mode.NFTABLES, DropInvalid.NEVER):
        return f"lab {topology.name!r} is in that mode", "leave the fix out"
    return _no_node(topology)


def _drop_invalid(topology: Topology) -> Topology:
    return topology._replace(kube_proxy=topology.kube_proxy._replace(drop_invalid=DropInvalid.ALWAYS))


def _drop_invalid_where_not_liberal(topology: Topology) -> Topology:
    return topology._replace(kube_proxy=topology.kube_proxy._replace(drop_invalid=DropInvalid.UNLESS_LIBERAL))


def _nftables_mode(topology: Topology) -> Topology:
    proxy = topology.kube_proxy._replace(mode=Mode.NFTABLES, drop_invalid=DropInvalid.NEVER)
    return topology._replace(kube_proxy=proxy)


def _be_liberal(topology: Topology) -> Topology:
    def liberal(netns: Netns) -> Netns:
        if netns.name not in topology.kube_proxy.nodes:
            return netns
        others = tuple((key, value) for key, value in netns.sysctls if key != BE_LIBERAL)
        return netns._replace(sysctls=(*others, (BE_LIBERAL, "1")))

    return topology._replace(namespaces=tuple(liberal(netns) for netns in topology.namespaces))


def _notrack(topology: Topology) -> Topology:
    def untracked(netns: Netns) -> Netns:
        if netns.name not in topology.kube_proxy.nodes:
            return netns
        others = (table for table in netns.tables if table.name != notrack.TABLE)
        return netns._replace(tables=(*others, *notrack.tables(topology, netns.name)))

    return topology._replace(namespaces=tuple(untracked(netns) for netns in topology.namespaces))


FIXES: dict[str, Fix] = {
    fix.name: fix
    for fix in (
        Fix(
            "drop-invalid",
            "drop packets that conntrack calls INVALID, first of all in the forward hook (kube-proxy v1.15 to v1.28)",
            _drop_invalid,
            _no_node,
        ),
        Fix(
            "be-liberal",
            f"{BE_LIBERAL}=1 on each kube-proxy node: out-of-window packets are no longer INVALID",
            _be_liberal,
            _no_node,
        ),
        Fix(
            "drop-invalid-where-not-liberal",
            f"drop-invalid on the nodes whose {BE_LIBERAL} is 0 (kube-proxy since v1.29)",
            _drop_invalid_where_not_liberal,
            _no_node,
        ),
        Fix(
            "nftables-mode",
            "kube-proxy's nftables mode, which has no rule against INVALID packets: fixes nothing",
            _nftables_mode,
            _in_nftables_mode,
        ),
        Fix(
            "notrack",
            "TCP to cluster IPs without conntrack, each packet translated by itself; breaks direct connections to"
            " endpoints, hairpin and ICMP errors; no masquerading",
            _notrack,
            _untrackable,
        ),
    )
}
"""The built-in fixes by name, in the order they are listed in."""
