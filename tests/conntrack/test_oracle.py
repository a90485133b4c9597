"""The model held against this kernel's conntrack: odd conversations from a seed, packet by packet.

`scripts/oracle` does the same for as long as one likes, and prints the command that repeats a difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import count

import pytest
import skips
from conntrack_oracle import SETTINGS, Setting, compare, in_a_namespace, kernel_rules
from odd_conversations import Conversation
from places import ROOT
from real_conntrack import RealConntrack

from netlab.conntrack.kernels import SINCE_6_1, UNTIL_6_0, Rules
from netlab.conntrack.tracker import Tracker
from netlab.record.events import Direction, Packet
from netlab.record.wire import decode_ip

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

SECONDS = 3.5 if os.geteuid() == 0 else 1.0
"""Of each of the eight settings: half a minute in all, and less where root has done it before."""

SEED, MOST_CONVERSATIONS = 1, 2000
SETTING_NAMES = "loose,be_liberal,ignore_invalid_rst"

base = cache(kernel_rules)


@pytest.fixture(autouse=True)
def may_make_namespaces() -> None:
    """Skips where this user can't make a network namespace."""
    skips.skip_unless_userns()
    skips.skip_unless_capability("raw-sockets")


def played(setting: Setting, model: Rules, numbers: Iterator[int], seconds: float) -> tuple[int, list[str]]:
    """How many packets of these conversations were compared in about that time, and each difference in words."""

    def body(kernel: RealConntrack) -> str:
        report = compare(kernel, model, setting, SEED, numbers, time.monotonic() + seconds)
        told = [(f"conversation {each.conversation}", *each.what, *each.story) for each in report.differences]
        return json.dumps((report.packets, ["\n".join(lines) for lines in told]))

    packets, told = json.loads(in_a_namespace(body))
    return packets, told


def telling_apart(right: Rules, wrong: Rules) -> int:
    """The first conversation of which the two models differ."""
    for number in range(MOST_CONVERSATIONS):
        conversation = Conversation(SEED, number)
        trackers = Tracker(right), Tracker(wrong)
        while not conversation.over:
            segment = decode_ip(conversation.next(trackers[0].entry(conversation.header)))
            assert segment is not None
            one, other = (each.packet(Packet(0, "", "", Direction.IN, segment)) for each in trackers)
            if (one.outcome, one.log, one.state_after) != (other.outcome, other.log, other.state_after):
                return number
    raise AssertionError(f"none of {MOST_CONVERSATIONS} conversations tells them apart")


def oracle(*words: str) -> subprocess.CompletedProcess[str]:
    """`scripts/oracle` run to its end."""
    command = [sys.executable, str(ROOT / "scripts/oracle"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_model_agrees_with_this_kernel(setting: Setting) -> None:
    packets, differences = played(setting, base(), count(), SECONDS)
    assert differences == []
    assert packets > 64, "a round at least"


WRONG: dict[str, Callable[[Rules], Rules]] = {
    "fates": lambda rules: replace(rules, fates=UNTIL_6_0 if rules.forgiving else SINCE_6_1),
    "rst_unchecked": lambda rules: replace(rules, rst_unchecked=not rules.rst_unchecked),
    "reinit_by_syn_only": lambda rules: replace(rules, reinit_by_syn_only=not rules.reinit_by_syn_only),
    "syn_loses_scale": lambda rules: replace(rules, syn_loses_scale=not rules.syn_loses_scale),
    "passes_challenged_rst": lambda rules: replace(rules, passes_challenged_rst=not rules.passes_challenged_rst),
    "rst_answers_other_side": lambda rules: replace(rules, rst_answers_other_side=not rules.rst_answers_other_side),
    "logs_invalid_new": lambda rules: replace(rules, logs_invalid_new=not rules.logs_invalid_new),
    "max_retrans": lambda rules: replace(rules, max_retrans=4),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_is_wrong_in_one_thing_is_found_out(name: str) -> None:
    setting, wrong = SETTINGS[0], WRONG[name](base())
    number = telling_apart(setting.rules(base()), setting.rules(wrong))
    _, (told,) = played(setting, wrong, iter([number]), SECONDS)
    assert told.startswith(f"conversation {number}\n")


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
