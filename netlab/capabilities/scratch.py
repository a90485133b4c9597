"""Trying something in a forked child, in an empty network namespace that ends with it.

What is tried leaves nothing behind, whatever becomes of it, and may not fail the caller: even a library's exception is
only an answer.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import BinaryIO

from netlab.errors import NetlabError
from netlab.lab.holder import become_rootless, begin_at_the_root
from netlab.linux import children
from netlab.linux.syscalls import CLONE_NEWNET, CLONE_NEWNS, unshare

TIMEOUT_S = 20.0
"""How long one attempt may take: a kernel that has to load modules first needs seconds under emulation."""

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # include/uapi/linux/sockios.h, if.h


def attempt(body: Callable[[], str], *, enter: bool = True, held_back: bool = False) -> str | NetlabError:
    """Run body in a forked child, in namespaces of its own if enter; what it returns, or the error it ended with.

    held_back: no signal that the command hears ends it. An ordinary user's child makes a user namespace first. The
    error's message is one line.
    """
    try:
        said, _ = children.ask(lambda told: _answer(body, enter, told), held_back=held_back, within_s=TIMEOUT_S)
    except TimeoutError:
        return NetlabError("the kernel gave no answer in time")
    if not said:
        return NetlabError("the probe ended without an answer")
    word, message, hint = json.loads(said)
    return str(message) if word == "ok" else NetlabError(message, hint)


def _answer(body: Callable[[], str], enter: bool, told: BinaryIO) -> None:
    try:
        if enter:
            _enter()
        answer = ["ok", body(), None]
    except NetlabError as error:
        answer = ["error", _one_line(error.message), error.hint]
    # Whatever a library raises in the child is an answer: a traceback would go to the user's terminal.
    except Exception as error:
        answer = ["error", _one_line(_words(error)), None]
    told.write(json.dumps(answer).encode())


def _one_line(message: str) -> str:
    return message.strip().partition("\n")[0]


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    code = getattr(error, "code", None)  # pyroute2's NetlinkError: an errno
    return os.strerror(code) if isinstance(code, int) else str(error) or type(error).__name__


def _enter() -> None:
    if os.geteuid() != 0:
        become_rootless()
        return
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    begin_at_the_root()


def set_loopback_up() -> None:
    """Equivalent to `ip link set lo up`, in the calling thread's network namespace; OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
