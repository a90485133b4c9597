"""One transaction that makes rules of others by what differs alone: whole chains, and elements of sets.

Pure, and for tables that stand just as they were loaded: what somebody else has put beside them is not looked at. Where
that leads to a chain that goes, the kernel refuses the whole transaction, and nothing has happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from netlab.kubeproxy import nft, objects
from netlab.kubeproxy.rules import Chain, Table

_Chains: TypeAlias = Mapping[str, Chain | objects.Chain]
_Sets: TypeAlias = Mapping[str, objects.Set]


def transaction(standing: Sequence[Table | objects.Table], wanted: Sequence[Table | objects.Table]) -> str | None:
    """The text for nft; None where whole tables are better replaced: most of the chains differ, or what is neither a
    rule of a chain that others jump to nor an element."""
    if [(table.family, table.name) for table in standing] != [(table.family, table.name) for table in wanted]:
        return None
    lines: list[str] = []
    for old, new in zip(standing, wanted, strict=True):
        had, has = _chains(old), _chains(new)
        had_sets, has_sets = _sets(old), _sets(new)
        differ = [name for name in {**had, **has} if had.get(name) != has.get(name)]
        if len(differ) > len(has) // 2 or not (_fit(had, has, differ) and _fit_sets(had_sets, has_sets)):
            return None
        lines += _flushed(old, had_sets, has_sets, [name for name in differ if name in had])
        lines += nft.table_lines(_only(new, {name for name in differ if name in has}, had_sets))
        lines += _gone(old, [name for name in differ if name not in has], had_sets, has_sets)
    return "".join(f"{line}\n" for line in lines)


def _chains(table: Table | objects.Table) -> _Chains:
    return {chain.name: chain for chain in table.chains}


def _sets(table: Table | objects.Table) -> _Sets:
    return {each.name: each for each in nft.sets_of(table)}


def _fit(had: _Chains, has: _Chains, names: Sequence[str]) -> bool:
    """Whether these chains differ in their rules alone, and nobody but netlab has put rules into them."""
    both = [(each, each._replace(rules=())) for chains in (had, has) for name in names if (each := chains.get(name))]
    frames = {frame for _, frame in both}
    return all(chain.hook is None for chain, _ in both) and len(frames) == len(names)


def _fit_sets(had: _Sets, has: _Sets) -> bool:
    return all(had[name]._replace(elements=()) == has[name]._replace(elements=()) for name in had if name in has)


def _flushed(table: Table | objects.Table, had_sets: _Sets, has_sets: _Sets, chains: Sequence[str]) -> Iterator[str]:
    """What takes away the rules of chains, and elements."""
    at = f"{table.family} {table.name}"
    yield from (f"flush chain {at} {name}" for name in chains)
    for name, old in had_sets.items():
        stay = set(has_sets[name].elements) if name in has_sets else set()
        if keys := [element.key for element in old.elements if element not in stay]:
            yield f"delete element {at} {name} {{ {', '.join(keys)} }}"


def _only(table: Table | objects.Table, names: set[str], had_sets: _Sets) -> Table | objects.Table:
    """These chains of a table, and of its sets what is new."""
    if isinstance(table, Table):
        timeouts_s = tuple(pair for pair in table.timeouts_s if pair[0] not in had_sets)
        return table._replace(chains=tuple(c for c in table.chains if c.name in names), timeouts_s=timeouts_s)
    sets = []
    for each in table.sets:
        there = set(had_sets[each.name].elements) if each.name in had_sets else set()
        elements = tuple(element for element in each.elements if element not in there)
        if elements or each.name not in had_sets:
            sets.append(each._replace(elements=elements))
    return table._replace(chains=tuple(c for c in table.chains if c.name in names), sets=tuple(sets))


def _gone(table: Table | objects.Table, chains: Sequence[str], had_sets: _Sets, has_sets: _Sets) -> Iterator[str]:
    at = f"{table.family} {table.name}"
    yield from (f"delete chain {at} {name}" for name in chains)
    yield from (f"delete {nft.set_word(had_sets[name])} {at} {name}" for name in had_sets if name not in has_sets)
