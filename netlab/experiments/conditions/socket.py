"""socket: how the socket at one end stands now, by TCP_INFO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Proof
from netlab.experiments.experiment import FIRST
from netlab.experiments.moment import Moment
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION, COUNT, END
from netlab.yamlspec.shapes import Boolean, Fields, Key

LIVE = True
DOC = "how the socket at one end stands, by TCP_INFO; name one property or more: all must hold"
_STANDING = {
    "unacked": Key(COUNT, "segments in flight"),
    "unsent": Key(Boolean(), "whether data waits in its queue"),
    "window_below_segment": Key(Boolean(), "whether the peer's window takes less than a full segment"),
    "quiet": Key(Boolean(), "whether nothing is in flight and nothing waits but for the peer's window to open"),
}
ARGUMENTS = Fields(
    {
        "of": Key(END, "whose socket", required=True),
        **_STANDING,
        "connection": Key(CONNECTION, "of which connection (default first)"),
    },
    any_of=tuple(_STANDING),
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """Whether TCP_INFO agrees with each argument; the samples that a trial takes show the numbers."""
    assert moment.live is not None
    try:
        end = moment.live.end(arguments["of"], arguments.get("connection", FIRST))
    except NotApplied as missing:
        return Proof((), str(missing))
    info = end.transfer_state()
    closed = info.snd_wnd_bytes < info.snd_mss_bytes
    found = {
        "unacked": info.unacked,
        "unsent": info.notsent_bytes > 0,
        "window_below_segment": closed,
        "quiet": info.unacked == 0 and (info.notsent_bytes == 0 or closed),
    }
    differing = [key for key, value in found.items() if key in arguments and arguments[key] != value]
    if not differing:
        return Proof(())
    if differing == ["quiet"]:
        return Proof((), "a moment at which everything the client allowed was sent and acknowledged")
    wanted = ", ".join(f"{key} {arguments[key]} (it is {found[key]})" for key in differing)
    return Proof((), f"the socket in {end.netns} with {wanted}")
