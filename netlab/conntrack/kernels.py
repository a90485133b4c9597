"""What differs between kernels, as data: how one kernel, with its sysctls, judges. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from netlab.conntrack.values import CtOutcome, Failure


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a packet that falls out of the window. text is the kernel's; {} stands for its number.

    moves_end: the packet counts as sent all the same, so that its acknowledgement will be believed.
    """

    outcome: CtOutcome
    text: str
    moves_end: bool = False


_OVER = Fate(CtOutcome.INVALID, "SEQ is over the upper bound (over the window of the receiver)")

UNTIL_6_0: Mapping[Failure, Fate] = {
    Failure.OVERSHOT: _OVER,
    Failure.SEQ_OVER: _OVER,
    Failure.SEQ_UNDER: Fate(CtOutcome.INVALID, "SEQ is under the lower bound (already ACKed data retransmitted)"),
    Failure.ACK_OVER: Fate(CtOutcome.INVALID, "ACK is over the upper bound (ACKed data not seen yet)"),
    Failure.ACK_UNDER: Fate(CtOutcome.INVALID, "ACK is under the lower bound (possible overly delayed ACK)"),
}
"""Fates in the order in which kernels up to v6.0 look for them."""

SINCE_6_1: Mapping[Failure, Fate] = {
    Failure.OVERSHOT: Fate(CtOutcome.IGNORE, "{} bytes more than expected", moves_end=True),
    Failure.SEQ_OVER: Fate(CtOutcome.INVALID, "SEQ is over upper bound {} (over the window of the receiver)"),
    Failure.ACK_OVER: Fate(CtOutcome.INVALID, "ACK is over upper bound {} (ACKed data not seen yet)"),
    Failure.SEQ_UNDER: Fate(CtOutcome.IGNORE, "SEQ is under lower bound {} (already ACKed data retransmitted)"),
    Failure.ACK_UNDER: Fate(CtOutcome.IGNORE, "ignored ACK under lower bound {} (possible overly delayed)"),
}
"""The same since Linux kernel commit 6e250dcbff1d ("netfilter: conntrack: ignore overly delayed tcp packets") (in
v6.1)."""


TIMEOUTS_S: Mapping[str, int] = {
    "SYN_SENT": 120,
    "SYN_RECV": 60,
    "ESTABLISHED": 432_000,
    "FIN_WAIT": 120,
    "CLOSE_WAIT": 60,
    "LAST_ACK": 30,
    "TIME_WAIT": 120,
    "CLOSE": 10,
    "SYN_SENT2": 120,
    "RETRANS": 300,
    "UNACK": 300,
}
"""How long entries live without a packet (tcp_timeouts in nf_conntrack_proto_tcp.c), in seconds."""


Version: TypeAlias = tuple[int, int]

_BY_RELEASE: Mapping[str, Callable[[Version], bool]] = {
    "forgives-late-segments": lambda version: version >= (6, 1),
    "keeps-window-scale": lambda version: not (5, 18) <= version < (6, 8),
    "passes-challenged-rst": lambda version: not (5, 18) <= version < (6, 2),
    "restarts-by-syn-only": lambda version: version >= (5, 18),
    "takes-any-rst-while-closing": lambda version: version >= (5, 14),
    "checks-rst-after-own-syn": lambda version: version >= (7, 1),
    "logs-invalid-new": lambda version: version >= (6, 7),
    "logs-ignored-kind": lambda version: version >= (5, 12),
}
"""Which releases of kernel.org have what decides; docs/capabilities.md names the commits."""

DECIDING = tuple(_BY_RELEASE)
"""The capabilities that decide in `rules`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How one kernel, with its sysctls, judges. Made by `rules`.

    logs_invalid_new: a packet that opens no connection is logged. rst_unchecked: a RST to a connection that is closing
    is taken as it comes. reinit_by_syn_only: in the handshake only a SYN with new numbers begins its side anew, not any
    packet; syn_loses_scale: it sets the window scales to 0, too. passes_challenged_rst: a RST with the number of an ACK
    that answered a SYN is taken as it comes. rst_answers_other_side: a RST that follows a SYN that was ignored is taken
    as it comes only from the other end. timeouts_s are the kernel's by state, RETRANS and UNACK, in seconds.

    guessed are those of DECIDING that were told from the kernel's release alone: a distribution may have brought a
    change to an older one.
    """

    fates: Mapping[Failure, Fate] = field(default_factory=lambda: SINCE_6_1)
    ignored_text: str = "packet (index {kind}) in dir {direction} ignored, state {state}"
    invalid_text: str = "packet (index {kind}) in dir {direction} invalid, state {state}"
    logs_invalid_new: bool = True
    rst_unchecked: bool = True
    reinit_by_syn_only: bool = True
    syn_loses_scale: bool = False
    passes_challenged_rst: bool = True
    rst_answers_other_side: bool = True
    be_liberal: bool = False
    loose: bool = True
    ignore_invalid_rst: bool = False
    timeouts_s: Mapping[str, int] = field(default_factory=lambda: TIMEOUTS_S)
    max_retrans: int = 3
    guessed: tuple[str, ...] = ()

    @property
    def forgiving(self) -> bool:
        """Whether a packet may go past the window by less than a whole one, and old data come again (v6.1)."""
        return self.fates is SINCE_6_1


def rules(
    release: str,
    capabilities: Iterable[tuple[str, bool]] = (),
    sysctls: Mapping[str, str] = MappingProxyType({}),
) -> Rules:
    """The rules of a kernel.

    capabilities are those of DECIDING that the kernel was found to have or to lack. What they leave open its release
    decides ("6.18.44-cloud", as of `uname -r`; one that has no number is taken for a new one), and `guessed` says so.
    sysctls are those of net.netfilter in the namespace ("nf_conntrack_tcp_loose": "0"); what is left out is the
    kernel's default, and so is what is no number: the kernel refuses it.
    """
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (99, 0)
    known = dict(capabilities)
    has = {name: known.get(name, by_release(version)) for name, by_release in _BY_RELEASE.items()}
    tcp = {
        key.removeprefix(_PREFIX): int(value)
        for key, value in sysctls.items()
        if key.startswith(_PREFIX) and value.strip().isdecimal()
    }
    named = {state: _TIMEOUT + _TIMEOUT_SYSCTLS.get(state, state.lower()) for state in TIMEOUTS_S}
    new, forgiving = Rules(), has["forgives-late-segments"]
    return Rules(
        fates=SINCE_6_1 if forgiving else UNTIL_6_0,
        ignored_text=new.ignored_text if has["logs-ignored-kind"] else "invalid packet ignored in state {state}",
        invalid_text=new.invalid_text if forgiving else "invalid state",
        logs_invalid_new=has["logs-invalid-new"],
        rst_unchecked=has["takes-any-rst-while-closing"],
        reinit_by_syn_only=has["restarts-by-syn-only"],
        syn_loses_scale=not has["keeps-window-scale"],
        # Where any packet begins its side anew, that RST passes for another reason.
        passes_challenged_rst=has["restarts-by-syn-only"] and has["passes-challenged-rst"],
        rst_answers_other_side=has["checks-rst-after-own-syn"],
        be_liberal=tcp.get("be_liberal", 0) != 0,
        loose=tcp.get("loose", 1) != 0,
        ignore_invalid_rst=tcp.get("ignore_invalid_rst", 0) != 0,
        timeouts_s={state: tcp.get(name, TIMEOUTS_S[state]) for state, name in named.items()},
        max_retrans=tcp.get("max_retrans", new.max_retrans),
        guessed=tuple(name for name in DECIDING if name not in known),
    )


_PREFIX, _TIMEOUT = "nf_conntrack_tcp_", "timeout_"
_TIMEOUT_SYSCTLS = {"RETRANS": "max_retrans", "UNACK": "unacknowledged"}
"""The sysctls of the timeouts that are not called after a state."""
