"""What the kernel says of a lab, as it says it: taken here, made a Status of in `read.py`.

A Reading knows no topology: a Scope names what is to be read beside links, addresses and routes, which are all read.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from netlab.errors import LabError, told
from netlab.lab.netns import Namespaces
from netlab.linux import rtdump, sysctl


class Scope(NamedTuple):
    """What is read where: the keys of sysctls by namespace, and the namespaces with qdiscs of somebody's."""

    sysctls: dict[str, tuple[str, ...]]
    qdiscs: frozenset[str]


class Reading(NamedTuple):
    """What there is, by namespace; sysctls by (netns, key), those alone that are there; root qdiscs by ifindex."""

    told: dict[str, rtdump.Told]
    sysctls: dict[tuple[str, str], str]
    qdiscs: dict[str, dict[int, str]]


DataNumbers = dict[str, frozenset[int]]
"""The attributes of IFLA_INFO_DATA to be read, by the kind of link."""


def take(namespaces: Namespaces, names: Iterable[str], scope: Scope, data_numbers: DataNumbers) -> Reading:
    """What the kernel says of these namespaces, which are there; LabError where that can't be had or decoded."""
    reading = Reading({}, {}, {})
    for name in names:
        try:
            with namespaces.inside(name):
                reading.told[name] = rtdump.told(data_numbers)
                for key in scope.sysctls.get(name, ()):
                    with suppress(OSError):  # an interface's sysctl, and the interface is gone
                        reading.sysctls[name, key] = sysctl.read(key)
                if name in scope.qdiscs:
                    reading.qdiscs[name] = _qdiscs()
        except OSError as error:
            raise LabError(f"{name}: what it has can't be read: {told(error)}") from error
    return reading


def _qdiscs() -> dict[int, str]:
    from netlab.linux import tcdump  # most labs shape nothing

    return {index: " ".join(root) for index, root in tcdump.roots().items()}
