"""Programs in a lab's network namespaces: run with the caller's streams or others, started to live on, signalled.

A command that the caller names (`run`) is the caller's own, and gets what the caller has. A program that a file names
(all others) gets neither descriptors nor the environment, and few capabilities: the file may be somebody else's. Which
programs a topology has is `programs.py`'s.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from netlab import terminal
from netlab.errors import LabError
from netlab.lab.netns import Namespaces
from netlab.linux import children, interrupts, seccomp
from netlab.linux.syscalls import close_on_exec, keep_capabilities, no_new_privileges
from netlab.model import CAPABILITIES

_OF_THE_CALLER = frozenset(
    ("PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR")
)
"""The variables that a program which a file names gets from the caller, beside LC_* and NETLAB_LAB_*."""


_ANY_DAEMONS = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP SETFCAP SYS_CHROOT AUDIT_WRITE"
_A_NETWORKS = "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW BPF"  # BPF: for tc and XDP
_A_FAST_DAEMONS = "IPC_LOCK SYS_NICE SYS_RESOURCE"  # its own memory, priority and limits
_CAPABILITIES = frozenset(f"{_ANY_DAEMONS} {_A_NETWORKS} {_A_FAST_DAEMONS}".split())
"""What root may do in a program that a file names: neither the machine's (modules, devices, clock, boot, log) nor other
processes'; nor SYS_ADMIN, with which it could undo every restriction."""


_FIRST = 3
"""The descriptor of the first socket that a program listens on (SD_LISTEN_FDS_START)."""

_BEGINS_S = 10.0
"""How long it may take from the fork of a program to its exec: another program of the lab may stop it in between."""


class _Confined(NamedTuple):
    """How a program begins that a file names: its standard streams, what it may do, the sockets that it listens on."""

    streams: tuple[int, int, int]
    capabilities: Set[str] = _CAPABILITIES
    sockets: Sequence[int] = ()


def _environment(netns: str, added: Mapping[str, str]) -> dict[str, str]:
    # That of a program that a file names, which adds variables of its own: no secret of the caller's.
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _OF_THE_CALLER or name.startswith(("LC_", "NETLAB_LAB_"))
    }
    return {**passed, "NETLAB_LAB_NETNS": netns, **added}


def run(namespaces: Namespaces, name: str, argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a program in a namespace with this process's terminal and streams; returns its wait status.

    Signals sent to this process reach the program. 127 or 126 << 8 where it can't be found or executed, after a
    line on stderr, as a shell has it. Equivalent to `ip netns exec NAME ARGV…`.
    """
    in_front = _terminal_group() == os.getpgrp()
    passed_on = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    with interrupts.held_back(*passed_on, signal.SIGTSTP):
        pid = _fork(namespaces, name, argv, env)
        for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal sends these to the program itself
            signal.signal(number, signal.SIG_IGN)
        for number in passed_on:
            signal.signal(number, lambda received, _frame: _kill(pid, received))
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, lambda _number, _frame: _stop_after(pid))
    status = os.waitpid(pid, 0)[1]
    if in_front:
        _come_to_the_front()
    return status


def run_quietly(namespaces: Namespaces, name: str, argv: Sequence[str], within_s: float) -> int | None:
    """Run a program that a file names to its end, its streams going nowhere; returns its wait status.

    None where it took longer than that, and was killed.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    pid = None
    try:
        with interrupts.held_back():
            pid = spawn(namespaces, name, argv, null)
        if children.ended(pid, within_s):
            return os.waitpid(pid, 0)[1]
    except BaseException:
        if pid is not None:  # nobody else waits for it, and a lab can't end before somebody has
            _kill_all(pid)
        raise
    finally:
        os.close(null)
    _kill_all(pid)
    return None


def spawn(namespaces: Namespaces, name: str, argv: Sequence[str], output: int) -> int:
    """Begin a program that a file names; it reads nothing and writes into the descriptor. Its pid, to be waited for.

    It leads a process group of its own.
    """
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        confined = _Confined((null, output, output))
        return _fork(namespaces, name, argv, _environment(name, {}), confined)
    finally:
        os.close(null)


def launch(
    namespaces: Namespaces,
    name: str,
    argv: Sequence[str],
    added: Mapping[str, str],
    log: Path,
    journal: Callable[[int], None],
    capabilities: Sequence[str] = (),
    sockets: Sequence[int] = (),
) -> None:
    """Start a program that a file names, to live on in the lab.

    added are variables of its environment, log is the file for its output, capabilities are those beside every
    program's, sockets become its descriptors from 3 on, as sd_listen_fds(3) has it. journal is called with its pid in
    the lab's PID namespace before the program begins: whoever is killed until then leaves none. Raises LabError where
    the program can't be found or executed.
    """
    failed_r, failed_w = os.pipe()
    go_r, go_w = os.pipe()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    confined = _Confined((null, output, output), _CAPABILITIES.union(capabilities), sockets)
    namespaces.enter_pid_namespace()

    def begin(told: BinaryIO) -> int:
        told.close()
        os.close(go_w)
        failed = _out_of_the_way(failed_w, sockets)
        try:
            if os.read(go_r, 1):
                own = {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid())} if sockets else {}
                _become(namespaces, name, argv, {**_environment(name, added), **own}, confined)
        except OSError as error:
            os.write(failed, (error.strerror or str(error)).encode())
        except ValueError as error:  # a word that this locale's encoding, or execve(2), can't hold
            os.write(failed, str(error).encode())
        return 127

    def in_the_middle(told: BinaryIO) -> None:
        # Its own child is orphaned inside the PID namespace, and so becomes the holder's. Another program of the lab
        # may stop that child for ever: whoever waits for the end of the caller's streams would wait for it.
        _take_streams(confined)
        told.write(str(children.fork(lambda: begin(told), ends_by=None)).encode())

    with interrupts.held_back():  # from the one in the middle too, which has to tell the pid
        pid = children.ask(in_the_middle, held_back=True).said
    for fd in (failed_w, go_r, output, null):
        os.close(fd)
    with os.fdopen(failed_r) as failed, os.fdopen(go_w, "wb", buffering=0) as go:
        if not pid:
            raise LabError(f"{name}: can't start {argv[0]}: the process that starts it was killed")
        journal(int(pid))
        with suppress(BrokenPipeError):  # it was killed
            go.write(b"g")
        if not children.readable(failed.fileno(), _BEGINS_S):
            raise LabError(
                f"{name}: can't start {argv[0]}: it did not begin within {_BEGINS_S:g} s",
                "something may stop it: `netlab down` ends all programs of the lab",
            )
        complaint = failed.read()  # ends when the exec closes the pipe
        if complaint:
            raise LabError(f"{name}: can't start {argv[0]}: {complaint}", "install it, or check PATH")


def _fork(
    namespaces: Namespaces,
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    confined: _Confined | None = None,
) -> int:
    namespaces.fd(name)  # a wrong name fails here, not in the child
    terminal.flush()
    namespaces.enter_pid_namespace()

    def begin() -> int:
        try:
            _become(namespaces, name, argv, env, confined)
        except FileNotFoundError:
            terminal.complain(f"netlab: {argv[0]}: command not found")
            return 127
        except OSError as error:
            terminal.complain(f"netlab: {argv[0]}: {error.strerror}")
        except ValueError as error:
            terminal.complain(f"netlab: {argv[0]}: {error}")
        return 126

    return children.fork(begin)


def _become(
    namespaces: Namespaces, name: str, argv: Sequence[str], env: Mapping[str, str], confined: _Confined | None
) -> NoReturn:
    """In a forked child: go into the namespace and execute the program; one that isn't confined is the caller's own.

    That one gets the caller's streams and other descriptors, as from `ip netns exec`: `<(…)` of a shell is one. A
    confined program gets none: what it holds, a lock, would outlive the caller. Nor has it the caller's terminal, into
    which it could type (TIOCSTI).
    """
    if confined is not None:
        os.setsid()
        _take_streams(confined)
        close_on_exec(3)
    namespaces.move_in(name)
    if confined is not None:
        seccomp.confine(user_namespaces="SYS_ADMIN" in confined.capabilities)
        keep_capabilities({CAPABILITIES.index(one) for one in confined.capabilities})
        if namespaces.rootless:  # root's daemons change users, and may call a setuid program then
            no_new_privileges()
        for at, sock in enumerate([_out_of_the_way(sock, confined.sockets) for sock in confined.sockets], _FIRST):
            os.dup2(sock, at)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and an exec keeps that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), {**env, "PATH": search_path(env.get("PATH"))})
    except FileNotFoundError:
        if confined is None or argv[0] != "python3":
            raise
        os.execve(sys.executable, list(argv), env)  # a system without one: this netlab came with its own


def _take_streams(confined: _Confined) -> None:
    """In a forked child: have these standard streams in place of the caller's."""
    for fd, stream in enumerate(confined.streams):
        os.dup2(stream, fd)


def _out_of_the_way(fd: int, sockets: Sequence[int]) -> int:
    """The same file by a descriptor that is none of those which the sockets get."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST + len(sockets))


def kill_group(namespaces: Namespaces, pgid: int, number: int) -> None:
    """Send a signal to a process of the lab's PID namespace with all its group; they may be gone."""
    namespaces.enter_pid_namespace()
    with interrupts.held_back():  # from the child too, which has to do this
        children.ask(lambda _told: _kill_group(pgid, number), held_back=True)


def _kill_group(pgid: int, number: int) -> None:
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:  # it doesn't lead its group yet
        _kill(pgid, number)


def search_path(path: str | None) -> str:
    """PATH with the directories of root's programs, which an ordinary user's on Debian lacks; None: there is none.

    Who enters a lab is its root: `nft`, `iptables-save` and `sysctl` are there.
    """
    found = os.defpath if path is None else path
    return ":".join([found, *(place for place in ("/usr/sbin", "/sbin") if place not in found.split(":"))])


def _terminal_group() -> int | None:
    """The process group in the foreground of this process's terminal; None without one."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.tcgetpgrp(terminal)
    finally:
        os.close(terminal)


def _come_to_the_front() -> None:
    """Take the terminal back from a shell that ended: it couldn't give it to a group outside its PID namespace."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what the kernel sends to who isn't in front
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    with suppress(OSError):
        os.tcsetpgrp(terminal, os.getpgrp())
    os.close(terminal)
    signal.signal(signal.SIGTTOU, before)


def _stop_after(pid: int) -> None:
    """Stop as ^Z asks, once the program has: until then the terminal is its, and the caller's shell must not read."""
    with suppress(ChildProcessError):  # it has ended
        told = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if told is not None and told.si_code == os.CLD_STOPPED:
            later = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # returns when the shell has continued this process
            signal.signal(signal.SIGTSTP, later)


def _kill_all(pid: int) -> None:
    """Kill a program of `spawn`'s with all its process group, and wait for it."""
    _kill(pid, signal.SIGKILL)  # it may not lead its group yet
    _kill_group(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
