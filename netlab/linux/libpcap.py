"""Capture filters: an expression in pcap-filter(7)'s language as a classic BPF program, compiled by libpcap.

The only thing taken from libpcap, and only when a filter is asked for: the language is what tcpdump's users know, and
no smaller one of ours would be it.
"""

from __future__ import annotations

import ctypes
import errno
from contextlib import closing, suppress

_LIBRARIES = ("libpcap.so.1", "libpcap.so.0.8")
"""The library's name upstream, and the one that Debian kept."""

_DLT_EN10MB = 1
_PCAP_NETMASK_UNKNOWN = 0xFFFFFFFF


class _BpfProgram(ctypes.Structure):
    """struct bpf_program of pcap/bpf.h. Its instructions are laid out as the kernel's struct sock_filter is."""

    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.c_void_p))


_INSTRUCTION_BYTES = 8


def compile_filter(expression: str, snaplen_bytes: int) -> bytes:
    """The program that takes the Ethernet frames for which the expression holds, up to snaplen_bytes of each.

    ValueError with libpcap's own words for an expression that it doesn't understand, OSError (ENOPKG) without libpcap.
    Names of hosts are looked up, in the network namespace of the calling thread. Equivalent to
    `tcpdump -ddd -y EN10MB EXPRESSION`.
    """
    library = _load()
    with closing(_Handle(library, snaplen_bytes)) as handle:
        program = _BpfProgram()
        text = expression.encode(errors="surrogateescape")
        if library.pcap_compile(handle.pointer, ctypes.byref(program), text, 1, _PCAP_NETMASK_UNKNOWN) != 0:
            raise ValueError(library.pcap_geterr(handle.pointer).decode(errors="replace"))
        try:
            return ctypes.string_at(program.bf_insns, program.bf_len * _INSTRUCTION_BYTES)
        finally:
            library.pcap_freecode(ctypes.byref(program))


class _Handle:
    """A pcap_t that captures nothing: what pcap_compile reads the link type and snaplen from."""

    def __init__(self, library: ctypes.CDLL, snaplen_bytes: int) -> None:
        self._library = library
        self.pointer = ctypes.c_void_p(library.pcap_open_dead(_DLT_EN10MB, snaplen_bytes))

    def close(self) -> None:
        self._library.pcap_close(self.pointer)


def _load() -> ctypes.CDLL:
    for name in _LIBRARIES:
        with suppress(OSError):
            library = ctypes.CDLL(name)
            library.pcap_open_dead.restype = ctypes.c_void_p
            library.pcap_geterr.restype = ctypes.c_char_p
            library.pcap_compile.argtypes = (
                ctypes.c_void_p,
                ctypes.POINTER(_BpfProgram),
                ctypes.c_char_p,
                ctypes.c_int,
                ctypes.c_uint32,
            )
            return library
    raise OSError(errno.ENOPKG, "the library isn't here", "libpcap")
