"""Rules as the text that nft and libnftables read.

Owns nft's syntax, as nftables 1.0.6 (Debian 12) and later accept it. Running the text is `lab/apply.py`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import assert_never

from netlab.kubeproxy import objects
from netlab.kubeproxy.names import socket_address
from netlab.kubeproxy.portals import VERSIONS
from netlab.kubeproxy.rules import CtState, Dnat, Family, FlipMark, Hook, Jump, Match, Rule, SetMark, Table, Verdict

COMMENT_MAXLEN = 128
"""Longest comment of a rule in characters (libnftnl's NFTNL_UDATA_COMMENT_MAXLEN)."""


def tables_text(tables: Iterable[Table | objects.Table], *, replace: bool, gone: Iterable[tuple[str, str]] = ()) -> str:
    """One transaction that makes these tables, or puts them in the place of what has their names.

    The tables of `gone`, as (family, name), are removed in it.

    `table` comes before `delete table`, so that the deletion finds something to delete the first time too. Without
    any deletion the kernel has nothing to wait for: with one, closing the netlink socket waits for an RCU grace period.
    """
    lines = [line for family, name in gone for line in deletion(family, name)]
    for table in tables:
        lines += deletion(table.family, table.name) if replace else []
        lines += table_lines(table)
    return "".join(f"{line}\n" for line in lines)


def commands(tables: Iterable[Table | objects.Table]) -> Iterator[str]:
    """The commands that make these tables where none of them is, one a line: in this order they may be cut into several
    transactions. The chains at hooks are filled last: until then nothing of it works."""
    tables = list(tables)
    for table in tables:
        comment = table.comment if isinstance(table, objects.Table) else ""
        yield f"add table {_of(table)}" + (f' {{ comment "{comment}"; }}' if comment else "")
    for table in tables:
        for each in sets_of(table):
            declared = " ".join(line.strip() + ";" for line in [*_set(each._replace(elements=()))][1:-1])
            yield f"add {set_word(each)} {_of(table)} {each.name} {{ {declared} }}"
        for name, hook, comment, _ in _chains(table):
            head = _hooked(hook) if hook is not None else f"{_with_comment('', comment)};" if comment else ""
            yield f"add chain {_of(table)} {name}" + (f" {{ {head} }}" if head else "")
    for table in tables:
        for each in sets_of(table):
            yield from (f"add element {_of(table)} {each.name} {{ {_element(element)} }}" for element in each.elements)
    for hooked in (False, True):
        for table in tables:
            for name, hook, _, rules in _chains(table):
                if (hook is not None) is hooked:
                    yield from (f"add rule {_of(table)} {name} {rule}" for rule in rules)


def _of(table: Table | objects.Table) -> str:
    return f"{table.family} {table.name}"


_COVER = "netlab_"
"""Before the names of tables that do the work of others meanwhile; no table of a topology's is called so."""


def cover_text(tables: Iterable[Table | objects.Table]) -> str:
    """One transaction that makes the same tables under other names: where these go and come, they do their work.

    Of two nat chains at a hook the first that translates a connection does it for good (nf_nat_inet_fn,
    net/netfilter/nf_nat_core.c).
    """
    return "".join(
        f"{line}\n" for table in tables for line in table_lines(table._replace(name=f"{_COVER}{table.name}"))
    )


def covers() -> tuple[tuple[str, str], ...]:
    """The tables that `cover_text` may have made, as (family, name)."""
    return tuple((family, f"{_COVER}{name}") for family in VERSIONS for name in ("filter", "nat", objects.KUBE_PROXY))


def deletion(family: str, name: str) -> list[str]:
    """The commands that remove a table, whether it is there or not."""
    return [f"table {family} {name}", f"delete table {family} {name}"]


def table_lines(table: Table | objects.Table, without_rules: Collection[str] = ()) -> list[str]:
    """The command that makes a table, or adds to it; the chains of without_rules stay as they are."""
    return [f"table {table.family} {table.name} {{", *(f"\t{line}" for line in _objects(table, without_rules)), "}"]


def rules_of(table: Table | objects.Table, chain: str) -> list[str]:
    """The rules of a chain of that name."""
    return [line for name, _, _, lines in _chains(table) if name == chain for line in lines]


def sets_of(table: Table | objects.Table) -> tuple[objects.Set, ...]:
    """The sets and maps of a table."""
    if isinstance(table, objects.Table):
        return table.sets
    kind = f"ipv{VERSIONS[table.family]}_addr"
    return tuple(objects.Set(name, kind, timeout_s=timeout_s) for name, timeout_s in table.timeouts_s)


def set_word(made: objects.Set) -> str:
    """nft's word for what it is: a map has values."""
    return "map" if " : " in made.type else "set"


def _objects(table: Table | objects.Table, without_rules: Collection[str]) -> Iterator[str]:
    if isinstance(table, objects.Table):
        yield f'comment "{table.comment}"'
    for each in sets_of(table):
        yield from _set(each)
    for name, hook, comment, rules in _chains(table):
        yield f"chain {name} {{"
        if hook is not None:
            yield f"\t{_hooked(hook)}"
        if comment:
            yield f"\t{_with_comment('', comment)}"
        if name not in without_rules:
            yield from (f"\t{rule}" for rule in rules)
        yield "}"


def _chains(table: Table | objects.Table) -> Iterator[tuple[str, Hook | None, str, Iterator[str]]]:
    """Each chain's name, hook, comment and rules."""
    if isinstance(table, Table):
        for chain in table.chains:
            yield chain.name, chain.hook, "", (_rule(rule, table.family) for rule in chain.rules)
        return
    for made in table.chains:
        yield made.name, made.hook, made.comment, (_with_comment(rule.words, rule.comment) for rule in made.rules)


def _hooked(hook: Hook) -> str:
    return f"type {hook.type} hook {hook.hook} priority {hook.priority}; policy accept;"


def _set(made: objects.Set) -> Iterator[str]:
    yield f"{set_word(made)} {made.name} {{"
    yield f"\ttype {made.type}"
    if made.timeout_s is not None:
        # dynamic: rules add elements to it.
        yield "\tflags dynamic,timeout"
        yield f"\ttimeout {made.timeout_s}s"
    if made.comment:
        yield f"\t{_with_comment('', made.comment)}"
    if made.elements:
        yield "\telements = {"
        for element in made.elements[:-1]:
            yield f"\t\t{_element(element)},"
        yield f"\t\t{_element(made.elements[-1])}"
        yield "\t}"
    yield "}"


def _element(element: objects.Element) -> str:
    key = _with_comment(element.key, element.comment)
    return f"{key} : {element.value}" if element.value else key


def _with_comment(words: str, comment: str) -> str:
    return f'{words} comment "{comment[:COMMENT_MAXLEN]}"'.lstrip() if comment else words


def _rule(rule: Rule, family: Family) -> str:
    # A counter in each, as iptables has it: which way packets went is read from `nft list ruleset`.
    words = [*_match(rule.match, family), "counter", _statement(rule, family)]
    return _with_comment(" ".join(word for word in words if word), rule.comment)


def _match(match: Match, family: Family) -> Iterator[str]:
    if match.source is not None:
        yield f"{family} saddr {match.source}"
    if match.source_outside is not None:
        yield f"{family} saddr != {match.source_outside}"
    if match.source_is_local:
        yield "fib saddr type local"
    if match.destination is not None:
        yield f"{family} daddr {match.destination}"
    if match.destination_outside is not None:
        yield f"{family} daddr != {match.destination_outside}"
    if match.destination_is_local:
        yield "fib daddr type local"
    if match.protocol is not None:
        protocol = match.protocol.lower()
        yield f"meta l4proto {protocol}" if match.port is None else f"{protocol} dport {match.port}"
    if match.ct_state:
        yield "ct state " + ",".join(match.ct_state)
    if match.ct_state_not:
        states = [state for state in match.ct_state_not if state is not CtState.DNAT]
        yield f"ct state != {{ {', '.join(states)} }}"
        if CtState.DNAT in match.ct_state_not:
            yield "ct status & dnat == 0"
    if match.marked is not None:
        yield f"meta mark & {match.marked:#x} == {match.marked:#x}"
    if match.unmarked is not None:
        yield f"meta mark & {match.unmarked:#x} != {match.unmarked:#x}"
    if match.one_in is not None:
        # The kernel scales 32 random bits to 0 ... one_in-1, so each number has its equal share to within 2**-32;
        # a comparison with a scaled probability would only add a rounding of its own, and read worse.
        yield f"numgen random mod {match.one_in} == 0"
    if match.recent is not None:
        source = f"{family} saddr"
        name = match.recent.name
        yield f"update @{name} {{ {source} }}" if match.recent.within_s is None else f"{source} @{name}"


def _statement(rule: Rule, family: Family) -> str:
    match rule.statement:
        case Jump(chain):
            return f"jump {chain}"
        case Dnat(address, port):
            return f"dnat to {socket_address(address, port)}"
        case SetMark(bits):
            return f"meta mark set meta mark | {bits:#x}"
        case FlipMark(bits):
            return f"meta mark set meta mark ^ {bits:#x}"
        case Verdict.REJECT:
            return f"reject with {'icmp' if family == 'ip' else 'icmpv6'} port-unreachable"
        case Verdict.MASQUERADE:
            return "masquerade fully-random"
        case Verdict.COUNT:
            return ""
        case Verdict() as verdict:
            return verdict.value
        case _:
            assert_never(rule.statement)
