"""The command in a process of its own, forked or started; and names for the labs of tests."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import host
from forkserver import ForkServer

RUNDIR = host.RUNDIR
SERVER = ForkServer()
"""The session's; whoever ends the session closes it."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Netlab:
    """Runs `netlab` in a process of its own, with a run directory of the test's own.

    forked: such processes are forked where that makes no difference.
    """

    rundir: Path
    forked: bool = True

    def __call__(
        self,
        *arguments: str | Path,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; stdout and stderr are text. env is added to the environment.

        With an env it is started anew: some modules read the environment while they are imported.
        """
        if self.forked and env is None:
            return SERVER.run([*map(str, arguments)], stdin or "", self.environment(), cwd, timeout_s)
        return self.start(*arguments, stdin=stdin, env=env, cwd=cwd, timeout_s=timeout_s)

    def start(
        self,
        *arguments: str | Path,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """The same, and never by fork: with a Python of its own, started for it."""
        return subprocess.run(
            self.argv(*arguments),
            input=stdin or "",
            capture_output=True,
            text=True,
            env=self.environment(env),
            cwd=cwd,
            timeout=timeout_s,
        )

    def argv(self, *arguments: str | Path) -> Sequence[str]:
        """The command line, for a test that starts the process itself."""
        return [sys.executable, "-m", "netlab", *map(str, arguments)]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment that goes with argv()."""
        return {**os.environ, RUNDIR: str(self.rundir), **(env or {})}


def new_lab_name() -> str:
    """A name for a lab that nothing else on this machine has, and by which the host's check knows it."""
    return f"{host.lab_prefix()}{next(_numbers):03x}"
