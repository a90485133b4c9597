"""What kube-proxy would install on a node, as data: `ruleset()` makes a Ruleset, which prints itself as nft text or
as iptables-save text.

`portals.py` has what a node sees of the Services. For each of kube-proxy's modes one file hashes names (`names.py`,
`nftables_names.py`), one decides (`iptables_layout.py`, `nftables_layout.py`), and one is what the decisions are
written in (`rules.py`, `objects.py`); `nft.py` and `iptables_save.py` write them out. `affinity.py` finds in nft's
listings what packets have left in the rules' sets. Loading a rule set into a kernel is for others.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache

from netlab.errors import UsageError
from netlab.kubeproxy import iptables_layout, iptables_save, nft, nftables_layout, objects
from netlab.kubeproxy.affinity import Memory
from netlab.kubeproxy.portals import VERSIONS, NodeView, view
from netlab.kubeproxy.rules import Family, Table
from netlab.model import Loader, Mode, Topology

__all__ = ["Family", "Ruleset", "Table", "loaded_by", "ruleset"]


class Ruleset:
    """All that one node gets. The tables are wholly ours.

    They are made when somebody asks for them: where a node sees the same as before, nobody does.
    """

    def __init__(self, seen: NodeView) -> None:
        self._seen = seen
        self._by_nftables = seen.kube_proxy.mode is Mode.NFTABLES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruleset) and (self._seen == other._seen or self.tables == other.tables)

    def __hash__(self) -> int:
        return hash(self.names)

    @cached_property
    def tables(self) -> tuple[Table, ...] | tuple[objects.Table, ...]:
        """Its tables, those of a family together."""
        seen = self._seen
        return nftables_layout.tables(seen) if self._by_nftables else iptables_layout.tables(seen)

    @cached_property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The tables as (family, name): what to delete to undo it."""
        names = nftables_layout.TABLES if self._by_nftables else iptables_layout.TABLES
        return tuple((family, name) for family in self.families for name in names)

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The families that it has tables of: those that a Service has a cluster IP of."""
        versions = {ip.version for service in self._seen.services if service.ports for ip in service.cluster_ips}
        return tuple(family for family, version in VERSIONS.items() if version in versions)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """The sets that remember clients."""
        return tuple(
            Memory(table.family, table.name, name, timeout_s)
            for table in self.tables
            for name, timeout_s in table.timeouts_s
        )

    def nft(self, *, replace: bool = True, gone: Iterable[tuple[str, str]] = ()) -> str:
        """The text for libnftables: in one transaction these tables take the place of what they were before.

        Equivalent to `nft -f FILE`. Conntrack's entries, and with them the translations of established connections,
        are untouched. replace=False is for a namespace that has no rules yet: quicker, and it needs no deletion. gone
        are tables of earlier rules, as (family, name), that these leave no place for.
        """
        return nft.tables_text(self.tables, replace=replace, gone=gone)

    def nft_commands(self) -> Iterable[str]:
        """The same for a namespace that has no rules yet, a command a line: for several transactions, in this order."""
        return nft.commands(self.tables)

    def iptables_save(self) -> str:
        """The same rules as kube-proxy gives them to iptables-restore, and the jumps to them; UsageError as below."""
        return iptables_save.kube_proxy_text(self._in_iptables_words())

    def iptables_restore(self, family: Family) -> str:
        """What the family's iptables-restore makes its tables of, in the place of what they held; "" for none.

        UsageError for those of the nftables mode: iptables has no sets and no maps.
        """
        return iptables_save.whole_tables(self._in_iptables_words(), family)

    def _in_iptables_words(self) -> list[Table]:
        tables = [table for table in self.tables if isinstance(table, Table)]
        if len(tables) < len(self.tables):
            raise UsageError("the rules of kube-proxy's nftables mode can't be said in iptables' words", "--format nft")
        return tables


def loaded_by(loader: Loader, topology: Topology, node: str) -> Ruleset | None:
    """The same where it is this loader that brings the node's rules in; None where there are none, or it isn't."""
    by_iptables = topology.kube_proxy.mode is Mode.IPTABLES and topology.kube_proxy.load_with is Loader.IPTABLES_RESTORE
    return ruleset(topology, node) if by_iptables == (loader is Loader.IPTABLES_RESTORE) else None


def ruleset(topology: Topology, node: str) -> Ruleset | None:
    """What kube-proxy installs on `node` for the topology's Services.

    None where the node runs no kube-proxy (it isn't in `kube_proxy.nodes`), or where there is no Service.
    """
    return _ruleset(_This(topology), node) if node in topology.kube_proxy.nodes else None


class _This:
    """A topology that is known by being this very one: a node's part of it is asked for once for each step."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and self.topology is other.topology

    def __hash__(self) -> int:
        return id(self.topology)


@lru_cache(maxsize=8)
def _ruleset(this: _This, node: str) -> Ruleset | None:
    return _seen_so(view(this.topology, node))


@lru_cache(maxsize=8)
def _seen_so(seen: NodeView) -> Ruleset | None:
    """The same for all topologies of which a node sees the same, so that its rules are made once."""
    rules = Ruleset(seen)
    return rules if rules.families else None
