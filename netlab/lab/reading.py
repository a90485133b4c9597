"""What the kernel says of a lab, as it says it: taken here, made a Status of in `read.py`.

A Reading knows no topology: a Scope names what is to be read beside links, addresses and routes, which are all read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from netlab import advice
from netlab.errors import LabError, told
from netlab.lab.netns import Namespaces
from netlab.linux import rtdump, sysctl


class Scope(NamedTuple):
    """What is read where: the keys of sysctls by namespace, the namespaces with qdiscs and those with nft tables of
    somebody's, and the attributes of IFLA_INFO_DATA by the kind of link."""

    sysctls: dict[str, tuple[str, ...]]
    qdiscs: tuple[str, ...]
    rules: tuple[str, ...]
    data_numbers: dict[str, tuple[int, ...]]


class Reading(NamedTuple):
    """What there is, by namespace; sysctls by key, those alone that are there; root qdiscs by ifindex; generations are
    nftables' counts of changes, None where the kernel doesn't tell."""

    told: dict[str, rtdump.Told]
    sysctls: dict[str, dict[str, str]]
    qdiscs: dict[str, dict[int, str]]
    generations: dict[str, int | None]


def take(
    namespaces: Namespaces,
    names: Iterable[str],
    scope: Scope,
    before: Reading | None = None,
    again: Collection[str] = (),
) -> Reading:
    """What the kernel says of these namespaces, which are there; LabError where that can't be had or decoded.

    Where there is a reading from just before, of the same scope, only the namespaces in `again`, and those that are not
    in it, are read.
    """
    data_numbers = {kind: frozenset(numbers) for kind, numbers in scope.data_numbers.items()}
    rules, shaped = frozenset(scope.rules), frozenset(scope.qdiscs)
    reading = Reading({}, {}, {}, {})
    for name in names:
        if before is not None and name in before.told and name not in again:
            _take_over(name, before, reading)
            continue
        try:
            with namespaces.inside(name):
                if name in rules:
                    reading.generations[name] = _generation()
                reading.told[name] = rtdump.told(data_numbers)
                reading.sysctls[name] = _sysctls(scope.sysctls.get(name, ()))
                if name in shaped:
                    reading.qdiscs[name] = _qdiscs()
        except OSError as error:
            raise LabError(f"{name}: what it has can't be read: {told(error)}", advice.limits(error.errno)) from error
    return reading


def _take_over(name: str, before: Reading, reading: Reading) -> None:
    reading.told[name] = before.told[name]
    reading.sysctls[name] = before.sysctls[name]
    if name in before.qdiscs:
        reading.qdiscs[name] = before.qdiscs[name]
    if name in before.generations:
        reading.generations[name] = before.generations[name]


def _sysctls(keys: Iterable[str]) -> dict[str, str]:
    found = {}
    for key in keys:
        with suppress(OSError):  # an interface's sysctl, and the interface is gone
            found[key] = sysctl.read(key)
    return found


def _generation() -> int | None:
    from netlab.linux.generation import generation  # many labs have no rules

    return generation()


def _qdiscs() -> dict[int, str]:
    from netlab.linux import tcdump  # most labs shape nothing

    return {index: " ".join(root) for index, root in tcdump.roots().items()}
