"""The model and the real conntrack, asked the same: odd conversations played to both, and compared packet by packet."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, product

from odd_conversations import Conversation
from real_conntrack import BATCH, RealConntrack, RealEntry, Seen

from netlab.capabilities.probes import deciding
from netlab.capabilities.scratch import attempt
from netlab.conntrack.agreement import is_shortening
from netlab.conntrack.kernels import TIMEOUTS_S, Rules, rules
from netlab.conntrack.tracker import Tracker
from netlab.conntrack.values import Checked, CtDirection, CtOutcome, Entry, Side
from netlab.errors import NetlabError
from netlab.record.events import Direction, Packet, Segment, flag_names
from netlab.record.wire import decode_ip

# All different, and some of them between the two that others are compared with.
_TIMEOUTS_S = {
    "SYN_SENT": 2000,
    "SYN_RECV": 1900,
    "ESTABLISHED": 9000,
    "FIN_WAIT": 2800,
    "CLOSE_WAIT": 3200,
    "LAST_ACK": 1600,
    "TIME_WAIT": 1500,
    "CLOSE": 1400,
    "RETRANS": 3000,
    "UNACK": 2500,
}
_ALL_TIMEOUTS_S = {**TIMEOUTS_S, **_TIMEOUTS_S}
_PLAYED_S = 60
"""How long a conversation takes at most."""

_LEFT = "timeout_s"
_SYSCTL_OF = {"RETRANS": "max_retrans", "UNACK": "unacknowledged"}


@dataclass(frozen=True)
class Setting:
    """The sysctls that decide: nf_conntrack_tcp_loose, _be_liberal, _ignore_invalid_rst."""

    loose: bool
    be_liberal: bool
    ignore_invalid_rst: bool

    def __str__(self) -> str:
        return f"{self.loose:d},{self.be_liberal:d},{self.ignore_invalid_rst:d}"

    def sysctls(self) -> dict[str, str]:
        """Its sysctls of net.netfilter, and timeouts that tell themselves from each other."""
        names = ("loose", "be_liberal", "ignore_invalid_rst")
        values = {f"nf_conntrack_tcp_{name}": str(int(getattr(self, name))) for name in names}
        for state, seconds in _TIMEOUTS_S.items():
            values[f"nf_conntrack_tcp_timeout_{_SYSCTL_OF.get(state, state.lower())}"] = str(seconds)
        return values

    def rules(self, base: Rules) -> Rules:
        """The rules of a kernel with these sysctls."""
        theirs = rules("", (), self.sysctls())
        return replace(
            base,
            loose=theirs.loose,
            be_liberal=theirs.be_liberal,
            ignore_invalid_rst=theirs.ignore_invalid_rst,
            timeouts_s=theirs.timeouts_s,
        )


SETTINGS = tuple(Setting(*values) for values in product((True, False), (False, True), (False, True)))
"""All eight."""


@dataclass(frozen=True)
class Difference:
    """A packet of which model and kernel differ, with the conversation up to it in words."""

    setting: Setting
    conversation: int
    what: tuple[str, ...]
    story: tuple[str, ...]


@dataclass
class Report:
    """What was compared."""

    packets: int = 0
    conversations: int = 0
    seconds: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count another one in."""
        self.packets += other.packets
        self.conversations += other.conversations
        self.seconds += other.seconds
        self.verdicts += other.verdicts
        self.differences += other.differences


def kernel_rules() -> Rules:
    """This kernel's rules, as its capabilities tell; before the namespace is entered."""
    return rules(platform.release(), deciding())


def compare(
    kernel: RealConntrack, base: Rules, setting: Setting, seed: int, numbers: Iterator[int], deadline: float
) -> Report:
    """Play the conversations with these numbers, BATCH at a time, none begun after that moment of time.monotonic()."""
    report = Report()
    kernel.set(setting.sysctls())
    began = time.monotonic()
    while time.monotonic() < deadline:
        wave = [_Playing(Conversation(seed, number), setting, base) for number in islice(numbers, BATCH)]
        if not wave:
            break
        report.conversations += len(wave)
        while wave:
            packets = [playing.next() for playing in wave]
            seen = kernel.play([(packet, each.conversation.header) for packet, each in zip(packets, wave, strict=True)])
            report.packets += len(wave)
            for playing, packet, said in zip(wave, packets, seen, strict=True):
                playing.hold(packet, said)
                report.verdicts[said.verdict] += 1
                if playing.difference:
                    report.differences.append(playing.difference)
            wave = [playing for playing in wave if not (playing.difference or playing.conversation.over)]
        kernel.forget()
    report.seconds = time.monotonic() - began
    return report


def in_a_namespace(body: Callable[[RealConntrack], str]) -> str:
    """What body returns in a forked child that has a network namespace, and its conntrack, for itself.

    NetlabError with the first line of what it raises.
    """

    def inside() -> str:
        with RealConntrack() as kernel:
            return body(kernel)

    answer = attempt(inside)
    if isinstance(answer, NetlabError):
        raise answer
    return answer


class _Playing:
    """A conversation that is being played, and the model's account of it."""

    def __init__(self, conversation: Conversation, setting: Setting, base: Rules) -> None:
        self.conversation = conversation
        self.difference: Difference | None = None
        self._setting = setting
        self._tracker = Tracker(setting.rules(base))
        self._story: list[str] = []

    def next(self) -> bytes:
        return self.conversation.next(self._tracker.entry(self.conversation.header))

    def hold(self, packet: bytes, said: Seen) -> None:
        segment = decode_ip(packet)
        assert segment is not None, f"not decoded: {packet[:80].hex()}"
        checked = self._tracker.packet(Packet(time.time_ns(), "", "way", Direction.IN, segment))
        entry = self._tracker.entry(self.conversation.header)
        what = differences(checked, entry, said)
        self._story.append(told(segment, said, checked, entry, self.conversation.header.sport == segment.sport))
        if what:
            self.difference = Difference(self._setting, self.conversation.number, what, tuple(self._story))


def differences(checked: Checked, entry: Entry | None, said: Seen) -> tuple[str, ...]:
    """In what the model's account of a packet, and of the entry after it, differs from the kernel's."""
    lines = tuple(line for line in said.log if not is_shortening(line))
    pairs: list[tuple[str, object, object]] = [
        ("verdict", verdict(checked), said.verdict),
        ("log", (checked.log,) if checked.log else (), lines),
        ("shortened", _shortened(checked), len(lines) < len(said.log)),
        ("entry", entry is not None, said.entry is not None),
    ]
    if entry is not None and said.entry is not None:
        ours, theirs = expected(entry), said.entry
        pairs += [(name, getattr(ours, name), getattr(theirs, name)) for name in RealEntry.__slots__ if name != _LEFT]
        pairs.append(("timeout", timeout(ours), timeout(theirs)))
    return tuple(f"{name}: {ours} != {theirs}" for name, ours, theirs in pairs if ours != theirs)


def expected(entry: Entry) -> RealEntry:
    """What ctnetlink tells of an entry that was refreshed just now, after the model's account."""
    sides = (entry.original, entry.reply)
    return RealEntry(
        entry.tcp_state,
        entry.seen_reply,
        entry.assured,
        (sides[0].td_scale, sides[1].td_scale),
        (flags(sides[0]), flags(sides[1])),
        _ALL_TIMEOUTS_S[entry.timeout],
    )


def timeout(entry: RealEntry) -> str:
    """The name of the timeout of which this much is left; how much, where it is of none."""
    near = [name for name, seconds in _ALL_TIMEOUTS_S.items() if 0 <= seconds - entry.timeout_s <= _PLAYED_S]
    return near[0] if near else f"{entry.timeout_s} s"


def verdict(checked: Checked) -> str:
    """What `ct state` and `ct direction` are after the model's account."""
    if checked.outcome in (CtOutcome.INVALID, CtOutcome.UNMODELLED):
        return checked.outcome.value
    if checked.direction is CtDirection.REPLY:
        return "established reply"
    answered = checked.state_before is not None and checked.state_before.seen_reply
    return "established original" if answered else "new original"


def flags(side: Side) -> int:
    """A side's flags as ctnetlink has them: IP_CT_TCP_FLAG_* (include/uapi/linux/netfilter/nf_conntrack_tcp.h)."""
    bits = (
        side.window_scale,
        side.sack_permitted,
        side.close_init,
        side.be_liberal,
        side.data_unacknowledged,
        side.td_maxack is not None,
    )
    return sum(1 << bit for bit, value in enumerate(bits) if value)


def _shortened(checked: Checked) -> bool:
    if checked.outcome is not CtOutcome.INVALID or not checked.state_before or not checked.state_after:
        return False
    return checked.state_before.refreshed_ns != checked.state_after.refreshed_ns


def told(segment: Segment, said: Seen, checked: Checked, entry: Entry | None, from_client: bool) -> str:
    """A packet, and what both say of it, in a line."""
    names = ",".join(flag_names(segment.flags)) or "none"
    options = f" wscale={segment.wscale} sack_permitted={segment.sack_permitted} sack={segment.sack_edge}"
    numbers = f"seq={segment.seq} ack={segment.ack} win={segment.window} len={segment.payload_bytes}"
    real = said.entry
    return (
        f"{'>' if from_client else '<'} {names} {numbers} offset={segment.data_offset}{options}"
        f"\n    kernel {said.verdict} {said.log} {real}"
        f"\n    model  {checked.outcome} {checked.log!r} {entry}"
    )
