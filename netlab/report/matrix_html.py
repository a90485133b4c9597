"""A Matrix as one HTML file: the table, and below it each cause with its claim, its explanation and its cells. Pure.

The page is made of `page.py`'s pieces, as a run's report is. All of it can be read without the script.
"""

from __future__ import annotations

from collections.abc import Iterator

from netlab.analysis.result import Outcome, TrialResult
from netlab.kubeproxy.fixes import PLAIN
from netlab.matrix import Cell, Matrix, Row, Standing
from netlab.report.linking import linked
from netlab.report.markup import Markup, join, tag
from netlab.report.matrix import outcomes, why
from netlab.report.page import bullets, document, facts, section, table
from netlab.report.words import LINKS, evidence_words

_MEANING = {
    0: "Every cell that can be run here ended as expected.",
    1: "Some cells did not end as expected: they are framed.",
    3: "Some cells are inconclusive: each says what it lacks.",
    77: "Nothing in this table can be run here.",
}

_WORDS = {
    Standing.AS_EXPECTED: "as expected",
    Standing.UNEXPECTED: "unexpected",
    Standing.NOTHING_EXPECTED: "nothing expected",
    Standing.INCONCLUSIVE: "inconclusive",
    Standing.SKIPPED: "skipped",
}


def render(matrix: Matrix) -> str:
    """The whole file."""
    sections = [_summary(matrix), _table(matrix), *(_cause(matrix, row) for row in matrix.rows)]
    sections += [_fixes(matrix), *_kernel(matrix)]
    return document(
        f"Every cause, every fix: {matrix.lab}", "netlab: every cause, every fix", linked(sections), "report.js"
    )


def _summary(matrix: Matrix) -> Markup:
    exit_code = matrix.exit_code()
    kind = {0: Standing.AS_EXPECTED, 1: Standing.UNEXPECTED, 3: Standing.INCONCLUSIVE, 77: Standing.SKIPPED}[exit_code]
    about = [
        ("Lab", matrix.lab + (" (rootless)" if matrix.rootless else "")),
        ("Settings", ", ".join(f"{path}={value}" for path, value in matrix.settings) or "none"),
        ("Kernel", matrix.kernel),
        ("Trials", f"{matrix.trials} in each cell, each cell in a lab of its own"),
    ]
    return tag(
        "section",
        tag("h1", _headline(matrix), id="result", class_=kind, tabindex=-1),
        tag("p", _MEANING[exit_code], class_="meaning"),
        facts(about),
        aria_labelledby="result",
    )


def _headline(matrix: Matrix) -> str:
    others = [standing for standing in Standing if standing is not Standing.AS_EXPECTED and matrix.count(standing)]
    words = {**_WORDS, Standing.NOTHING_EXPECTED: "with nothing expected"}
    counts = "".join(f", {matrix.count(standing)} {words[standing]}" for standing in others)
    return f"{matrix.count(Standing.AS_EXPECTED)} of {len(matrix.cells)} cells as expected{counts}"


def _table(matrix: Matrix) -> Markup:
    head = tag(
        "tr", tag("th", "Cause", scope="col"), *(tag("th", column.fix, scope="col") for column in matrix.columns)
    )
    rows = [
        tag(
            "tr",
            tag("th", tag("a", row.experiment, href=f"#{_id(row)}"), scope="row"),
            *(tag("td", *_short(matrix, matrix.cell(row, column)), data_name=column.fix) for column in matrix.columns),
        )
        for row in matrix.rows
    ]
    legend = (
        "INVALID: packets that conntrack found so. Sent again: segments. Both by the kernel's counters. The time is "
        "that of all of a cell's trials. A frame marks a cell that is not as expected."
    )
    return section(
        "table",
        "Every cause, every fix",
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix"), class_="table", tabindex=0),
        tag("p", legend, class_="legend"),
    )


def _short(matrix: Matrix, cell: Cell) -> Iterator[Markup]:
    """A cell of the table: what was seen, where it is not as expected what was, and its side effects."""
    href = f"#cell-{matrix.cells.index(cell) + 1}"
    seen = ", ".join(_seen(cell))
    yield tag("a", seen, href=href, class_=f"cell {_outcome(cell)} {cell.standing}")
    if cell.standing is Standing.UNEXPECTED:
        yield tag("span", f" expected: {cell.expected}")
    elif cell.standing is not Standing.AS_EXPECTED and seen != _WORDS[cell.standing]:
        yield tag("span", f" {_WORDS[cell.standing]}")
    if cell.trials:
        yield tag("span", join([tag("span", effect) for effect in _effects(cell)], ", "), class_="effects")


def _outcome(cell: Cell) -> str:
    """The one outcome of all of a cell's trials; empty where there is none."""
    found = {trial.outcome.value for trial in cell.trials}
    return found.pop() if len(found) == 1 else ""


def _seen(cell: Cell) -> list[str]:
    if cell.skipped:
        return ["skipped"]
    return outcomes(cell) if cell.trials else ["not run"]


def _effects(cell: Cell) -> list[str]:
    return [f"{cell.invalid:,} INVALID", f"{cell.retransmits:,} sent again", f"{cell.duration_s:.1f} s"]


def _id(row: Row) -> str:
    return f"cause-{row.experiment}"


def _cause(matrix: Matrix, row: Row) -> Markup:
    paragraphs = [tag("p", paragraph) for paragraph in row.explanation.split("\n\n") if paragraph.strip()]
    cells = [matrix.cell(row, column) for column in matrix.columns]
    return section(
        _id(row),
        row.experiment,
        tag("p", tag("strong", row.claim)),
        *paragraphs,
        *(_details(matrix, cell) for cell in cells),
    )


def _details(matrix: Matrix, cell: Cell) -> Markup:
    seen, standing = ", ".join(_seen(cell)), _WORDS[cell.standing]
    return tag(
        "details",
        tag(
            "summary",
            f"{'Without a fix' if cell.fix == PLAIN else f'With {cell.fix}'}: ",
            tag("b", seen, class_=f"{_outcome(cell)} {cell.standing}"),
            "" if seen == standing else f" ({standing})",
        ),
        *_about(cell),
        id=f"cell-{matrix.cells.index(cell) + 1}",
    )


def _about(cell: Cell) -> Iterator[Markup]:
    if cell.skipped:
        yield tag("p", f"Can't be run here: {cell.skipped}")
        return
    yield tag("p", f"Expected: {cell.expected or 'nothing'}.")
    if cell.standing is Standing.INCONCLUSIVE:
        yield bullets(why(cell))
    if not cell.trials:
        return
    rows = [
        (
            str(number),
            trial.outcome,
            f"{trial.duration_s:.3f} s",
            f"{trial.bytes_received:,} of {trial.payload_bytes:,}",
            f"{trial.invalid:,}",
            f"{trial.retransmits:,}",
        )
        for number, trial in enumerate(cell.trials, 1)
    ]
    yield table(("Trial", "Outcome", "Took", "Bytes", "INVALID", "Sent again"), rows)
    number, trial = _telling(cell)
    if trial.evidence:
        yield tag("p", f"What was seen in trial {number}:" if len(rows) > 1 else "What was seen:")
        yield _evidence(trial)


def _telling(cell: Cell) -> tuple[int, TrialResult]:
    """The trial to tell of, with its number: one that is not as expected, if there is one."""
    numbered = list(enumerate(cell.trials, 1))
    odd = [(number, trial) for number, trial in numbered if trial.outcome is Outcome.INCONCLUSIVE]
    odd += [(number, trial) for number, trial in numbered if trial.outcome is not cell.expected]
    return (odd or numbered)[0]


def _evidence(trial: TrialResult) -> Markup:
    rows = [
        (
            LINKS[piece.link],
            piece.event.netns,
            f"{(piece.event.time_ns - trial.started_ns) / 1e6:.3f}",
            join([evidence_words(piece)]),
            piece.note,
        )
        for piece in trial.evidence
    ]
    return table(("What it shows", "Namespace", "ms", "Packet", "In numbers"), rows)


def _fixes(matrix: Matrix) -> Markup:
    pairs = [(column.fix, column.summary) for column in matrix.columns if column.summary]
    if not pairs:
        return Markup("")
    return section("fixes", "The fixes", table(("Fix", "What it does"), pairs))


def _kernel(matrix: Matrix) -> Iterator[Markup]:
    if matrix.capabilities:
        rows = [(each.name, "yes" if each.there else "no", each.reason) for each in matrix.capabilities]
        lead = tag("p", "Found by trying. Experiments need these, or expect another outcome without them:")
        yield section("kernel", "What this kernel can do", lead, table(("Capability", "There", "Seen"), rows))
