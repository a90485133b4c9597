"""Each sentence of SECURITY.md has its test, for root's labs and for rootless ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import Netlab
from places import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
CLAIMS = re.sub(r"^#.*$|^A \*.*$", "", TEXT.partition("## Why")[0], flags=re.MULTILINE)
"""All that is claimed there: without headings and the meaning of words."""

CLAIM = re.compile(r"(?:- )?([A-Z][^\n]*\.)\s+`(tests/[\w/]+\.py::test_\w+)`")


def collected(files: set[str], marked: str) -> list[str]:
    """The ids of the tests in these files that pytest finds, with their parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", marked]
    done = subprocess.run([*command, *sorted(files)], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_each_sentence_has_a_test() -> None:
    assert CLAIM.sub("", CLAIMS).strip() == ""
    assert [sentence for sentence, _ in CLAIM.findall(CLAIMS) if ". " in sentence] == []


def test_each_test_is_one_for_root_and_for_others() -> None:
    named = {test for _, test in CLAIM.findall(CLAIMS)}
    files = {test.partition("::")[0] for test in named}
    kernel, others = collected(files, "kernel"), collected(files, "not kernel")
    for test in named:
        if not any(re.fullmatch(rf"{re.escape(test)}(\[.*\])?", one) for one in others):
            for privilege in ("--root", "--rootless"):
                wanted = rf"{re.escape(test)}\[(.*-)?{privilege}(-.*)?\]"
                assert any(re.fullmatch(wanted, one) for one in kernel), (test, privilege)


@pytest.mark.parametrize("command", ["lint", "plan", "plan --format shell", "rules node", "up --dry-run"])
def test_a_topology_that_is_only_read_starts_nothing(netlab: Netlab, tmp_path: Path, command: str) -> None:
    file, started = tmp_path / "topology.yaml", tmp_path / "started"
    it = f"{{name: it, command: touch {started}, ready: {{command: touch {started}}}}}"
    file.write_text(
        f"namespaces: {{node: {{role: node, programs: [{it}]}}, pod: {{role: pod}}}}\n"
        "bridges: [{name: cni0, netns: node, ports: [pod]}]\nservices: {web: {port: 80, endpoints: [pod]}}\n"
    )
    done = netlab(*command.split(), file)
    assert done.returncode == 0, done.stderr
    assert not started.exists()


def test_the_plans_script_confines_nothing(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text("namespaces: {server: {programs: [{name: it, command: sleep 1000}]}}\n")
    script = netlab("plan", file, "--format", "shell").stdout
    assert re.search(r"^setsid ip netns exec \S*server sleep 1000 >", script, re.MULTILINE)
