"""tracked: how the connection's entry stands in conntrack's table now, or that there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Proof
from netlab.experiments.experiment import FIRST
from netlab.experiments.moment import Moment
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION, TRACKER
from netlab.record.events import CT_TCP_STATES
from netlab.yamlspec.shapes import Boolean, Choice, Fields, Key

LIVE = True
DOC = "conntrack in a namespace has the entry that the client's first packet made, and all that is named holds of it"
_STANDING = ("tcp_state", "replied", "assured")
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose conntrack it is", required=True),
        "there": Key(Boolean(), "whether there is one (default true)"),
        "tcp_state": Key(Choice("conntrack's TCP state", CT_TCP_STATES), "the state it has"),
        "replied": Key(Boolean(), "whether packets were seen both ways (not UNREPLIED)"),
        "assured": Key(Boolean(), "whether it is ASSURED: never dropped early"),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """Whether the table agrees with each argument."""
    assert moment.live is not None
    netns, over = arguments["in"], moment.whole is not None
    try:
        entry = moment.live.entry(netns, arguments.get("connection", FIRST))
    except NotApplied as missing:
        return Proof((), str(missing))
    what = f"entry of the connection in {netns}'s conntrack"
    if not arguments.get("there", True):
        absent = Proof((), f"no {what} (there is one)", refuted=f"no {what}; found one" if over else "")
        return Proof(()) if entry is None else absent
    if entry is None:
        return Proof((), f"an {what}", refuted=f"an {what}; found none" if over else "")
    found = {key: getattr(entry, key) for key in _STANDING}
    differing = [key for key in _STANDING if key in arguments and arguments[key] != found[key]]
    if not differing:
        return Proof(())
    wanted = ", ".join(f"{key} {_word(arguments[key])}" for key in differing)
    seen = ", ".join(f"{key} {_word(found[key])}" for key in differing)
    refuted = f"the {what} with {wanted}; found it with {seen}" if over else ""
    return Proof((), f"the {what} with {wanted} (it has {seen})", refuted=refuted)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
