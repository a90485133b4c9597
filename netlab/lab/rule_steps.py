"""Steps that concern rules: kube-proxy's tables, the topology's own, and what conntrack remembers of them. Pure.

What a step is, and all the others: `steps.py`.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from netlab.kubeproxy.iptables_save import NO_RULES, PROGRAMS
from netlab.kubeproxy.nft import cover_text, covers, deletion
from netlab.model import Address, NftTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netlab.kubeproxy import Family, Ruleset
    from netlab.kubeproxy.stale import Frontend


class LoadRules(NamedTuple):
    """kube-proxy's tables, in one transaction; replacing them touches no connection that is under way, and nothing that
    somebody else has put into them.

    former are earlier rules, of which something may be there; standing are those that surely are, just as they were
    loaded.
    """

    netns: str
    ruleset: Ruleset
    replace: bool = False
    former: tuple[Ruleset, ...] = ()
    standing: Ruleset | None = None

    @property
    def gone(self) -> tuple[tuple[str, str], ...]:
        """The tables, as (family, name), that earlier rules had and these don't: of another mode, or of a family that
        no Service has any more."""
        return tuple(name for name in _tables_of(self.former) if name not in self.ruleset.names)

    def describe(self) -> str:
        return f"{self.netns}: kube-proxy's rules"

    def twin(self, prefix: str) -> str:
        rules = self.ruleset.nft(replace=self.replace, gone=self.gone)
        return f"ip netns exec {prefix}{self.netns} nft -f - <<'RULES'\n{rules}RULES"


class DeleteRules(NamedTuple):
    """Remove kube-proxy's tables, but what somebody else has put into them. former are the rules that may be there."""

    netns: str
    former: tuple[Ruleset, ...]

    @property
    def tables(self) -> tuple[tuple[str, str], ...]:
        """The tables that they may have, as (family, name)."""
        return _tables_of(self.former)

    def describe(self) -> str:
        return f"{self.netns}: kube-proxy's rules removed"

    def twin(self, prefix: str) -> str:
        commands = "; ".join(f"delete table {family} {name}" for family, name in self.tables)
        return f"ip netns exec {prefix}{self.netns} nft {shlex.quote(commands)}"


def _tables_of(rulesets: Iterable[Ruleset]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(name for ruleset in rulesets for name in ruleset.names))


class RestoreRules(NamedTuple):
    """kube-proxy's tables of one family through iptables-restore, which makes them anew, but what somebody else has put
    into them. rulesets are the rules, and earlier ones of which something may be there.

    Connections under way are untouched.
    """

    netns: str
    family: Family
    text: str
    rulesets: tuple[Ruleset, ...] = ()

    def describe(self) -> str:
        return f"{self.netns}: kube-proxy's rules, by {PROGRAMS[self.family]}-restore"

    def twin(self, prefix: str) -> str:
        return f"ip netns exec {prefix}{self.netns} {PROGRAMS[self.family]}-restore <<'RULES'\n{self.text}RULES"


class ClearRules(NamedTuple):
    """Empty the tables that kube-proxy's rules of one family were in, through iptables-restore; where that makes them
    in nf_tables, remove them. What somebody else has put into them stays; rulesets are the rules that may be there."""

    netns: str
    family: Family
    rulesets: tuple[Ruleset, ...] = ()

    @property
    def no_tables(self) -> str:
        """The text for nft."""
        names = [f"{self.family} {table}" for table in ("filter", "nat")]
        return "".join(f"table {name}\ndelete table {name}\n" for name in names)

    def describe(self) -> str:
        return f"{self.netns}: kube-proxy's rules removed, by {PROGRAMS[self.family]}-restore"

    def twin(self, prefix: str) -> str:
        run = f"ip netns exec {prefix}{self.netns}"
        emptied = f"{run} {PROGRAMS[self.family]}-restore <<'RULES'\n{NO_RULES}RULES"
        return f"{emptied}\n{run} nft -f - <<'TABLES'\n{self.no_tables}TABLES"


class CoverRules(NamedTuple):
    """kube-proxy's rules under other tables' names, while one loader's are taken away and another's are put there: in
    between, packets to a Service would go untranslated."""

    netns: str
    ruleset: Ruleset

    @property
    def commands(self) -> str:
        """The text for nft."""
        return _no_covers() + cover_text(self.ruleset.tables)

    def describe(self) -> str:
        return f"{self.netns}: a copy of kube-proxy's rules, until the new ones stand"

    def twin(self, prefix: str) -> str:
        return f"ip netns exec {prefix}{self.netns} nft -f - <<'RULES'\n{self.commands}RULES"


class UncoverRules(NamedTuple):
    """Remove what CoverRules has made."""

    netns: str

    @property
    def commands(self) -> str:
        """The text for nft."""
        return _no_covers()

    def describe(self) -> str:
        return f"{self.netns}: the copy of kube-proxy's rules removed"

    def twin(self, prefix: str) -> str:
        return f"ip netns exec {prefix}{self.netns} nft -f - <<'RULES'\n{self.commands}RULES"


def _no_covers() -> str:
    return "".join(f"{line}\n" for name in covers() for line in deletion(*name))


class LoadTable(NamedTuple):
    """A table of the topology's own, in one transaction; with replace, in the place of the one of its name.

    former are earlier ones of its name: what neither they nor this one says is somebody else's, and stays. A foreign
    table of the name is not replaced at all.
    """

    netns: str
    table: NftTable
    replace: bool = False
    former: tuple[NftTable, ...] = ()
    foreign: bool = False

    @property
    def commands(self) -> str:
        """The text for nft."""
        name = f"{self.table.family} {self.table.name}"
        over = f"table {name}\ndelete table {name}\n" if self.replace else ""
        return f"{over}table {name} {{\n{self.body}}}\n"

    @property
    def body(self) -> str:
        """What stands between the table's braces."""
        lines = self.table.body.strip("\n").splitlines()
        return "".join(f"\t{line}".rstrip() + "\n" for line in lines)

    def describe(self) -> str:
        return f"{self.netns}: table {self.table.family} {self.table.name}"

    def twin(self, prefix: str) -> str:
        return f"ip netns exec {prefix}{self.netns} nft -f - <<'TABLE'\n{self.commands}TABLE"


class DeleteTable(NamedTuple):
    """Remove a table that an earlier topology had, but what somebody else has put into it; former are its bodies."""

    netns: str
    family: str
    name: str
    former: tuple[NftTable, ...] = ()

    def describe(self) -> str:
        return f"{self.netns}: table {self.family} {self.name} removed"

    def twin(self, prefix: str) -> str:
        return f"ip netns exec {prefix}{self.netns} nft delete table {self.family} {self.name}"


class DeleteStaleEntries(NamedTuple):
    """Delete conntrack's UDP entries that lead from a frontend elsewhere than to one of its endpoints."""

    netns: str
    frontends: tuple[Frontend, ...]

    def describe(self) -> str:
        return f"{self.netns}: conntrack's UDP entries that lead to no endpoint any more removed"

    def twin(self, prefix: str) -> str:
        run = f"ip netns exec {prefix}{self.netns} conntrack"
        lines = []
        for version, address, port, endpoints in self.frontends:
            to = "" if address is None else f" --orig-dst {address}"
            alive = " ".join(f"-e ' {endpoint} {target_port}$'" for endpoint, target_port in endpoints)
            lines.append(f"{run} -L -f ipv{version} -p udp{to} --orig-port-dst {port} 2>/dev/null |")
            lines.append(f"  {_TUPLES} |\n  grep -v {alive} | while read s d sp dp _; do")
            lines.append(f"    {run} -D -p udp -s $s -d $d --sport $sp --dport $dp; done")
        return "\n".join(lines)


class DeleteEntries(NamedTuple):
    """Delete conntrack's entries of TCP connections to these sockets, which it tracks no longer.

    Where it is to track them again, it must not go on from what it knew before: it would call them INVALID.
    """

    netns: str
    sockets: tuple[tuple[Address, int], ...]

    def describe(self) -> str:
        return f"{self.netns}: conntrack's entries of untracked connections removed"

    def twin(self, prefix: str) -> str:
        delete = f"ip netns exec {prefix}{self.netns} conntrack -D -p tcp"
        return "\n".join(
            f"{delete} -f ipv{address.version} --orig-dst {address} --orig-port-dst {port}"
            for address, port in self.sockets
        )


_TUPLES = (
    r"sed -E 's/.* src=(.*) dst=(.*) sport=(.*) dport=(.*) (\[UNREPLIED\] )?src=(.*) dst=.* sport=(.*) dport=.*/"
    r"\1 \2 \3 \4 \6 \7/'"
)
"""Makes of a line of `conntrack -L` the original tuple's four words, and who answers."""
