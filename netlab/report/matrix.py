"""A Matrix for a terminal: the table, what its marks mean, and what is to be said of single cells. Pure.

ASCII only, no colour. A table that is wider than the page goes on below, the other columns first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from netlab.analysis.result import Outcome
from netlab.matrix import Cell, Column, Matrix, Standing
from netlab.report.wrapping import wrap

_GAP = "  "


def render(matrix: Matrix, width: int = 110) -> str:
    """The whole text, ending in a newline. width is in columns; a table of one fix may need more."""
    lines = [*wrap(setting(matrix), width), ""]
    for columns in _pages(matrix, width):
        lines += [*_table(matrix, columns), ""]
    lines += [*wrap(_legend(matrix), width), ""]
    remarks = list(_remarks(matrix, width))
    lines += [*remarks, ""] if remarks else []
    return "\n".join([*lines, account(matrix)]) + "\n"


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
    return max(len(row.experiment) for row in matrix.rows)


def _column_width(matrix: Matrix, column: Column) -> int:
    cells = [line for row in matrix.rows for line in _lines(matrix.cell(row, column))]
    return max(map(len, (*cells, *_pieces(column.fix))))


def _pieces(name: str) -> list[str]:
    """A fix's name where it may be broken: after a hyphen or a plus."""
    return re.findall(r"[^-+]+[-+]*", name)


def _table(matrix: Matrix, columns: Sequence[Column]) -> Iterator[str]:
    widths = [_name_width(matrix), *(_column_width(matrix, column) for column in columns)]
    heads = [_fold(_pieces(column.fix), width) for column, width in zip(columns, widths[1:], strict=True)]
    yield from _block([["cause"], *heads], widths)
    yield "-" * (sum(widths) + len(_GAP) * len(columns))
    for row in matrix.rows:
        yield from _block([[row.experiment], *(_lines(matrix.cell(row, column)) for column in columns)], widths)


def _fold(pieces: Iterable[str], width: int) -> list[str]:
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _block(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """Cells beside each other, each in lines of its own."""
    for lines in zip_longest(*cells, fillvalue=""):
        yield _GAP.join(line.ljust(width) for line, width in zip(lines, widths, strict=True)).rstrip()


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
