"""Tables that others use as well: what of nft's listing of a table is ours, and how that alone is replaced or removed.

Pure. Ours are the chains, sets and maps that a rule set names; of a base chain, into which anybody may put rules, only
those that lead to one of our chains. kube-proxy's iptables mode shares its tables nat and filter with every other
program that filters packets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from netlab.kubeproxy import nft
from netlab.kubeproxy.objects import KUBE_PROXY
from netlab.kubeproxy.objects import Table as ObjectsTable
from netlab.kubeproxy.rules import Table

TableName: TypeAlias = tuple[str, str]
"""(family, name)."""
ObjectName: TypeAlias = tuple[str, str]
"""("chain", name), ("set", name), ("map", name) …"""
Owned: TypeAlias = Mapping[TableName, Collection[ObjectName]]


class Line(NamedTuple):
    """A line of an object, without blanks at its ends; a rule has a handle."""

    words: str
    handle: str = ""


Objects: TypeAlias = Mapping[ObjectName, list[Line]]

_TABLE = re.compile(r"table (\S+) (\S+) \{(?: # handle \d+)?")
_OBJECT = re.compile(r"\t(\w+(?: \w+)*) (\S+) \{(?: # handle \d+)?")
_LINE = re.compile(r"\t\t\s*(.*?)(?: # handle (\d+))?")
_DECLARED = re.compile(r"(\w+(?:[ \t]+\w+)*)[ \t]+(\S+)\s*\Z")
_HEAD = re.compile(r"type \S+ hook |policy |comment ")


def parse(listing: str) -> dict[TableName, dict[ObjectName, list[Line]]]:
    """What `nft list table` has said of tables, with handles or without."""
    found: dict[TableName, dict[ObjectName, list[Line]]] = {}
    inside: dict[ObjectName, list[Line]] = {}
    lines: list[Line] = []
    for text in listing.splitlines():
        if table := _TABLE.fullmatch(text):
            inside = found.setdefault((table[1], table[2]), {})
        elif head := _OBJECT.fullmatch(text):
            lines = inside.setdefault((head[1], head[2]), [])
        elif line := _LINE.fullmatch(text):
            lines.append(Line(line[1], line[2] or ""))
    return found


def declared(body: str) -> tuple[ObjectName, ...]:
    """The objects in what stands between a table's braces, as somebody has written it."""
    plain = re.sub(r'"[^"]*"|#[^\n]*', "", body)
    found, depth, begun = [], 0, 0
    for token in re.finditer(r"[{};\n]", plain):
        if token[0] == "{" and depth == 0 and (head := _DECLARED.search(plain[begun : token.start()])):
            found.append((" ".join(head[1].split()), head[2]))
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        begun = token.end() if depth == 0 else begun
    return tuple(dict.fromkeys(found))


def owned_by(tables: Iterable[Table | ObjectsTable]) -> dict[TableName, set[ObjectName]]:
    """What these tables consist of."""
    found: dict[TableName, set[ObjectName]] = {}
    for table in tables:
        mine = found.setdefault((table.family, table.name), set())
        mine |= {("chain", chain.name) for chain in table.chains}
        if isinstance(table, Table):
            mine |= {("set", name) for name, _ in table.timeouts_s}
        else:
            mine |= {(nft.set_word(each), each.name) for each in table.sets}
    return found


class _There:
    """A table as it is there, and what of it is ours."""

    def __init__(self, name: TableName, objects: Objects, owned: Collection[ObjectName]) -> None:
        self.name, self.objects, self.owned = name, objects, owned
        shared = name[1] != KUBE_PROXY  # all base chains of the nftables mode are kube-proxy's own
        self.base = [key for key in objects if shared and key in owned and _is_base(objects[key])]
        self.own = [key for key in objects if key in owned and key not in self.base]

    def own_lines(self, key: ObjectName) -> list[Line]:
        """The lines of an object of ours, without the rules that others have put into a base chain."""
        return [line for line in self.objects[key] if key not in self.base or self._is_own(line)]

    def own_rules(self, key: ObjectName) -> list[Line]:
        return [line for line in self.own_lines(key) if line.handle]

    def _is_own(self, line: Line) -> bool:
        if _HEAD.match(line.words):
            return True
        leads = re.search(r"\b(?:jump|goto) (\S+)", line.words)
        return leads is not None and ("chain", leads[1]) in self.owned

    def others(self) -> list[str]:
        """All that somebody else has put there, as words."""
        words = [line.words for key in self.base for line in self.objects[key] if not self._is_own(line)]
        for kind, name in (key for key in self.objects if key not in self.owned):
            words += [f"{kind} {name}", *(line.words for line in self.objects[kind, name])]
        return words

    def removed(self, key: ObjectName) -> list[str]:
        """Remove an object that is empty, or only empty it where others refer to it."""
        kind, name = key
        word = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
        command = "delete" if not any(word.search(each) for each in self.others()) else "flush"
        return [] if command == "flush" and kind == "chain" else [f"{command} {kind} {' '.join(self.name)} {name}"]


def _is_base(lines: Iterable[Line]) -> bool:
    return any(line.words.startswith("type ") and " hook " in line.words for line in lines)


def ours(listing: str, owned: Owned) -> str:
    """The listing of what is ours, sorted: who has put something beside it has changed nothing of it."""
    told = []
    for name, objects in sorted(parse(listing).items()):
        there = _There(name, objects, owned.get(name, ()))
        for key in sorted((*there.base, *there.own)):
            told += [f"{' '.join((*name, *key))} {{", *(line.words for line in there.own_lines(key)), "}"]
    return "".join(f"{line}\n" for line in told)


def ours_of(listing: str, table: TableName, owned: Collection[ObjectName]) -> str:
    """The same of a table with nothing of kube-proxy's: every rule in an object of ours is."""
    objects = parse(listing).get(table, {})
    return "".join(
        "".join(f"{line}\n" for line in (f"{' '.join(key)} {{", *(each.words for each in objects[key]), "}"))
        for key in sorted(objects)
        if key in owned
    )


def replacement(listing: str, owned: Owned, wanted: Iterable[Table | ObjectsTable]) -> str:
    """One transaction that makes these tables of what a listing with handles tells, and leaves alone what isn't ours.

    owned is all that may be ours there, beside what is wanted; what of it isn't wanted goes. Equivalent to `nft -f`.
    """
    found = parse(listing)
    tables: dict[TableName, Table | ObjectsTable] = {(table.family, table.name): table for table in wanted}
    all_owned = {name: set(own) for name, own in owned.items()}
    for name, own in owned_by(tables.values()).items():
        all_owned.setdefault(name, set()).update(own)
    lines: list[str] = []
    for name, own in all_owned.items():
        there, table = _There(name, found.get(name, {}), own), tables.get(name)
        if there.others():
            lines += _among_others(there, table)
        else:
            lines += nft.deletion(*name) if name in found else []
            lines += nft.table_lines(table) if table is not None else []
    return "".join(f"{line}\n" for line in lines)


def _among_others(there: _There, table: Table | ObjectsTable | None) -> Iterator[str]:
    at = " ".join(there.name)
    chains = {("chain", chain.name): chain for chain in table.chains} if table is not None else {}
    # All that rules may lead to comes before any rule; and whatever leads somewhere goes before that does.
    yield from (f"add chain {at} {name}" for (_, name), chain in chains.items() if chain.hook is None)
    for key in there.base:
        new = nft.rules_of(table, key[1]) if table is not None and key in chains else []
        old = there.own_rules(key)
        if old:  # in their place among the others'
            yield from (f"insert rule {at} {key[1]} handle {old[0].handle} {rule}" for rule in new)
        else:
            yield from (f"insert rule {at} {key[1]} {rule}" for rule in reversed(new))
        yield from (f"delete rule {at} {key[1]} handle {line.handle}" for line in old)
    yield from (f"flush chain {at} {name}" for kind, name in there.own if kind == "chain")
    for key in sorted(there.own, key=lambda key: key[0] == "chain"):
        if key not in chains:
            yield from there.removed(key)
    for key in there.base:
        if key not in chains and there.own_lines(key) == there.objects[key]:
            yield f"delete chain {at} {key[1]}"
    if table is not None:
        yield from nft.table_lines(table, without_rules={name for _, name in there.base})


def replaced_body(listing: str, table: TableName, owned: Collection[ObjectName], body: str | None) -> str:
    """One transaction that puts a body in the place of a table's own objects, and leaves what others have put beside
    them; None: removes them. The listing has handles; without anything of others' the whole table goes."""
    at, found = " ".join(table), parse(listing).get(table)
    lines: list[str] = []
    if found is not None:
        own = [key for key in found if key in owned]
        if len(own) == len(found):
            lines += nft.deletion(*table)
        else:
            lines += [f"flush chain {at} {name}" for kind, name in own if kind == "chain"]
            for key in sorted(own, key=lambda key: key[0] == "chain"):
                lines.append(f"delete {key[0]} {at} {key[1]}")
    return "".join(f"{line}\n" for line in lines) + (f"table {at} {{\n{body}}}\n" if body is not None else "")
