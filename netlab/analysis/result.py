"""What a run showed: outcomes, the evidence for them, trials, and all of them together. Pure values.

`judge.py` makes them from what was seen, `report/` tells them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from netlab.record.domains import U32, Count, Seconds, TimeNs, Word
from netlab.record.events import ConntrackEvent, InvalidReason, Packet, SocketEvent, TraceStep, Witness
from netlab.record.flow import Flow

_Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


class Outcome(StrEnum):
    """What became of one trial."""

    RESET = "reset"
    """By a RST that answers a reply which NAT had not translated."""
    RESET_BY_PEER = "reset-by-peer"
    """By a RST that came the connection's own way: through the VIP, where there is one."""
    RESET_IN_HANDSHAKE = "reset-in-handshake"
    REFUSED = "refused"
    """The client's SYN was answered with a RST or an ICMP error."""
    SYN_UNANSWERED = "syn-unanswered"
    HALF_CLOSED = "half-closed"
    """One end has closed its side, and what the other sent since did not arrive."""
    STALLED = "stalled"
    """The deadline passed before the client had all."""
    COMPLETED = "completed"
    INCONCLUSIVE = "inconclusive"


class Claim(StrEnum):
    """What was seen of what an experiment's document claims."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


class Conclusion(StrEnum):
    """What all trials together show about the experiment's claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not-reproduced"
    INCONCLUSIVE = "inconclusive"


_HARMED = [outcome for outcome in Outcome if outcome not in (Outcome.COMPLETED, Outcome.INCONCLUSIVE)]
_SHOWS = {
    Conclusion.REPRODUCED: [*_HARMED, Outcome.INCONCLUSIVE, Outcome.COMPLETED],
    Conclusion.NOT_REPRODUCED: [*_HARMED, Outcome.COMPLETED, Outcome.INCONCLUSIVE],
    Conclusion.INCONCLUSIVE: [Outcome.INCONCLUSIVE, *_HARMED, Outcome.COMPLETED],
}
"""Which trial of a run shows best what it says, by its outcome."""


class Link(StrEnum):
    """What a piece of evidence shows: its place in the chain of causes, or in what happened instead."""

    REQUEST = "request"
    REQUEST_TRANSLATED = "request-translated"
    STALE_WINDOW = "stale-window"
    REPLY = "reply"
    INVALID = "invalid"
    ADOPTED = "adopted"
    REPLY_UNTRANSLATED = "reply-untranslated"
    REPLY_TRANSLATED = "reply-translated"
    RST = "rst"
    RST_AT_SERVER = "rst-at-server"
    RST_AT_CLIENT = "rst-at-client"
    SERVER_RESET = "server-reset"
    CLIENT_RESET = "client-reset"
    OBSERVED = "observed"


_SHOWN_BY: dict[Link, tuple[type, ...]] = {
    Link.STALE_WINDOW: (SocketEvent,),
    Link.INVALID: (InvalidReason, TraceStep),
    Link.ADOPTED: (ConntrackEvent,),
    Link.SERVER_RESET: (SocketEvent,),
    Link.CLIENT_RESET: (SocketEvent,),
    Link.OBSERVED: (object,),
}
"""What shows a link; every other one is shown by a Packet."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was seen. note is what it means in numbers, in plain words; it may be empty.

    relative_seq and relative_ack count from the connection's initial sequence numbers, as tcpdump and Wireshark do;
    None where there is no packet or the handshake was not seen.
    """

    link: Link
    event: Witness
    note: str = ""
    relative_seq: U32 | None = None
    relative_ack: U32 | None = None

    def inconsistency(self) -> str:
        """Of a piece read from a file: an event that can't show what it is to show."""
        fits = isinstance(self.event, _SHOWN_BY.get(self.link, (Packet,)))
        return "" if fits else f"a {type(self.event).__name__} is no evidence for {self.link}"


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether the stimulus took place: the evidence for it, and what is missing from it (empty if nothing is).

    only_states: no event is missing, only how sockets and counters were to stand. refuted is what the claim needs and
    was seen not to hold, by observers that told all they saw: "a segment with RST reaching client; saw none" (after
    "expected"); empty where what is missing may have been there.
    """

    evidence: tuple[Evidence, ...]
    missing: str = ""
    only_states: bool = False
    refuted: str = ""

    @property
    def bears_reset(self) -> bool:
        """Whether a reset can be the one that the experiment claims: it keeps sockets from standing as they were to."""
        return not self.missing or self.only_states


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial, judged. missing is empty for `reset` and `completed`; lost counts events over all observers.

    invalid is how many packets the nodes' conntrack found INVALID, retransmits how many segments were sent again from
    any namespace, both by the kernel's own counters. load has the connections of a load; flow and evidence are then
    those of one of them. refuted is what the claim needs and was seen not to hold, as a Proof has it.
    """

    outcome: Outcome
    duration_s: Seconds
    started_ns: TimeNs
    flow: Flow
    evidence: tuple[Evidence, ...]
    bytes_received: Count
    payload_bytes: Count
    lost: Count = 0
    missing: tuple[str, ...] = ()
    invalid: Count = 0
    retransmits: Count = 0
    load: Load | None = None
    refuted: str = ""

    @property
    def ended(self) -> str:
        """How it ended, in a word, for people: a trial that refutes the claim is not inconclusive to them."""
        return "refuted" if self.refuted and self.outcome is Outcome.INCONCLUSIVE else str(self.outcome)


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a load's connections.

    completed is how many did; others are those that didn't, each judged as a trial is. drawn is one of all of them that
    was observed whole, and is to show, None where none was. late is how many segments came
    to the client's node after a copy of their data, logged how many of theirs conntrack there logged something about.
    cpu_percent is how much of one CPU the server had, None where it was not to be limited; unlimited says why it could
    not be.
    """

    completed: Count
    others: tuple[TrialResult, ...]
    drawn: TrialResult | None
    late: Count
    logged: Count
    cpu_percent: Count | None = None
    unlimited: str = ""

    @property
    def connections(self) -> int:
        """How many there were."""
        return self.completed + len(self.others)

    def count(self, outcome: Outcome) -> int:
        """How many ended so."""
        if outcome is Outcome.COMPLETED:
            return self.completed
        return sum(other.outcome is outcome for other in self.others)


@dataclass(frozen=True, slots=True)
class PerThousand:
    """How many of a load's connections were reset, in a thousand: as counted, and the 95 % interval of the true rate.

    The interval takes connections for independent of each other, which those of one load are not quite.
    """

    resets: int
    connections: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """As counted."""
        return 1000 * self.resets / self.connections


@dataclass(frozen=True, slots=True)
class Advice:
    """What an experiment's document says for who has its claim in production; each member may be empty.

    outcomes has what it expects with each fix alone, on this kernel, in the document's order. kernels says which
    kernels do so, remedy what helps beside the fixes; see has names and addresses of what to read.
    """

    outcomes: tuple[tuple[Word, Outcome], ...] = ()
    kernels: str = ""
    remedy: str = ""
    see: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a run showed. claim is the experiment's, in one sentence; kernel is `uname -r`.

    expected is the outcome that the experiment's document expects of each trial with these fixes on this kernel; None
    where it says nothing. explanation is the document's, in paragraphs; it may be empty. plain is the outcome that the
    document expects without any fix.
    """

    experiment: Word
    claim: str
    lab: Word
    fixes: tuple[str, ...]
    kernel: Word
    trials: tuple[TrialResult, ...]
    expected: Outcome | None = None
    explanation: str = ""
    plain: Outcome | None = None
    advice: Advice = Advice()

    def count(self, outcome: Outcome) -> int:
        """How many trials ended so."""
        return sum(trial.outcome is outcome for trial in self.trials)

    def reset_rate(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the share of resets among all trials that told; None if none did."""
        told = len(self.trials) - self.count(Outcome.INCONCLUSIVE)
        return wilson_interval(self.count(Outcome.RESET), told) if told else None

    def per_thousand(self) -> PerThousand | None:
        """How many connections were reset, over the loads of all trials that told; None where there were none."""
        loads = [trial.load for trial in self.trials if trial.load and trial.outcome is not Outcome.INCONCLUSIVE]
        connections = sum(load.connections for load in loads)
        if not connections:
            return None
        resets = sum(load.count(Outcome.RESET) for load in loads)
        low, high = wilson_interval(resets, connections)
        return PerThousand(resets, connections, 1000 * low, 1000 * high)

    @property
    def claim_is(self) -> Claim:
        """Whether the claim was seen to hold: refuted as soon as one trial refutes it, else undecided if one is.

        Without a document's expectation an outcome refutes nothing as long as another trial is undecided.
        """
        trials = [self._claim_of(trial) for trial in self.trials]
        seen = any(trial.refuted for trial in self.trials) or self.expected is not None
        if Claim.REFUTED in trials and (seen or Claim.UNDECIDED not in trials):
            return Claim.REFUTED
        return Claim.UNDECIDED if not trials or Claim.UNDECIDED in trials else Claim.CONFIRMED

    def _claim_of(self, trial: TrialResult) -> Claim:
        if trial.refuted:
            return Claim.REFUTED
        if trial.outcome is Outcome.INCONCLUSIVE:
            return Claim.UNDECIDED
        if self.expected is not None:
            return Claim.CONFIRMED if trial.outcome is self.expected else Claim.REFUTED
        if trial.outcome is Outcome.STALLED:
            return Claim.UNDECIDED
        return Claim.CONFIRMED if (trial.outcome is Outcome.RESET) is not bool(self.fixes) else Claim.REFUTED

    @property
    def prevents(self) -> bool | None:
        """Whether the fixes were seen to prevent what the document expects without them; None where nothing is said."""
        if not self.fixes or self.plain in (None, Outcome.COMPLETED) or self.claim_is is Claim.UNDECIDED:
            return None
        harmed = len(self.trials) - self.count(Outcome.COMPLETED) - self.count(Outcome.INCONCLUSIVE)
        return None if self.count(Outcome.INCONCLUSIVE) and not harmed else not harmed

    @property
    def result(self) -> Conclusion:
        """Inconclusive as soon as one trial is, or stalled unexpectedly; else reproduced if any was reset."""
        stalled = 0 if self.expected is Outcome.STALLED else self.count(Outcome.STALLED)
        if not self.trials or self.count(Outcome.INCONCLUSIVE) or stalled:
            return Conclusion.INCONCLUSIVE
        return Conclusion.REPRODUCED if self.count(Outcome.RESET) else Conclusion.NOT_REPRODUCED

    def shown(self) -> tuple[int, TrialResult]:
        """The trial to draw, with its number from 1: one that shows what the run says. There must be trials.

        Of a load it is one of its connections.
        """
        order = _SHOWS[self.result]
        number, trial = min(enumerate(self.trials, 1), key=lambda pair: (order.index(pair[1].outcome), pair[0]))
        return number, (trial.load.drawn or trial) if trial.load else trial

    def exit_code(self, expect: str | None = None) -> int:
        """0 as expected, 1 otherwise, 3 where that can't be told.

        Expected is `expect`, a Conclusion, if given, else that the claim is confirmed: each trial has the document's
        outcome, or, where it says nothing, is reset without fixes, and not with one.
        """
        if expect is None:
            return {Claim.CONFIRMED: 0, Claim.REFUTED: 1, Claim.UNDECIDED: 3}[self.claim_is]
        if self.result is Conclusion.INCONCLUSIVE:
            return 3
        return 0 if self.result == expect else 1


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion, both ends between 0 and 1, for at least one trial.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the American
    Statistical Association 22 (1927), 209-212. Unlike the normal approximation it says something for 20 of 20.
    """
    z2 = _Z_95 * _Z_95
    share = successes / trials
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # Rounding must not push the ends of 0 of n and n of n off the scale.
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == trials else centre + half
