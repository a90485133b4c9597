"""Each sentence of SECURITY.md has its test, for root's labs and for rootless ones."""

from __future__ import annotations

import re
import subprocess
import sys

from places import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
CLAIMS = re.sub(r"^#.*$|^A \*.*$", "", TEXT.partition("## Reporting")[0], flags=re.MULTILINE)
"""All that is said there: without headings, the meaning of words, and where to tell us."""

CLAIM = re.compile(r"(?:- )?([A-Z][^\n]*\.)\s+`(tests/[\w/]+\.py::test_\w+)`")


def test_each_sentence_has_a_test() -> None:
    assert CLAIM.sub("", CLAIMS).strip() == ""
    assert [sentence for sentence, _ in CLAIM.findall(CLAIMS) if ". " in sentence] == []


def test_each_test_is_one_for_root_and_for_others() -> None:
    named = [test for _, test in CLAIM.findall(CLAIMS)]
    files = sorted({test.partition("::")[0] for test in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for test in named:
        for privilege in ("--root", "--rootless"):
            assert re.search(rf"^{re.escape(test)}\[(.*-)?{privilege}(-.*)?\]$", collected, re.MULTILINE), test
