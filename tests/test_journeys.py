"""The journeys of the pages, played: each command of a page does what the page shows.

A page's numbers are of one run: here any number stands for any other, `…` for anything, and a blank for any blanks.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import skips
from command import Netlab
from markdown import blocks, steps
from places import DOCS

NAME = "kube-proxy-reset"
JOURNEYS = ("start", "production", "hypothesis")
"""The pages that are played from the first command to the last, in a directory of their own."""


def test_what_is_masked() -> None:
    assert matches("a 1,000.5 ms\n…\n|--- 3 --->|", "a 7 ms\nany\nthing\n|- 44 ->|")
    assert not matches("a 1 b", "a 1 c")
    assert not matches("a", "a and more")
    assert not matches("first\n…\nlast", "last first")


def matches(told: str, seen: str) -> bool:
    """Whether what a page tells of a command is what was seen."""
    return bool(re.fullmatch(".*?".join(map(re.escape, _masked(told).split("…"))), _masked(seen)))


def _masked(text: str) -> str:
    text = re.sub(r"\d[\d,.]*", "0", text)
    text = re.sub(r"-{2,}", "-", text)
    return re.sub(r"\s*…\s*", "…", re.sub(r"\s+", " ", text)).strip()


@pytest.mark.kernel
@pytest.mark.parametrize("page", JOURNEYS)
def test_a_journey(page: str, netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    skips.skip_unless_userns()
    for program in ("ping", "nft", "curl"):
        skips.skip_unless_program(program)
    for capability in ("forgives-small-overshoot", "tcp-repair"):
        skips.skip_unless_capability(capability)
    played = 0
    status = 0
    for block in blocks((DOCS / f"{page}.md").read_text()):
        if named := re.match(r"# ([\w.-]+)\n", block.text):
            (tmp_path / named[1]).write_text(block.text)
        for command, told in steps(block.text) if block.language == "console" else ():
            if command == "echo $?":
                assert told == f"{status}\n", f"{page}.md:{block.line}"
                continue
            done = _play(netlab, command, lab_name, tmp_path)
            seen, status = (done.stdout + done.stderr).replace(lab_name, NAME), done.returncode
            assert matches(told, seen), f"{page}.md:{block.line}: $ {command}\n{seen}"
            played += 1
    assert played > 3
    assert netlab("status").stdout == "no lab is up\n"


@pytest.mark.kernel
def test_two_terminals(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    """As a journey, but `explain` goes on beside the commands after it, until one of them is reset."""
    skips.skip_unless_userns()
    skips.skip_unless_program("curl")
    for capability in ("forgives-small-overshoot", "tcp-repair"):
        skips.skip_unless_capability(capability)
    page = (DOCS / "two-terminals.md").read_text()
    told_of = [step for block in blocks(page) if block.language == "console" for step in steps(block.text)]
    with ExitStack() as stack:
        second: list[tuple[subprocess.Popen[str], str]] = []
        for command, told in told_of:
            if "explain" in command:
                argv = netlab.argv(*command.split()[1:-1], lab_name)
                process = subprocess.Popen(
                    argv, env=netlab.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                stack.enter_context(process)
                stack.callback(process.kill)
                assert process.stdout is not None
                first = process.stdout.readline().replace(lab_name, NAME)
                assert matches(told.splitlines()[0], first)
                second.append((process, told))
                continue
            done = _play(netlab, command, lab_name, tmp_path)
            seen = (done.stdout + done.stderr).replace(lab_name, NAME)
            assert matches(told, seen), f"$ {command}\n{seen}"
            if done.returncode and second:
                process, told = second.pop()
                rest, _ = process.communicate(timeout=60)
                assert matches("".join(told.splitlines(keepends=True)[1:]), rest), rest
        assert not second
    assert netlab("status").stdout == "no lab is up\n"


def _play(netlab: Netlab, command: str, lab: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A command of a page, in the test's own lab."""
    program, verb, *words = shlex.split(command)
    assert program == "netlab", command
    own = ["--name", lab] if verb in ("up", "run") else []
    words = words if own else [lab if word == NAME else word for word in words]
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    return netlab(verb, *own, *words, cwd=directory, env=path)
