"""What conntrack makes of segments out of the window, by sending them: a connection whose both ends are crafted on lo.

The segments leave through the output hook, where conntrack and the rule that counts see them, and are dropped before
any socket could answer.
"""

from __future__ import annotations

import re
import socket
import struct

from netlab.capabilities.scratch import set_loopback_up
from netlab.errors import UnsupportedError
from netlab.events import ACK, PSH, SYN
from netlab.kernel import nft

LATE_BYTES = 100_000
"""How far below the window the late segment is: as in Kubernetes' test/images/regression-issue-74839/main.go."""

_WINDOW_BYTES = 1000
_CLIENT_PORT, _SERVER_PORT = 40000, 80
_CLIENT_ISN, _SERVER_ISN = 1_000_000, 2_000_000

_RULES = """
table ip probe {
  counter invalid { }
  chain output {
    type filter hook output priority filter;
    ct state invalid counter name invalid
  }
  chain prerouting {
    type filter hook prerouting priority -500;
    drop
  }
}
"""


class _Connection:
    """An established TCP connection that only conntrack believes in; both ends offer a window of _WINDOW_BYTES."""

    def __init__(self) -> None:
        set_loopback_up()
        nft(_RULES)
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self._send(_CLIENT_PORT, _SERVER_PORT, _CLIENT_ISN, 0, SYN)
        self._send(_SERVER_PORT, _CLIENT_PORT, _SERVER_ISN, _CLIENT_ISN + 1, SYN | ACK)
        self._send(_CLIENT_PORT, _SERVER_PORT, _CLIENT_ISN + 1, _SERVER_ISN + 1, ACK)
        self._invalid = self._count()
        if self._invalid:
            raise UnsupportedError("conntrack finds the segments of a crafted handshake INVALID")

    def finds_invalid(self, offset: int) -> bool:
        """Whether conntrack finds a byte from the server INVALID; offset is how far from the first one it is."""
        self._send(_SERVER_PORT, _CLIENT_PORT, _SERVER_ISN + 1 + offset, _CLIENT_ISN + 1, PSH | ACK, b"x")
        before, self._invalid = self._invalid, self._count()
        return self._invalid > before

    def _send(self, sport: int, dport: int, seq: int, ack: int, flags: int, payload: bytes = b"") -> None:
        # Without a checksum: conntrack looks at it in the prerouting hook only.
        header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, _WINDOW_BYTES, 0, 0)
        self._raw.sendto(header + payload, ("127.0.0.1", 0))

    def _count(self) -> int:
        found = re.search(r"packets (\d+)", nft("list counter ip probe invalid"))
        assert found, "a counter has a number"
        return int(found[1])


def _controlled() -> _Connection:
    """A connection on which conntrack has just found a byte INVALID that is over the window on every kernel."""
    connection = _Connection()
    if not connection.finds_invalid(4 * _WINDOW_BYTES):
        raise UnsupportedError("conntrack finds no segment INVALID, not even one far over the window")
    return connection


def forgives_late_segments() -> str:
    """A segment from LATE_BYTES below the window is let pass. UnsupportedError where it is INVALID."""
    if _controlled().finds_invalid(-LATE_BYTES):
        raise UnsupportedError(f"a segment from {LATE_BYTES:,} bytes below the window is INVALID")
    return f"a segment from {LATE_BYTES:,} bytes below the window is let pass"


def forgives_small_overshoot() -> str:
    """A segment that overshoots by less than the largest window offered is let pass. UnsupportedError if INVALID."""
    if _controlled().finds_invalid(_WINDOW_BYTES + 1):
        raise UnsupportedError(f"a segment that overshoots a window of {_WINDOW_BYTES:,} bytes by 2 is INVALID")
    return f"a segment that overshoots a window of {_WINDOW_BYTES:,} bytes by 2 is let pass"
