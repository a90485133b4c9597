"""A virtual machine, virtme-ng's: boots a kernel, has a command run in it, and brings back what came of that."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from netlab import advice
from netlab.errors import LabError, UnsupportedError
from netlab.escapes import Lines, line
from netlab.kernels import guest
from netlab.kernels.packages import Kernel, find, run_to_end
from netlab.linux import children
from netlab.linux.deadlines import SLOWER

_BOOT_S = 300.0
"""How long a machine may take until it runs a command; emulated on a busy machine it takes a minute."""

_SILENCE_S = 120.0
"""How long a machine's clock may stand still before it counts as hung."""

_LOOK_S = 0.1

_OOPS_LINES, _LAST_LINES = 60, 15
"""How much of the console is shown: of a crash from its first line on, otherwise what came last."""


class Progress(Protocol):
    """How far it has got, for a terminal."""

    def show(self, line: str, /) -> None: ...

    def end(self) -> None: ...


_CRASH = re.compile(r"Kernel panic - not syncing: .*|BUG: .*|Oops: .*|general protection fault.*|Out of memory: .*")
_PLACE = re.compile(r"RIP: 0010:([\w.]+\+\S+)|\]  ([\w.]+)\+0x")
"""Where in the kernel: x86's kernel code has this selector; after a panic there is only the trace of calls."""
_TELLING = ("dump_stack", "panic", "show_stack")
"""Who only tells of it."""


def emulated() -> bool:
    """Whether machines are emulated here: there is no KVM that this user may use, or this processor has none."""
    flags = Path("/proc/cpuinfo").read_text(errors="replace")
    return not (re.search(r"\b(vmx|svm)\b", flags) and os.access("/dev/kvm", os.R_OK | os.W_OK))


def run(
    kernel: Kernel,
    argv: Sequence[str],
    environment: Mapping[str, str],
    scratch: Path,
    memory_mb: int,
    progress: Progress,
) -> int:
    """Run a command of this machine under that kernel, in the same directory; its exit status.

    What it prints is written to stdout and stderr as it comes; what it writes below the current directory is there
    once it has ended. scratch is a directory for files that are gone afterwards, whatever happens. UnsupportedError
    without the programs this needs; LabError where the machine hangs or its kernel crashes.
    """
    engine, emulator = _engine(), find(f"qemu-system-{os.uname().machine}", "qemu-system-x86")
    for program, package in (("busybox", "busybox-static"), ("modprobe", "kmod"), ("file", "file"), ("tar", "tar")):
        find(program, package)
    share = Path(tempfile.mkdtemp(prefix="run-", dir=scratch))
    children.fork(lambda: _clean_up_after(os.getppid(), share), ends_by=None)
    try:
        job = guest.Job(argv, Path.cwd(), environment, share, kernel.modules, Path(sys.executable), SLOWER)
        _arrange(kernel, share)
        (share / "guest.sh").write_text(guest.script(job))
        (share / "inside.sh").write_text(guest.inside(job))
        (share / "qemu").write_text(f'#!/bin/sh\nexec setpriv --pdeathsig KILL {emulator} "$@"\n')
        (share / "qemu").chmod(0o700)
        machine = children.fork(lambda: _become(_machine(engine, kernel, share, memory_mb), share))
        try:
            _wait(machine, share, progress)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(machine, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(machine, 0)
        _bring_back(share)
        return int((share / guest.STATUS).read_text())
    finally:
        shutil.rmtree(share, ignore_errors=True)


def _arrange(kernel: Kernel, share: Path) -> None:
    """Have image and modules where virtme-ng looks for those of one release."""
    (share / "boot").mkdir()
    (share / "boot" / f"vmlinuz-{kernel.release}").symlink_to(kernel.image)
    (share / "lib/modules").mkdir(parents=True)
    if kernel.modules is not None:
        (share / "lib/modules" / kernel.release).symlink_to(kernel.modules)


def _engine() -> str:
    beside = Path(sys.executable).with_name("virtme-run")
    found = str(beside) if beside.exists() else shutil.which("virtme-run")
    if found is None:
        raise UnsupportedError("there is no virtme-ng here, which boots kernels", advice.install_python("virtme-ng"))
    return found


def _machine(engine: str, kernel: Kernel, share: Path, memory_mb: int) -> list[str]:
    """The command line of the machine."""
    slow = ["--disable-kvm"] if emulated() else []
    return [
        *(engine, "--kimg", f"{share}/boot/vmlinuz-{kernel.release}", "--mods", "auto" if kernel.modules else "none"),
        *(*slow, "--disable-microvm", "--force-9p", "--no-root-posix-acl"),
        *("--memory", f"{memory_mb}M", "--cpus", str(os.cpu_count() or 1), "--qemu-bin", str(share / "qemu")),
        *(f"--rwdir={share}", "--show-boot-console", "--kopt", "oops=panic", "--kopt", "panic_print=0"),
        *("--script-sh", f"sh {share}/guest.sh"),
        *(["--qemu-opts", "-cpu", "qemu64"] if slow else ["--qemu-opts"]),
        *("-fsdev", f"local,id={guest.TAG},path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", f"virtio-9p-pci,fsdev={guest.TAG},mount_tag={guest.TAG}"),
    ]


def _become(argv: Sequence[str], share: Path) -> int:
    """In a forked child: execute it, what it says going into a file."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    console = os.open(share / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, stream in ((0, null), (1, console), (2, console)):
        os.dup2(stream, fd)
    os.execve(argv[0], [*argv], {**os.environ, "TMPDIR": str(share)})


def _clean_up_after(parent: int, share: Path) -> int:
    """In a forked child: remove the directory once its maker has ended, however it does."""
    os.setsid()
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(parent)], [], [])
    for _ in range(50):  # what was writing there is about to end
        shutil.rmtree(share, ignore_errors=True)
        if not share.exists():
            break
        time.sleep(_LOOK_S)
    return 0


def _wait(machine: int, share: Path, progress: Progress) -> None:
    """Pass on what the command prints until it has ended; LabError where the machine ends or hangs before it has."""
    ended = os.pidfd_open(machine)
    streams = _Streams(share)
    began = beat = time.monotonic()
    last = ""
    try:
        while not (share / guest.STATUS).exists():
            streams.pass_on()
            if children.readable(ended, _LOOK_S):
                if (share / guest.STATUS).exists():
                    break
                raise _crash(share, "the machine ended before the command had")
            now, clock = time.monotonic(), _text(share / guest.ALIVE)
            if not last:
                progress.show(f"booting ({now - began:.0f} s)")
            if clock != last:
                progress.end()
                last, beat = clock, now
            limit = _SILENCE_S if last else _BOOT_S
            if now - beat > limit:
                raise _crash(share, f"the machine {'hangs' if last else 'did not boot'}: nothing for {limit:g} s")
        streams.pass_on()
    finally:
        os.close(ended)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _crash(share: Path, what: str) -> LabError:
    """The error with what the console said last, and of a crash where in the kernel it was."""
    console = [each for each in _text(share / "console").replace("\r", "").split("\n") if each.strip()]
    at, crashes = len(console), []
    for number, each in enumerate(console):
        if found := _CRASH.search(each):
            at = min(at, number)
            crashes.append(found[0])
    named = [found[1] or found[2] for each in console[at:] if (found := _PLACE.search(each))]
    places = [each for each in named if not each.startswith(_TELLING)]
    why = f" ({line(crashes[0])}{f' in {line(places[0])}' if places else ''})" if crashes else ""
    shown = console[at:][:_OOPS_LINES] if crashes else console[-_LAST_LINES:]
    end = "".join(f"\n    {line(each)}" for each in shown)
    hint = (
        "give it more: --memory MB"
        if any("Out of memory" in each or "out of memory" in each for each in crashes)
        else None
    )
    return LabError(Lines(f"{line(what)}{why}; its console:{end}"), hint)


class _Streams:
    """What the command has printed and not yet been passed on."""

    def __init__(self, share: Path) -> None:
        self._sources = {1: share / guest.STDOUT, 2: share / guest.STDERR}
        self._at = {1: 0, 2: 0}

    def pass_on(self) -> None:
        """Write it."""
        for fd, source in self._sources.items():
            with suppress(FileNotFoundError), source.open("rb") as file:
                file.seek(self._at[fd])
                while part := file.read(1 << 16):
                    self._at[fd] += len(part)
                    while part:
                        part = part[os.write(fd, part) :]


def _bring_back(share: Path) -> None:
    """What the command wrote below the current directory."""
    if (share / guest.FILES).exists():
        run_to_end(["tar", "-x", "--no-same-owner", "-f", str(share / guest.FILES)])
