"""What observing needs of a namespace that is there once, whoever observes: NFLOG's group of conntrack's log lines,
some sysctls, the table that marks packets for tracing.

All act in the calling thread's network namespace. Who has them, and for how long, is `keeper.py`'s.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from netlab.errors import LabError, UnsupportedError
from netlab.linux import nflog, nft
from netlab.observe.sysctl import ChangedSysctls
from netlab.record.events import TRACE_INVALID_CHAIN, TRACE_TABLE
from netlab.record.wire import IPPROTO_TCP

_COPY_BYTES = 128
_RECEIVE_BUFFER_BYTES = 1 << 20
_LOG_INVALID = "net/netfilter/nf_conntrack_log_invalid"
_OF_ALL = "255"
"""nf_conntrack_log_invalid for packets of every protocol (nf_ct_l4proto_log_invalid(), nf_conntrack_proto.c)."""
_NO_REASONS = "this kernel can't tell why a packet is INVALID"
_EVENTS, _TIMESTAMP = "net/netfilter/nf_conntrack_events", "net/netfilter/nf_conntrack_timestamp"

LIMIT = "limit rate 100/second burst 100 packets"
"""How many packets are traced that are of no special kind."""

ANY_PORT = range(1 << 16)


class Kept(Protocol):
    """One such thing, for all who want it, and the sysctls that are changed for it."""

    sysctls: ChangedSysctls

    @property
    def want(self) -> Callable[..., None]:
        """To be called where one more wants it, with what it needs of it.

        A NetlabError or OSError where it can't be had; ValueError or TypeError for impossible wishes.
        """

    def fileno(self) -> int | None:
        """The descriptor that is readable when something waits that all are to get; None where nothing ever does."""

    def read(self) -> Iterator[bytes]:
        """What waits, each part to be handed on as it is."""

    def close(self) -> None:
        """Nobody wants it any more: the namespace is as it was."""


class Reasons:
    """NFLOG's group of conntrack's log lines about TCP, which are switched on; what comes are netlink messages.

    Linux has one reader of a group in a namespace (nfulnl_recv_config in net/netfilter/nfnetlink_log.c): LabError where
    another program is it.
    """

    def __init__(self) -> None:
        self.sysctls = ChangedSysctls()
        self._socket: socket.socket | None = None

    def want(self, *, families: Iterable[int]) -> None:
        """The lines about packets of these address families."""
        if self._socket is None:
            self._socket = _listen()
        # The logger second: it can only be named once its module is there, which the binding has loaded.
        for family in families:
            self.sysctls.set(f"net/netfilter/nf_log/{int(family)}", "nfnetlink_log", _NO_REASONS)
        self.sysctls.set(_LOG_INVALID, str(IPPROTO_TCP), _NO_REASONS, enough=_OF_ALL)

    def fileno(self) -> int | None:
        """The group's socket."""
        return None if self._socket is None else self._socket.fileno()

    def read(self) -> Iterator[bytes]:
        """What waits. What found no room shows as a gap in the messages' numbers."""
        while self._socket is not None:
            try:
                yield self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """The sysctls first: there is nobody to log to any more then."""
        self.sysctls.restore()
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def _listen() -> socket.socket:
    group = nflog.KERNELS_GROUP
    try:
        sock = nflog.listen(group, _COPY_BYTES, _RECEIVE_BUFFER_BYTES)
    except PermissionError as error:
        raise LabError(
            f"another program than netlab reads NFLOG group {group} there", "end it, and run this again"
        ) from error
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise UnsupportedError(f"this kernel has no NFLOG (nfnetlink_log): {name}") from error
    sock.setblocking(False)
    return sock


class _Silent:
    """What brings nothing itself."""

    def __init__(self) -> None:
        self.sysctls = ChangedSysctls()

    def fileno(self) -> int | None:
        return None

    def read(self) -> Iterator[bytes]:
        yield from ()


class EntryEvents(_Silent):
    """That conntrack tells of its entries' events, with its own stamps where it can."""

    def want(self) -> None:
        """UnsupportedError where this kernel can't tell them."""
        with suppress(UnsupportedError):  # then the moment of reading is the event's
            self.sysctls.set(_TIMESTAMP, "1", "no stamps", unless="0")
        self.sysctls.set(_EVENTS, "1", "this kernel can't tell of conntrack's events", unless="0")

    def close(self) -> None:
        """The sysctls are what they were."""
        self.sysctls.restore()


class Marks(_Silent):
    """The table that marks packets for tracing (TRACE_TABLE), of all ports that somebody wants."""

    def __init__(self) -> None:
        super().__init__()
        self._ports: set[int] = set()
        self._conntrack = self._may_be_there = False

    def want(self, *, ports: Collection[int], conntrack: bool) -> None:
        """Packets of these ports too, of all ports without any; with conntrack those that it finds INVALID.

        OSError where the kernel can't trace, or somebody else's table has the name.
        """
        wanted = self._ports | ({int(port) & 0xFFFF for port in ports} or set(ANY_PORT))
        self._may_be_there = True  # also where who was to make it ended before it said so
        if not (self._ports and self._extended(wanted, verdicts=conntrack and not self._conntrack)):
            nft.make_own_table(TRACE_TABLE, marking_table(wanted, conntrack=conntrack or self._conntrack))
        self._ports, self._conntrack = wanted, self._conntrack or conntrack

    def _extended(self, ports: Collection[int], *, verdicts: bool) -> bool:
        """Whether the table marks these ports now, its rules left as they are; False where it has been removed."""
        chains = f"table inet {TRACE_TABLE} {{\n{verdict_chains()}\n}}\n" if verdicts else ""
        in_set = f"inet {TRACE_TABLE} ports"
        try:
            nft.run(f"flush set {in_set}\nadd element {in_set} {{ {_elements(ports)} }}\n{chains}")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The table is gone."""
        if self._may_be_there:
            with suppress(OSError):
                nft.remove_own_table(TRACE_TABLE)
        self._ports, self._may_be_there = set(), False


def _elements(ports: Collection[int]) -> str:
    return "0-65535" if len(ports) == len(ANY_PORT) else ", ".join(str(port) for port in sorted(ports))


_WITH_PORTS = "meta l4proto { tcp, udp, sctp }"
_OURS = tuple(f"{_WITH_PORTS} th {end} @ports" for end in ("dport", "sport"))
_HOOKS = (("prerouting", ""), ("output", "_output"))


def marking_table(ports: Collection[int], *, conntrack: bool) -> str:
    """What stands between the marking table's braces: before conntrack (priority -200) one chain, after it another.

    conntrack says whether the namespace tracks connections: a rule that asks conntrack would make it begin to.
    """
    lines = [
        f"  set ports {{ type inet_service; flags interval; elements = {{ {_elements(ports)} }}; }}",
        "  chain pick {",
        "    tcp flags & (fin | syn | rst) != 0 meta nftrace set 1 return",
        f"    {LIMIT} meta nftrace set 1",
        "  }",
    ]
    for hook, suffix in _HOOKS:
        lines += [
            f"  chain first{suffix} {{",
            f"    type filter hook {hook} priority -310",
            *(f"    {match} jump pick" for match in _OURS),
            "    icmp type { destination-unreachable, time-exceeded, parameter-problem } meta nftrace set 1",
            "    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } "
            "meta nftrace set 1",
            "  }",
        ]
    return "\n".join([*lines, *([verdict_chains()] if conntrack else [])])


def verdict_chains() -> str:
    """The chains that mark what conntrack finds INVALID."""
    lines = []
    for hook, suffix in _HOOKS:
        lines += [
            f"  chain {TRACE_INVALID_CHAIN}{suffix} {{",
            f"    type filter hook {hook} priority -190",
            *(f"    ct state invalid {match} meta nftrace set 1" for match in _OURS),
            "  }",
        ]
    return "\n".join(lines)


KINDS: Mapping[str, Callable[[], Kept]] = {
    "reasons": Reasons,
    "events": EntryEvents,
    "marks": Marks,
}
"""What can be wanted, by the name that a wish gives it."""
