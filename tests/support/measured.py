"""What a command takes: its exit code, and the most memory it had.

The kernel counts the pages of whoever started a process among that process's own (`setmax_mm_hiwater_rss` in
fs/exec.c), and a test session is large: this small process stands between the two.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Taken:
    """How a command ended, and its maximum resident set, in bytes."""

    code: int
    most_bytes: int


def measure(argv: Sequence[str], said: Path, most_cpu_s: int) -> Taken:
    """Run argv; what it prints, on either stream, goes to the file. It is ended once it has used most_cpu_s."""
    with said.open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__, str(out.fileno()), str(most_cpu_s), *argv],
            pass_fds=[out.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    code, most_kib = map(int, done.stdout.split())
    return Taken(code, most_kib << 10)


def main() -> None:
    """FD CPU_S COMMAND...: prints the command's exit code (negative: the signal), and its most memory in KiB."""
    out, cpu_s, *argv = sys.argv[1:]
    pid = os.posix_spawn(
        argv[0],
        argv,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, int(out), 1), (os.POSIX_SPAWN_DUP2, int(out), 2)],
    )
    resource.prlimit(pid, resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    _, status, used = os.wait4(pid, 0)
    sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {used.ru_maxrss}\n")


if __name__ == "__main__":
    main()
