"""Whether what a step makes is there already, and what stands in its way. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import assert_never

from netlab.lab.diff.links import makes
from netlab.lab.rule_steps import LoadRules, LoadTable, RestoreRules
from netlab.lab.status import Status
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    CreateLink,
    CreateNetns,
    DeleteAddress,
    DeleteQdisc,
    DeleteRoute,
    SetLink,
    SetSysctl,
    SetUp,
    StartProgram,
    Step,
    UndoingStep,
    WriteHosts,
)
from netlab.model import (
    Route,
)

IP6_RT_PRIO_USER = 1024
"""The metric of an IPv6 route that was given none (include/net/ip6_fib.h)."""


def satisfied(step: Step, left: Status) -> bool:
    match step:
        case CreateNetns(netns):
            return netns in left.namespaces
        case CreateLink():
            return all(key in left.links for key in makes(step))
        case SetLink(interface):  # of a link that stays: `with_set_links` compares that
            return (interface.netns, interface.ifname) in left.links
        case SetUp(netns, ifname, up, _):
            return (netns, ifname) in left.links and left.links[netns, ifname].up == up
        case AddAddress(netns, ifname, address, prefix_route):
            there = address in left.addresses.get((netns, ifname), ())
            return there and ((netns, ifname, address) in left.unrouted) != prefix_route
        case AddRoute(netns, route):
            return installed(netns, route, left) is not None
        case SetSysctl(netns, key, value, if_there):
            has = left.sysctls.get((netns, key), value if if_there else None)
            return has is not None and _words(has) == _words(value)
        case AddQdisc(netns, ifname, _):
            return (netns, ifname) in left.qdiscs and left.qdiscs[netns, ifname].same()
        case LoadRules(netns):
            return netns in left.rules and left.rules[netns].same()
        case RestoreRules(netns, family):
            return (netns, family) in left.iptables and left.iptables[netns, family].same()
        case LoadTable(netns, table):
            return has_table(step, left) and left.tables[netns, table.family, table.name].same()
        case WriteHosts(text, _):
            return left.hosts == text
        case StartProgram(netns, program):
            return (netns, program.name) in left.programs
        case _ if isinstance(step, UndoingStep):
            raise AssertionError(f"no plan from nothing has it: {step}")
        case _:
            assert_never(step)


def has_table(step: LoadTable, left: Status) -> bool:
    """Whether a table of that name is there, whatever is in it."""
    found = left.tables.get((step.netns, step.table.family, step.table.name))
    return found is not None and found.has is not None


def in_the_way(step: Step, left: Status) -> Iterator[Step]:
    """What must go before the step can be carried out: the kernel takes no second route to a place by the same metric,
    and changes no qdisc into another kind, nor any htb."""
    match step:
        case AddAddress(netns, ifname, address, _) if address in left.addresses.get((netns, ifname), ()):
            yield DeleteAddress(netns, ifname, address)  # it has a prefix route and should have none, or the reverse
        case AddRoute(netns, route):
            for there in left.routes_to(netns, route.dst):
                if _metric(there) == _metric(route):
                    yield DeleteRoute(netns, there)
        case AddQdisc(netns, ifname, _):
            if (netns, ifname) in left.qdiscs and left.qdiscs[netns, ifname].has is not None:
                yield DeleteQdisc(netns, ifname)


def installed(netns: str, route: Route, left: Status) -> Route | None:
    """The route as the kernel has it: it fills in what was left open (the interface, for one)."""
    for found in left.routes_to(netns, route.dst):
        same = (found.via, found.kind) == (route.via, route.kind)
        asked = ((route.dev, found.dev), (route.src, found.src))
        if same and _metric(route) == _metric(found) and all(want is None or want == has for want, has in asked):
            return found
    return None


def _metric(route: Route) -> int:
    """A route's metric as the kernel counts it: in IPv6, none or 0 is one of its own."""
    return route.metric or (IP6_RT_PRIO_USER if route.dst.version == 6 else 0)


_BASES = {16: re.compile(r"-?0[xX][0-9a-fA-F]+"), 8: re.compile(r"-?0[0-7]+")}


def _words(value: str) -> list[str]:
    """A sysctl's words as the kernel tells them: it reads 0x10 and 020 as C does, and says 16."""
    return [_in_decimal(word) for word in value.split()]


def _in_decimal(word: str) -> str:
    for base, notation in _BASES.items():
        if notation.fullmatch(word):
            return str(int(word, base))
    return word
