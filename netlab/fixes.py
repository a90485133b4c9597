"""Mitigations against the reset, each as a change of a Topology: what `--fix` and `netlab fix` know by name.

A fix changes the description only; plan and kernel then make the lab follow, as they do for any other difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from netlab.errors import UsageError
from netlab.model import BE_LIBERAL, DropInvalid, Netns, Topology


@dataclass(frozen=True, slots=True)
class Fix:
    """One mitigation. summary is one line for a list; apply gives the changed topology, and may be repeated."""

    name: str
    summary: str
    apply: Callable[[Topology], Topology]


def apply(topology: Topology, names: Iterable[str]) -> Topology:
    """The topology with the named fixes, in the order given.

    UsageError for a name that is none, and for a lab without a kube-proxy node: a fix there would change nothing, and
    a result would be told as if it had.
    """
    for name in names:
        fix = named(name)
        if not topology.kube_proxy.nodes:
            raise UsageError(
                f"the fix {name!r} has nothing to work on: no node of lab {topology.name!r} runs kube-proxy",
                hint="name the nodes that get the rules in the topology's kube_proxy",
            )
        topology = fix.apply(topology)
    return topology


def named(name: str) -> Fix:
    """The fix of that name; UsageError with what there is, and what may have been meant."""
    if name in FIXES:
        return FIXES[name]
    from difflib import get_close_matches

    close = get_close_matches(name, FIXES, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"there is no fix {name!r}", hint=f"{meant}the fixes are: {', '.join(FIXES)}")


def _drop_invalid(topology: Topology) -> Topology:
    return topology._replace(kube_proxy=topology.kube_proxy._replace(drop_invalid=DropInvalid.ALWAYS))


def _be_liberal(topology: Topology) -> Topology:
    def liberal(netns: Netns) -> Netns:
        if netns.name not in topology.kube_proxy.nodes:
            return netns
        others = tuple((key, value) for key, value in netns.sysctls if key != BE_LIBERAL)
        return netns._replace(sysctls=(*others, (BE_LIBERAL, "1")))

    return topology._replace(namespaces=tuple(liberal(netns) for netns in topology.namespaces))


FIXES: dict[str, Fix] = {
    fix.name: fix
    for fix in (
        Fix(
            "drop-invalid",
            "drop packets that conntrack calls INVALID, first of all in KUBE-FORWARD (kube-proxy since v1.15)",
            _drop_invalid,
        ),
        Fix(
            "be-liberal",
            f"{BE_LIBERAL}=1 on each kube-proxy node: out-of-window packets are no longer INVALID",
            _be_liberal,
        ),
    )
}
"""The fixes by name, in the order they are listed in."""
