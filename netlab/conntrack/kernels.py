"""What differs between kernels, as data: how one kernel, with its sysctls, judges. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Rules:
    """How one kernel, with its sysctls, judges. Made by `rules`.

    logs_invalid_new: whether a packet that opens no connection is logged; None where that isn't known. rst_unchecked:
    a RST to a connection that is closing is taken as it comes. reinit_by_syn_only: in the handshake only a SYN with
    new numbers begins its side anew, not any packet; syn_loses_scale: it sets the window scales to 0, too. Linux
    kernel commit c7aab4f17021 ("netfilter: nf_conntrack_tcp: re-init for syn packets only") (in v5.18) brought both,
    and fb366fc7541a ("netfilter: conntrack: correct window scaling with retransmitted SYN") (in v6.8, and in stable
    kernels before it) ended the latter. passes_challenged_rst: a RST with the number of an ACK that answered a SYN is
    taken as it comes. rst_answers_other_side: a RST that follows a SYN that was ignored is taken as it comes only from
    the other end. timeouts_s are the kernel's by state, RETRANS and UNACK, in seconds, and max_retrans the sysctl.
    """

    fates: Mapping[Failure, Fate] = field(default_factory=lambda: SINCE_6_1)
    ignored_text: str = "packet (index {kind}) in dir {direction} ignored, state {state}"
    invalid_text: str = "packet (index {kind}) in dir {direction} invalid, state {state}"
    logs_invalid_new: bool | None = True
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

    @property
    def forgiving(self) -> bool:
        """Whether a packet may go past the window by less than a whole one, and old data come again (v6.1)."""
        return self.fates is SINCE_6_1


DECIDING = ("forgives-late-segments", "keeps-window-scale", "passes-challenged-rst")
"""The capabilities that decide in `rules` where it is known whether the kernel has them."""


def rules(
    release: str,
    capabilities: Iterable[tuple[str, bool]] = (),
    *,
    be_liberal: bool = False,
    loose: bool = True,
    ignore_invalid_rst: bool = False,
) -> Rules:
    """The rules of a kernel with these sysctls.

    capabilities are those of DECIDING that the kernel was found to have or to lack. What they leave open its release
    decides ("6.18.44-cloud", as of `uname -r`); one that has no number is taken for a new one. A distribution may have
    brought a change to an older release: then what the kernel logs differs from what is computed, and `disagreements`
    says so.
    """
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (99, 0)
    known = dict(capabilities)
    forgiving = known.get("forgives-late-segments", version >= (6, 1))
    keeps_scale = known.get("keeps-window-scale", not (5, 18) <= version < (6, 8))
    return Rules(
        fates=SINCE_6_1 if forgiving else UNTIL_6_0,
        ignored_text=Rules().ignored_text if version >= (5, 18) else "invalid packet ignored in state {state}",
        invalid_text=Rules().invalid_text if forgiving else "invalid state",
        # Read in v6.1, which does not, and in v6.8, which does.
        logs_invalid_new=False if version <= (6, 1) else True if version >= (6, 8) else None,
        # Read in v5.10, which checks them, and in v5.18, which doesn't.
        rst_unchecked=version >= (5, 18),
        reinit_by_syn_only=version >= (5, 18),
        syn_loses_scale=not keeps_scale,
        passes_challenged_rst=version >= (5, 18) and known.get("passes-challenged-rst", version >= (6, 2)),
        rst_answers_other_side=version >= (6, 18),
        be_liberal=be_liberal,
        loose=loose,
        ignore_invalid_rst=ignore_invalid_rst,
    )
