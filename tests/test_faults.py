"""`scripts/faults`: a sample in every run, and that it notices what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import skips
from injection.scenarios import SCENARIOS
from places import ROOT

pytestmark = [pytest.mark.kernel, pytest.mark.long]

COUNT = 250
"""Half of 500: the tests run once as root, whose faults are then root's own, and once as an ordinary user."""

LONG, LONG_COUNT = ("run", "matrix"), 30
"""Commands that take several times as long as the others, and how many of the faults are theirs."""


def faults(*words: str) -> subprocess.CompletedProcess[str]:
    """`scripts/faults` run to its end."""
    command = [sys.executable, str(ROOT / "scripts/faults"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_faults_leave_nothing_and_touch_nothing() -> None:
    if os.geteuid():
        skips.skip_unless_userns()
    whose = ["--as", "root"] if os.geteuid() == 0 else []
    others = [name for name in SCENARIOS if name not in LONG]
    for names, count in ((LONG, LONG_COUNT), (others, COUNT - LONG_COUNT)):
        into = [word for name in names for word in ("--scenario", name)]
        leaves_nothing("--count", str(count), "--seed", "1", *whose, *into)


def leaves_nothing(*words: str) -> None:
    """The faults that these words ask for."""
    done = faults(*words)
    wrong = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("|"))
    assert done.returncode == 0, f"{wrong}{done.stderr}"
    assert "0 left behind, 0 foreign touched, 0 traceback, 0 wait over 30 s" in done.stdout
