"""The table of a hand-made matrix as text, JSON and HTML, and what each cell of it stands for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tables
from chromium import Browser
from flagship import FLAGSHIP
from html_files import Document
from places import DOCS

from netlab.analysis.result import Outcome
from netlab.capabilities.capability import Capability
from netlab.errors import UsageError
from netlab.experiments.catalogue import Run, runs
from netlab.matrix import Cell, Column, Standing, grid
from netlab.report import matrix as text
from netlab.report import matrix_html, matrix_json
from netlab.style import Style, plain

# --- text ------------------------------------------------------------------------------------------------------------


def test_the_table() -> None:
    made = tables.matrix(settings=(("kube_proxy.mode", "nftables"), ("vars.client_window", "8192")))
    assert (
        text.render(made, 110)
        == """\
kube-proxy-reset, kube_proxy.mode=nftables, vars.client_window=8192: each cell run once, in labs of their own;
kernel 6.18.44

cause            plain        drop-invalid   be-liberal    drop-
                                                           invalid-
                                                           where-not-
                                                           liberal
----------------------------------------------------------------------
window-overrun   reset        completed      inconclusive  completed *
                 10i 0r 0.2s  0i 26r 1.2s    0i 0r 0.2s    0i 26r 1.2s
path-flip        reset        stalled !      inconclusive  skipped
                 10i 0r 0.2s  120i 0r 10.0s
late-retransmit  skipped      skipped        skipped       skipped

2i 1r 0.3s: two packets that conntrack found INVALID, one segment sent again, 0.3 seconds. !: not as expected.
*: nothing was expected.

inconclusive: window-overrun, be-liberal: missing: 3 events lost by the packets on client/eth0
unexpected: path-flip, drop-invalid: stalled; expected: completed
inconclusive: path-flip, be-liberal: its process was ended by signal 9
skipped: path-flip, drop-invalid-where-not-liberal: the lab has no such fix
skipped: late-retransmit, all: needs netem: Specified qdisc kind is unknown.

12 cells: 3 as expected, 1 unexpected, 1 with nothing expected, 2 inconclusive, 5 skipped
"""
    )


def test_a_table_wider_than_the_page_goes_on_below() -> None:
    assert (
        text.render(replace(tables.matrix("late-retransmit"), rootless=True), width=50)
        == """\
kube-proxy-reset: each cell run once, in rootless
labs of their own; kernel 6.18.44

cause            plain    drop-    be-
                          invalid  liberal
------------------------------------------
late-retransmit  skipped  skipped  skipped

cause            drop-
                 invalid-
                 where-
                 not-
                 liberal
-------------------------
late-retransmit  skipped

2i 1r 0.3s: two packets that conntrack found
INVALID, one segment sent again, 0.3 seconds.

skipped: late-retransmit, all: needs netem:
  Specified qdisc kind is unknown.

4 cells: 0 as expected, 0 unexpected, 0
inconclusive, 4 skipped
"""
    )


LONG = "x" * 60


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("rename", ["drop-invalid-{}", LONG + "{}", "a+b-{}-" + LONG])
def test_no_line_of_a_table_is_wider_than_the_page_whatever_is_called_how(width: int, rename: str) -> None:
    made = tables.matrix("window-overrun")
    columns = tuple(Column(rename.format(number)) for number in range(12))
    cells = tuple(
        replace(made.cells[number % 4], experiment=LONG, fix=column.fix) for number, column in enumerate(columns)
    )
    wide = replace(made, columns=columns, rows=(replace(made.rows[0], experiment=LONG),), cells=cells)
    lines = text.render(wide, width).splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]
    told = "".join("".join(line.split()) for line in lines)
    assert LONG[:28] in told


def test_cells_are_styled_as_they_ended_and_nothing_else_changes() -> None:
    made = tables.matrix()
    pieces = list(text.pieces(made))
    assert plain(pieces) == text.render(made)
    styles = {piece.text: piece.style for piece in pieces if piece.style}
    assert styles["reset"] is Style.BAD
    assert styles["stalled !"] is Style.UNSURE
    assert styles["completed"] is styles["completed *"] is Style.GOOD
    assert styles["skipped"] is styles["10i 0r 0.2s"] is Style.QUIET


def test_several_trials_are_counted() -> None:
    trials = (tables.RESET, tables.INCONCLUSIVE, tables.COMPLETED)
    made = tables.with_trials(tables.matrix("window-overrun"), *trials)
    assert (
        text.render(made, 110)
        == """\
kube-proxy-reset: each cell run 3 times, in labs of their own; kernel 6.18.44

cause           plain           drop-        be-liberal    drop-
                                invalid                    invalid-
                                                           where-not-
                                                           liberal
----------------------------------------------------------------------
window-overrun  1 reset         completed    inconclusive  completed *
                1 completed     0i 26r 1.2s  0i 0r 0.2s    0i 26r 1.2s
                1 inconclusive
                10i 26r 1.8s

2i 1r 0.3s: two packets that conntrack found INVALID, one segment sent again, 0.3 seconds. *: nothing was
expected.

inconclusive: window-overrun, plain: missing in 1 of 3 trials: 3 events lost by the packets on client/eth0
inconclusive: window-overrun, be-liberal: missing: 3 events lost by the packets on client/eth0

4 cells: 1 as expected, 0 unexpected, 1 with nothing expected, 2 inconclusive, 0 skipped
"""
    )


# --- what it stands for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "standing"),
    [
        (Cell("e", "plain", Outcome.RESET, (tables.RESET, tables.RESET)), Standing.AS_EXPECTED),
        (Cell("e", "plain", Outcome.RESET, (tables.RESET, tables.COMPLETED)), Standing.UNEXPECTED),
        (Cell("e", "plain", Outcome.STALLED, (tables.STALLED,)), Standing.AS_EXPECTED),
        (Cell("e", "plain", Outcome.COMPLETED, (tables.STALLED,)), Standing.UNEXPECTED),
        (Cell("e", "plain", None, (tables.STALLED,)), Standing.NOTHING_EXPECTED),
        (Cell("e", "plain", Outcome.RESET, (tables.COMPLETED, tables.INCONCLUSIVE)), Standing.INCONCLUSIVE),
        (Cell("e", "plain", Outcome.RESET, failed="the kernel refused"), Standing.INCONCLUSIVE),
        (Cell("e", "plain", Outcome.RESET), Standing.INCONCLUSIVE),
        (Cell("e", "plain", Outcome.RESET, skipped="needs netem"), Standing.SKIPPED),
    ],
)
def test_the_standing_of_a_cell(cell: Cell, standing: Standing) -> None:
    assert cell.standing is standing


def test_the_exit_code_is_the_worst_cells() -> None:
    made = tables.matrix()
    by_standing: dict[Standing, Cell] = {cell.standing: cell for cell in made.cells}
    good, skipped = by_standing[Standing.AS_EXPECTED], by_standing[Standing.SKIPPED]
    bad, unclear = by_standing[Standing.UNEXPECTED], by_standing[Standing.INCONCLUSIVE]
    told = by_standing[Standing.NOTHING_EXPECTED]
    codes = {
        replace(made, cells=cells).exit_code(): cells
        for cells in (
            (good, skipped, told),
            (good, unclear, bad, skipped),
            (good, unclear, skipped),
            (skipped, skipped),
        )
    }
    assert list(codes) == [0, 1, 3, 77]


# --- the cells before they are run --------------------------------------------------------------------------------


def shipped(*settings: tuple[str, str]) -> list[Run]:
    return runs(FLAGSHIP.read_text(), str(FLAGSHIP), settings)


TCP_REPAIR = {"tcp-repair": Capability("tcp-repair", True, "a socket's window can be set")}


def test_plain_comes_first_and_the_other_columns_as_asked() -> None:
    across = grid.columns(shipped(), ["be-liberal", "plain", "drop-invalid+be-liberal"])
    assert [column.fix for column in across] == ["plain", "be-liberal", "drop-invalid+be-liberal"]
    with pytest.raises(UsageError, match=r"there is no fix 'be-liberl'\n  hint: did you mean 'be-liberal'\?"):
        grid.columns(shipped(), ["be-liberl"])
    with pytest.raises(UsageError, match=r"--fix be-liberal\+be-liberal has a fix twice"):
        grid.columns(shipped(), ["be-liberal+be-liberal"])


def test_a_name_that_no_experiment_has() -> None:
    with pytest.raises(UsageError, match="there is no experiment 'window-overran'"):
        grid.chosen(shipped(), ["window-overran"], "topology.yaml")


def test_a_cell_that_cannot_be_played_says_why() -> None:
    run = grid.chosen(shipped(), ["window-overrun"], "")[0]
    needing = run._replace(experiment=run.experiment._replace(needs=("netem",)))
    found = {**TCP_REPAIR, "netem": Capability("netem", False, "unknown qdisc")}
    across = (Column("plain"), Column("be-liberal"), Column("another-topologys"))
    table = grid.grid([run, needing], across, found)
    assert [(task.number, task.cell.fix, task.fixes, task.cell.expected) for task in table.tasks] == [
        (1, "plain", (), "reset"),
        (2, "be-liberal", ("be-liberal",), "completed"),
    ]
    assert {number: cell.skipped for number, cell in table.skipped.items()} == {
        3: "there is no fix 'another-topologys'",
        4: "needs netem: unknown qdisc",
        5: "needs netem: unknown qdisc",
        6: "there is no fix 'another-topologys'",
    }


def test_a_fix_of_the_topologys_own_has_a_column() -> None:
    own = "fixes:\n  wide: {summary: a wide window, set: {vars.client_window: 1048576}}\n"
    made = runs(f"{FLAGSHIP.read_text()}\n{own}", str(FLAGSHIP))
    across = grid.columns(made, [])
    assert across[-1] == Column("wide", "a wide window")
    table = grid.grid(made[:1], across, TCP_REPAIR)
    assert [task.fixes for task in table.tasks][-1] == ("wide",)
    sysctls = [dict(task.topology.netns("client").sysctls)["net.ipv4.tcp_rmem"] for task in table.tasks]
    assert (sysctls[0], sysctls[-1]) == ("4096 4096 4096", "4096 1048576 1048576")


def test_what_a_table_is_known_by_changes_with_its_inputs() -> None:
    across = grid.columns(shipped(), [])
    own = grid.fingerprint(shipped(), across, ())
    assert own == grid.fingerprint(shipped(), across, ())
    other = grid.fingerprint(shipped()[:1], across[:1], (("experiment.payload_bytes", "5000"),))
    assert [word for word in own if own[word] != other[word]] == [
        "topology and experiments",
        "settings",
        "choice of experiments",
        "choice of fixes",
    ]


# --- JSON ------------------------------------------------------------------------------------------------------------

DOCUMENT = DOCS / "matrix.md"


def rendered(settings: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(matrix_json.render(tables.matrix(settings=settings)))
    return found


def test_json_of_the_table() -> None:
    made = rendered((("kube_proxy.mode", "nftables"),))
    cells = made.pop("cells")
    experiments = made.pop("experiments")
    assert made == {
        "format": 1,
        "lab": "kube-proxy-reset",
        "rootless": False,
        "settings": ["kube_proxy.mode=nftables"],
        "kernel": "6.18.44",
        "trials": 1,
        "capabilities": {"netem": {"there": False, "reason": "Specified qdisc kind is unknown."}},
        "fixes": [
            {"name": "plain", "summary": ""},
            {"name": "drop-invalid", "summary": "what drop-invalid does"},
            {"name": "be-liberal", "summary": "what be-liberal does"},
            {"name": "drop-invalid-where-not-liberal", "summary": "what drop-invalid-where-not-liberal does"},
        ],
        "standings": {"as-expected": 3, "unexpected": 1, "nothing-expected": 1, "inconclusive": 2, "skipped": 5},
    }
    assert experiments[0] == {
        "name": "window-overrun",
        "claim": "What window-overrun shows.",
        "explanation": "Why window-overrun\nis so.\n",
    }
    assert len(cells) == 12
    (trial,) = cells[5].pop("trials")
    assert cells[5] == {
        "experiment": "path-flip",
        "fix": "drop-invalid",
        "standing": "unexpected",
        "expected": "completed",
        "outcomes": dict.fromkeys(Outcome, 0) | {"stalled": 1},
        "skipped": None,
        "failed": None,
        "missing": [],
        "invalid": 120,
        "retransmits": 0,
        "duration_s": 10.0,
    }
    assert (trial["number"], trial["outcome"], trial["invalid"]) == (1, "stalled", 120)
    assert (cells[2]["missing"], cells[6]["failed"]) == ([tables.LOST], "its process was ended by signal 9")
    assert (cells[8]["skipped"], cells[8]["trials"]) == (tables.NO_NETEM, [])


def test_the_page_of_the_json_has_each_member() -> None:
    made = rendered()
    members = {*made, *made["cells"][0]}
    first_columns = re.findall(r"^\| (`.*?`) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {name for column in first_columns for name in re.findall(r"`([a-z_]+)`", column)} == members


# --- HTML ------------------------------------------------------------------------------------------------------------


def page() -> Document:
    return Document(matrix_html.render(tables.matrix()))


def test_the_page_says_what_the_text_says() -> None:
    document = page()
    account = "3 of 12 cells as expected, 1 unexpected, 1 with nothing expected, 2 inconclusive, 5 skipped"
    assert [(attrs["class"], said) for attrs, said in document.all("h1")] == [("unexpected", account)]
    cells = [(attrs["data-name"], said) for attrs, said in document.all("td")][:12]
    assert cells == [
        ("plain", "reset10 INVALID, 0 sent again, 0.2 s"),
        ("drop-invalid", "completed0 INVALID, 26 sent again, 1.2 s"),
        ("be-liberal", "inconclusive0 INVALID, 0 sent again, 0.2 s"),
        ("drop-invalid-where-not-liberal", "completed nothing expected0 INVALID, 26 sent again, 1.2 s"),
        ("plain", "reset10 INVALID, 0 sent again, 0.2 s"),
        ("drop-invalid", "stalled expected: completed120 INVALID, 0 sent again, 10.0 s"),
        ("be-liberal", "not run inconclusive"),
        ("drop-invalid-where-not-liberal", "skipped"),
        *((fix, "skipped") for fix in tables.FIXES),
    ]


def test_each_cell_leads_to_its_details() -> None:
    document = page()
    links = [attrs["href"] for attrs, _ in document.all("a") if "cell" in (attrs.get("class") or "").split()]
    assert links == [f"#cell-{number}" for number in range(1, 13)]
    details = {attrs["id"]: said for attrs, said in document.all("details")}
    assert [f"#{name}" for name in details] == links
    assert details["cell-6"].startswith("With drop-invalid: stalled (unexpected)Expected: completed.")
    assert details["cell-3"].startswith(f"With be-liberal: inconclusiveExpected: completed.missing: {tables.LOST}")
    assert details["cell-7"] == (
        "With be-liberal: not run (inconclusive)Expected: completed.its process was ended by signal 9"
    )
    assert details["cell-9"] == f"Without a fix: skippedCan't be run here: {tables.NO_NETEM}"
    assert "The reply reaches the client without NAT" in details["cell-1"]


def test_each_cause_has_its_claim_and_explanation() -> None:
    document = page()
    section = document.section("cause-path-flip")
    assert section.startswith("path-flipWhat path-flip shows.Why path-flip\nis so.")
    assert [said for _, said in document.all("h2")] == [
        "Every cause, every fix",
        "window-overrun",
        "path-flip",
        "late-retransmit",
        "The fixes",
        "What this kernel can do",
        "Words",
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The page as a file."""
    file = tmp_path / "matrix.html"
    file.write_text(matrix_html.render(tables.matrix()), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [1280, 360])
def test_it_shows_and_nothing_is_wider_than_the_page(browser: Browser, written: Path, width: int) -> None:
    browser.open(written, width)
    assert browser.complaints() == []
    assert browser.requests() == [written.as_uri()]
    assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    shown = browser.value(
        '[...document.querySelectorAll(".matrix .cell")].filter(cell => cell.checkVisibility()).length'
    )
    assert shown == 12
    # On a narrow screen each cell says its column's name itself.
    heads = browser.value('getComputedStyle(document.querySelector(".matrix thead")).position')
    assert heads == ("static" if width == 1280 else "absolute")


def test_a_cells_link_opens_its_details(browser: Browser, written: Path) -> None:
    browser.open(written, 1280, fragment="#cell-6")
    open_ones = 'JSON.stringify([...document.querySelectorAll("details[open]")].map(each => each.id))'
    assert json.loads(browser.value(open_ones)) == ["cell-6"]
