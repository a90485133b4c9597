"""Rules in iptables' words: what kube-proxy gives to iptables-restore, and what that must be given to make a node's
tables in one go.

Owns iptables' syntax, in the order in which kube-proxy v1.33 writes the words of a rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple, assert_never

from netlab.kubeproxy.names import socket_address
from netlab.kubeproxy.rules import CtState, Dnat, Family, FlipMark, Jump, Match, Rule, SetMark, Table, Verdict

PROGRAMS: dict[Family, str] = {"ip": "iptables", "ip6": "ip6tables"}
"""How the programs of a family are called; theirs are `-restore` and `-save` too."""


def kube_proxy_text(tables: Iterable[Table]) -> str:
    """For each family what kube-proxy loads, to the byte, and after it the jumps that it puts into the built-in chains.

    Before each stands the program that reads it, as a comment. All of it may be loaded together into a namespace
    without rules: `iptables-restore --noflush`, of each family its own part.
    """
    lines: list[str] = []
    for family, of_family in groupby(tables, key=lambda table: table.family):
        found = list(of_family)
        lines.append(f"# {PROGRAMS[family]}-restore --noflush --counters")
        for table in found:
            own = [c.name for c in table.chains if c.hook is None and c.name not in table.unwritten]
            lines += [f"*{table.name}", *(f":{name} - [0:0]" for name in own), *_written(table), "COMMIT"]
        lines.append(f"# {PROGRAMS[family]}-restore --noflush: the jumps, which kube-proxy inserts one by one")
        for table in found:
            unwritten = (f":{name} - [0:0]" for name in table.unwritten)
            lines += [f"*{table.name}", *unwritten, *_jumps(table, "-I"), "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


NO_RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
"""
"""What iptables-restore empties kube-proxy's tables with."""


def without_counters(saved: str) -> str:
    """What iptables-save has printed, without the packets counted, and without its comments, which tell the time."""
    lines = (line.partition(" [")[0] if line.startswith(":") else line for line in saved.splitlines())
    return "".join(f"{line}\n" for line in lines if not line.startswith("#"))


def whole_tables(tables: Iterable[Table], family: Family) -> str:
    """What `iptables-restore` makes the family's tables of, all in one: whatever they held before is gone."""
    lines: list[str] = []
    for table in tables:
        if table.family == family:
            lines.append(f"*{table.name}")
            lines += (f":{chain.name} {'ACCEPT' if chain.hook else '-'} [0:0]" for chain in table.chains)
            lines += [*_jumps(table, "-A"), *_written(table), "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


class Saved(NamedTuple):
    """A table as iptables-save tells it: each chain's policy ("-": none, it isn't built in), and the rules in order."""

    policies: dict[str, str]
    rules: list[tuple[str, str]]

    def is_own(self, chain: str, words: str, own: Collection[str]) -> bool:
        """Whether a rule is in one of these chains, or leads to one from a built-in chain."""
        leads = re.search(r"-[jg] (\S+)", words)
        return chain in own or (self.policies.get(chain) != "-" and leads is not None and leads[1] in own)


def parse(saved: str) -> dict[str, Saved]:
    """The tables of what `without_counters` has given."""
    found: dict[str, Saved] = {}
    table = Saved({}, [])
    for line in saved.splitlines():
        if line.startswith("*"):
            table = found.setdefault(line[1:], Saved({}, []))
        elif line.startswith(":"):
            chain, _, policy = line[1:].partition(" ")
            table.policies[chain] = policy
        elif line.startswith("-A "):
            chain, _, words = line[3:].partition(" ")
            table.rules.append((chain, words))
    return found


def own_chains(tables: Iterable[Table], family: Family) -> dict[str, set[str]]:
    """The chains of these tables that aren't built in, by the tables' names."""
    found: dict[str, set[str]] = {}
    for table in tables:
        if table.family == family:
            found.setdefault(table.name, set()).update(chain.name for chain in table.chains if chain.hook is None)
    return found


def ours(saved: str, own: Mapping[str, Collection[str]]) -> str:
    """What of iptables-save's words is ours, sorted by chain; "" where nothing is."""
    lines = []
    for name, table in parse(saved).items():
        chains = own.get(name, ())
        rules = [(chain, words) for chain, words in table.rules if table.is_own(chain, words, chains)]
        there = [chain for chain in table.policies if chain in chains]
        if rules or there:
            built_in = [f":{chain} {policy}" for chain, policy in table.policies.items() if policy != "-"]
            lines += [f"*{name}", *built_in, *(f":{chain} -" for chain in sorted(there))]
            lines += [f"-A {chain} {words}" for chain, words in sorted(rules, key=lambda rule: rule[0])]
    return "".join(f"{line}\n" for line in lines)


def has_others(saved: str, own: Mapping[str, Collection[str]]) -> bool:
    """Whether anybody else has chains or rules there."""
    return any(
        any(policy == "-" and chain not in own.get(name, ()) for chain, policy in table.policies.items())
        or any(not table.is_own(chain, words, own.get(name, ())) for chain, words in table.rules)
        for name, table in parse(saved).items()
    )


def among_others(saved: str, tables: Iterable[Table], family: Family, own: Mapping[str, Collection[str]]) -> str:
    """What `iptables-restore --noflush` makes the family's tables of, beside what others have there; what is ours and
    isn't wanted goes, unless others refer to it."""
    found, wanted = parse(saved), {table.name: table for table in tables if table.family == family}
    lines: list[str] = []
    for name in dict.fromkeys((*found, *wanted)):
        there, table = found.get(name, Saved({}, [])), wanted.get(name)
        built_in = {chain.name: chain for chain in table.chains if chain.hook is not None} if table is not None else {}
        new = {chain.name for chain in table.chains} - {*built_in} if table is not None else set()
        mine = {chain for chain in own.get(name, ()) if chain in there.policies} | new
        lines += [
            f"*{name}",
            *(f":{chain} ACCEPT [0:0]" for chain in built_in),
            *(f":{c} - [0:0]" for c in sorted(mine)),
        ]
        for chain in dict.fromkeys((*(c for c, policy in there.policies.items() if policy != "-"), *built_in)):
            places = [
                number
                for number, (of, words) in enumerate((rule for rule in there.rules if rule[0] == chain), 1)
                if there.is_own(of, words, mine)
            ]
            lines += [f"-D {chain} {number}" for number in reversed(places)]
            rules = built_in[chain].rules if chain in built_in else ()
            lines += [
                _rule(f"-I {chain} {number}", rule) for number, rule in enumerate(rules, places[0] if places else 1)
            ]
        lines += _written(table) if table is not None else []
        others = {word for of, words in there.rules if not there.is_own(of, words, mine) for word in words.split()}
        lines += [f"-X {chain}" for chain in sorted(mine - new - others)]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _jumps(table: Table, command: str) -> Iterator[str]:
    """The rules of the built-in chains. The last that is inserted (-I) is the first in the chain."""
    for chain in table.chains:
        if chain.hook is not None:
            for rule in chain.rules if command == "-A" else reversed(chain.rules):
                yield _rule(f"{command} {chain.name}", rule)


def _written(table: Table) -> Iterator[str]:
    left = {chain.name: iter(chain.rules) for chain in table.chains}
    for name in table.written:
        yield _rule(f"-A {name}", next(left[name]))


def _rule(command: str, rule: Rule) -> str:
    # Comments come first, but for the state in the jumps from built-in chains.
    words = [command]
    if rule.match.ct_state == (CtState.NEW,):
        words += [*_match(rule.match), *_comment(rule)]
    else:
        words += [*_comment(rule), *_match(rule.match)]
    return " ".join([*words, *_target(rule)])


def _comment(rule: Rule) -> Iterator[str]:
    if rule.comment:
        quoted = f'"{rule.comment}"' if " " in rule.comment else rule.comment
        yield f"-m comment --comment {quoted}"


def _match(match: Match) -> Iterator[str]:
    if match.destination_is_local:
        yield "-m addrtype --dst-type LOCAL"
    if match.recent is not None:
        within_s = match.recent.within_s
        how = "--set" if within_s is None else f"--rcheck --seconds {within_s} --reap"
        yield f"-m recent --name {match.recent.name} {how}"
    if match.protocol is not None:
        protocol = match.protocol.lower()
        yield f"-m {protocol} -p {protocol}"
    if match.destination is not None:
        yield f"-d {match.destination}"
    if match.destination_outside is not None:
        yield f"! -d {match.destination_outside}"
    if match.port is not None:
        yield f"--dport {match.port}"
    if match.source is not None:
        yield f"-s {match.source}"
    if match.source_outside is not None:
        yield f"! -s {match.source_outside}"
    if match.source_is_local:
        yield "-m addrtype --src-type LOCAL"
    if match.ct_state:
        yield "-m conntrack --ctstate " + ",".join(match.ct_state).upper()
    if match.ct_state_not:
        yield "-m conntrack ! --ctstate " + ",".join(match.ct_state_not).upper()
    if match.marked is not None:
        yield f"-m mark --mark {_bits(match.marked)}/{_bits(match.marked)}"
    if match.unmarked is not None:
        yield f"-m mark ! --mark {_bits(match.unmarked)}/{_bits(match.unmarked)}"
    if match.one_in is not None:
        yield f"-m statistic --mode random --probability {1 / match.one_in:.10f}"


def _target(rule: Rule) -> Iterator[str]:
    match rule.statement:
        case Jump(chain):
            yield f"-j {chain}"
        case Dnat(address, port):
            yield f"-j DNAT --to-destination {socket_address(address, port)}"
        case SetMark(bits):
            yield f"-j MARK --or-mark {_bits(bits)}"
        case FlipMark(bits):
            yield f"-j MARK --xor-mark {_bits(bits)}"
        case Verdict.MASQUERADE:
            yield "-j MASQUERADE --random-fully"
        case Verdict.COUNT:
            return
        case Verdict() as verdict:
            yield f"-j {verdict.value.upper()}"
        case _:
            assert_never(rule.statement)


def _bits(bits: int) -> str:
    return f"0x{bits:08x}"
