"""bpf(2): programs at the kernel's tracepoints, and the ring buffer in which they leave what they saw.

Everything is the calling process's own: it goes with the last descriptor, also when the process is killed. Nothing of
the host's tracing state is touched. Needs CAP_BPF and CAP_PERFMON outside of any user namespace of one's own: root's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}

# include/uapi/linux/bpf.h: enum bpf_cmd, bpf_map_type, bpf_prog_type
_MAP_CREATE, _MAP_LOOKUP_ELEM, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 1, 5, 17
_MAP_TYPE_ARRAY, _MAP_TYPE_RINGBUF, _PROG_TYPE_RAW_TRACEPOINT = 2, 27, 17
_ATTR_BYTES = 128
_INSTRUCTION = struct.Struct("=BBhi")
# A record's header: its length, with two flags, and a page number; records begin at multiples of 8.
_RINGBUF_HDR_BYTES, _BUSY, _DISCARD = 8, 1 << 31, 1 << 30

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)
"""The registers; FP is the end of the stack."""

MAP_LOOKUP_ELEM, KTIME_GET_NS, PROBE_READ_KERNEL, RINGBUF_OUTPUT = 1, 5, 113, 130
"""Numbers of helpers (enum bpf_func_id)."""

LICENSE = b"Dual BSD/GPL"
"""Of the programs that are made here: the kernel lends probe_read_kernel to no other."""


class Instruction(NamedTuple):
    """One instruction; to is the label that a jump goes to."""

    code: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    value: int = 0
    to: str = ""


def move(dst: int, src: int) -> Instruction:
    """dst = src."""
    return Instruction(0xBF, dst, src)


def put(dst: int, value: int) -> Instruction:
    """dst = value, 32 bits with sign."""
    return Instruction(0xB7, dst, value=value)


def add(dst: int, value: int) -> Instruction:
    """dst += value."""
    return Instruction(0x07, dst, value=value)


def add_register(dst: int, src: int) -> Instruction:
    """dst += src."""
    return Instruction(0x0F, dst, src)


def load(dst: int, src: int, offset: int, size: int) -> Instruction:
    """dst = so many bytes at src + offset."""
    return Instruction({2: 0x69, 4: 0x61, 8: 0x79}[size], dst, src, offset)


def store(dst: int, offset: int, src: int, size: int) -> Instruction:
    """So many bytes at dst + offset = src."""
    return Instruction({4: 0x63, 8: 0x7B}[size], dst, src, offset)


def clear(dst: int, offset: int) -> Instruction:
    """8 bytes at dst + offset = 0."""
    return Instruction(0x7A, dst, 0, offset)


def count(dst: int, src: int) -> Instruction:
    """8 bytes at dst += src, at once."""
    return Instruction(0xDB, dst, src)


def call(helper: int) -> Instruction:
    """R0 = the helper's answer to R1 to R5."""
    return Instruction(0x85, value=helper)


def jump(to: str) -> Instruction:
    """Go on at the label."""
    return Instruction(0x05, to=to)


def jump_if(register: int, value: int, to: str) -> Instruction:
    """Go on at the label if the register's lower 32 bits are the value."""
    return Instruction(0x16, register, value=value, to=to)


def jump_if_null(register: int, to: str) -> Instruction:
    """Go on at the label if the register is 0."""
    return Instruction(0x15, register, to=to)


def jump_unless_null(register: int, to: str) -> Instruction:
    """Go on at the label if the register isn't 0."""
    return Instruction(0x55, register, to=to)


def map_of(dst: int, fd: int) -> tuple[Instruction, Instruction]:
    """dst = the map with that descriptor."""
    return Instruction(0x18, dst, 1, value=fd), Instruction(0)


EXIT = Instruction(0x95)


def assembled(program: Iterable[Instruction | str]) -> bytes:
    """The instructions as the kernel takes them; a text among them is a label."""
    labels: dict[str, int] = {}
    instructions: list[Instruction] = []
    for entry in program:
        if isinstance(entry, str):
            labels[entry] = len(instructions)
        else:
            instructions.append(entry)
    return b"".join(
        _INSTRUCTION.pack(
            each.code,
            each.dst | each.src << 4,
            labels[each.to] - at - 1 if each.to else each.offset,
            each.value - (1 << 32) if each.value >= 1 << 31 else each.value,
        )
        for at, each in enumerate(instructions)
    )


class Array:
    """A map of one number of 64 bits, which a program counts up."""

    def __init__(self) -> None:
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _MAP_TYPE_ARRAY, 4, 8, 1), "a BPF map")

    def value(self) -> int:
        """The number as it is now."""
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
        attributes = struct.pack("=IxxxxQQ", self.fd, ctypes.addressof(key), ctypes.addressof(value))
        _bpf(_MAP_LOOKUP_ELEM, attributes, "a BPF map")
        return int.from_bytes(value.raw, "little" if struct.pack("=H", 1)[0] else "big")

    def close(self) -> None:
        """Give the map up."""
        os.close(self.fd)


class RingBuffer:
    """A ring buffer that programs write records to; size_bytes is a power of 2, a page or more. OSError.

    Its descriptor is readable when records wait.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _MAP_TYPE_RINGBUF, 0, 0, size_bytes), "a BPF ring buffer")
        try:
            self._consumer = mmap.mmap(self.fd, mmap.PAGESIZE)
            # The producer's page, and the data twice, so that no record is cut at the end.
            self._produced = mmap.mmap(
                self.fd, mmap.PAGESIZE + 2 * size_bytes, prot=mmap.PROT_READ, offset=mmap.PAGESIZE
            )
        except BaseException:
            os.close(self.fd)
            raise
        for mapped in (self._consumer, self._produced):
            mapped.madvise(mmap.MADV_DONTFORK)  # a child that lives on would keep the buffer
        # Positions are read and written as the one word that each is.
        self._consumed_to = memoryview(self._consumer).cast("Q")
        self._produced_to = memoryview(self._produced)[:8].cast("Q")

    def read(self) -> Iterator[bytes]:
        """The records that wait, each given back as it is taken."""
        at, end = self._consumed_to[0], self._produced_to[0]
        while at < end:
            place = mmap.PAGESIZE + at % self._size
            (head,) = struct.unpack_from("=I", self._produced, place)
            if head & _BUSY:
                return
            length = head & ~(_BUSY | _DISCARD)
            begin = place + _RINGBUF_HDR_BYTES
            record = self._produced[begin : begin + length]
            at += (_RINGBUF_HDR_BYTES + length + 7) & ~7
            self._consumed_to[0] = at
            if not head & _DISCARD:
                yield record

    def close(self) -> None:
        """Give the buffer up."""
        self._consumed_to.release()
        self._produced_to.release()
        self._consumer.close()
        self._produced.close()
        os.close(self.fd)


class RawTracepoint:
    """A program at a tracepoint, from now until it is closed. OSError, EINVAL for arguments that it hasn't.

    The program finds the tracepoint's arguments, 8 bytes each, where R1 points to.
    """

    def __init__(self, tracepoint: str, program: bytes) -> None:
        name = ctypes.create_string_buffer(tracepoint.encode())
        loaded = _load(program)
        try:
            attributes = struct.pack("=QI4x", ctypes.addressof(name), loaded)
            self.fd = _bpf(_RAW_TRACEPOINT_OPEN, attributes, f"the tracepoint {tracepoint}")
        finally:
            os.close(loaded)

    def close(self) -> None:
        """Take the program off."""
        os.close(self.fd)


def _load(program: bytes) -> int:
    instructions, license_text = (
        ctypes.create_string_buffer(program, len(program)),
        ctypes.create_string_buffer(LICENSE),
    )
    attributes = struct.pack(
        "=IIQQ",
        _PROG_TYPE_RAW_TRACEPOINT,
        len(program) // _INSTRUCTION.size,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
    )
    return _bpf(_PROG_LOAD, attributes, "a BPF program")


def _bpf(command: int, attributes: bytes, what: str) -> int:
    """bpf(2); a descriptor, for most commands. OSError naming what."""
    machine = os.uname().machine
    if machine not in _NR_BPF:
        raise OSError(38, f"the number of bpf(2) on {machine} is not known", what)
    buffer = ctypes.create_string_buffer(attributes, _ATTR_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(ctypes.c_long(_NR_BPF[machine]), ctypes.c_int(command), buffer, ctypes.c_uint(_ATTR_BYTES))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return int(found)
