"""The one place that forks. A child runs the function it is given, and ends: nothing that happens in it runs its
parent's code.

A child begins with its parent's stack, on which clean-ups wait, as of a lab that is to be taken down. No exception of
the child's may reach them, no signal that the parent hears, and no garbage collection of what the parent holds.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from netlab import terminal
from netlab.linux import interrupts
from netlab.linux.deadlines import scaled
from netlab.linux.syscalls import end_with_parent

INTERRUPTED = 130
"""The exit code of a child in which a signal raised Interrupted, as a shell has it for Ctrl-C."""


def fork(
    body: Callable[[], int | None], *, ends_by: signal.Signals | None = signal.SIGKILL, held_back: bool = False
) -> int:
    """Fork a child that calls body and ends with the exit code that body returns; the child's pid. OSError.

    ends_by is the signal that the child gets when this process ends, however it does and in whichever PID namespace
    the child is; None: it lives on. The signals that a command hears end the child silently, unless body says
    otherwise; held_back: they wait in the child for as long as body takes, which has to be brief.
    """
    parent = os.pidfd_open(os.getpid()) if ends_by is not None else None
    try:
        with interrupts.held_back():
            pid = os.fork()
            if pid == 0:
                # Twice: a signal's exception may come in the first `finally`, and only one comes.
                try:
                    _live(body, ends_by, parent, held_back)
                finally:
                    os._exit(1)
    finally:
        if parent is not None:
            os.close(parent)
    return pid


def _live(body: Callable[[], int | None], ends_by: signal.Signals | None, parent: int | None, held_back: bool) -> None:
    code = 1
    try:
        gc.freeze()  # garbage of the parent's has finalizers that are the parent's to run
        gc.enable()
        if ends_by is not None and parent is not None:
            end_with(ends_by, parent)
        interrupts.forget_in_child(held_back=held_back)
        code = body() or 0
    except interrupts.Interrupted:
        code = INTERRUPTED
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BrokenPipeError:  # who was to be told is gone
        pass
    except BaseException as error:
        terminal.complain(f"netlab: a process of its own failed: {error!r}")
    finally:
        os._exit(code)


class Answer(NamedTuple):
    """What a child said until it ended, and how it ended: status is waitpid(2)'s."""

    said: bytes
    status: int


def ask(body: Callable[[BinaryIO], int | None], *, held_back: bool = False, within_s: float | None = None) -> Answer:
    """Fork a child that calls body with the pipe for its answer; it is gone when this returns, or is interrupted.

    TimeoutError where it says nothing and doesn't end for so many seconds; OSError, also where something stops it
    again and again: a program of a lab may, if the child was born there. held_back as `fork` has it.
    """
    child, status = 0, 0
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb") as told:

        def answer() -> int | None:
            code = body(told)
            told.flush()
            return code

        try:
            with interrupts.held_back():
                child = fork(answer, held_back=held_back)
            told.close()
            if within_s is not None and not readable(source.fileno(), within_s):
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            said = _hear(child, source.fileno())
        except BaseException:
            if child:
                os.kill(child, signal.SIGKILL)
            raise
        finally:
            if child:
                _, status = os.waitpid(child, 0)
    return Answer(said, status)


_LOOK_S = 0.2
"""How often it is looked whether a child is stopped."""

_stops_left = [20]
"""How often this process still continues children that something stops, before it gives one up, and then each at once:
a command that asks a hundred of them must end, too."""


def _hear(child: int, source: int) -> bytes:
    """What the child says until it closes the pipe or ends. Where it is stopped, it is continued."""
    said: list[bytes] = []
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    try:
        while True:
            there = [fd for fd, _ in poll.poll(_LOOK_S * 1000)]
            if source in there:
                part = os.read(source, 1 << 16)
                if not part:
                    break
                said.append(part)
            elif there:  # what it has begotten may still have the pipe
                break
            elif _is_stopped(child):
                _stops_left[0] -= 1
                if _stops_left[0] < 0:
                    raise OSError(errno.EBUSY, "something stops it again and again", "a process of netlab's own")
                os.kill(child, signal.SIGCONT)  # it may be that the terminal's ^Z and `fg` come to it last
    finally:
        os.close(pidfd)
    return b"".join(said)


def _is_stopped(child: int) -> bool:
    # WEXITED too: who asks for WSTOPPED alone about a child that has just ended hears of ECHILD.
    found = os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None and found.si_code == os.CLD_STOPPED


def ending(status: int) -> str:
    """How a process ended, in words: "exit code 3", "signal 9"; status is waitpid(2)'s."""
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"


def ended(pid: int, within_s: float) -> bool:
    """Whether a child that is still to be waited for ends in that time; OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        return readable(pidfd, within_s)
    finally:
        os.close(pidfd)


def readable(fd: int, within_s: float) -> bool:
    """Whether a descriptor has something to read, or no writer any more, within that time; however high its number."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(scaled(within_s) * 1000))


def end_with(number: signal.Signals, parent: int) -> None:
    """Have the calling child get this signal when its parent ends, and end it at once where that has happened.

    parent is a pidfd of the parent, opened by itself: of a parent in another PID namespace getppid(2) knows nothing.
    Becoming another user undoes it (commit_creds() in kernel/cred.c). OSError.
    """
    end_with_parent(number)
    if readable(parent, 0):
        os._exit(1)
    os.close(parent)
