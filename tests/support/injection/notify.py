"""Seccomp user notification: who installs the filter waits in each call of `calls.CALLS` for this process's answer.

See seccomp_unotify(2). The filter is inherited: children, and the programs they execute, wait as well. A signal that is
no SIGKILL waits until the call has been answered (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, since Linux 5.19), as it
would wait for a call that can't be interrupted.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import suppress
from typing import NamedTuple

from injection.calls import BY_NUMBER

# include/uapi/linux/bpf_common.h
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
# struct seccomp_data in include/uapi/linux/seccomp.h
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
_CONTINUE = 1
_PR_SET_NO_NEW_PRIVS = 38
_PIDFD_GETFD = 438

_RECV, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_NOTIFICATION = struct.Struct("=QII iIQ6Q")
_RESPONSE = struct.Struct("=QqiI")

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class Notification(NamedTuple):
    """A call that waits for its answer: whose (a thread's number in this process's PID namespace), which, with what."""

    id: int
    tid: int
    number: int
    arguments: tuple[int, ...]


def _program() -> bytes:
    """The filter: the calls of the table notify, all others are allowed."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    code: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[os.uname().machine])]
    code += [(_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _NR)]
    for number, call in BY_NUMBER.items():
        if call.flags_at is None:
            code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOTIFY)]
        else:
            code += [(_JUMP_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * call.flags_at)]
            code += [(_JUMP_SET, 0, 1, writing), (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in code)


PROGRAM = _program() if os.uname().machine in _AUDIT_ARCH else b""
"""Empty on an architecture whose calls aren't listed."""


def install() -> int:
    """Install the filter in this process; returns the listener's descriptor. OSError where the kernel has none."""
    if not PROGRAM:
        raise OSError(errno.ENOSYS, f"no system calls are listed for {os.uname().machine}", "seccomp")
    code = ctypes.create_string_buffer(PROGRAM)
    filters = struct.pack("@HP", len(PROGRAM) // 8, ctypes.addressof(code))
    if os.geteuid():
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # what seccomp(2) asks of who has no CAP_SYS_ADMIN
    flags = _NEW_LISTENER | _WAIT_KILLABLE_RECV
    return _checked(_syscall(_SECCOMP[os.uname().machine], _SET_MODE_FILTER, flags, filters), "seccomp")


def take(pidfd: int, fd: int) -> int:
    """A copy of another process's descriptor (pidfd_getfd(2)); OSError."""
    return _checked(_syscall(_PIDFD_GETFD, pidfd, fd, 0), "pidfd_getfd")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return int(result)


def receive(listener: int) -> Notification | None:
    """The next call that waits; None where whoever made it is gone."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECV, buffer)
    except (FileNotFoundError, InterruptedError):
        return None
    cookie, tid, _flags, number, _arch, _address, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(cookie, tid, number, tuple(arguments))


def proceed(listener: int, call: Notification) -> None:
    """Let the kernel carry the call out."""
    _respond(listener, _RESPONSE.pack(call.id, 0, 0, _CONTINUE))


def refuse(listener: int, call: Notification, number: int) -> None:
    """The call fails with this errno, and does nothing."""
    _respond(listener, _RESPONSE.pack(call.id, 0, -number, 0))


def _respond(listener: int, response: bytes) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):  # it was killed meanwhile
        fcntl.ioctl(listener, _SEND, bytearray(response))
