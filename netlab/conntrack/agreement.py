"""The model held against the kernel's log: where the two differ, packet by packet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from netlab.conntrack.values import Checked, CtOutcome
from netlab.record.events import InvalidReason, Packet

BAD_CHECKSUM = "checksum"
"""What the kernel's line has of a packet that it found INVALID before it looked for its entry."""


class Differs(StrEnum):
    """How model and kernel can disagree about one packet."""

    LOGGED_ONLY = "logged-only"
    PREDICTED_ONLY = "predicted-only"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A packet of which the model computes one log line (predicted) and the kernel wrote another (logged), or none."""

    kind: Differs
    packet: Packet
    predicted: str
    logged: str

    def __str__(self) -> str:
        match self.kind:
            case Differs.LOGGED_ONLY:
                return f'the kernel logged "{self.logged}" where the model expects nothing'
            case Differs.PREDICTED_ONLY:
                return f'the model expects "{self.predicted}", and the kernel logged nothing'
            case Differs.TEXT:
                return f'the kernel logged "{self.logged}" where the model expects "{self.predicted}"'


def disagreements(pairs: Iterable[tuple[Checked, Sequence[InvalidReason]]]) -> tuple[Disagreement, ...]:
    """Where the kernel's log and the model differ, for packets with what was logged about each of them.

    Packets that are not modelled are left out, and so is what the model can't see: checksums, and the line about a
    timeout that conntrack lowers, whose words differ (Linux kernel commit 628d694344a0 ("netfilter: conntrack: reduce
    timeout when receiving out-of-window fin or rst") (in v6.1)).
    """
    found = []
    for checked, reasons in pairs:
        if checked.outcome is CtOutcome.UNMODELLED:
            continue
        texts = [reason.text for reason in reasons if not _unseen_by_model(reason.text)]
        if len(texts) < len(reasons) and not texts and BAD_CHECKSUM in reasons[0].text:
            continue
        logged = texts[0] if texts else ""
        if logged == checked.log:
            continue
        kind = Differs.TEXT if logged and checked.log else Differs.LOGGED_ONLY if logged else Differs.PREDICTED_ONLY
        found.append(Disagreement(kind, checked.packet, checked.log, logged))
    return tuple(found)


def _unseen_by_model(text: str) -> bool:
    return BAD_CHECKSUM in text or is_shortening(text)


def is_shortening(text: str) -> bool:
    """Whether a log line is the one about a timeout that conntrack lowers."""
    return "lower timeout to" in text or "lowered timeout to" in text
