"""A Matrix for a terminal: the table, what its marks mean, and what is to be said of single cells. Pure.

ASCII only. A table that is wider than the page goes on below, the other columns first; names that are too long break.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from netlab.analysis.result import Outcome
from netlab.matrix import Cell, Column, Matrix, Standing
from netlab.report.wrapping import wrap
from netlab.style import Piece, Style, plain

_GAP = "  "
_LONGEST_NAME = 28
"""Columns for the causes: all that netlab comes with have room."""
_LONGEST_FIX = 26
"""And for a fix."""


def render(matrix: Matrix, width: int = 80) -> str:
    """The whole text, ending in a newline. width is in columns; a table of one fix needs no more than 60."""
    return plain(pieces(matrix, width))


def pieces(matrix: Matrix, width: int = 80) -> Iterator[Piece]:
    """The same, its cells styled."""
    yield Piece("\n".join([*wrap(setting(matrix), width), "", ""]))
    for columns in _pages(matrix, width):
        yield from _table(matrix, columns)
        yield Piece("\n")
    lines = [*wrap(_legend(matrix), width), ""]
    remarks = list(_remarks(matrix, width))
    lines += [*remarks, ""] if remarks else []
    yield Piece("\n".join([*lines, *wrap(account(matrix), width)]) + "\n")


def _legend(matrix: Matrix) -> str:
    words = ["2i 1r 0.3s: two packets that conntrack found INVALID, one segment sent again, 0.3 seconds."]
    if matrix.count(Standing.UNEXPECTED):
        words.append("!: not as expected.")
    if matrix.count(Standing.NOTHING_EXPECTED):
        words.append("*: nothing was expected.")
    return " ".join(words)


def setting(matrix: Matrix) -> str:
    """What was run, and where."""
    times = "once" if matrix.trials == 1 else f"{matrix.trials} times"
    settings = "".join(f", {path}={value}" for path, value in matrix.settings)
    kind = "rootless labs" if matrix.rootless else "labs"
    return f"{matrix.lab}{settings}: each cell run {times}, in {kind} of their own; kernel {matrix.kernel}"


def account(matrix: Matrix) -> str:
    """How many cells stand how."""
    words = {
        Standing.AS_EXPECTED: "as expected",
        Standing.UNEXPECTED: "unexpected",
        Standing.NOTHING_EXPECTED: "with nothing expected",
        Standing.INCONCLUSIVE: "inconclusive",
        Standing.SKIPPED: "skipped",
    }
    counts = {standing: matrix.count(standing) for standing in words}
    if not counts[Standing.NOTHING_EXPECTED]:
        del counts[Standing.NOTHING_EXPECTED]
    total = len(matrix.cells)
    told = ", ".join(f"{count} {words[standing]}" for standing, count in counts.items())
    return f"{total} {'cell' if total == 1 else 'cells'}: {told}"


def outcomes(cell: Cell) -> list[str]:
    """What became of a cell's trials: a word, or a line for each outcome with how many ended so."""
    counts = [(outcome, cell.count(outcome)) for outcome in Outcome if cell.count(outcome)]
    if len(cell.trials) == 1:
        return [counts[0][0]]
    return [f"{count} {outcome}" for outcome, count in counts]


def numbers(cell: Cell) -> str:
    """The side effects in short."""
    return f"{cell.invalid}i {cell.retransmits}r {cell.duration_s:.1f}s"


_MARKS = {Standing.UNEXPECTED: " !", Standing.NOTHING_EXPECTED: " *"}


def _lines(cell: Cell) -> list[str]:
    if cell.skipped:
        return ["skipped"]
    if not cell.trials:
        return ["inconclusive"]
    first, *others = outcomes(cell)
    return [first + _MARKS.get(cell.standing, ""), *others, numbers(cell)]


def _pages(matrix: Matrix, width: int) -> Iterator[list[Column]]:
    """The columns in groups that fit; at least one each."""
    name_width = _name_width(matrix)
    page: list[Column] = []
    used = name_width
    for column in matrix.columns:
        needs = len(_GAP) + _column_width(matrix, column)
        if page and used + needs > width:
            yield page
            page, used = [], name_width
        page.append(column)
        used += needs
    yield page


def _name_width(matrix: Matrix) -> int:
    return min(max(len(row.experiment) for row in matrix.rows), _LONGEST_NAME)


def _column_width(matrix: Matrix, column: Column) -> int:
    cells = [line for row in matrix.rows for line in _lines(matrix.cell(row, column))]
    return max(map(len, (*cells, *_parts(column.fix, _LONGEST_FIX))))


def _parts(name: str, longest: int) -> list[str]:
    """A name where it may be broken: after a hyphen or a plus, else where it is too long."""
    return [
        part[start : start + longest]
        for part in re.findall(r"[-+]*[^-+]+[-+]*", name)
        for start in range(0, len(part), longest)
    ]


def _table(matrix: Matrix, columns: Sequence[Column]) -> Iterator[Piece]:
    widths = [_name_width(matrix), *(_column_width(matrix, column) for column in columns)]
    heads = [_unstyled(_fold(column.fix, width)) for column, width in zip(columns, widths[1:], strict=True)]
    yield from _block([[Piece("cause")], *heads], widths)
    yield Piece("-" * (sum(widths) + len(_GAP) * len(columns)) + "\n")
    for row in matrix.rows:
        cells = [_styled(matrix.cell(row, column)) for column in columns]
        yield from _block([_unstyled(_fold(row.experiment, widths[0])), *cells], widths)


_STYLES = {Outcome.RESET: Style.BAD, Outcome.STALLED: Style.UNSURE, Outcome.COMPLETED: Style.GOOD}


def _unstyled(lines: Iterable[str]) -> list[Piece]:
    return [Piece(line) for line in lines]


def _styled(cell: Cell) -> list[Piece]:
    """The cell's lines, the first of them as how its trials ended, where all ended so; the numbers quiet."""
    lines = _lines(cell)
    found = {outcome for outcome in Outcome if cell.count(outcome)}
    if not cell.trials:
        return [Piece(line, Style.QUIET) for line in lines]
    style = _STYLES.get(found.pop()) if len(found) == 1 else Style.UNSURE
    return [*(Piece(line, style) for line in lines[:-1]), Piece(lines[-1], Style.QUIET)]


def _fold(name: str, width: int) -> list[str]:
    """A name in lines that are no longer than the width."""
    lines = [""]
    for piece in _parts(name, width):
        if len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _block(cells: Sequence[Sequence[Piece]], widths: Sequence[int]) -> Iterator[Piece]:
    """Cells beside each other, each in lines of its own; no line ends in blanks."""
    for lines in zip_longest(*cells, fillvalue=Piece("")):
        blank = ""
        for piece, width in zip(lines, widths, strict=True):
            if piece.text:
                yield Piece(blank)
                yield piece
                blank = ""
            blank += " " * (width - len(piece.text)) + _GAP
        yield Piece("\n")


def _remarks(matrix: Matrix, width: int) -> Iterator[str]:
    """What is to be said of the cells that are unexpected, inconclusive or skipped."""
    for cell in matrix.cells:
        if cell.standing is Standing.UNEXPECTED:
            said = f"{', '.join(outcomes(cell))}; expected: {cell.expected}"
            yield from _remark(f"unexpected: {cell.experiment}, {cell.fix}: {said}", width)
        elif cell.standing is Standing.INCONCLUSIVE:
            yield from _remark(f"inconclusive: {cell.experiment}, {cell.fix}: {'; '.join(why(cell))}", width)
    for experiments, fixes, reason in _skips(matrix):
        rows = "all causes" if len(experiments) == len(matrix.rows) > 1 else ", ".join(experiments)
        columns = "all" if len(fixes) == len(matrix.columns) else ", ".join(fixes)
        yield from _remark(f"skipped: {rows}, {columns}: {reason}", width)


def _skips(matrix: Matrix) -> Iterator[tuple[list[str], tuple[str, ...], str]]:
    """The skipped cells by their reasons, in rectangles: experiments, fixes, reason."""
    for reason in dict.fromkeys(cell.skipped for cell in matrix.cells if cell.skipped):
        rectangles: dict[tuple[str, ...], list[str]] = {}
        for row in matrix.rows:
            fixes = tuple(column.fix for column in matrix.columns if matrix.cell(row, column).skipped == reason)
            if fixes:
                rectangles.setdefault(fixes, []).append(row.experiment)
        for fixes, experiments in rectangles.items():
            yield experiments, fixes, reason


def why(cell: Cell) -> list[str]:
    """What an inconclusive cell lacks."""
    if cell.failed:
        return [cell.failed]
    total = len(cell.trials)
    where = {piece: "" if total == 1 else f" in {count} of {total} trials" for piece, count in cell.missing().items()}
    return [f"missing{which}: {piece}" for piece, which in where.items()]


def _remark(text: str, width: int) -> list[str]:
    return wrap(text, width, subsequent_indent=_GAP)
