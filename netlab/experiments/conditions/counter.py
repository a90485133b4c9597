"""counter: one of a namespace's counters has grown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Proof
from netlab.experiments.moment import Moment
from netlab.experiments.words import COUNT, NETNS
from netlab.yamlspec.shapes import Fields, Integer, Key, Text

LIVE = True
DOC = "a counter of a namespace has grown since the trial began (named as `netlab watch` shows it)"
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace", required=True),
        "name": Key(
            Text("a counter's name"),
            "TcpExt.TCPTimeouts, conntrack.invalid, TABLE.COUNTER of nftables, …",
            required=True,
        ),
        "at_least": Key(Integer(1, 2**31), "by how much at least (default 1, or 0 with at_most)"),
        "at_most": Key(COUNT, "by how much at most, so far"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """How far the counter has gone."""
    assert moment.live is not None
    by = moment.live.counted(arguments["in"], arguments["name"])
    what = f"the counter {arguments['name']} in {arguments['in']}"
    if by is None:
        return Proof((), f"{what}: there is none of that name")
    least, most = arguments.get("at_least", 0 if "at_most" in arguments else 1), arguments.get("at_most", by)
    if least <= by <= most:
        return Proof(())
    wanted = f"{least} higher" if by < least else f"{most} higher at most"
    refuted = f"{what} to be {wanted}, and it went up by {by}" if moment.whole is not None else ""
    return Proof((), f"{what}, {wanted}: it went up by {by}", refuted=refuted)
