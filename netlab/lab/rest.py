"""A lab at rest: nothing in it differed from its topology when it was last looked at, and what the kernel said then.

While the kernel says the same, the answer is the same: neither the topology nor a rule needs to be read again. What it
said is kept as a digest in the lab's directory, which says nothing of when: of this text, that reading is no drift.
nftables' rules are in it by the number of the namespace (SO_NETNS_COOKIE) and nftables' count of changes there, of
which no two are the same before the next boot. Where something may change uncounted, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from netlab.errors import LabError, Problem
from netlab.lab import sealed
from netlab.lab.directory import DamagedError, LabDirectory
from netlab.lab.netns import Namespaces
from netlab.lab.programs import all_running
from netlab.lab.reading import Reading, Scope, take
from netlab.lab.rundir import labs, run_directory
from netlab.lab.sealed import made_now, made_of
from netlab.lab.standing import is_standing, open_lab
from netlab.lab.state import Asked, LabState

if TYPE_CHECKING:
    from netlab.lab.spec import Spec


class Rest(NamedTuple):
    """What is kept.

    made_of is the digest of all that the topology came from; asked is what `up` was given beside the text, and named
    says that the lab's name was, too. saw is the digest of what was read in that scope, rules are (cookie, generation)
    by namespace. shown is what `status` shows of the topology, warnings are what `up` says of it.
    """

    made_of: str
    asked: Asked
    named: bool
    scope: Scope
    saw: str
    rules: dict[str, tuple[int, int]]
    shown: dict[str, Any]
    warnings: tuple[Problem, ...]


class AtRest(NamedTuple):
    """A lab that is just what is asked for, and what is to be said of the text all the same."""

    lab: str
    warnings: tuple[Problem, ...]


_UNCOUNTED = re.compile(r"\b(timeout|expires|device|devices|flowtable|include)\b")
"""Words of tables whose content changes without a transaction, or isn't all in the file: elements that run out, chains
and flowtables that lose an interface, other files."""


def keep(
    directory: LabDirectory, spec: Spec, scope: Scope, reading: Reading, state: LabState, namespaces: Namespaces
) -> None:
    """Write down that this reading is what the topology wants; nothing, where something may change uncounted."""
    from netlab.lab.shown import shown
    from netlab.model import Loader
    from netlab.topology.kept import KEEP

    sealed.forget(directory.rest)
    topology = spec.topology
    restored = topology.kube_proxy.load_with is Loader.IPTABLES_RESTORE and bool(topology.kube_proxy.nodes)
    uncounted = any(_UNCOUNTED.search(table.body) for netns in topology.namespaces for table in netns.tables)
    rules, running = counted(reading), all_running(namespaces, state)
    ended = any((netns.name, each.name) not in running for netns in topology.namespaces for each in netns.programs)
    if (
        restored
        or uncounted
        or ended  # since it was looked at
        or len(rules) < len(reading.generations)
        or not all(h.cookie for h in reading.told.values())
    ):
        return
    rest = Rest(
        made_of=made_of(spec.text, spec.file, spec.settings, spec.fixes),
        asked=Asked(spec.file, tuple(pair for pair in spec.settings if pair[0] != KEEP), spec.fixes),
        named=spec.named,
        scope=scope,
        saw=_digest(directory, reading, running),
        rules=rules,
        shown=shown(topology),
        warnings=spec.warnings,
    )
    sealed.keep(directory.rest, json.dumps([*rest]).encode())


def counted(reading: Reading) -> dict[str, tuple[int, int]]:
    """The number, and the count of changes, of the namespaces whose kernel tells both."""
    cookies = {name: reading.told[name].cookie for name in reading.generations}
    return {name: (cookies[name], count) for name, count in reading.generations.items() if count and cookies[name]}


def kept(directory: LabDirectory) -> Rest | None:
    """What was written down last; None where there is nothing, or nothing that this very netlab has written."""
    text = sealed.kept(directory.rest)
    if text is None:
        return None
    made, (file, settings, fixes), named, scope, saw, rules, shown, warnings = json.loads(text)
    asked = Asked(file, tuple((path, value) for path, value in settings), tuple(fixes))
    counts = {name: (cookie, count) for name, (cookie, count) in rules.items()}
    return Rest(made, asked, named, Scope(*scope), saw, counts, shown, tuple(Problem(*one) for one in warnings))


def lab_at_rest(asked: Asked, text: str, name: str | None, rootless: bool | None) -> AtRest | None:
    """The lab that was made of just this and that is as it was, so that `up` has nothing to do; None where that has to
    be found out. name is the one given beside the text, rootless what the lab is to be, None for any."""
    root = run_directory()
    for lab in labs(root):
        directory = LabDirectory(root, lab)
        if name not in (None, lab) or not directory.rest.exists():
            continue
        with suppress(DamagedError):  # which is no matter of another lab's; `up` of this one tells
            if directory.topology_text() == text:
                rest = _as_asked(directory, asked, name is not None, rootless)
                if rest is not None:
                    return AtRest(lab, rest.warnings)
    return None


def _as_asked(directory: LabDirectory, asked: Asked, named: bool, rootless: bool | None) -> Rest | None:
    with directory.locked():
        state = directory.read()
        if state is None or not is_standing(state) or rootless not in (None, state.rootless):
            return None
        rest = kept(directory)
        if rest is None or rest.asked != asked or (rest.named and not named):
            return None
        return at_rest(directory, state, open_lab(state))


def at_rest(directory: LabDirectory, state: LabState, namespaces: Namespaces) -> Rest | None:
    """What was written down of a lab that stands, if all is as it was; None where that has to be found out."""
    found = seen_at_rest(directory, state, namespaces)
    return None if found is None else found[0]


def seen_at_rest(directory: LabDirectory, state: LabState, namespaces: Namespaces) -> tuple[Rest, Reading] | None:
    """The same, with what the kernel says now."""
    rest = kept(directory)
    if rest is None or state.following or rest.made_of != made_now(directory, state):
        return None
    names = [name for name, inode in state.namespaces if namespaces.exists(name, inode)]
    try:
        reading = take(namespaces, names, rest.scope)
    except LabError:
        return None
    same = rest.saw == _digest(directory, reading, all_running(namespaces, state))
    return (rest, reading) if same else None


def _digest(directory: LabDirectory, reading: Reading, running: frozenset[tuple[str, str]]) -> str:
    hosts = directory.hosts_text()
    said = (*(sorted(part.items()) for part in reading), hosts, sorted(running))
    return hashlib.sha256(repr(said).encode(errors="surrogateescape")).hexdigest()
