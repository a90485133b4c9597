"""Captures: the frames of many interfaces of a lab, as they cross, in one pcapng file.

Observing is `packets.py`'s, the file's bytes are `record/pcapng.py`'s. Here is which interfaces a name stands for, and
the loop that ends with a whole file: the statistics of each interface are its last blocks.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

from netlab.errors import UnsupportedError, UsageError
from netlab.linux import libpcap
from netlab.observe import Namespaces
from netlab.observe.packets import Frame, FrameObserver
from netlab.record import pcapng
from netlab.record.events import Direction
from netlab.record.once import Sightings, identity
from netlab.record.recording import Tap

WHOLE_FRAME_BYTES = 14 + 65535
"""Ethernet's header and the longest IPv4 packet: what GSO makes at most, unless a link allows for more (BIG TCP)."""

_RINGS_BYTES, _MOST_RING_BYTES = 128 << 20, 64 << 20
"""Memory for all rings together, and for one of them: it is the kernel's, and taken while the capture lasts."""

_MOST_SLOTS = 65536
_SLOT_HEADERS_BYTES = 66
# A multiple of the slots in a page, which are 128 bytes or more.
_SLOTS_STEP = 32

_REORDER_MS = 10
"""How long a frame may wait at most for an earlier one of another interface."""

_LOOK_MS = 200
"""How often it is looked whether an interface that went down is gone."""

# include/uapi/linux/if_arp.h, sockios.h
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SIOCGIFHWADDR = 0x8927
_LOOPBACK = "lo"


def compiled(expression: str, snaplen_bytes: int) -> bytes:
    """The program of a filter in tcpdump's language, for Ethernet frames of which snaplen_bytes are taken.

    UsageError with libpcap's own words for an expression that it doesn't understand, UnsupportedError without libpcap.
    Names of hosts are looked up in the calling thread's network namespace.
    """
    try:
        return libpcap.compile_filter(expression, snaplen_bytes)
    except ValueError as error:
        raise UsageError(
            f"--filter {expression!r}: {error}",
            "the language is tcpdump's (man pcap-filter): for instance 'tcp port 80 and host 10.0.0.2'",
        ) from error
    except OSError as error:
        raise UnsupportedError(
            "a filter needs libpcap, which isn't here",
            "install it (Debian's libpcap0.8, or libpcap0.8t64), or capture without a filter and use one in Wireshark",
        ) from error


def taps(namespaces: Namespaces, roles: Mapping[str, str], names: Sequence[str]) -> list[Tap]:
    """The interfaces that names stand for: "client:eth0" for one, "client" for all of the namespace, each once.

    roles are those of the lab's namespaces; without names all of them are meant. UsageError for what isn't there or
    carries no Ethernet frames; with a namespace's name alone, such interfaces (tunnels) are left out.
    """
    found: dict[tuple[str, str], Tap] = {}
    for name in names or roles:
        netns, colon, ifname = name.partition(":")
        if netns not in roles:
            raise UsageError(f"the lab has no namespace {netns}", f"it has: {', '.join(roles)}")
        ethernet = _interfaces(namespaces, netns)
        if colon and ifname not in ethernet:
            raise UsageError(f"{netns} has no interface {ifname}", f"it has: {', '.join(ethernet)}")
        if colon and not ethernet[ifname]:
            raise UsageError(f"{netns}'s interface {ifname} carries no Ethernet frames")
        for each in [ifname] if colon else [each for each, carries in ethernet.items() if carries]:
            found[netns, each] = Tap(netns, each, roles[netns])
    return list(found.values())


def _interfaces(namespaces: Namespaces, netns: str) -> dict[str, bool]:
    """A namespace's interfaces, and whether Ethernet frames cross them."""
    with namespaces.inside(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return {ifname: _is_ethernet(sock, ifname) for _, ifname in socket.if_nameindex()}


def _is_ethernet(sock: socket.socket, ifname: str) -> bool:
    request = struct.pack("16s24x", ifname.encode(errors="surrogateescape"))
    (kind,) = struct.unpack_from("=H", fcntl.ioctl(sock, _SIOCGIFHWADDR, request), 16)
    return kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)


@dataclass(slots=True)
class Counted:
    """An interface, and how many of its frames were written, how many had been seen elsewhere before, and how many its
    ring had no room for."""

    tap: Tap
    observer: FrameObserver
    captured: int = 0
    passed_over: int = 0
    dropped: int = 0


class Once(Enum):
    """Of a packet that crosses many interfaces, which sightings are written."""

    IN_THE_LAB = "in the lab"
    """The first."""
    IN_EACH_NAMESPACE = "in each namespace"
    """The first of each namespace."""
    NEVER = "never"
    """All."""


def once(names: Sequence[str]) -> Once:
    """What whoever names these (see `taps`) wants to see: an interface that is named, all of what crosses it."""
    if any(":" in name for name in names):
        return Once.NEVER
    return Once.IN_EACH_NAMESPACE if names else Once.IN_THE_LAB


class End(Enum):
    """Why a capture ended."""

    ASKED = "asked"
    """So many packets, so many seconds, or a signal."""
    LAB_GONE = "lab gone"
    INTERFACES_GONE = "interfaces gone"
    """None is left of those that it was to capture on."""


class Capture:
    """Observers of some interfaces, ready. Leaving it closes them.

    expression is the filter that `program` was compiled from; once says which sightings of a packet are written. A
    frame on `lo` is taken once, as it arrives: its departure would be the same frame again.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        tapped: Sequence[Tap],
        *,
        expression: str = "",
        program: bytes | None = None,
        snaplen_bytes: int = WHOLE_FRAME_BYTES,
        once: Once = Once.NEVER,
    ) -> None:
        self._once, self._seen = once, defaultdict[str, Sightings](Sightings)
        self._expression, self._snaplen = expression, snaplen_bytes
        self._held: list[tuple[int, Frame]] = []
        self.interfaces: list[Counted] = []
        ring_bytes = min(_RINGS_BYTES // len(tapped), _MOST_RING_BYTES)
        slots = min(ring_bytes // (snaplen_bytes + _SLOT_HEADERS_BYTES), _MOST_SLOTS) // _SLOTS_STEP * _SLOTS_STEP
        with ExitStack() as closing:
            for tap in tapped:
                observer = FrameObserver(
                    namespaces, tap.netns, tap.ifname, program, snaplen_bytes, max(slots, _SLOTS_STEP)
                )
                closing.callback(observer.close)
                self.interfaces.append(Counted(tap, observer))
            self._closing = closing.pop_all()
        self._started_ns = time.time_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def run(
        self,
        out: int,
        stop: socket.socket,
        lifeline: int,
        *,
        count: int | None = None,
        for_s: float | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> End:
        """Write a whole file to the descriptor `out`, until stop is readable, `count` frames or `for_s` seconds.

        It ends early where the lab is gone, of which the descriptor lifeline tells, or the last interface. Frames are
        written as soon as they are seen, in the order of their times. note is told of interfaces that are down, or
        gone. BrokenPipeError where nobody reads any more.
        """
        _write(out, self._head())
        deadline = None if for_s is None else time.monotonic() + for_s
        left = count
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        poll.register(lifeline, select.POLLIN)
        poll.register(out, 0)  # tells of errors alone: a pipe that nobody reads
        by_fd = {interface.observer.fileno(): interface for interface in self.interfaces}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        end: End | None = None
        while end is None:
            for fd, happened in poll.poll(self._patience_ms(deadline)):
                if fd == out:
                    raise BrokenPipeError
                if fd == stop.fileno():
                    end = End.ASKED
                elif fd == lifeline:
                    end = end or End.LAB_GONE
                elif happened & select.POLLERR and _is_gone(by_fd[fd], note):
                    del by_fd[fd]
                    poll.unregister(fd)
            for fd in [fd for fd, one in by_fd.items() if one.observer.may_be_gone and _is_gone(one, note)]:
                del by_fd[fd]
                poll.unregister(fd)
            if not by_fd:
                end = end or End.INTERFACES_GONE
            if deadline is not None and time.monotonic() >= deadline:
                end = End.ASKED
            frames = [numbered for numbered in self._take(all_of_them=end is not None) if self._is_wanted(*numbered)]
            if left is not None:
                frames = frames[:left]
                left -= len(frames)
                end = end if left else End.ASKED
            _write(out, b"".join(self._packet(number, frame) for number, frame in frames))
        _write(out, self._tail())
        return end

    def _patience_ms(self, deadline: float | None) -> int | None:
        """How long to wait for news; None for as long as it takes."""
        waits = [_REORDER_MS] if self._held else []
        # Of an interface that goes down and then away the kernel tells once.
        waits += [_LOOK_MS] if any(each.observer.may_be_gone for each in self.interfaces) else []
        if deadline is not None:
            waits.append(max(0, math.ceil((deadline - time.monotonic()) * 1000)))
        return min(waits, default=None)

    def _take(self, *, all_of_them: bool) -> list[tuple[int, Frame]]:
        """The frames to write next, each with its interface's number.

        One that crossed after this began waits for the next time: another interface may have an earlier one then.
        """
        began_ns = time.time_ns()
        ready, self._held = self._held, []
        for number, interface in enumerate(self.interfaces):
            loopback = interface.tap.ifname == _LOOPBACK
            for frame in interface.observer.frames():
                if loopback and frame.direction is Direction.OUT:
                    continue
                (ready if all_of_them or frame.time_ns <= began_ns else self._held).append((number, frame))
        return sorted(ready, key=lambda numbered: numbered[1].time_ns)

    def _is_wanted(self, number: int, frame: Frame) -> bool:
        """Whether this sighting of a packet is to be written; they come in the order of their times."""
        if self._once is Once.NEVER:
            return True
        seen = self._seen[frame.netns if self._once is Once.IN_EACH_NAMESPACE else ""]
        _, is_new = seen.add(identity(frame.data, frame.wire_bytes), (number, frame.direction))
        self.interfaces[number].passed_over += not is_new
        return is_new

    def _head(self) -> bytes:
        system = os.uname()
        described = (
            pcapng.interface_description(interface.tap, snaplen_bytes=self._snaplen, expression=self._expression)
            for interface in self.interfaces
        )
        head = pcapng.section_header(hardware=system.machine, os=f"{system.sysname} {system.release}")
        return head + b"".join(described)

    def _packet(self, number: int, frame: Frame) -> bytes:
        self.interfaces[number].captured += 1
        return pcapng.enhanced_packet(number, frame.time_ns, frame.direction, frame.wire_bytes, frame.data)

    def _tail(self) -> bytes:
        blocks, ended_ns = [], time.time_ns()
        for number, interface in enumerate(self.interfaces):
            interface.dropped += interface.observer.lost()
            blocks.append(
                pcapng.interface_statistics(
                    number,
                    started_ns=self._started_ns,
                    ended_ns=ended_ns,
                    received=interface.captured + interface.passed_over + interface.dropped,
                    dropped=interface.dropped,
                )
            )
        return b"".join(blocks)


@contextmanager
def sink(file: str) -> Iterator[int]:
    """A descriptor to write to: the file, emptied, or for "-" what this process has as its standard output."""
    if file == "-":
        yield 1
        return
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        yield out
    finally:
        os.close(out)


def _is_gone(interface: Counted, note: Callable[[str], None]) -> bool:
    """Whether the interface is gone, for good; note is told of that, and of one that is down."""
    code = interface.observer.trouble()
    if code:
        words = "the interface is gone" if code == errno.ENODEV else os.strerror(code)
        note(f"{interface.tap.netns}/{interface.tap.ifname}: {words}")
    return code == errno.ENODEV


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
