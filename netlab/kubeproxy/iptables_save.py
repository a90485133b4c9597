"""Rules as iptables-save prints them: the same rules in the words that most people read them in.

The text is canonical: loaded by iptables-restore (ip6tables-restore for the family ip6) and printed again by
iptables-save, each rule is the same line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from itertools import groupby

from netlab.kubeproxy.names import socket_address
from netlab.kubeproxy.rules import Dnat, Family, FlipMark, Jump, Match, Rule, SetMark, Table, Verdict

_PROGRAMS: dict[Family, str] = {"ip": "iptables-restore", "ip6": "ip6tables-restore"}


def save_text(tables: Iterable[Table]) -> str:
    """Each table as iptables-save prints it, and before each family the name of the program that loads it."""
    lines: list[str] = []
    for family, tables_of_family in groupby(tables, key=lambda table: table.family):
        lines.append(f"# {_PROGRAMS[family]}")
        for table in tables_of_family:
            lines += _table(table)
    return "".join(f"{line}\n" for line in lines)


def _table(table: Table) -> Iterator[str]:
    yield f"*{table.name}"
    for chain in table.chains:
        yield f":{chain.name} {'ACCEPT' if chain.hook else '-'} [0:0]"
    for chain in table.chains:
        for rule in chain.rules:
            yield _rule(rule, chain.name, table.family)
    yield "COMMIT"


def _rule(rule: Rule, chain: str, family: Family) -> str:
    words = [f"-A {chain}", *_header(rule.match)]
    # iptables-save prints the matches in the order they were given in, and kube-proxy gives its comments first, but
    # for the state in its jumps to KUBE-SERVICES.
    if rule.match.ct_state and isinstance(rule.statement, Jump):
        words += [*_modules(rule.match), *_comment(rule)]
    else:
        words += [*_comment(rule), *_modules(rule.match)]
    return " ".join([*words, f"-j {_target(rule, family)}"])


def _header(match: Match) -> Iterator[str]:
    if match.source is not None:
        yield f"-s {ip_network(match.source)}"
    if match.source_outside is not None:
        yield f"! -s {match.source_outside}"
    if match.destination is not None:
        yield f"-d {ip_network(match.destination)}"
    if match.protocol is not None:
        yield f"-p {match.protocol.lower()}"


def _comment(rule: Rule) -> Iterator[str]:
    if rule.comment:
        yield f'-m comment --comment "{rule.comment}"'


def _modules(match: Match) -> Iterator[str]:
    if match.protocol is not None:
        yield f"-m {match.protocol.lower()}"
    if match.port is not None:
        yield f"--dport {match.port}"
    if match.destination_is_local:
        yield "-m addrtype --dst-type LOCAL"
    if match.ct_state:
        yield "-m conntrack --ctstate " + ",".join(match.ct_state).upper()
    if match.marked is not None:
        yield f"-m mark --mark {match.marked:#x}/{match.marked:#x}"
    if match.unmarked is not None:
        yield f"-m mark ! --mark {match.unmarked:#x}/{match.unmarked:#x}"
    if match.one_in is not None:
        yield f"-m statistic --mode random --probability {_probability(match.one_in):.11f}"


def _probability(one_in: int) -> float:
    # xt_statistic compares 31 random bits with a whole number, and iptables-save prints that number back.
    return round((1 << 31) / one_in) / (1 << 31)


def _target(rule: Rule, family: Family) -> str:
    match rule.statement:
        case Jump(chain):
            return chain
        case Dnat(address, port):
            return f"DNAT --to-destination {socket_address(address, port)}"
        case SetMark(bits):
            return f"MARK --set-xmark {bits:#x}/{bits:#x}"
        case FlipMark(bits):
            return f"MARK --set-xmark {bits:#x}/0x0"
        case Verdict.REJECT:
            return f"REJECT --reject-with {'icmp' if family == 'ip' else 'icmp6'}-port-unreachable"
        case Verdict.MASQUERADE:
            return "MASQUERADE --random-fully"
        case Verdict() as verdict:
            return verdict.value.upper()
