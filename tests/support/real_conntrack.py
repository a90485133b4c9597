"""A real conntrack to hold the model against: frames go into this process's network namespace, verdicts come out.

The namespace must be the process's own, and empty: a veth pair is made in it, and its sysctls and rules are set. What
comes out of one end is tracked and forwarded back to the same end; the other end drops it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Self

from netlab.linux import nft, sysctl
from netlab.linux.netlink import NETLINK_NETFILTER, NFGENMSG, NLMSGHDR, attribute, attributes, messages
from netlab.record.events import CT_TCP_STATES, Tuple
from netlab.record.wire import ETH_P_IP, ETH_P_IPV6

MTU_BYTES = 65_535
BATCH = 64
"""How many packets are sent before their verdicts are read: so many fit into an ordinary user's socket buffer."""

_TIMEOUT_S = 5.0
_MAC = bytes.fromhex("020000000001")
_LOG_PREFIX = "nf_ct_proto_6: "
_RULES = """
table inet oracle {
  chain back {
    type filter hook prerouting priority -500
    iifname back drop
  }
  chain said {
    type filter hook prerouting priority -150
    meta l4proto != tcp accept
    ct state invalid log group 0 prefix "invalid" accept
    ct state untracked log group 0 prefix "untracked" accept
    ct state new ct direction original log group 0 prefix "new original" accept
    ct state new ct direction reply log group 0 prefix "new reply" accept
    ct state established ct direction original log group 0 prefix "established original" accept
    ct state established ct direction reply log group 0 prefix "established reply" accept
    log group 0 prefix "neither"
  }
}
"""

_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.addr_gen_mode": "1",
    "net.ipv6.conf.default.router_solicitations": "0",
}
_LINK_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.way.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.way.send_redirects": "0",
    "net.netfilter.nf_conntrack_checksum": "0",
}
_LOGGED = {
    "net.netfilter.nf_log.2": "nfnetlink_log",
    "net.netfilter.nf_log.10": "nfnetlink_log",
    "net.netfilter.nf_conntrack_log_invalid": "6",
}

# include/uapi/linux/netfilter/{nfnetlink,nfnetlink_log,nfnetlink_conntrack}.h, if_packet.h, asm-generic/socket.h
_ULOG_PACKET, _ULOG_CONFIG = 4 << 8, 4 << 8 | 1
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH, _BIND, _COPY_META = 1, 2, 5, 1, 1
_PREFIX, _HWHEADER = 10, 16
_CT_GET, _CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
_STATUS, _PROTOINFO, _TIMEOUT = 3, 4, 7
_IPS_SEEN_REPLY, _IPS_ASSURED = 2, 4
_TCP, _TCP_STATE, _SCALE_ORIGINAL, _SCALE_REPLY, _FLAGS_ORIGINAL, _FLAGS_REPLY = 1, 1, 2, 3, 4, 5
_NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR = 1, 4, 2
_SOL_PACKET, _PACKET_QDISC_BYPASS, _SO_RCVBUFFORCE = 263, 20, 33


@dataclass(frozen=True, slots=True)
class RealEntry:
    """An entry as ctnetlink has it. flags are struct ip_ct_tcp_state's, original's and reply's; timeout_s is what is
    left."""

    tcp_state: str
    seen_reply: bool
    assured: bool
    scales: tuple[int, int]
    flags: tuple[int, int]
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel made of one frame: the verdict ("invalid", "new original" …), its log lines, the entry then."""

    verdict: str
    log: tuple[str, ...]
    entry: RealEntry | None


class RealConntrack:
    """The conntrack of this namespace. sysctls are those of net.netfilter, without the prefix.

    OSError, and CalledProcessError of `ip`, where the namespace can't be furnished.
    """

    def __init__(self, sysctls: Mapping[str, str] = MappingProxyType({})) -> None:
        self._furnish()
        self.set(sysctls)
        self._log = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        with suppress(PermissionError):
            self._log.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        self._bind_log()
        for key, value in _LOGGED.items():  # the loggers' names are known once the binding has loaded the module
            sysctl.write(key, value)
        self._entries = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._entries.settimeout(_TIMEOUT_S)
        self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._frames.bind(("back", 0))
        self._frames.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        # One processor: what is sent one after the other is handled one after the other.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._log, self._entries, self._frames):
            sock.close()

    def set(self, sysctls: Mapping[str, str]) -> None:
        """Set sysctls of net.netfilter."""
        for key, value in sysctls.items():
            sysctl.write(f"net.netfilter.{key}", value)

    def play(self, packets: Sequence[tuple[bytes, Tuple]]) -> list[Seen]:
        """What the kernel makes of IP packets, given with the tuple of the entry to look at after all of them.

        At most BATCH, each of another connection. TimeoutError where one doesn't arrive.
        """
        assert len(packets) <= BATCH
        for number, (packet, _) in enumerate(packets):
            ethertype = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
            # The sender's address says which packet it is: the log has it.
            self._frames.send(_MAC + struct.pack("!HIH", 0x0200, number, ethertype) + packet)
        said = self._read_log(len(packets))
        entries = self.entries([header for _, header in packets])
        return [Seen(*said[number], entry) for number, entry in enumerate(entries)]

    def entries(self, headers: Sequence[Tuple]) -> list[RealEntry | None]:
        """The entries that packets with these headers find. Equivalent to a `conntrack -G` each."""
        requests = (_message(_CT_GET, _NLM_F_REQUEST, number, _get(header)) for number, header in enumerate(headers))
        self._entries.send(b"".join(requests))
        found: dict[int, RealEntry | None] = {}
        while len(found) < len(headers):
            data = self._entries.recv(1 << 16)
            _, kind, _, number, _ = NLMSGHDR.unpack_from(data)
            body = data[NLMSGHDR.size :]
            if kind == _NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", body)
                if code != -errno.ENOENT:
                    raise OSError(-code, os.strerror(-code), "ctnetlink")
                found[number] = None
            else:
                found[number] = _entry(body[NFGENMSG.size :])
        return [found[number] for number in range(len(headers))]

    def forget(self) -> None:
        """Delete all entries. Equivalent to `conntrack -F`."""
        self._entries.send(_message(_CT_DELETE, _NLM_F_REQUEST | _NLM_F_ACK, 0, NFGENMSG.pack(0, 0, 0)))
        _acknowledged(self._entries)

    def _furnish(self) -> None:
        for key, value in _SYSCTLS.items():
            sysctl.write(key, value)
        commands = (
            f"link add way address {_MAC.hex(':')} mtu {MTU_BYTES} type veth peer name back mtu {MTU_BYTES}",
            "link set back up",
            "link set way arp off up",
            "address add 169.254.1.1/32 dev way",
            "route add default dev way",
            "route add ::/0 dev way",
        )
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True)
        nft.run(_RULES)  # it loads conntrack, without which its sysctls aren't there
        for key, value in _LINK_SYSCTLS.items():
            sysctl.write(key, value)

    def _bind_log(self) -> None:
        config = (
            attribute(_CFG_CMD, bytes([_BIND])),
            attribute(_CFG_MODE, struct.pack("!IBx", 0, _COPY_META)),
            attribute(_CFG_QTHRESH, struct.pack("!I", 1)),
        )
        body = NFGENMSG.pack(socket.AF_UNSPEC, 0, 0) + b"".join(config)
        self._log.send(_message(_ULOG_CONFIG, _NLM_F_REQUEST | _NLM_F_ACK, 0, body))
        _acknowledged(self._log)
        self._log.setblocking(False)

    def _read_log(self, count: int) -> dict[int, tuple[str, tuple[str, ...]]]:
        """The verdict and the log lines of each of that many packets, by number."""
        said: dict[int, tuple[str, tuple[str, ...]]] = {}
        lines: list[str] = []
        deadline = time.monotonic() + _TIMEOUT_S
        while len(said) < count:
            try:
                data = self._log.recv(1 << 16)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{count - len(said)} of {count} packets did not come to conntrack") from None
                time.sleep(0.0002)
                continue
            for kind, _, body in messages(data):
                if kind != _ULOG_PACKET:
                    continue
                told = attributes(body[NFGENMSG.size :])
                prefix = told[_PREFIX].rstrip(b"\0").decode()
                if prefix.startswith(_LOG_PREFIX):
                    lines.append(prefix.removeprefix(_LOG_PREFIX).strip())
                else:
                    (number,) = struct.unpack_from("!I", told[_HWHEADER], 8)
                    said[number], lines = (prefix, tuple(lines)), []
        return said


def _entry(body: bytes) -> RealEntry:
    told = attributes(body)
    tcp = attributes(attributes(told[_PROTOINFO])[_TCP])
    status = int.from_bytes(told[_STATUS], "big")
    return RealEntry(
        CT_TCP_STATES[tcp[_TCP_STATE][0]],
        bool(status & _IPS_SEEN_REPLY),
        bool(status & _IPS_ASSURED),
        (tcp[_SCALE_ORIGINAL][0], tcp[_SCALE_REPLY][0]),
        (tcp[_FLAGS_ORIGINAL][0], tcp[_FLAGS_REPLY][0]),
        int.from_bytes(told[_TIMEOUT], "big"),
    )


@lru_cache(maxsize=4096)
def _get(header: Tuple) -> bytes:
    """What asks for the entry that a header finds, after the netlink header."""
    first = 1 if header.src.version == 4 else 3  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
    ip = attribute(first, header.src.packed) + attribute(first + 1, header.dst.packed)
    numbers = (bytes([header.proto]), struct.pack("!H", header.sport), struct.pack("!H", header.dport))
    proto = b"".join(attribute(kind, value) for kind, value in enumerate(numbers, 1))
    family = socket.AF_INET if header.src.version == 4 else socket.AF_INET6
    return NFGENMSG.pack(family, 0, 0) + _nest(1, _nest(1, ip) + _nest(2, proto))


def _nest(kind: int, body: bytes) -> bytes:
    return attribute(kind | 1 << 15, body)  # NLA_F_NESTED


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags, number, 0) + body


def _acknowledged(sock: socket.socket) -> None:
    (code,) = struct.unpack_from("=i", sock.recv(4096), NLMSGHDR.size)
    if code:
        raise OSError(-code, os.strerror(-code), "netfilter")
