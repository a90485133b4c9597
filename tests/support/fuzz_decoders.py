"""Fuzz targets: whatever makes values of a packet's bytes, and of the bytes that the kernel tells something with."""

from __future__ import annotations

from frames import icmp, ipv4, ipv6, tcp, udp
from fuzzing import Target, damaged

from netlab.record.events import ACK, SYN
from netlab.record.wire import decode_datagram, decode_frame, decode_ip, icmp_name

_SYN_OPTIONS = b"\2\4\5\xb4\4\2\x08\x0a" + bytes(8) + b"\1\3\3\7"
_SACK = b"\1\1\x08\x0a" + bytes(8) + b"\1\1\5\x12" + bytes(16)
PACKETS = (
    ipv4(tcp(SYN, _SYN_OPTIONS)),
    ipv4(tcp(ACK, _SACK, b"abc"), options=b"\7\3\4\0"),
    ipv4(tcp(ACK), fragment=0x2000),
    ipv4(udp(b"?"), protocol=17),
    ipv4(icmp(3, 3, ipv4(udp(), protocol=17)), protocol=1),
    ipv6(tcp(SYN, _SYN_OPTIONS)),
    ipv6(b"\x06\0" + b"\1\4\0\0\0\0" + tcp(ACK, payload=b"abc"), next_header=0),
    ipv6(b"\x06\0\0\1\0\0\0\7" + tcp(ACK, payload=b"abc"), next_header=44),
    ipv6(icmp(1, 4, ipv6(udp(), next_header=17)), next_header=58),
)


def _packet(data: bytes) -> None:
    decode_ip(data)
    decode_ip(data, len(data) + 60)
    if datagram := decode_datagram(data):
        icmp_name(datagram)
    decode_frame(b"\2" * 12 + (b"\x86\xdd" if data[:1] >= b"\x60" else b"\x08\0") + data)


TARGETS = (Target("packet", _packet, damaged(PACKETS), refuses=()),)
