"""Whether this user can limit a process's CPU."""

from __future__ import annotations

import os

from netlab.linux import children
from netlab.linux.cgroups import PERIOD_US, limited_cpu


def limited() -> str:
    """A process joins a cgroup that gets half a CPU. UnsupportedError or OSError where it can't."""
    with limited_cpu(PERIOD_US // 2) as group:
        wait, end = os.pipe()

        def be_there() -> None:
            os.close(end)
            os.read(wait, 1)  # until the other end is closed

        child = children.fork(be_there)
        os.close(wait)
        try:
            (group / "cgroup.procs").write_text(str(child))
        finally:
            os.close(end)
            os.waitpid(child, 0)
        return f"a process can be put into a cgroup with a CPU limit in {group.parent}"
