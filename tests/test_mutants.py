"""`scripts/mutants`: which changes it makes, and that it tells noticed ones from others."""

from __future__ import annotations

import subprocess
import sys

from places import ROOT


def mutants(*words: str) -> subprocess.CompletedProcess[str]:
    """`scripts/mutants` run to its end."""
    command = [sys.executable, str(ROOT / "scripts/mutants"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_tests_that_look_at_a_file_notice_its_changes() -> None:
    done = mutants("netlab/conntrack/states.py", "--count", "2", "--seed", "1", "--jobs", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "seed 1: 2 of 2 were noticed\n", "")


def test_what_no_test_looks_at_is_printed_with_its_line() -> None:
    words = ("netlab/conntrack/states.py", "--count", "1", "--seed", "1", "--jobs", "1")
    done = mutants(*words, "--tests", "tests/record/test_wire.py")
    where, before, after, total = done.stdout.splitlines()
    assert where.startswith("netlab/conntrack/states.py:")
    assert before.startswith("    - ")
    assert after.startswith("    + ")
    assert total == "seed 1: 0 of 1 were noticed"
    assert done.returncode == 1
