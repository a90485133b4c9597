"""Every experiment with every fix, one table: what was expected of each cell, and what was seen. Pure values.

`grid.py` makes the cells of a table and says which can't be run here, `run.py` runs them in labs of their own,
`journal.py` keeps what is done; the table is printed by `report/matrix.py` and its siblings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from netlab.analysis.result import Outcome, TrialResult
from netlab.capabilities.capability import Capability


class Standing(StrEnum):
    """How what was seen in a cell stands to what was expected of it."""

    AS_EXPECTED = "as-expected"
    UNEXPECTED = "unexpected"
    NOTHING_EXPECTED = "nothing-expected"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Cell:
    """One experiment with one fix.

    fix is as the column is called: "plain", a fix's name, or several as "a+b". expected is the outcome that the
    experiment's document expects on this kernel, None where it says nothing. skipped is why the cell can't be run
    here; failed what kept it from being run to its end, though it could be. Both are empty where trials are there.
    """

    experiment: str
    fix: str
    expected: Outcome | None = None
    trials: tuple[TrialResult, ...] = ()
    skipped: str = ""
    failed: str = ""

    @property
    def standing(self) -> Standing:
        """Inconclusive as soon as one trial is; a stalled trial is one that told."""
        if self.skipped:
            return Standing.SKIPPED
        if self.failed or not self.trials or self.count(Outcome.INCONCLUSIVE):
            return Standing.INCONCLUSIVE
        if self.expected is None:
            return Standing.NOTHING_EXPECTED
        return Standing.AS_EXPECTED if self.count(self.expected) == len(self.trials) else Standing.UNEXPECTED

    def count(self, outcome: Outcome) -> int:
        """How many trials ended so."""
        return sum(trial.outcome is outcome for trial in self.trials)

    @property
    def invalid(self) -> int:
        """How many packets conntrack found INVALID, in all trials."""
        return sum(trial.invalid for trial in self.trials)

    @property
    def retransmits(self) -> int:
        """How many segments were sent again, in all trials."""
        return sum(trial.retransmits for trial in self.trials)

    @property
    def duration_s(self) -> float:
        """How long all trials took together."""
        return sum(trial.duration_s for trial in self.trials)

    def missing(self) -> Counter[str]:
        """What the inconclusive trials lack, each piece once with the number of trials that lack it."""
        lacking = (trial.missing for trial in self.trials if trial.outcome is Outcome.INCONCLUSIVE)
        return Counter(piece for missing in lacking for piece in missing)


@dataclass(frozen=True, slots=True)
class Row:
    """An experiment: its name, its claim in one sentence, and why the kernel does so (may be empty)."""

    experiment: str
    claim: str
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A fix, or "plain"; summary says in a line what it does."""

    fix: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The whole table. cells are row by row, each row in the order of the columns; none is missing.

    settings are the `--set` pairs of every topology involved, trials is how often each cell was to be run,
    kernel `uname -r`. capabilities are those that an experiment needs or expects by, as they were found.
    """

    lab: str
    kernel: str
    rootless: bool
    settings: tuple[tuple[str, str], ...]
    trials: int
    capabilities: tuple[Capability, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]

    def cell(self, row: Row, column: Column) -> Cell:
        """The cell of that row and column."""
        return self.cells[self.rows.index(row) * len(self.columns) + self.columns.index(column)]

    def count(self, standing: Standing) -> int:
        """How many cells stand so."""
        return sum(cell.standing is standing for cell in self.cells)

    def exit_code(self) -> int:
        """1 where a cell is unexpected, else 3 where one is inconclusive, 77 where all are skipped, else 0."""
        if self.count(Standing.UNEXPECTED):
            return 1
        if self.count(Standing.INCONCLUSIVE):
            return 3
        return 77 if self.count(Standing.SKIPPED) == len(self.cells) else 0
