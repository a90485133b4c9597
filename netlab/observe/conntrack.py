"""Conntrack's entries: found when the observation begins, then made, changed, destroyed, through ctnetlink.

While an observer is open, the namespace's `nf_conntrack_events` and `nf_conntrack_timestamp` are on; both are the
namespace's own, and get their former values back. New entries get a little larger for it, and each change of one costs
the building of a message. An entry that was made before the observation may change without an event.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from ipaddress import ip_address

from netlab.errors import UnsupportedError
from netlab.linux.netlink import NFGENMSG, Subscription, attributes, dump
from netlab.observe import Namespaces
from netlab.observe.sysctl import ChangedSysctls
from netlab.record.events import CT_TCP_STATES, ConntrackEvent, EntryChange, Tuple
from netlab.record.observers import ObserverId, ObserverKind

_GROUPS = (1, 2, 3)
"""NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY (include/uapi/linux/netfilter/nfnetlink_compat.h)."""

# include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h, netlink.h
_NFNL_SUBSYS_CTNETLINK = 1
_NEW, _GET, _DELETE = (_NFNL_SUBSYS_CTNETLINK << 8 | message for message in (0, 1, 2))
_NLM_F_CREATE = 0x400
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO, _CTA_ZONE, _CTA_TIMESTAMP = 1, 2, 3, 4, 18, 20
_CTA_TUPLE_MASTER, _CTA_TIMESTAMP_EVENT = 14, 27
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE, _CTA_WSCALE_ORIGINAL, _CTA_WSCALE_REPLY = 1, 1, 2, 3
_CTA_TIMESTAMP_STOP = 2

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

_EVENTS, _TIMESTAMP = "net/netfilter/nf_conntrack_events", "net/netfilter/nf_conntrack_timestamp"


class ConntrackObserver:
    """The entries of one namespace's conntrack, of any protocol. Equivalent to `conntrack -L; conntrack -E`.

    The events carry the kernel's stamp where it gives one: all of them since Linux kernel commit 601731fc7c61
    ("netfilter: conntrack: add conntrack event timestamp") (in v6.14), before that DESTROY alone; a kernel without
    CONFIG_NF_CONNTRACK_TIMESTAMP stamps none. UnsupportedError where the kernel can't tell of events.
    """

    def __init__(self, namespaces: Namespaces, netns: str, receive_buffer_bytes: int | None = None) -> None:
        self.id = ObserverId(ObserverKind.ENTRIES, netns)
        self._netns = netns
        self._sysctls = ChangedSysctls(namespaces, netns)
        self._subscription = Subscription(namespaces, netns, _GROUPS, receive_buffer_bytes)
        try:
            with suppress(UnsupportedError):  # then the moment of reading is the event's
                self._sysctls.set(_TIMESTAMP, "1", "no stamps", unless="0")
            self._sysctls.set(_EVENTS, "1", "this kernel can't tell of conntrack's events", unless="0")
            self._found = entries(namespaces, netns)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor that is readable when events wait."""
        return self._subscription.fileno()

    def read(self) -> list[ConntrackEvent]:
        """The events that wait, in the order conntrack told them; the first time, what was found before them."""
        events, self._found = self._found, []
        for message_type, flags, body in self._subscription.read():
            if message_type == _NEW:
                change = EntryChange.NEW if flags & _NLM_F_CREATE else EntryChange.UPDATE
            elif message_type == _DELETE:
                change = EntryChange.DESTROY
            else:
                continue
            event = decode_entry(body[NFGENMSG.size :], self._netns, change)
            if event is not None:
                events.append(event)
        return events

    def lost(self) -> int:
        """How many events found the buffer full since this was last asked."""
        return self._subscription.lost()

    def close(self) -> None:
        """Stop observing, and put the namespace's sysctls back."""
        self._sysctls.restore()
        self._subscription.close()


def entries(namespaces: Namespaces, netns: str) -> list[ConntrackEvent]:
    """The entries that there are. Equivalent to `conntrack -L`. UnsupportedError where the kernel can't tell."""
    try:
        told = dump(namespaces, netns, _GET)
    except OSError as error:
        raise UnsupportedError(f"this kernel has no ctnetlink: {error.strerror}") from error
    found = (decode_entry(entry, netns, EntryChange.FOUND) for entry in told)
    return [event for event in found if event is not None]


def decode_entry(body: bytes, netns: str, change: EntryChange) -> ConntrackEvent | None:
    """An entry from a ctnetlink message's attributes, which are bytes; None where one of its tuples is missing."""
    told = attributes(body)
    tuple_orig, tuple_reply = _tuple(told.get(_CTA_TUPLE_ORIG)), _tuple(told.get(_CTA_TUPLE_REPLY))
    if tuple_orig is None or tuple_reply is None:
        return None
    status = int.from_bytes(told.get(_CTA_STATUS, b""), "big")
    tcp = attributes(attributes(told.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
    tcp_state = tcp.get(_CTA_PROTOINFO_TCP_STATE)
    scales = tcp.get(_CTA_WSCALE_ORIGINAL), tcp.get(_CTA_WSCALE_REPLY)
    stamp = told.get(_CTA_TIMESTAMP_EVENT) or attributes(told.get(_CTA_TIMESTAMP, b"")).get(_CTA_TIMESTAMP_STOP)
    if change is EntryChange.FOUND:
        stamp = None
    return ConntrackEvent(
        time_ns=int.from_bytes(stamp, "big") if stamp else time.time_ns(),
        netns=netns,
        change=change,
        tuple_orig=tuple_orig,
        tuple_reply=tuple_reply,
        status=tuple(name for bit, name in enumerate(_STATUS_BITS) if status & 1 << bit),
        tcp_state=CT_TCP_STATES[tcp_state[0]] if tcp_state and tcp_state[0] < len(CT_TCP_STATES) else None,
        zone=int.from_bytes(told.get(_CTA_ZONE, b""), "big"),
        stamped=bool(stamp),
        tuple_master=_tuple(told[_CTA_TUPLE_MASTER]) if _CTA_TUPLE_MASTER in told else None,
        window_scales=(scales[0][0], scales[1][0]) if scales[0] and scales[1] else None,
    )


def _tuple(body: bytes | None) -> Tuple | None:
    told = attributes(body or b"")
    ip, proto = attributes(told.get(_CTA_TUPLE_IP, b"")), attributes(told.get(_CTA_TUPLE_PROTO, b""))
    if len(ip) != 2 or _CTA_PROTO_NUM not in proto:
        return None
    # CTA_IP_V4_SRC and _DST are 1 and 2, CTA_IP_V6_SRC and _DST 3 and 4.
    src, dst = (ip_address(ip[kind]) for kind in sorted(ip))
    (sport,) = struct.unpack("!H", proto.get(_CTA_PROTO_SRC_PORT, b"\0\0"))
    (dport,) = struct.unpack("!H", proto.get(_CTA_PROTO_DST_PORT, b"\0\0"))
    return Tuple(src, sport, dst, dport, proto[_CTA_PROTO_NUM][0])
