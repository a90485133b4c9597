"""Hostile bytes, for about half a minute: each target takes them, or refuses them as its contract says.

The same inputs every time, so that a failure repeats; `NETLAB_LAB_FUZZ_EXAMPLES` makes it as many times more as it
says, `scripts/fuzz` makes other ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from fuzzing import CORPUS, Count, FuzzError, Target, run
from hypothesis import strategies as st
from places import ROOT

TIMES = float(os.environ.get("NETLAB_LAB_FUZZ_EXAMPLES", "1"))
EXAMPLES = 200
FOUND = [(target, path) for target in TARGETS.values() for path in target.corpus()]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_takes_or_refuses_whatever_it_is_fed(target: Target) -> None:
    count = Count()
    run(target, round(EXAMPLES * TIMES), 1, count)
    assert count.inputs


@pytest.mark.parametrize(("target", "path"), FOUND, ids=[f"{target.name}/{path.name}" for target, path in FOUND])
def test_what_was_found_once(target: Target, path: Path) -> None:
    target.takes(path.read_bytes())


def test_every_input_that_was_kept_is_of_a_target() -> None:
    assert {path.name for path in CORPUS.glob("*")} <= set(TARGETS)


# --- the fuzzer itself -----------------------------------------------------------------------------------------------


def _fragile(data: bytes) -> None:
    if len(data) > 3:
        raise IndexError("too far")


def test_a_fault_is_told_with_the_smallest_input_that_shows_it(tmp_path: Path) -> None:
    target = Target("fragile", _fragile, st.binary())
    with pytest.raises(FuzzError) as caught:
        run(target, 1000, 1, Count())
    assert str(caught.value) == "fragile: IndexError('too far') of b'\\x00\\x00\\x00\\x00'"
    assert caught.value.keep(tmp_path).read_bytes() == bytes(4)


def test_the_script_says_how_many_inputs_each_target_had() -> None:
    command = [sys.executable, str(ROOT / "scripts/fuzz"), "--seconds", "1", "--seed", "5", "--target", "packet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    seed, columns, row, total = done.stdout.splitlines()
    assert (seed, columns.split()) == ("seed 5", ["inputs", "taken", "found"])
    assert re.fullmatch(r"packet +[1-9][\d,]* +[\d,]+ +0", row)
    assert total.split()[-1] == "0"


def test_the_script_says_what_a_set_up_without_the_tests_packages_lacks(tmp_path: Path) -> None:
    (tmp_path / "hypothesis.py").write_text("raise ModuleNotFoundError(name='hypothesis')\n")
    command = [sys.executable, str(ROOT / "scripts/fuzz"), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (
        1,
        "fuzz: the Python package hypothesis is missing: scripts/setup dev installs it\n",
    )


def test_the_script_names_the_targets_that_there_are() -> None:
    command = [sys.executable, str(ROOT / "scripts/fuzz"), "--target", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr
