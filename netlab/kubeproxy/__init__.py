"""What kube-proxy would install on a node, as data: `ruleset()` makes a Ruleset, which prints itself as nft text or
as iptables-save text.

`names.py` hashes, `iptables_layout.py` decides, `rules.py` is what the decisions are written in, `nft.py` and
`iptables_save.py` write them out. Loading a rule set into a kernel is for others.
"""

from __future__ import annotations

from typing import NamedTuple

from netlab.errors import UnsupportedError
from netlab.kubeproxy import iptables_layout, iptables_save, nft
from netlab.kubeproxy.rules import Family, Table
from netlab.model import Mode, Topology

__all__ = ["Family", "Ruleset", "Table", "ruleset"]


class Ruleset(NamedTuple):
    """All that one node gets. tables are wholly ours: (table.family, table.name) is what to delete to undo it."""

    tables: tuple[Table, ...]

    def nft(self, *, replace: bool = True) -> str:
        """The text for libnftables: in one transaction these tables take the place of what they were before.

        Equivalent to `nft -f FILE`. Conntrack's entries, and with them the translations of established connections,
        are untouched. replace=False is for a namespace that has no rules yet: quicker, and it needs no deletion.
        """
        return nft.tables_text(self.tables, replace=replace)

    def iptables_save(self, family: Family | None = None) -> str:
        """The same rules as iptables-save prints them; with a family, only what its iptables-restore can load."""
        return iptables_save.save_text(table for table in self.tables if family in (None, table.family))


def ruleset(topology: Topology, node: str) -> Ruleset | None:
    """What kube-proxy installs on `node` for the topology's Services.

    None where the node runs no kube-proxy (it isn't in `kube_proxy.nodes`), or where there is no Service.
    UnsupportedError where the topology asks for the nftables mode.
    """
    if node not in topology.kube_proxy.nodes:
        return None
    if topology.kube_proxy.mode is Mode.NFTABLES:
        raise UnsupportedError("netlab has no layout for kube-proxy's nftables mode", "kube_proxy: {mode: iptables}")
    tables = iptables_layout.tables(topology, node)
    return Ruleset(tables) if tables else None
