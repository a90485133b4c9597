"""The system calls that change something outside the calling process, and how each may fail."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple


class Call(NamedTuple):
    """A system call by its numbers on x86_64 and aarch64 (None: not there).

    step is the row of the table that it is counted in, errnos what it may be refused with. Where flags_at is given,
    only calls that open for writing, or make the file, count: the flags are that argument.
    """

    name: str
    x86_64: int | None
    aarch64: int | None
    step: str
    errnos: tuple[int, ...]
    flags_at: int | None = None

    def number(self) -> int | None:
        """Its number on this machine."""
        return self.x86_64 if os.uname().machine == "x86_64" else self.aarch64


_FILE = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)
_OPEN = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EACCES, errno.EROFS)
_WRITE = (errno.ENOSPC, errno.EIO, errno.EPIPE, errno.EDQUOT)
_FORK = (errno.EAGAIN, errno.ENOMEM)
_MOUNT = (errno.EPERM, errno.ENOMEM, errno.EBUSY, errno.ENOSPC)
_NAMESPACE = (errno.ENOSPC, errno.ENOMEM, errno.EPERM)
_SEND = (errno.ENOBUFS, errno.ENOMEM, errno.EPERM)
_SOCKET = (errno.EMFILE, errno.ENOBUFS, errno.EPERM)
_KILL = (errno.EPERM,)  # never ESRCH: the process is there
_EXEC = (errno.ENOMEM, errno.EACCES, errno.ENOENT, errno.EAGAIN)
_BPF = (errno.EPERM, errno.ENOMEM)

CALLS = (
    Call("unshare", 272, 97, "namespace", _NAMESPACE),
    Call("setns", 308, 268, "namespace", (errno.EPERM, errno.ENOMEM)),
    Call("mount", 165, 40, "mount", _MOUNT),
    Call("umount2", 166, 39, "mount", (errno.EPERM, errno.EBUSY, errno.EINVAL)),
    Call("pivot_root", 155, 41, "mount", _MOUNT),
    Call("move_mount", 429, 429, "mount", _MOUNT),
    Call("open_tree", 428, 428, "mount", _MOUNT),
    Call("mount_setattr", 442, 442, "mount", _MOUNT),
    Call("fsopen", 430, 430, "mount", _MOUNT),
    Call("fsconfig", 431, 431, "mount", _MOUNT),
    Call("fsmount", 432, 432, "mount", _MOUNT),
    Call("openat", 257, 56, "file", _OPEN, flags_at=2),
    Call("open", 2, None, "file", _OPEN, flags_at=1),
    Call("write", 1, 64, "write", _WRITE),
    Call("writev", 20, 66, "write", _WRITE),
    Call("pwrite64", 18, 68, "write", _WRITE),
    Call("ftruncate", 77, 46, "file", _FILE),
    Call("mkdir", 83, None, "file", (*_FILE, errno.EMLINK)),
    Call("mkdirat", 258, 34, "file", (*_FILE, errno.EMLINK)),
    Call("rmdir", 84, None, "file", (errno.EBUSY, errno.EACCES, errno.EROFS, errno.EIO)),
    Call("unlink", 87, None, "file", (errno.EBUSY, errno.EACCES, errno.EROFS, errno.EIO)),
    Call("unlinkat", 263, 35, "file", (errno.EBUSY, errno.EACCES, errno.EROFS, errno.EIO)),
    Call("rename", 82, None, "file", _FILE),
    Call("renameat", 264, 38, "file", _FILE),
    Call("renameat2", 316, 276, "file", _FILE),
    Call("symlink", 88, None, "file", _FILE),
    Call("symlinkat", 266, 36, "file", _FILE),
    Call("link", 86, None, "file", _FILE),
    Call("linkat", 265, 37, "file", _FILE),
    Call("chmod", 90, None, "file", (errno.EPERM, errno.EROFS, errno.EIO)),
    Call("fchmod", 91, 52, "file", (errno.EPERM, errno.EROFS, errno.EIO)),
    Call("fchmodat", 268, 53, "file", (errno.EPERM, errno.EROFS, errno.EIO)),
    Call("setxattr", 188, 5, "file", (errno.ENOTSUP, errno.ENOSPC, errno.EPERM)),
    Call("fsetxattr", 190, 7, "file", (errno.ENOTSUP, errno.ENOSPC, errno.EPERM)),
    Call("flock", 73, 32, "lock", (errno.ENOLCK, errno.EAGAIN)),
    Call("clone", 56, 220, "process", _FORK),
    Call("clone3", 435, 435, "process", _FORK),
    Call("fork", 57, None, "process", _FORK),
    Call("vfork", 58, None, "process", _FORK),
    Call("execve", 59, 221, "process", _EXEC),
    Call("execveat", 322, 281, "process", _EXEC),
    Call("kill", 62, 129, "process", _KILL),
    Call("tgkill", 234, 131, "process", _KILL),
    Call("pidfd_send_signal", 424, 424, "process", _KILL),
    Call("setsid", 112, 157, "process", (errno.EPERM,)),
    Call("setpgid", 109, 154, "process", (errno.EPERM, errno.ESRCH)),
    Call("sethostname", 170, 161, "namespace", (errno.EPERM,)),
    Call("socket", 41, 198, "socket", _SOCKET),
    Call("sendto", 44, 206, "send", _SEND),
    Call("sendmsg", 46, 211, "send", _SEND),
    Call("sendmmsg", 307, 269, "send", _SEND),
    Call("bpf", 321, 280, "bpf", _BPF),
    Call("perf_event_open", 298, 241, "bpf", (errno.EPERM, errno.EMFILE)),
)

BY_NUMBER = {number: call for call in CALLS if (number := call.number()) is not None}
