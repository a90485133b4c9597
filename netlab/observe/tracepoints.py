"""What the kernel's tracepoints tell of some network namespaces, through BPF programs of this process's own.

The programs go with the process, also when it is killed, and touch nothing of the host's tracing. Root's only. What a
program looks for is its observer's: drops.py, resets.py. Where the kernel's types have their members comes from BTF.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from netlab.errors import UnsupportedError, unsupported
from netlab.linux import bpf
from netlab.linux.bpf import FP, R0, R1, R2, R3, R4, R8, Instruction
from netlab.linux.btf import Btf
from netlab.observe import Namespaces

_BTF = Path("/sys/kernel/btf/vmlinux")

WORD_AT = -8
"""On a program's stack: a word at its end to read to; the record lies before it."""


class Layout(NamedTuple):
    """Where the members lie that the programs read, in bytes."""

    skb_protocol: int
    skb_dev: int
    skb_sk: int
    skb_head: int
    skb_network_header: int
    dev_net: int
    dev_ifindex: int
    sock_net: int
    net_inum: int
    sock_family: int
    sock_state: int
    sock_num: int
    sock_dport: int
    sock_rcv_saddr: int
    sock_daddr: int
    sock_v6_rcv_saddr: int
    sock_v6_daddr: int
    sock_sport: int
    sock_rcv_nxt: int


class Described(NamedTuple):
    """What a kernel says of its types: where members lie, what reasons for drops and for RSTs are called."""

    layout: Layout
    drop_reasons: Mapping[int, str]
    reset_reasons: Mapping[int, str]


class Programs:
    """Programs at tracepoints, and the buffer that their records are read from; OSError."""

    def __init__(self, buffer_bytes: int) -> None:
        self._told = 0
        with ExitStack() as closing:
            self._lost = bpf.Array()
            closing.callback(self._lost.close)
            self._buffer = bpf.RingBuffer(buffer_bytes)
            closing.callback(self._buffer.close)
            self._closing = closing.pop_all()

    @classmethod
    @contextmanager
    def opened(cls, buffer_bytes: int) -> Iterator[Self]:
        """Programs to be attached in here. UnsupportedError, and they are closed, where this user or kernel can't."""
        with unsupported("this kernel doesn't tell them"):
            try:
                programs = cls(buffer_bytes)
            except PermissionError:
                raise UnsupportedError("only the host's root may read them") from None
            try:
                yield programs
            except BaseException:
                programs.close()
                raise

    def attach(self, tracepoint: str, program: Callable[[int, int], bytes]) -> None:
        """Put a program at a tracepoint; OSError, and nothing has changed.

        program makes it from the descriptors of the buffer and of the count of what found no room.
        """
        attached = bpf.RawTracepoint(tracepoint, program(self._buffer.fd, self._lost.fd))
        self._closing.callback(attached.close)

    def fileno(self) -> int:
        """The descriptor that is readable when records wait."""
        return self._buffer.fd

    def read(self) -> Iterator[bytes]:
        """The records that wait."""
        return self._buffer.read()

    def lost(self) -> int:
        """How many records found the buffer full since this was last asked."""
        before, self._told = self._told, self._lost.value()
        return self._told - before

    def close(self) -> None:
        """Take the programs off."""
        self._closing.close()


def inodes(namespaces: Namespaces, names: Sequence[str]) -> dict[int, str]:
    """Network namespaces by the inode that the kernel knows each by."""
    found = {}
    for name in names:
        with namespaces.inside(name):
            found[Path("/proc/thread-self/ns/net").stat().st_ino] = name
    return found


def realtime_ahead_ns() -> int:
    """How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, which BPF has; right to a microsecond or so."""
    # The best of some tries: between the clocks' readings this process may have to wait.
    tries = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(3)]
    before, real, after = min(tries, key=lambda each: each[2] - each[0])
    return real - (before + after) // 2


@cache
def described() -> Described:
    """What this kernel says of its types. UnsupportedError where it doesn't, or has other ones."""
    with unsupported("this kernel doesn't describe its types (BTF)"):
        data = _BTF.read_bytes()
    try:
        return describe(Btf(data))
    except (KeyError, ValueError) as error:
        raise UnsupportedError(f"this kernel has other types: {error.args[0]}") from error


def describe(btf: Btf) -> Described:
    """What BTF says; KeyError where there is no such type or member."""
    sock, common = ("sock", "__sk_common"), ("sock_common",)
    layout = Layout(
        skb_protocol=btf.offset("sk_buff", "protocol"),
        skb_dev=btf.offset("sk_buff", "dev"),
        skb_sk=btf.offset("sk_buff", "sk"),
        skb_head=btf.offset("sk_buff", "head"),
        skb_network_header=btf.offset("sk_buff", "network_header"),
        dev_net=btf.offset("net_device", "nd_net", "net"),
        dev_ifindex=btf.offset("net_device", "ifindex"),
        sock_net=btf.offset(*sock, "skc_net", "net"),
        net_inum=btf.offset("net", "ns", "inum"),
        sock_family=btf.offset(*common, "skc_family"),
        sock_state=btf.offset(*common, "skc_state"),
        sock_num=btf.offset(*common, "skc_num"),
        sock_dport=btf.offset(*common, "skc_dport"),
        sock_rcv_saddr=btf.offset(*common, "skc_rcv_saddr"),
        sock_daddr=btf.offset(*common, "skc_daddr"),
        sock_v6_rcv_saddr=btf.offset(*common, "skc_v6_rcv_saddr"),
        sock_v6_daddr=btf.offset(*common, "skc_v6_daddr"),
        sock_sport=btf.offset("inet_sock", "inet_sport"),
        sock_rcv_nxt=btf.offset("tcp_sock", "rcv_nxt"),
    )
    return Described(layout, _names(btf, "skb_drop_reason"), _names(btf, "sk_rst_reason"))


def _names(btf: Btf, enum: str) -> dict[int, str]:
    """An enum's names without what they all begin with; none where the kernel hasn't that enum."""
    try:
        return {value: name.partition("_REASON_")[2] or name for value, name in btf.enumerators(enum).items()}
    except KeyError:
        return {}


# --- parts of programs; R6 is the tracepoint's arguments, FP + WORD_AT and R0 to R5 may be overwritten ----------------


def read(to: int, size: int, register: int, offset: int) -> Iterator[Instruction]:
    """Read so many bytes at register + offset to a place on the stack; where there are none, zeros."""
    yield bpf.move(R1, FP)
    yield bpf.add(R1, to)
    yield bpf.put(R2, size)
    yield bpf.move(R3, register)
    yield bpf.add(R3, offset)
    yield bpf.call(bpf.PROBE_READ_KERNEL)


def word(dst: int, register: int, offset: int, size: int) -> Iterator[Instruction]:
    """dst = so many bytes at register + offset."""
    yield from read(WORD_AT, size, register, offset)
    yield bpf.load(dst, FP, WORD_AT, size)


def one_of(inodes: Collection[int], layout: Layout) -> Iterator[Instruction | str]:
    """From here on for a struct net in R8; R8 = its inode. The program ends for a namespace that isn't one of them."""
    yield from word(R8, R8, layout.net_inum, 4)
    yield from (bpf.jump_if(R8, inode, "ours") for inode in sorted(inodes))
    yield from (bpf.put(R0, 0), bpf.EXIT)
    yield "ours"


def headers(to: int, size: int, skb: int, layout: Layout) -> Iterator[Instruction]:
    """Read a packet from its network header on; R8 is overwritten."""
    yield from word(R8, skb, layout.skb_head, 8)
    yield from word(R1, skb, layout.skb_network_header, 2)
    yield bpf.add_register(R8, R1)
    yield from read(to, size, R8, 0)


def deliver(record_at: int, size: int, buffer_fd: int, lost_fd: int) -> Iterator[Instruction | str]:
    """The record goes into the buffer, or is counted as lost; and the program ends."""
    yield from bpf.map_of(R1, buffer_fd)
    yield from (bpf.move(R2, FP), bpf.add(R2, record_at), bpf.put(R3, size), bpf.put(R4, 0))
    yield from (bpf.call(bpf.RINGBUF_OUTPUT), bpf.jump_if_null(R0, "end"), bpf.clear(FP, WORD_AT))
    yield from bpf.map_of(R1, lost_fd)
    yield from (bpf.move(R2, FP), bpf.add(R2, WORD_AT))
    yield from (bpf.call(bpf.MAP_LOOKUP_ELEM), bpf.jump_if_null(R0, "end"), bpf.put(R1, 1), bpf.count(R0, R1))
    yield "end"
    yield from (bpf.put(R0, 0), bpf.EXIT)


def network_order(number: int) -> int:
    """A number of 16 bits as it stands in a packet, read as this machine's own."""
    return socket.htons(number)
