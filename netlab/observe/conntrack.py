"""Conntrack's entries: found when the observation begins, then made, changed, destroyed, through ctnetlink.

While one of these observers is open, the namespace's `nf_conntrack_events` and `nf_conntrack_timestamp` are on; both
are the namespace's own, and get their former values back (`keeper.py`). New entries get a little larger for it, and
each change of one costs the building of a message. An entry that was made before the observation may change without an
event.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from netlab.errors import unsupported
from netlab.linux import ctnetlink
from netlab.linux.netlink import NFGENMSG, Subscription
from netlab.observe import Namespaces
from netlab.observe.keeper import Share
from netlab.record.events import CT_TCP_STATES, ConntrackEvent, EntryChange, Tuple
from netlab.record.observers import ObserverId, ObserverKind

_GROUPS = (1, 2, 3)
"""NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY (include/uapi/linux/netfilter/nfnetlink_compat.h)."""

_NLM_F_CREATE = 0x400  # include/uapi/linux/netlink.h

# nf_conntrack_common.h: enum ip_conntrack_status, bit 0 first; nf_conntrack_tcp.h: enum tcp_conntrack.
_STATUS_BITS = (
    "EXPECTED",
    "SEEN_REPLY",
    "ASSURED",
    "CONFIRMED",
    "SRC_NAT",
    "DST_NAT",
    "SEQ_ADJUST",
    "SRC_NAT_DONE",
    "DST_NAT_DONE",
    "DYING",
    "FIXED_TIMEOUT",
    "TEMPLATE",
    "UNTRACKED",
    "HELPER",
    "OFFLOAD",
    "HW_OFFLOAD",
)


class ConntrackObserver:
    """The entries of one namespace's conntrack, of any protocol. Equivalent to `conntrack -L; conntrack -E`.

    The events carry the kernel's stamp where it gives one: all of them since Linux kernel commit 601731fc7c61
    ("netfilter: conntrack: add conntrack event timestamp") (in v6.14), before that DESTROY alone; a kernel without
    CONFIG_NF_CONNTRACK_TIMESTAMP stamps none. UnsupportedError where the kernel can't tell of events.
    """

    def __init__(self, namespaces: Namespaces, netns: str, receive_buffer_bytes: int | None = None) -> None:
        self.id = ObserverId(ObserverKind.ENTRIES, netns)
        self._netns = netns
        with ExitStack() as opening:
            with namespaces.inside(netns):
                self._subscription = Subscription(_GROUPS, receive_buffer_bytes)
            opening.callback(self._subscription.close)
            opening.callback(Share(namespaces, netns, "events").close)
            with namespaces.inside(netns), unsupported("this kernel has no ctnetlink"):
                self._found = [as_event(entry, netns, EntryChange.FOUND) for entry in ctnetlink.entries()]
            self._closing = opening.pop_all()

    def fileno(self) -> int:
        """The descriptor that is readable when events wait."""
        return self._subscription.fileno()

    def read(self) -> list[ConntrackEvent]:
        """The events that wait, in the order conntrack told them; the first time, what was found before them."""
        events, self._found = self._found, []
        for message_type, flags, body in self._subscription.read():
            if message_type == ctnetlink.NEW:
                change = EntryChange.NEW if flags & _NLM_F_CREATE else EntryChange.UPDATE
            elif message_type == ctnetlink.DELETE:
                change = EntryChange.DESTROY
            else:
                continue
            entry = ctnetlink.parse(body[NFGENMSG.size :])
            if entry is not None:
                events.append(as_event(entry, self._netns, change))
        return events

    def lost(self) -> int:
        """How many events found the buffer full since this was last asked."""
        return self._subscription.lost()

    def close(self) -> None:
        """Stop observing; with the last of these observers, the namespace's sysctls are what they were."""
        self._closing.close()


def as_event(entry: ctnetlink.Entry, netns: str, change: EntryChange) -> ConntrackEvent:
    """An entry as a namespace's event; one that bears no stamp is given the time of reading."""
    stamp_ns = None if change is EntryChange.FOUND else entry.stamp_ns
    state = entry.tcp_state
    return ConntrackEvent(
        time_ns=time.time_ns() if stamp_ns is None else stamp_ns,
        netns=netns,
        change=change,
        tuple_orig=Tuple(*entry.original),
        tuple_reply=Tuple(*entry.reply),
        status=tuple(name for bit, name in enumerate(_STATUS_BITS) if entry.status & 1 << bit),
        tcp_state=CT_TCP_STATES[state] if state is not None and state < len(CT_TCP_STATES) else None,
        zone=entry.zone,
        stamped=stamp_ns is not None,
        tuple_master=None if entry.master is None else Tuple(*entry.master),
        window_scales=entry.window_scales,
    )
