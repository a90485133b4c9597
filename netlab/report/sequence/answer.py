"""What a RST answers, and why, in words; and which SYN an ACK answers that is another connection's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from netlab.analysis.answers import Maker
from netlab.analysis.findings import PacketFinding
from netlab.analysis.paths import Fate, PacketPath
from netlab.record.events import ACK, SYN
from netlab.record.words import endpoint


def reset(found: PacketFinding) -> list[str]:
    """What made a RST, and what it answers; nothing of other packets, and of a RST of which that is not known."""
    answer = found.answer
    if answer is None:
        return []
    number = f"#{answer.answers.number}" if answer.answers is not None else ""
    match answer.maker:
        case Maker.NO_SOCKET if answer.answers is not None:
            _, _, dst, dport = found.path.hops[0].ends
            whence = f", whose seq is {number}'s ack" if not found.path.segment.flags & ACK else ""
            unknown = endpoint(dst, dport)
            return [f"{answer.sender} has no connection with {unknown}, and answers with a RST{whence}"]
        case Maker.REFUSAL:
            why = f"{answer.sender} has sent nothing that {number} could acknowledge"
            return [f"{why}, and answers with a RST, whose seq is {number}'s ack"]
        case Maker.GONE:
            why = f"{answer.sender} has no such connection any more"
            if answer.by_netlab:
                why = f"netlab has closed {answer.sender}'s socket: {answer.sender} has no such connection any more"
            return [f"{why}, and answers with a RST, whose seq is {number}'s ack"]
        case Maker.RULE:
            assert answer.rule is not None
            return [f"rule `{answer.rule.rule}` of chain {answer.rule.chain} rejects {number} with a RST"]
        case Maker.ABORT:
            if answer.by_netlab:
                return [f"netlab closes {answer.sender}'s socket, which has not read all that came"]
            return [f"{answer.sender} aborts the connection itself"]
        case Maker.STIMULUS:
            return ["a step of the experiment made it"]
        case Maker.NOT_TCP:
            return [f"{answer.sender}'s TCP did not make it: a rule that was not seen did, or a raw socket"]
        case Maker.NO_SOCKET | Maker.UNKNOWN:
            return []
        case _:
            assert_never(answer.maker)


def challenges(paths: Sequence[PacketPath]) -> dict[int, int]:
    """The ACKs that the server answers a SYN with, of the connection that it still has, and the SYN of each.

    They have the numbers of that connection (RFC 5961, section 4.2; from TIME_WAIT RFC 9293, section 3.10.7.4).
    """
    found: dict[int, int] = {}
    syn: PacketPath | None = None
    for path in paths:
        segment = path.segment
        if path.to_server and path.fate is Fate.DELIVERED:
            syn = path if segment.flags & (SYN | ACK) == SYN else None
        elif not path.to_server and syn and (segment.flags, segment.payload_bytes) == (ACK, 0):
            challenged = segment.ack != syn.segment.end
            found |= {path.number: syn.number} if challenged else {}
    return found
