"""Commands without the cost of their start: a process that has imported all of netlab forks one for each.

To start Python and import the same modules takes most commands longer than what they do. A forked command is a process
of its own all the same, with the arguments, environment, directory, streams and exit code that it was given: see
tests/cli/test_start.py. A test of how a process is born, or of what it inherits (signals, limits, descriptors, what is
imported), starts `Netlab.argv()` itself.

The server outlives a session that is killed, and then cleans up after it.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import guardian
import host

from netlab.__main__ import main

_MESSAGE_BYTES = 150_000  # less than net.core.wmem_default
_END = b"end"


class ForkServer:
    """One for a test session."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, argv: Sequence[str], stdin: str, environment: Mapping[str, str], directory: Path | None, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `netlab ARGV` to its end; raises subprocess.TimeoutExpired where that takes longer."""
        message = json.dumps([argv, dict(environment), str(directory or Path.cwd())]).encode()
        pipes = [os.pipe() for _ in range(3)]
        stdout, stderr, told = (readable for readable, _ in pipes)
        theirs = [_filled_pipe(stdin), *(writable for _, writable in pipes)]
        try:
            socket.send_fds(self.start(), [message], theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        with os.fdopen(told, "rb") as answer:
            pid = int(answer.readline())
            try:
                said = _read_all((stdout, stderr), time.monotonic() + timeout_s)
                if said is None:
                    raise subprocess.TimeoutExpired([*argv], timeout_s)
            except BaseException:
                with suppress(ProcessLookupError):  # it ended, and something else has its streams
                    os.kill(pid, signal.SIGKILL)
                raise
            return subprocess.CompletedProcess([*argv], int(answer.readline()), *said)

    def start(self) -> socket.socket:
        """Start the process, unless it runs; where to send it messages. Otherwise the first command starts it."""
        if self._channel is None:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, __file__, str(theirs.fileno())]
                # In a session of its own: a signal for all processes of the tests' group is none for it.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
                )
        return self._channel

    def close(self) -> None:
        """End the process."""
        if self._channel is not None and self._process is not None:
            self._channel.send(_END)
            self._channel.close()
            self._process.wait()
            self._channel = None


def _filled_pipe(text: str) -> int:
    """The reading end of a pipe that holds the text."""
    readable, writable = os.pipe()
    data = text.encode()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, max(len(data), 4096))
    os.write(writable, data)
    os.close(writable)
    return readable


def _read_all(fds: tuple[int, int], deadline: float) -> tuple[str, str] | None:
    """What comes of both descriptors until they end, which closes them; None where that is after the deadline."""
    read = {fd: bytearray() for fd in fds}
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    open_fds = set(fds)
    try:
        while open_fds:
            ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
            if not ready:
                return None
            for fd, _ in ready:
                data = os.read(fd, 65536)
                read[fd].extend(data)
                if not data:
                    poll.unregister(fd)
                    open_fds.remove(fd)
    finally:
        for fd in fds:
            os.close(fd)
    stdout, stderr = (read[fd].decode() for fd in fds)
    return stdout, stderr


def _serve(channel: socket.socket) -> bool:
    """Fork a process for each message, and tell its pid, then its exit code. Whether the session said that it ended."""
    import nftables  # noqa: F401
    import pyroute2  # noqa: F401

    import netlab

    for module in pkgutil.walk_packages(netlab.__path__, "netlab."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # a child that touches what it shares would have to copy it
    running: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == channel.fileno():
                message, fds, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 4)
                if message in (b"", _END):
                    return message == _END
                *streams, answer = fds
                pid = os.fork()
                if pid == 0:
                    _become(message, streams)
                _tell(answer, pid)
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, answer
                poll.register(pidfd, select.POLLIN)
                for fd in streams:
                    os.close(fd)
            else:
                pid, answer = running.pop(ready)
                _tell(answer, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                poll.unregister(ready)
                os.close(answer)
                os.close(ready)


def _tell(answer: int, number: int) -> None:
    """Write a line with the number to whoever asked, and may have gone."""
    with suppress(BrokenPipeError):
        os.write(answer, f"{number}\n".encode())


def _become(message: bytes, streams: Sequence[int]) -> NoReturn:
    """Be the command, in a fresh child."""
    try:
        argv, environment, directory = json.loads(message)
        for target, fd in enumerate(streams):
            os.dup2(fd, target)
        os.closerange(3, 1024)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["netlab", *argv]
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    if not _serve(socket.socket(fileno=int(sys.argv[1]))):
        guardian.clean_up(Path(os.environ[host.RUNDIR]))
