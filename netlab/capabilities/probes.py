"""What this kernel lets this user do, by trying it: experiments and `netlab doctor` ask here.

Kernel versions are never looked at: distributions carry changes back and leave things out. A probe is a function that
says in a line what it saw, or raises what is missing; it is called in a process of its own, in an empty network
namespace that ends with it (`scratch.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from netlab.capabilities import conntrack, cpu, qdiscs, sockets
from netlab.capabilities.capability import Capability
from netlab.capabilities.scratch import attempt
from netlab.conntrack.kernels import DECIDING
from netlab.errors import NetlabError
from netlab.linux.syscalls import CLONE_NEWNET, unshare

PROBES: Mapping[str, Callable[[], str]] = {
    "forgives-late-segments": conntrack.forgives_late_segments,
    "forgives-small-overshoot": conntrack.forgives_small_overshoot,
    "keeps-window-scale": conntrack.keeps_window_scale,
    "passes-challenged-rst": conntrack.passes_challenged_rst,
    "restarts-by-syn-only": conntrack.restarts_by_syn_only,
    "takes-any-rst-while-closing": conntrack.takes_any_rst_while_closing,
    "checks-rst-after-own-syn": conntrack.checks_rst_after_own_syn,
    "logs-invalid-new": conntrack.logs_invalid_new,
    "logs-ignored-kind": conntrack.logs_ignored_kind,
    "tcp-repair": sockets.tcp_repair,
    "raw-sockets": sockets.raw,
    "invalid-rst-ignored": conntrack.ignores_invalid_rst,
    "ctnetlink-window-scale": conntrack.sets_window_scale,
    "ctnetlink-delete": conntrack.deletes_entries,
    "ftp-helper": conntrack.ftp_helper,
    "sctp": conntrack.sctp,
    **{kind: partial(qdiscs.add, kind) for kind in qdiscs.KINDS},
    "cgroup-cpu": cpu.limited,
}
"""How each of CAPABILITIES is tried, in their order."""


def probe(names: Iterable[str]) -> dict[str, Capability]:
    """Try each of these, in this order, in some milliseconds each. KeyError for a name that isn't in CAPABILITIES.

    Any user may call it, also in a user namespace. Nothing is left behind, and the calling process stays where it is.
    """
    return {name: _probe(name) for name in names}


def deciding() -> tuple[tuple[str, bool], ...]:
    """Whether this kernel has each of those that conntrack's arithmetic depends on, by name.

    All are tried in one child, which is quicker. Those that this user can't try are left out.
    """

    def body() -> str:
        found = {}
        for name in DECIDING:
            unshare(CLONE_NEWNET)
            with suppress(OSError):
                found[name] = _is_there(PROBES[name])
        return json.dumps(found)

    answer = attempt(body)
    return () if isinstance(answer, NetlabError) else tuple(json.loads(answer).items())


def _is_there(probe: Callable[[], str]) -> bool:
    try:
        probe()
    except NetlabError:
        return False
    return True


def _probe(name: str) -> Capability:
    outcome = attempt(PROBES[name])
    if isinstance(outcome, NetlabError):
        return Capability(name, False, outcome.message)
    return Capability(name, True, outcome)
