"""The model held against this kernel's conntrack: odd conversations from a seed, packet by packet.

`scripts/oracle` does the same for as long as one likes, and prints the command that repeats a difference.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import pytest
import skips
from conntrack_oracle import SETTINGS, Report, Setting, compare, in_a_namespace, kernel_rules
from places import ROOT
from real_conntrack import RealConntrack

from netlab.conntrack.kernels import UNTIL_6_0, Rules

pytestmark = pytest.mark.kernel

SECONDS = 3.5
"""Of each of the eight settings: half a minute in all."""

SLICE_S = 0.25
SETTING_NAMES = "loose,be_liberal,ignore_invalid_rst"

base = cache(kernel_rules)


@pytest.fixture(autouse=True)
def may_make_namespaces() -> None:
    """Skips where this user can't make a network namespace."""
    skips.skip_unless_userns()
    skips.skip_unless_capability("raw-sockets")


def played(setting: Setting, model: Rules, seconds: float, *, to_the_first: bool = False) -> tuple[int, list[str]]:
    """How many packets were compared in that time, or until one differs, and each difference in words."""

    def body(kernel: RealConntrack) -> str:
        total, numbers, deadline = Report(), count(), time.monotonic() + seconds
        while time.monotonic() < deadline and not (to_the_first and total.differences):
            total.add(compare(kernel, model, setting, 1, numbers, time.monotonic() + SLICE_S))
        told = [(f"conversation {each.conversation}", *each.what, *each.story) for each in total.differences]
        return json.dumps((total.packets, ["\n".join(lines) for lines in told]))

    packets, told = json.loads(in_a_namespace(body))
    return packets, told


def oracle(*words: str) -> subprocess.CompletedProcess[str]:
    """`scripts/oracle` run to its end."""
    command = [sys.executable, str(ROOT / "scripts/oracle"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_model_agrees_with_this_kernel(setting: Setting) -> None:
    packets, differences = played(setting, base(), SECONDS)
    assert differences == []
    assert packets > 64, "a round at least"


@pytest.mark.parametrize(
    "wrong",
    [
        {"fates": UNTIL_6_0},
        {"rst_unchecked": False},
        {"reinit_by_syn_only": False},
        {"passes_challenged_rst": False},
        {"rst_answers_other_side": False},
        {"max_retrans": 4},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_model_that_is_wrong_in_one_thing_is_found_out(wrong: dict[str, Any]) -> None:
    _, differences = played(SETTINGS[0], replace(base(), **wrong), 15.0, to_the_first=True)
    assert differences


def test_the_script_prints_what_was_compared() -> None:
    done = oracle("--seconds", "1", "--setting", "1,0,0", "--seed", "3")
    assert (done.returncode, done.stderr) == (0, "")
    title, columns, row, total = done.stdout.splitlines()
    assert title == "seed 3"
    assert columns.split() == [SETTING_NAMES, "packets", "a", "second", "conversations", "differ"]
    assert row.split()[0] == "1,0,0"
    assert row.split()[1:] == total.split()[2:]
    assert total.split()[-1] == "0"


def test_the_script_repeats_one_conversation() -> None:
    done = oracle("--setting", "0,0,0", "--conversation", "7")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].split()[-2:] == ["1", "0"]
