"""What a node forwards of the connection under study, picked by a rule: for stimuli that do something to some of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from netlab.experiments.not_applied import NotApplied

if TYPE_CHECKING:
    from netlab.experiments.context import Context

_HEADERS_BYTES = 120
"""No segment without payload is longer: 40 bytes of IPv6, 60 of TCP with all its options."""


def pick(context: Context, netns: str, end: str, table: str, statement: str) -> None:
    """Have nftables do something to the segments with payload of one end, where netns forwards them, until the trial
    is over. NotApplied where it refuses.

    table is the name of a table for this alone; statement is in nft's words, and comes after the match.
    """
    from netlab.linux import nft

    roles = context.roles
    family, own = "ip" if roles.endpoint.version == 4 else "ip6", end == "server"
    match = (
        f"{family} {'saddr' if own else 'daddr'} {roles.endpoint} tcp {'sport' if own else 'dport'} {roles.target_port}"
    )
    chain = [
        f"add table inet {table}",
        f"add chain inet {table} forward {{ type filter hook forward priority filter; }}",
        f"add rule inet {table} forward {match} meta length > {_HEADERS_BYTES} {statement}",
    ]

    def remove() -> None:
        with context.namespaces.inside(netns), suppress(OSError):  # it may have been flushed
            nft.run(f"delete table inet {table}")

    def add() -> None:
        with context.namespaces.inside(netns):
            nft.run("\n".join(chain))

    try:
        context.make(add, remove)
    except OSError as error:
        raise NotApplied(f"a rule in {netns}: {error.strerror}") from None
