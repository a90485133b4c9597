"""Seccomp filters: what a process and its children are answered instead of the kernel.

A rootless lab has one user, root: programs that want to become another (tcpdump, many daemons) are told they have. An
unprivileged user namespace maps a single user, and setgroups(2) is forbidden in it (user_namespaces(7)). Such a
program gives up privileges that it has no use for, and ends where it can't: a seccomp filter lets the calls succeed
and do nothing. It is a pretence: the program runs on as the lab's root, and getuid(2) says so. What it may do to the
host is what the user who made the lab may do, before and after. setuid(0) and the like lose nothing by it, there being
nobody else to come back from.

A program that a file names makes no user namespace, in which it would have all capabilities again: it could mount the
cgroups of who built the lab, and end what is in them. Nor does it reach keyrings: they are no namespace's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

from netlab.linux.syscalls import CLONE_NEWUSER

# include/uapi/linux/audit.h
_X86_64, _I386, _AARCH64, _ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
_X32 = 0x40000000
"""The bit that x32's numbers have beside x86_64's (arch/x86/include/uapi/asm/unistd.h)."""

# Each architecture's unistd.h: setreuid, setregid, setgroups, setresuid, setresgid, setuid, setgid
_CHANGE_USERS = {
    "x86_64": {_X86_64: (113, 114, 116, 117, 119, 105, 106)},
    "aarch64": {_AARCH64: (145, 143, 159, 147, 149, 146, 144)},
}


class _Numbers(NamedTuple):
    """A table of system calls: clone and unshare, whose first argument are flags, those for keys, and clone3."""

    flagged: Sequence[int]
    keys: Sequence[int]
    clone3: Sequence[int] = (435,)


def _with_x32(numbers: Sequence[int]) -> Sequence[int]:
    return [bit | number for bit, number in product((0, _X32), numbers)]


_CONFINED = {
    "x86_64": {
        _X86_64: _Numbers(_with_x32((56, 272)), _with_x32((248, 249, 250)), _with_x32((435,))),
        _I386: _Numbers((120, 310), (286, 287, 288)),
    },
    "aarch64": {_AARCH64: _Numbers((220, 97), (217, 218, 219)), _ARM: _Numbers((120, 337), (309, 310, 311))},
}

# include/uapi/linux/bpf_common.h
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NR_OFFSET, _ARCH_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16  # in struct seccomp_data (include/uapi/linux/seccomp.h)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SOCK_FILTER_BYTES = 8

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


class Rule(NamedTuple):
    """A system call that isn't made, but fails with this error, or succeeds with 0; where flags are given, only if its
    first argument has one of them."""

    call: int
    error: int
    flags: int = 0


def filter_program(tables: Mapping[int, Sequence[Rule]]) -> bytes:
    """The classic BPF program of these rules by architecture (AUDIT_ARCH_*); all other calls go to the kernel.

    The result is an array of struct sock_filter (include/uapi/linux/filter.h), for little-endian machines.
    """
    instructions = [(_LOAD_WORD, 0, 0, _ARCH_OFFSET)]
    for arch, rules in tables.items():
        block = [(_LOAD_WORD, 0, 0, _NR_OFFSET)]
        for call, error, flags in rules:
            answer = [(_RETURN, 0, 0, _ERRNO | error)]
            if flags:
                load, ask = (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_OFFSET), (_JUMP_IF_SET, 0, 1, flags)
                answer = [load, ask, *answer, (_RETURN, 0, 0, _ALLOW)]
            block += [(_JUMP_IF_EQUAL, 0, len(answer), call), *answer]
        block.append((_RETURN, 0, 0, _ALLOW))
        instructions += [(_JUMP_IF_EQUAL, 0, len(block), arch), *block]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in instructions)


def changing_users(machine: str) -> dict[int, list[Rule]]:
    """The rules of who changes users in name only; none where the architecture (as of uname(2)) isn't listed.

    Calls of another architecture's table (i386's on x86_64) or numbering (x32's) go to the kernel as they are.
    """
    return {arch: [Rule(call, 0) for call in calls] for arch, calls in _CHANGE_USERS.get(machine, {}).items()}


def confining(machine: str, *, user_namespaces: bool) -> dict[int, list[Rule]]:
    """The rules of a program that a file names, which may make user namespaces or not; none as above.

    clone3(2) doesn't exist for it, as its flags lie in memory: the C library then calls clone(2).
    """
    rules = {}
    for arch, numbers in _CONFINED.get(machine, {}).items():
        rules[arch] = [Rule(call, errno.EPERM) for call in numbers.keys]
        if not user_namespaces:
            rules[arch] += [Rule(call, errno.EPERM, CLONE_NEWUSER) for call in numbers.flagged]
            rules[arch] += [Rule(call, errno.ENOSYS) for call in numbers.clone3]
    return rules


def change_users_in_name_only() -> None:
    """From now on, in this process and its children, setuid(2) and its like succeed and change nothing.

    For a process with CAP_SYS_ADMIN in its user namespace. OSError where the kernel has no seccomp filters; nothing
    happens on an architecture whose system calls aren't listed here.
    """
    _install(changing_users(os.uname().machine))


def confine(*, user_namespaces: bool) -> None:
    """From now on this process and its children have no keyrings and make no user namespace, unless they may; as above.

    It is for what can't undo it: who has CAP_SYS_ADMIN may mount and enter anything in any case.
    """
    _install(confining(os.uname().machine, user_namespaces=user_namespaces))


def _install(tables: Mapping[int, Sequence[Rule]]) -> None:
    if not tables:
        return
    filters = filter_program(tables)
    code = ctypes.create_string_buffer(filters)
    program = struct.pack("@HP", len(filters) // _SOCK_FILTER_BYTES, ctypes.addressof(code))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp filter")
