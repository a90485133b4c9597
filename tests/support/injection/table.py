"""What came of the faults, as a Markdown table: a row for each step of a command, a column for each outcome."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from injection.judge import COMPLAINTS

OUTCOMES = ("done", "refused", "interrupted", "killed", "ended by force")
NOT_INJECTED = "call did not come"


class Result(NamedTuple):
    """One fault: who it was meant for, where it struck, what came of it, and which rules were broken."""

    user: str
    scenario: str
    row: str
    kind: str
    outcome: str
    rules: Sequence[str]


def render(results: Iterable[Result]) -> str:
    """The table, then how many of all broke which rule."""
    results = [*results]
    columns = (*OUTCOMES, NOT_INJECTED)
    rows: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    bad: Counter[tuple[str, str, str]] = Counter()
    for one in results:
        row = one.scenario, one.row, _family(one.kind)
        rows[row][one.outcome] += 1
        bad[row] += bool(one.rules)
    heading = ["command", "step", "fault", *columns, "wrong"]
    lines = [_line(heading), _line(["---"] * 3 + ["---:"] * (len(columns) + 1))]
    for row, counts in sorted(rows.items()):
        lines.append(_line([*row, *(str(counts[column] or "") for column in columns), str(bad[row] or 0)]))
    broken = Counter(rule for one in results for rule in set(one.rules))
    users = Counter(one.user for one in results)
    injected = sum(one.outcome != NOT_INJECTED for one in results)
    who = ", ".join(f"{count:,} as {user}" for user, count in sorted(users.items()))
    lines += ["", f"{len(results):,} faults ({who}), {injected:,} injected: "]
    lines[-1] += ", ".join(f"{broken[rule]} {rule}" for rule in COMPLAINTS)
    return "\n".join(lines) + "\n"


def _family(kind: str) -> str:
    return "errno" if kind.startswith("E") else kind


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
