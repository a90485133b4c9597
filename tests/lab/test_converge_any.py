"""From any lab to any other, cut short anywhere on the way: in the end the kernel has what a fresh build gives.

The changes are the same in every run; NETLAB_LAB_TEST_CONVERGE says how many there are, from which seed on with
NETLAB_LAB_TEST_CONVERGE_SEED.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import labs
import pytest
import skips
from any_lab import Chance
from command import Netlab
from kernel_says import as_the_kernel_says, diff

pytestmark = pytest.mark.kernel

CHANGES = int(os.environ.get("NETLAB_LAB_TEST_CONVERGE", "6"))
SEED = int(os.environ.get("NETLAB_LAB_TEST_CONVERGE_SEED", "1"))
CHAIN = 3
"""How many changes one lab goes through."""

CALLS = {"sendto": 30, "write": 12, "rename": 3, "setns": 60, "unshare": 5, "unlink": 3}
"""System calls of an `up` that changes a lab, and about how many of each it makes."""


def cut_short(lab: labs.Lab, chance: Chance) -> bool:
    """`netlab up`, killed on its way into some system call; whether it got so far."""
    call = chance.choice([*CALLS])
    where = f"{call}:signal=KILL:when={chance.randrange(1, CALLS[call])}"
    strace = ["strace", "-D", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
    command = [*strace, "-e", f"inject={where}", *lab.netlab.argv("up", lab.file, "--name", lab.name, lab.privilege)]
    quiet = subprocess.DEVNULL
    code = subprocess.run(
        command, env=lab.netlab.environment(), stdin=quiet, stdout=quiet, stderr=quiet, timeout=60
    ).returncode
    return code != 0


@pytest.mark.parametrize("number", range((CHANGES + CHAIN - 1) // CHAIN))
def test_any_change_of_any_lab_gives_what_a_fresh_build_gives(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, number: int
) -> None:
    for program in ("ip", "nft", "tc", "sysctl", "strace"):
        skips.skip_unless_program(program)
    skips.skip_unless_capability("tbf")
    chance = Chance(SEED * 1000 + number)
    text, _ = chance.topology()
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    fresh = labs.make(netlab, f"{lab_name}f", tmp_path, privilege, text)
    lab.up()
    assert lab.drift() == [], text
    for _ in range(CHAIN):
        before, (text, _) = text, chance.topology()
        lab.write(text)
        fresh.write(text)
        killed = cut_short(lab, chance)
        story = f"from {before}\nto {text}\nkilled: {killed}"
        lab.up()
        assert lab.drift() == [], story
        assert not lab.status()["changing"], story
        assert lab.up() == f"lab {lab_name} is up: nothing to do\n"
        fresh.up(*lab.kept())
        assert fresh.drift() == [], story
        difference = diff(as_the_kernel_says(lab), as_the_kernel_says(fresh))
        assert difference == "", f"{difference}\n{story}"
        fresh.down()
