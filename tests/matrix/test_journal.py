"""What of a matrix is written down, and read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.analysis.result import Outcome
from netlab.errors import UsageError
from netlab.matrix import Cell
from netlab.matrix.journal import Journal

INPUTS = {"number of trials": "1"}
CELLS = [Cell("a", "plain", Outcome.RESET, failed="x"), Cell("a", "notrack", skipped="y"), Cell("b", "plain")]


def journal(root: Path, *, resume: bool) -> Journal:
    return Journal(root, "lab", INPUTS, resume=resume)


def test_what_was_done_is_there_again(tmp_path: Path) -> None:
    with journal(tmp_path / "run", resume=False) as first:
        first.add(CELLS[0])
    with journal(tmp_path / "run", resume=True) as second:
        assert second.cells == CELLS[:1]
        second.add(CELLS[1])
    with journal(tmp_path / "run", resume=True) as third:
        assert third.cells == CELLS[:2]
        third.complete()
    assert not (tmp_path / "run").exists()


def test_a_line_that_was_cut_off_goes_and_others_follow(tmp_path: Path) -> None:
    with journal(tmp_path / "run", resume=False) as first:
        first.add(CELLS[0])
        first.add(CELLS[1])
    (file,) = (tmp_path / "run").glob("*.matrix")
    file.write_bytes(file.read_bytes()[:-20])
    with journal(tmp_path / "run", resume=True) as second:
        assert second.cells == CELLS[:1]
        second.add(CELLS[2])
    with journal(tmp_path / "run", resume=True) as third:
        assert third.cells == [CELLS[0], CELLS[2]]


def test_what_cannot_be_understood_is_said(tmp_path: Path) -> None:
    with journal(tmp_path / "run", resume=False) as first:
        first.add(CELLS[0])
    (file,) = (tmp_path / "run").glob("*.matrix")
    file.write_bytes(file.read_bytes() + b"{}\n")
    with pytest.raises(UsageError) as caught, journal(tmp_path / "run", resume=True):
        pass
    assert str(caught.value) == f"{file} can't be understood: None, not Cell\n  hint: leave out --resume to start over"


@pytest.mark.parametrize("resume", [False, True])
def test_a_users_own_file_of_that_name_stays_as_it_is(tmp_path: Path, resume: bool) -> None:
    mine = tmp_path / "lab.matrix"
    mine.write_text("1 0\n0 1")
    with pytest.raises(UsageError) as caught, journal(tmp_path, resume=resume):
        pass
    assert str(caught.value) == f"{mine} isn't an interrupted matrix's\n  hint: move it away"
    assert mine.read_text() == "1 0\n0 1"
