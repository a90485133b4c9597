"""TCP conversations at the edges of what conntrack accepts, from a seed: IP packets, aimed by what conntrack knows.

Each is one connection's packets in both directions. Most steps go on as a connection would; the others repeat what was
sent, or aim at a number that conntrack compares with: before it, at it, past it, and half the number space away. Any
packet can have odd options. What conntrack would not come to see, because IP drops it, is not made.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address
from random import Random

from crafted import Tcp

from netlab.conntrack.values import CtDirection, Entry, Kind, Last, Side
from netlab.record.events import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Tuple
from netlab.record.wire import IPPROTO_TCP

_MASK = 0xFFFFFFFF
_HALF = 1 << 31
_MOST_OPTIONS_BYTES = 40
_MOST_PAYLOAD_BYTES = 60_000

_SERVER = {4: ip_address("10.200.0.1"), 6: ip_address("fd00:2::1")}
_CLIENTS = {4: int(ip_address("10.1.0.0")), 6: int(ip_address("fd00:1::"))}

_WINDOWS = (0, 0, 1, 2, 500, 1000, 1000, 4000, 29_200, 65_535)
_LENGTHS = (0, 0, 0, 1, 2, 100, 999, 1448, 1448, 9000, _MOST_PAYLOAD_BYTES)
_STRAY = (0, 0, 0, 1, -1, 2, -2)
_FLAGS = (SYN, SYN | ACK, ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK)
_HOP_BY_HOP, _DESTINATION, _FRAGMENT = 0, 60, 44
_TIMESTAMP = struct.pack("!BBII", 8, 10, 7, 9)


class Conversation:
    """The packets of one connection, one after the other. header is the client's; number and seed tell it from others.

    What conntrack calls ORIGINAL may be the server's direction, where the first packet that makes an entry is its.
    """

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self._random = random = Random(f"{seed}/{number}")
        version = random.choice((4, 4, 4, 6))
        client = ip_address(_CLIENTS[version] + 1 + number % 65_000)
        self.header = Tuple(client, random.randrange(1024, 65_536), _SERVER[version], 80, IPPROTO_TCP)
        self._orderly = random.choice((0.5, 0.8, 0.95))
        self._small = random.random() < 0.6
        self._left = random.choice((6, 12, 24, 60))
        self._sent: list[Tcp] = []

    @property
    def over(self) -> bool:
        """Whether it has no more packets."""
        return self._left == 0

    def next(self, entry: Entry | None) -> bytes:
        """The next IP packet. entry is what conntrack knows of the connection now."""
        return self._packet(self.next_segment(entry))

    def next_segment(self, entry: Entry | None) -> Tcp:
        """The segment alone, to be put into any packet."""
        self._left -= 1
        random = self._random
        if entry is None or entry.tcp_state == "NONE":
            tcp = self._opening() if random.random() < 0.9 else self._aimed(Entry())
        elif random.random() < 0.3 and entry.last.kind in (Kind.SYN, Kind.FIN, Kind.RST):
            tcp = self._answer(entry)
        elif random.random() < self._orderly:
            tcp = self._going_on(entry)
        elif self._sent and random.random() < 0.4:
            tcp = random.choice((self._sent[-1], self._sent[-1], random.choice(self._sent[-8:])))
        else:
            tcp = self._aimed(entry)
        if random.random() < 0.03:
            tcp = self._malformed(tcp)
        self._sent.append(tcp)
        return tcp

    # --- what goes on as it would -------------------------------------------------------------------------------------

    def _opening(self) -> Tcp:
        random = self._random
        isn = random.choice((random.getrandbits(32), 0, _MASK, _HALF, _HALF - 1, _MASK - random.randrange(3000)))
        if random.random() < 0.8:
            return Tcp(CtDirection.ORIGINAL, SYN, isn, 0, self._window(), options=self._syn_options())
        flags = random.choice((ACK, ACK | PSH, SYN | ACK, FIN | ACK, RST))
        ack = random.choice((0, random.getrandbits(32)))
        return Tcp(self._either(), flags, isn, ack, self._window(), self._length(), self._options(ack))

    def _going_on(self, entry: Entry) -> Tcp:
        """What a live connection would send next, in that state."""
        random, original, reply = self._random, entry.original, entry.reply
        match entry.tcp_state:
            case "SYN_SENT" | "SYN_SENT2":
                isn = random.choice((random.getrandbits(32), 0, _MASK, (original.td_end + _HALF) & _MASK))
                flags = random.choice((SYN | ACK, SYN | ACK, SYN | ACK, SYN))
                if entry.tcp_state == "SYN_SENT2":
                    isn = (reply.td_end - 1) & _MASK
                ack = original.td_end if flags & ACK else 0
                return Tcp(CtDirection.REPLY, flags, isn, ack, self._window(), options=self._syn_options())
            case "SYN_RECV":
                direction = random.choice((CtDirection.ORIGINAL, CtDirection.ORIGINAL, CtDirection.REPLY))
                length = self._length() if random.random() < 0.3 else 0
                return self._in_step(entry, direction, ACK, length)
            case "ESTABLISHED":
                flags = random.choice((ACK, ACK, ACK | PSH, ACK | PSH, ACK | PSH, ACK | PSH | ECE, FIN | ACK))
                return self._in_step(entry, self._either(), flags, self._length())
            case "LAST_ACK" if random.random() < 0.3:
                return Tcp(CtDirection.ORIGINAL, SYN, original.td_end, 0, self._window(), options=self._syn_options())
            case "FIN_WAIT" | "CLOSE_WAIT" | "LAST_ACK":
                return self._in_step(entry, self._either(), random.choice((ACK, ACK, FIN | ACK, RST | ACK)), 0)
            case _:
                seq = original.td_end + random.choice((-1, 0, 1, 5000))
                return Tcp(CtDirection.ORIGINAL, SYN, seq, 0, self._window(), options=self._syn_options())

    def _in_step(self, entry: Entry, direction: CtDirection, flags: int, length: int) -> Tcp:
        """A segment that both ends would agree about."""
        ack = entry.side(direction.other).td_end
        return Tcp(direction, flags, entry.side(direction).td_end, ack, self._window(), length, self._options(ack))

    # --- what answers another incarnation -----------------------------------------------------------------------------

    def _answer(self, entry: Entry) -> Tcp:
        """What may answer the last packet where conntrack and the ends are out of step."""
        random, last = self._random, entry.last
        other, window = last.direction.other, self._window()
        stray = random.choice((0, 0, 0, 0, 1, -1))
        if last.kind is not Kind.SYN:
            seq = entry.side(other).td_maxend + random.choice((2, 70_000, _HALF))
            return Tcp(
                other, random.choice((RST | ACK, FIN | ACK, RST)), seq, entry.side(last.direction).td_end, window
            )
        isn, ack = random.getrandbits(32), last.end + stray
        match random.randrange(5):
            case 0 | 1:
                return Tcp(other, SYN | ACK, isn, ack, window, options=self._syn_options())
            case 2:  # a challenge ACK (RFC 5961, section 4)
                return Tcp(other, ACK, entry.side(other).td_end, random.choice((isn, last.seq, last.end)), window)
            case 3:
                return Tcp(other, RST | ACK, random.choice((0, isn)), ack, 0)
            case _:
                seq = random.choice((last.ack + stray, entry.side(last.direction).td_end, 0))
                return Tcp(last.direction, random.choice((RST, RST | ACK)), seq, ack, 0)

    # --- what is aimed ------------------------------------------------------------------------------------------------

    def _aimed(self, entry: Entry) -> Tcp:
        random, direction = self._random, self._either()
        sender, receiver, last = entry.side(direction), entry.side(direction.other), entry.last
        flags = random.choice(_FLAGS)
        if random.random() < 0.1:
            flags |= random.choice((URG, ECE, CWR, PSH))
        acks = (
            *(receiver.td_end, receiver.td_end, receiver.td_end, receiver.td_end + _HALF, receiver.td_maxend),
            *((receiver.td_end + 1,) * (0 if sender.td_maxwin else 5)),
            receiver.td_end - max(sender.td_maxwin, 66_000),
            *(sender.td_maxack or 0, (sender.td_maxack or 0) + _HALF, last.end, last.ack, 0, random.getrandbits(32)),
        )
        ack = random.choice(acks) + random.choice(_STRAY)
        if random.random() < 0.05:
            ack = 0
        seq, length = self._aimed_data(flags, sender, receiver, last)
        options = self._syn_options() if flags & SYN else self._options(ack, acks)
        window = last.window if random.random() < 0.2 else self._window()
        return Tcp(direction, flags, seq & _MASK, ack & _MASK, window, length, options)

    def _aimed_data(self, flags: int, sender: Side, receiver: Side, last: Last) -> tuple[int, int]:
        """Where a segment begins, and how long it is."""
        random = self._random
        length = 0 if flags & (SYN | RST) and random.random() < 0.9 else self._length()
        maxack = receiver.td_maxack or 0
        ends = (
            sender.td_end,
            sender.td_end - receiver.td_maxwin,
            sender.td_end + _HALF,
            sender.td_maxend + _HALF,
            sender.td_maxend + receiver.td_maxwin,
        )
        begins = (
            *(sender.td_end, sender.td_end, sender.td_end, sender.td_end - 1, sender.td_maxend, sender.td_maxend),
            *(sender.td_maxend + _HALF, maxack, maxack, maxack + _HALF, last.end, last.seq, last.ack, 0),
            random.getrandbits(32),
        )
        stray = random.choice(_STRAY)
        aim = random.random()
        if aim < 0.5:
            return random.choice(begins) + stray, length
        taken = bool(flags & SYN) + bool(flags & FIN)
        if aim < 0.75:
            return random.choice(ends) + stray - length - taken, length
        # From just past the window to where it is forgiven no more.
        begin = sender.td_maxend + random.choice((0, 1, 1, 2))
        reach = receiver.td_maxwin - 1 - (begin - sender.td_maxend) + stray - taken
        return begin, reach if 0 <= reach <= _MOST_PAYLOAD_BYTES else length

    def _malformed(self, tcp: Tcp) -> Tcp:
        random = self._random
        flags = random.choice((tcp.flags, random.getrandbits(8)))
        offset = random.choice((None, random.randrange(5), random.randrange(5, 16)))
        return Tcp(tcp.direction, flags, tcp.seq, tcp.ack, tcp.window, tcp.length, tcp.options, offset)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _either(self) -> CtDirection:
        return self._random.choice((CtDirection.ORIGINAL, CtDirection.REPLY))

    def _window(self) -> int:
        return self._random.choice(_WINDOWS[:7] if self._small else _WINDOWS)

    def _length(self) -> int:
        return self._random.choice(_LENGTHS[:8] if self._small else _LENGTHS)

    def _syn_options(self) -> bytes:
        random = self._random
        scale = bytes((3, 3, random.choice((0, 1, 2, 7, 8, 14, 15, 255))))
        parts = (
            *(scale, scale, scale, b"\4\2", b"\4\2", b"\2\4\5\xb4", _TIMESTAMP, b"\1", b"\1\1"),
            *(b"\3\4\5\6", b"\3\2", b"\4\3\1", b"\4\4\1\1", b"\x1e\1", b"\0", b"\x1e\xff"),
        )
        return self._some(parts, random.choice((0, 1, 2, 3, 4)))

    def _options(self, ack: int, edges: Sequence[int] = ()) -> bytes:
        """Options of a segment that is no SYN, of which the selective acknowledgements matter."""
        random = self._random
        if random.random() < 0.6:
            return random.choice((b"", b"", b"\1\1" + _TIMESTAMP))

        def blocks(count: int) -> bytes:
            right = [random.choice((*edges, ack, ack + 1, ack + 1000, ack + _HALF)) for _ in range(count)]
            return b"".join(
                struct.pack("!II", random.getrandbits(32), (edge + random.choice(_STRAY)) & _MASK) for edge in right
            )

        def sack(count: int, more: int = 0) -> bytes:
            return bytes((5, 2 + 8 * count + more)) + blocks(count) + bytes(more)

        parts = (sack(1), sack(1), sack(2), sack(3), sack(0), sack(1, 1), sack(0, 4), _TIMESTAMP, b"\1", b"\0", b"\5\1")
        return self._some(parts, random.choice((1, 2, 3)))

    def _some(self, parts: Sequence[bytes], count: int) -> bytes:
        chosen = b"".join(self._random.choice(parts) for _ in range(count))[:_MOST_OPTIONS_BYTES]
        return chosen + self._random.choice((b"\0", b"\1")) * (-len(chosen) % 4)

    def _packet(self, tcp: Tcp) -> bytes:
        random = self._random
        ip_options = random.choice((b"",) * 15 + (b"\1\1\1\0",))
        extension = random.choice((IPPROTO_TCP,) * 9 + (_HOP_BY_HOP, _DESTINATION, _FRAGMENT))
        packet = tcp.packet(self.header, ip_options, extension)
        return packet + bytes(random.choice((0, 0, 0, 6)))  # the link's padding, which is no part of the packet
