"""What befell each packet of one connection, as marks and notes: NAT, conntrack's reasons, the end of its way. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import assert_never

from netlab.analysis.findings import PacketFinding
from netlab.analysis.paths import Fate, PacketPath
from netlab.analysis.stalls import StallKind, kind_of
from netlab.analysis.timeline import Timeline
from netlab.analysis.translation import Nat, invalid_at
from netlab.record.flow import Flow
from netlab.record.words import endpoint
from netlab.report.sequence import answer
from netlab.report.sequence.diagram import Mark
from netlab.report.sequence.frame import Frame
from netlab.report.sequence.notes import Told, drop, translation
from netlab.report.sequence.numbers import Numbers

THROWN_AWAY = "the client's kernel drops it: its checksum is wrong"
"""What becomes of an untranslated packet with a wrong checksum (tcp_v4_rcv(), net/ipv4/tcp_ipv4.c)."""


@dataclass(slots=True)
class Account:
    """What is told of one packet. qualifier says in a fold what sets it apart: "INVALID, dropped"."""

    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    qualifier: str = ""


class Fates:
    """Tells of one connection's packets, in their order; probes are the numbers of its window probes."""

    def __init__(self, timeline: Timeline, flow: Flow, probes: Collection[int], frame: Frame, told: Told) -> None:
        self._flow, self._probes, self._frame, self._told = flow, probes, frame, told
        paths = timeline.of(flow)
        self._numbers = Numbers(paths)
        self._challenges = answer.challenges(paths)
        self._lost = any(count for _, count in timeline.recording.lost)
        self._watched = {tap.netns for tap in timeline.recording.taps}

    def of(self, found: PacketFinding) -> Account:
        """The answer it is, NAT, conntrack's reasons, and the end of the way, in this order."""
        path, flow, account = found.path, self._flow, Account()
        account.notes += self._answer(found)
        if path.number in self._probes:
            asker, asked = (flow.client, flow.server) if path.to_server else (flow.server, flow.client)
            account.notes += self._told.once(f"{asker} asks whether {asked}'s window is open again")
        for rewrite in path.rewrites:
            if rewrite.netns:  # else it happened out of sight, and there is no column to put it in
                account.marks.append(self._frame.mark(rewrite.netns, "NAT"))
            account.notes += self._told.once(translation(rewrite))
        account.notes += _rewritten(path)
        self._conntrack(account, path)
        account.marks += [mark for mark in self._frame.states(path.trace) if mark not in account.marks]
        account.notes += _left_alone(found)
        if _comes_back(path):
            account.notes += self._told.once(f"it comes back to {path.last.netns}")
        if path.fate is not Fate.DELIVERED:
            self._end(account, found, flow.server if path.to_server else flow.client)
        if path.ambiguous:
            account.notes.append(path.ambiguous)
        return account

    def _answer(self, found: PacketFinding) -> list[str]:
        syn = self._challenges.get(found.path.number)
        if found.answer is None and syn is not None:
            return [f"{self._flow.server} answers the SYN #{syn} with an ACK of the connection that it still has"]
        return answer.reset(found)

    def _conntrack(self, account: Account, path: PacketPath) -> None:
        """Where conntrack found it INVALID, or noted something and let it pass."""
        for reason in path.reasons:
            said = f"conntrack on {reason.netns}: {self._numbers.reason(reason.text, path)}"
            if invalid_at(path, reason.netns):
                account.marks.append(self._frame.mark(reason.netns, "INVALID"))
                account.notes.append(f"INVALID: {said}")
                account.qualifier = "INVALID"
            else:
                rewritten = any(rewrite.netns == reason.netns for rewrite in path.rewrites)
                account.marks += [] if rewritten else [self._frame.mark(reason.netns, "LOGGED")]
                account.notes.append(f"{said}: logged, but let pass")
        for netns in _found_invalid(path):
            account.marks.append(self._frame.mark(netns, "INVALID"))
            unlogged = "" if self._lost else "; conntrack logged no reason"
            account.notes.append(f"INVALID: a rule on {netns} found it so{unlogged}")
            account.qualifier = "INVALID"

    def _end(self, account: Account, found: PacketFinding, goal: str) -> None:
        path, last, thrown = found.path, found.path.last, found.thrown_away
        where = f"{last.netns}/{last.ifname}"
        drops = [step for step in path.trace if step.verdict == "drop"]
        end = "dropped"
        if drops:
            account.marks.append(self._frame.mark(drops[-1].netns, "DROP"))
            account.notes.append(drop(drops[-1]))
        elif thrown is not None and kind_of(thrown.reason) is StallKind.NO_NEIGHBOUR:
            account.marks.append(self._frame.mark(last.netns, "LOST"))
            account.notes.append(f"LOST: {thrown.netns} waited for a neighbour that never answered")
            end = "lost"
        elif thrown is not None:
            account.marks.append(self._frame.mark(last.netns, "DROP"))
            account.notes.append(f"DROP: {thrown.netns}'s kernel: {thrown.reason}")
        elif self._lost:
            account.notes.append(f"not seen after {where}; but events were lost")
            return
        elif goal not in self._watched:
            account.notes.append(f"not seen after {where}; but {goal} was not watched")
            return
        else:
            account.marks.append(self._frame.mark(last.netns, "LOST"))
            astray = last.ends[2] == self._flow.vip and any(mark.word == "INVALID" for mark in account.marks)
            whither = "; no route to the VIP" if astray else ""
            account.notes.append(f"LOST: it was last seen at {where}{whither}")
            end = "lost"
        account.qualifier = f"{account.qualifier}, {end}" if account.qualifier else end


def _left_alone(found: PacketFinding) -> Iterator[str]:
    """Why NAT did not translate it, and who gets it so."""
    path, visit = found.path, found.left_alone
    if visit is None or path.fate is not Fate.DELIVERED:
        return
    match visit.nat:
        case Nat.INVALID:
            nat = "NAT skipped it"
        case Nat.BRIDGED:
            nat = f"it stayed on {visit.netns}'s bridge, and NAT never saw it"
        case Nat.UNKNOWN:
            nat = "NAT left it alone"
        case Nat.ANOTHER_ENTRY | Nat.NO_ENTRY | Nat.UNTRACKED:
            nat = "NAT has no translation for it"
        case Nat.NOTHING_DUE | Nat.TRANSLATED:  # not left alone
            return
        case _:
            assert_never(visit.nat)
    src, sport, _, _ = path.last.ends
    yield f"{nat}: it reaches {path.last.netns} with {endpoint(src, sport)} as its source"
    if path.corrupt:
        yield THROWN_AWAY


def _found_invalid(path: PacketPath) -> list[str]:
    """Where it is known to be INVALID though conntrack logged nothing about it."""
    logged = {reason.netns for reason in path.reasons}
    way = dict.fromkeys(hop.netns for hop in path.hops)
    return [netns for netns in way if netns not in logged and path.called_invalid(netns)]


def _comes_back(path: PacketPath) -> bool:
    """Whether a packet ended in the namespace that sent it, after it had been in others."""
    netns = path.last.netns
    return netns == path.hops[0].netns and any(hop.netns != netns for hop in path.hops)


def _rewritten(path: PacketPath) -> Iterator[str]:
    """Where a helper of conntrack's gave the packet another length."""
    for before, after in pairwise(path.hops):
        was, now = before.parts[0].segment.payload_bytes, after.parts[0].segment.payload_bytes
        if was != now and before.netns == after.netns and len(before.parts) == len(after.parts) == 1:
            yield f"conntrack's helper on {before.netns} rewrote what it carries: len {was} becomes {now}"
