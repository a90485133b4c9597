"""What a built-in fix costs, which kube-proxy has it, and how it is set on a cluster's own nodes. Pure data.

`fixes.py` does the same to a lab. docs/causes.md's table is made from this by `scripts/pages`; a report's *What to do*
quotes it.
"""

from __future__ import annotations

from typing import NamedTuple

from netlab.model import BE_LIBERAL


class Remedy(NamedTuple):
    """A fix outside of a lab.

    cost is what it breaks or loses, kube_proxy which releases of kube-proxy have it, each as a phrase. command is what
    to run on each node, empty where no command sets it. see are names and addresses of what to read about it.
    """

    cost: str
    kube_proxy: str
    command: str = ""
    see: tuple[tuple[str, str], ...] = ()


_PULL = "https://github.com/kubernetes/kubernetes/pull"

REMEDIES: dict[str, Remedy] = {
    "drop-invalid": Remedy(
        cost="The dropped segment must be sent again, after a retransmission timeout where nothing follows it. Where"
        " every packet of a connection is INVALID, it stalls instead of being reset.",
        kube_proxy="always in v1.15 to v1.28, in iptables mode",
        command="iptables -I FORWARD -m conntrack --ctstate INVALID -j DROP",
        see=(("kubernetes#74840", f"{_PULL}/74840"),),
    ),
    "be-liberal": Remedy(
        cost="Conntrack no longer keeps forged or late segments out of a known connection, only a RST with an old"
        " number. It doesn't help where there is no entry.",
        kube_proxy="conntrack.tcpBeLiberal: true, since v1.29",
        command=f"sysctl -w {BE_LIBERAL}=1",
        see=(("kubernetes#120354", f"{_PULL}/120354"),),
    ),
    "drop-invalid-where-not-liberal": Remedy(
        cost="As drop-invalid.",
        kube_proxy="since v1.29, in iptables mode",
        see=(("kubernetes#120412", f"{_PULL}/120412"),),
    ),
    "nftables-mode": Remedy(
        cost="None of its own. It fixes nothing: it only lacks the rule of the iptables mode.",
        kube_proxy="in nftables mode, without any rule against INVALID",
        see=(("kubernetes#122663", f"{_PULL}/122663"),),
    ),
    "notrack": Remedy(
        cost="Filters see ct state untracked. No masquerading, no hairpin, no translated ICMP errors; a client behind"
        " the node can't talk to an endpoint's port directly. Ports with other ways in, an affinity or a Local policy"
        " stay with conntrack.",
        kube_proxy="in none; the rules are netlab's own",
    ),
}
"""By the fix's name, for each of `fixes.FIXES`."""
