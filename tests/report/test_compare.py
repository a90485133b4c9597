"""The same experiment without a fix and with some, side by side."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pictures
import pytest
from chromium import Browser
from command import Netlab
from html_files import Document
from places import ROOT, TOPOLOGIES

from netlab.analysis.findings import Findings, analyse
from netlab.analysis.result import Outcome, Result
from netlab.report import compare
from netlab.report.html.compare import render

FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"


def one(events: list[Any], *fixes: str, expected: Outcome) -> tuple[Result, Findings]:
    """A hand-made run of the flagship's experiment, which is reset without a fix."""
    partly: dict[str, Any] = {} if expected is Outcome.COMPLETED else {"bytes_received": 2304, "ended": False}
    result, recording = pictures.run(events, fixes=fixes, **partly)
    return replace(result, expected=expected, plain=Outcome.RESET), analyse(recording)


RUNS = (
    one(pictures.reset(), expected=Outcome.RESET),
    one(pictures.dropped(), "drop-invalid", expected=Outcome.COMPLETED),
    one(pictures.accepted(), "be-liberal", expected=Outcome.COMPLETED),
    one(pictures.reset(), "nftables-mode", expected=Outcome.RESET),
    one(pictures.stalled(), "drop-invalid", "nftables-mode", expected=Outcome.STALLED),
)
RESULTS = [result for result, _ in RUNS]


def test_each_run_has_a_headline_and_says_why() -> None:
    assert (
        compare.render(RESULTS, 80)
        == """\
window-overrun in lab kube-proxy-reset, kernel 6.18.44

plain: REPRODUCED 1/1
  The connection is reset in the one trial.

drop-invalid: PREVENTED 1/1 completed
  With drop-invalid the connection survives in the one trial.
  The packet was INVALID on client-node again, but it was dropped there: client
  never saw it and sent no RST. server sent the data again, and that was let
  through.

be-liberal: PREVENTED 1/1 completed
  With be-liberal the connection survives in the one trial.
  The packet was not INVALID: NAT gave it the Service's address, and client
  accepted it.

nftables-mode: NOT PREVENTED 1/1 reset
  With nftables-mode the connection is still reset in the one trial.
  nftables-mode changed nothing of what led to it.

drop-invalid+nftables-mode: NOT PREVENTED 1/1 stalled
  With drop-invalid and nftables-mode the connection stalls in the one trial.
  Nothing that is dropped reaches client, and what is sent again is dropped,
  too.
"""
    )


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (RESULTS[:2], "Without a fix the connection is reset in the one trial; drop-invalid prevents it."),
        (
            RESULTS[:4],
            "Without a fix the connection is reset in the one trial; drop-invalid and be-liberal prevent it; "
            "nftables-mode does not help.",
        ),
    ],
)
def test_all_runs_in_one_sentence(runs: list[Result], said: str) -> None:
    assert compare.outcome(runs) == said


def test_the_page_has_each_run_beside_the_others() -> None:
    document = Document(render(RUNS[:3]))
    assert [text for _, text in document.all("h1")] == [compare.outcome(RESULTS[:3])]
    assert [text for _, text in document.all("h2")][:3] == ["plain", "drop-invalid", "be-liberal"]
    assert len([1 for attrs, _ in document.all("svg") if attrs.get("class") == "post"]) == 3
    assert "--compare drop-invalid,be-liberal --trials 1" in document.section("repeat")
    ids = [attrs["id"] for _, attrs, _ in document.elements if attrs.get("id")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_the_page_shows(browser: Browser, tmp_path: Path, width: int) -> None:
    file = tmp_path / "compare.html"
    file.write_text(render(RUNS[:3]), encoding="utf-8")
    browser.open(file, width)
    assert browser.complaints() == []
    assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    lefts = browser.value('[...document.querySelectorAll("article")].map(card => card.getBoundingClientRect().left)')
    assert (len(set(lefts)) == 3) is (width >= 1280)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--compare", "nosuch"], "netlab: there is no fix 'nosuch'\n"),
        (["--compare", "drop-invalid", "--fix", "be-liberal"], "netlab: --compare makes several runs, and --fix is"),
        (["--compare", "drop-invalid", "--ladder"], "netlab: --compare makes several runs, and --ladder is"),
    ],
)
def test_what_cannot_be_compared(netlab: Netlab, arguments: list[str], said: str) -> None:
    done = netlab("run", FLAGSHIP, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)


@pytest.mark.inside
@pytest.mark.kernel
def test_run_compares(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    file = tmp_path / "compare.html"
    arguments: list[str | Path] = ["--name", lab_name, privilege, "--trials", "1", "--format", "json", "--html", file]
    done = netlab("run", FLAGSHIP, "--compare", "drop-invalid,be-liberal", *arguments)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run["fixes"] for run in runs] == [[], ["drop-invalid"], ["be-liberal"]]
    assert [run["trials"][0]["outcome"] for run in runs] == ["reset", "completed", "completed"]
    assert runs[1]["why"].startswith("The packet was INVALID on client-node again, but it was dropped there")
    assert runs[2]["why"].startswith("The packet was not INVALID")
    document = Document(file.read_text(encoding="utf-8"))
    assert [text for _, text in document.all("h2")][:3] == ["plain", "drop-invalid", "be-liberal"]
    assert netlab("status", lab_name).returncode != 0


@pytest.mark.kernel
@pytest.mark.inside
def test_the_pictures_of_the_documentation_are_made_by_one_command(tmp_path: Path) -> None:
    """Those in docs/pictures, and the README shows them."""
    done = subprocess.run([ROOT / "scripts/screenshots", tmp_path], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_bytes()[:4] for file in tmp_path.iterdir()}
    assert set(made) == {file.name for file in (ROOT / "docs/pictures").iterdir()}
    assert set(made.values()) == {b"\x89PNG"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in made if f"docs/pictures/{name}" not in readme] == []
