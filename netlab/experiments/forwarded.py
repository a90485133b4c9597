"""What a node forwards of the connection under study, picked by a rule: for stimuli that do something to some of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlab.experiments.context import Context

_HEADERS_BYTES = 120
"""No segment without payload is longer: 40 bytes of IPv6, 60 of TCP with all its options."""


def pick(context: Context, netns: str, end: str, table: str, statement: str) -> None:
    """Have nftables do something to the segments with payload of one end, where netns forwards them, until the trial
    is over. NotApplied where it refuses.

    table is the name of a table for this alone; statement is in nft's words, and comes after the match.
    """
    roles, own = context.roles, end == "server"
    family = "ip" if roles.vip.version == 4 else "ip6"
    servers = ", ".join(str(server.address) for server in roles.servers)
    match = f"{family} {'saddr' if own else 'daddr'} {{ {servers} }} tcp {'sport' if own else 'dport'}"
    text = f"""\
  chain forward {{
    type filter hook forward priority filter
    {match} {roles.target_port} meta length > {_HEADERS_BYTES} {statement}
  }}"""
    context.add_table(netns, table, text)
