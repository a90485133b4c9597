"""What conntrack makes of packets, by sending them: connections on lo both of whose ends are crafted.

The packets leave through the output hook, where conntrack and the rules see them, and are dropped before any socket
could answer.
"""

from __future__ import annotations

import re
import socket
import struct
from ipaddress import ip_address
from typing import Self

from netlab.capabilities.scratch import set_loopback_up
from netlab.errors import UnsupportedError
from netlab.linux import ctnetlink, nflog, nft, sysctl
from netlab.record.events import ACK, FIN, PSH, RST, SYN, Tuple

LATE_BYTES = 100_000
"""How far below the window the late segment is: as in Kubernetes' test/images/regression-issue-74839/main.go."""

_WINDOW_BYTES = 1000
_CLIENT_PORT, _SERVER_PORT, _OTHER_PORT = 40000, 80, 81
_CLIENT_ISN, _SERVER_ISN = 1_000_000, 2_000_000
_WSCALE = 7
_WSCALE_OPTION = bytes([3, 3, _WSCALE, 1])  # RFC 7323, section 2.2, and a NOP
_LOOPBACK = ip_address("127.0.0.1")

_RULES = """
table ip probe {
  counter invalid { }
  counter related { }
  chain output {
    type filter hook output priority filter
    ct state invalid counter name invalid
    ct state related counter name related
  }
  chain prerouting {
    type filter hook prerouting priority -500
    drop
  }
}
"""

_FTP = """
table ip probe {
  ct helper ftp { type "ftp" protocol tcp; }
  chain output { tcp dport 21 ct helper set "ftp"; }
}
"""

_SCTP_PORT, _SCTP_TARGET_PORT = 80, 8080
_SCTP = f"""
table ip probe {{
  chain nat {{
    type nat hook output priority -100
    sctp dport {_SCTP_PORT} dnat to {_LOOPBACK}:{_SCTP_TARGET_PORT}
  }}
}}
"""


class _Connection:
    """a TCP connection that only conntrack has; both ends offer a window of _WINDOW_BYTES, before scaling."""

    def __init__(self, server_port: int = _SERVER_PORT) -> None:
        self._server_port = server_port
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)

    def establish(self, options: bytes = b"") -> Self:
        """The handshake, both of whose SYNs have these options."""
        server_port = self._server_port
        self.send(_CLIENT_PORT, server_port, _CLIENT_ISN, 0, SYN, options=options)
        self.send(server_port, _CLIENT_PORT, _SERVER_ISN, _CLIENT_ISN + 1, SYN | ACK, options=options)
        self.send(_CLIENT_PORT, server_port, _CLIENT_ISN + 1, _SERVER_ISN + 1, ACK)
        return self

    @property
    def tuple_orig(self) -> Tuple:
        return Tuple(_LOOPBACK, _CLIENT_PORT, _LOOPBACK, self._server_port, socket.IPPROTO_TCP)

    def send(
        self, sport: int, dport: int, seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b""
    ) -> None:
        # Without a checksum: conntrack looks at it in the prerouting hook only.
        data_offset = (5 + len(options) // 4) << 4
        header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, data_offset, flags, _WINDOW_BYTES, 0, 0)
        self._raw.sendto(header + options + payload, (str(_LOOPBACK), 0))

    def finds_invalid(self, offset: int) -> bool:
        """Whether conntrack finds a byte from the server INVALID; offset is how far from the first one it is."""
        before = _count("invalid")
        self.send(self._server_port, _CLIENT_PORT, _SERVER_ISN + 1 + offset, _CLIENT_ISN + 1, PSH | ACK, b"x")
        return _count("invalid") > before

    def finds_invalid_rst(self, seq: int, ack: int) -> bool:
        """Whether conntrack finds a RST from the server INVALID."""
        before = _count("invalid")
        self.send(self._server_port, _CLIENT_PORT, seq, ack, RST | ACK)
        return _count("invalid") > before


def _track(more_rules: str = "") -> None:
    set_loopback_up()
    nft.run(_RULES + more_rules)


def _count(name: str) -> int:
    found = re.search(r"packets (\d+)", nft.run(f"list counter ip probe {name}"))
    assert found, "a counter has a number"
    return int(found[1])


# --- the window ------------------------------------------------------------------------------------------------------


def _controlled() -> _Connection:
    """A connection on which conntrack has just found a byte INVALID that is over the window on every kernel."""
    _track()
    connection = _Connection().establish()
    if _count("invalid"):
        raise UnsupportedError("conntrack finds a crafted handshake INVALID")
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


def ignores_invalid_rst() -> str:
    """The sysctl nf_conntrack_tcp_ignore_invalid_rst can be set. UnsupportedError or OSError where it can't."""
    _track()
    key = "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst"
    sysctl.write(key, "1")
    if sysctl.read(key) != "1":
        raise UnsupportedError(f"{key} stays {sysctl.read(key)}")
    return f"{key} can be set"


def keeps_window_scale() -> str:
    """A SYN, another with a higher number, and their answer: all offer a scale. UnsupportedError where it is lost."""
    _track()
    connection = _Connection()
    connection.send(_CLIENT_PORT, _SERVER_PORT, _CLIENT_ISN - 1, 0, SYN, options=_WSCALE_OPTION)
    connection.establish(_WSCALE_OPTION)
    window_bytes = _WINDOW_BYTES << _WSCALE
    if not connection.finds_invalid(4 * window_bytes):
        raise UnsupportedError("conntrack finds no segment INVALID, not even one far over the window")
    if connection.finds_invalid(window_bytes - 1):
        raise UnsupportedError("after a second SYN conntrack doesn't scale the windows any more")
    return "after a second SYN conntrack still scales the windows"


def passes_challenged_rst() -> str:
    """An ACK of the server's answers a SYN with a number of an older connection, and a RST with that number answers it.

    UnsupportedError where the RST is INVALID (RFC 5961, section 4, has such ACKs).
    """
    # The control isn't a RST: before Linux kernel commit c7aab4f17021 none that follows its own SYN is INVALID.
    connection = _controlled()
    before, number = _count("invalid"), _CLIENT_ISN + 500_000
    connection.send(_CLIENT_PORT, _OTHER_PORT, _CLIENT_ISN, 0, SYN)
    connection.send(_OTHER_PORT, _CLIENT_PORT, _SERVER_ISN, number, ACK)
    connection.send(_CLIENT_PORT, _OTHER_PORT, number, 0, RST)
    if _count("invalid") > before:
        raise UnsupportedError("the RST that answers a challenge ACK is INVALID")
    return "the RST that answers a challenge ACK is let pass"


def restarts_by_syn_only() -> str:
    """A RST far past the SYN before it is INVALID. UnsupportedError where it begins its side of the connection anew."""
    connection = _controlled()
    before = _count("invalid")
    connection.send(_CLIENT_PORT, _OTHER_PORT, _CLIENT_ISN, 0, SYN)
    connection.send(_CLIENT_PORT, _OTHER_PORT, _CLIENT_ISN + 500_000, 0, RST)
    if _count("invalid") == before:
        raise UnsupportedError("in a handshake any packet with a higher number begins its side anew")
    return "in a handshake only a SYN with a higher number begins its side anew"


def takes_any_rst_while_closing() -> str:
    """A RST from far below to a connection that is closing is let pass. UnsupportedError where it is INVALID."""
    connection = _controlled()
    number, acknowledged = _SERVER_ISN + 1 - LATE_BYTES, _CLIENT_ISN + 1
    if not connection.finds_invalid_rst(number, acknowledged):
        raise UnsupportedError("conntrack finds no RST INVALID, not even one from far below the window")
    connection.send(_CLIENT_PORT, _SERVER_PORT, _CLIENT_ISN + 1, _SERVER_ISN + 1, FIN | ACK)
    if connection.finds_invalid_rst(number, acknowledged):
        raise UnsupportedError("a RST from far below the window is INVALID also where the connection is closing")
    return "a RST from far below the window is let pass where the connection is closing"


def checks_rst_after_own_syn() -> str:
    """A RST that acknowledges the SYN of its own end that was ignored before it is INVALID. UnsupportedError if not."""
    connection = _controlled()
    number = _SERVER_ISN + 5000  # so that its acknowledgement is one of what the server has not sent
    connection.send(_CLIENT_PORT, _SERVER_PORT, number, 0, SYN)
    before = _count("invalid")
    connection.send(_CLIENT_PORT, _SERVER_PORT, _CLIENT_ISN + 1, number + 1, RST | ACK)
    if _count("invalid") == before:
        raise UnsupportedError("a RST that follows a SYN of the same end is let pass")
    return "a RST that follows a SYN of the same end is checked against the window"


# --- the log ---------------------------------------------------------------------------------------------------------


def logs_invalid_new() -> str:
    """A RST that has no entry is logged as "invalid new". UnsupportedError where it isn't, or nothing can be read."""
    with _Log() as log:
        _Connection().send(_CLIENT_PORT, _OTHER_PORT, _CLIENT_ISN, 0, RST)
        lines = log.lines()
    if "invalid new" not in lines:
        raise UnsupportedError("a packet that opens no connection is not logged")
    return "a packet that opens no connection is logged"


def logs_ignored_kind() -> str:
    """The log names the kind of a SYN that is ignored. UnsupportedError where it doesn't, or nothing can be read."""
    with _Log() as log:
        _Connection().establish().send(_CLIENT_PORT, _SERVER_PORT, _CLIENT_ISN + 5000, 0, SYN)
        lines = log.lines()
    if not any("index 0" in line and "ignored" in line for line in lines):
        raise UnsupportedError(f"the log says of a SYN that is ignored: {'; '.join(lines) or 'nothing'}")
    return "the log names the kind of packet that is ignored"


class _Log:
    """Conntrack's log lines about TCP, read through NFLOG. OSError where there is none."""

    def __enter__(self) -> Self:
        _track()
        self._socket = nflog.listen(nflog.KERNELS_GROUP, copy_bytes=0, receive_buffer_bytes=1 << 16)
        self._socket.setblocking(False)
        # The logger can only be named once its module is there, which the listening has loaded.
        sysctl.write("net.netfilter.nf_log.2", "nfnetlink_log")
        sysctl.write("net.netfilter.nf_conntrack_log_invalid", str(socket.IPPROTO_TCP))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def lines(self) -> list[str]:
        """What was logged: a packet's lines are there when the call that sent it is back."""
        found: list[str] = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            found += [line.prefix.partition(": ")[2].strip() for line in nflog.lines(data)]


# --- entries ---------------------------------------------------------------------------------------------------------


def sets_window_scale() -> str:
    """An entry's window scales are set to 0 through ctnetlink, and read back. UnsupportedError where they stay."""
    _track()
    header = _Connection().establish(_WSCALE_OPTION).tuple_orig
    if ctnetlink.window_scales(header) != (_WSCALE, _WSCALE):
        raise UnsupportedError("ctnetlink doesn't tell an entry's window scales")
    ctnetlink.set_window_scales(header, 0, 0)
    if ctnetlink.window_scales(header) != (0, 0):
        raise UnsupportedError("an entry's window scales stay as they were")
    return "an entry's window scales can be set"


def deletes_entries() -> str:
    """An entry is deleted through ctnetlink, and gone. UnsupportedError where it stays."""
    _track()
    header = _Connection().establish().tuple_orig
    if not ctnetlink.delete(header) or ctnetlink.entry(header) is not None:
        raise UnsupportedError("an entry can't be deleted")
    return "an entry can be deleted"


# --- other protocols -------------------------------------------------------------------------------------------------


def ftp_helper() -> str:
    """A connection that an FTP client announced is RELATED. UnsupportedError where it isn't."""
    _track(_FTP)
    connection = _Connection(server_port=21).establish()
    # The helper reads a command only after it has seen the end of the line before it (find_nl_seq, nf_conntrack_ftp.c).
    seq = _CLIENT_ISN + 1
    for line in (b"USER probe\r\n", b"PORT 127,0,0,1,156,65\r\n"):
        connection.send(_CLIENT_PORT, 21, seq, _SERVER_ISN + 1, PSH | ACK, line)
        seq += len(line)
    connection.send(20, 156 * 256 + 65, _SERVER_ISN, 0, SYN)
    if _count("related") != 1:
        raise UnsupportedError("the connection that an FTP client announces isn't RELATED")
    return "the connection that an FTP client announces is RELATED"


def sctp() -> str:
    """SCTP sockets, and conntrack and NAT for them. UnsupportedError or OSError, saying which is missing."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError as error:
        raise UnsupportedError(f"no SCTP sockets: {error.strerror}") from error
    return translates_sctp()


def translates_sctp() -> str:
    """An SCTP association's first chunk is tracked, and its destination translated. UnsupportedError where it isn't."""
    _track(_SCTP)
    # The common header without a checksum, and an INIT chunk (RFC 9260, section 3.3.2).
    init = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65535, 1, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP) as raw:
        raw.sendto(struct.pack("!HHII", _CLIENT_PORT, _SCTP_PORT, 0, 0) + init, (str(_LOOPBACK), 0))
    header = Tuple(_LOOPBACK, _CLIENT_PORT, _LOOPBACK, _SCTP_PORT, socket.IPPROTO_SCTP)
    found = ctnetlink.entry(header)
    if found is None or found.reply.sport != _SCTP_TARGET_PORT:
        raise UnsupportedError("conntrack doesn't translate SCTP")
    return "sockets, conntrack and NAT know SCTP"
