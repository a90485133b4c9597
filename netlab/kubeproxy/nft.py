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
    if isinstance(table, Table):
        return [_rule(rule, table.family) for each in table.chains if each.name == chain for rule in each.rules]
    made = (rule for each in table.chains if each.name == chain for rule in each.rules)
    return [_with_comment(rule.words, rule.comment) for rule in made]


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
    if isinstance(table, Table):
        for chain in table.chains:
            rules = [] if chain.name in without_rules else [_rule(rule, table.family) for rule in chain.rules]
            yield from _chain(chain.name, chain.hook, rules)
        return
    for made in table.chains:
        head = [_with_comment("", made.comment)] if made.comment else []
        words = () if made.name in without_rules else made.rules
        yield from _chain(made.name, made.hook, [*head, *(_with_comment(rule.words, rule.comment) for rule in words)])


def _chain(name: str, hook: Hook | None, lines: Iterable[str]) -> Iterator[str]:
    yield f"chain {name} {{"
    if hook is not None:
        yield f"\ttype {hook.type} hook {hook.hook} priority {hook.priority}; policy accept;"
    for line in lines:
        yield f"\t{line}"
    yield "}"


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
