"""What a kernel lets a user do, by name: what experiments ask for, and what `netlab doctor` lists. Pure.

docs/capabilities.md explains the names; `capabilities/` tries them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Capability(NamedTuple):
    """Whether something is there. reason says in one line what was seen, or what is missing."""

    name: str
    there: bool
    reason: str


CAPABILITIES: Mapping[str, str] = {
    "forgives-late-segments": "conntrack lets a segment from far below the window pass",
    "forgives-small-overshoot": "conntrack lets a segment pass that goes past the window by less than a whole window",
    "keeps-window-scale": "conntrack keeps a connection's window scales where a second SYN has a higher number",
    "passes-challenged-rst": "conntrack lets the RST pass that answers a challenge ACK",
    "restarts-by-syn-only": "in a handshake only a SYN begins its side of the connection anew, no other packet",
    "takes-any-rst-while-closing": "conntrack lets any RST pass to a connection that is closing",
    "checks-rst-after-own-syn": "conntrack checks a RST also where it follows a SYN of its own end",
    "logs-invalid-new": "conntrack logs a packet that opens no connection",
    "logs-ignored-kind": "conntrack's log names the kind of packet that it ignores",
    "tcp-repair": "a socket's send window can be set",
    "raw-sockets": "segments can be crafted, and seen on their way",
    "invalid-rst-ignored": "conntrack can be told not to check a RST's sequence number",
    "ctnetlink-window-scale": "the window scales of a conntrack entry can be set",
    "ctnetlink-delete": "a conntrack entry can be deleted",
    "ftp-helper": "conntrack follows FTP, whose data connections are RELATED",
    "sctp": "sockets, conntrack and NAT know SCTP",
    "tbf": "the qdisc that holds traffic to one rate",
    "htb": "the qdisc that has classes with rates",
    "netem": "the qdisc that delays, loses and reorders",
    "cgroup-cpu": "a process's CPU can be limited by a cgroup",
}
"""Every capability by its name, with what it means; in the order in which they are listed."""
