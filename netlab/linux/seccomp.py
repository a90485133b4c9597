"""A rootless lab has one user, root: programs that want to become another (tcpdump, many daemons) are told they have.

An unprivileged user namespace maps a single user, and setgroups(2) is forbidden in it (user_namespaces(7)). Such a
program gives up privileges that it has no use for, and ends where it can't: a seccomp filter lets the calls succeed
and do nothing. It is a pretence: the program runs on as the lab's root, and getuid(2) says so. What it may do to the
host is what the user who made the lab may do, before and after. setuid(0) and the like lose nothing by it, there being
nobody else to come back from.
"""

from __future__ import annotations

import ctypes
import os
import struct

# include/uapi/linux/audit.h, and each architecture's unistd.h: setreuid, setregid, setgroups, setresuid, setresgid,
# setuid, setgid
_ARCHITECTURES = {
    "x86_64": (0xC000003E, (113, 114, 116, 117, 119, 105, 106)),
    "aarch64": (0xC00000B7, (145, 143, 159, 147, 149, 146, 144)),
}

# include/uapi/linux/bpf_common.h
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NR_OFFSET, _ARCH_OFFSET = 0, 4  # in struct seccomp_data (include/uapi/linux/seccomp.h)
_ALLOW, _ERRNO_0 = 0x7FFF0000, 0x00050000
_SOCK_FILTER_BYTES = 8

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def filter_program(machine: str) -> bytes | None:
    """The classic BPF program that answers 0 to these calls and lets all others through; None where none is known.

    machine is as uname(2) has it. The result is an array of struct sock_filter (include/uapi/linux/filter.h). Calls of
    another architecture's table (i386's on x86_64) or numbering (x32's) go to the kernel as they are.
    """
    if machine not in _ARCHITECTURES:
        return None
    arch, calls = _ARCHITECTURES[machine]
    instructions = [(_LOAD_WORD, 0, 0, _ARCH_OFFSET), (_JUMP_IF_EQUAL, 0, len(calls) + 1, arch)]
    instructions.append((_LOAD_WORD, 0, 0, _NR_OFFSET))
    # Each jumps over those after it, and over the first return.
    instructions += [(_JUMP_IF_EQUAL, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    instructions += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO_0)]
    return b"".join(struct.pack("=HBBI", *one) for one in instructions)


def change_users_in_name_only() -> None:
    """From now on, in this process and its children, setuid(2) and its like succeed and change nothing.

    Only for a process with CAP_SYS_ADMIN in its user namespace. OSError where the kernel has no seccomp filters;
    nothing happens on an architecture whose system calls aren't listed here.
    """
    filters = filter_program(os.uname().machine)
    if filters is None:
        return
    code = ctypes.create_string_buffer(filters)
    program = struct.pack("@HP", len(filters) // _SOCK_FILTER_BYTES, ctypes.addressof(code))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp filter")
