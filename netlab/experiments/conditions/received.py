"""received: the program at one end has got so many bytes, each the right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Proof
from netlab.experiments.experiment import FIRST
from netlab.experiments.moment import Moment
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import BYTES, CONNECTION, END
from netlab.yamlspec.shapes import Fields, Key

LIVE = True
DOC = "the program at one end has got at least so many bytes since the connection began, all of them right"
ARGUMENTS = Fields(
    {
        "by": Key(END, "which end's program", required=True),
        "bytes": Key(BYTES, "at least so many", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """Whether they are there."""
    assert moment.live is not None
    try:
        end = moment.live.end(arguments["by"], arguments.get("connection", FIRST))
    except NotApplied as missing:
        return Proof((), str(missing))
    if not end.intact:
        return Proof((), f"the right bytes at the {end.name}")
    if end.received_bytes < arguments["bytes"]:
        return Proof((), f"{arguments['bytes']:,} bytes at the {end.name}: it got {end.received_bytes:,}")
    return Proof(())
