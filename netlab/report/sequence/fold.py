"""Runs of like packets, each folded into one row that counts them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

from netlab.report.sequence.diagram import Arrow, Fold, Remark, Row

SHOWN_OF_A_KIND = 2
"""So many packets of each kind are shown one by one; the rest of them may be folded."""

SHORTEST_FOLD = 3
"""Fewer packets in a row than this are shown: the row that counts them would save nothing."""


def folded(rows: Sequence[Arrow | Remark], ms: Callable[[int], str]) -> tuple[Row, ...]:
    """The rows with each long run of packets that nobody will miss made one."""
    seen: Counter[tuple[bool, tuple[str, str]]] = Counter()
    plain: set[Arrow | Remark] = set()
    for row in rows:
        if isinstance(row, Arrow):
            kind = (row.start < row.end, row.kind)
            seen[kind] += 1
            if seen[kind] > SHOWN_OF_A_KIND and not row.evidence:
                plain.add(row)
    folded: list[Row] = []
    for is_plain, group in groupby(rows, key=lambda row: row in plain):
        run = list(group)
        arrows = tuple(row for row in run if isinstance(row, Arrow))
        if is_plain and len(run) >= SHORTEST_FOLD:
            folded.append(Fold(arrows[0].time_ns, arrows, f"{_count(arrows)}, until {ms(arrows[-1].time_ns)}"))
        else:
            folded += run
    return tuple(folded)


def _count(arrows: Sequence[Arrow]) -> str:
    """ "12 more data segments with 9,216 bytes, 9 more RSTs (INVALID)"."""
    counts = Counter(arrow.kind for arrow in arrows)
    parts = []
    for (noun, qualifier), count in counts.items():
        sized = sum(arrow.payload_bytes for arrow in arrows if arrow.kind == (noun, qualifier))
        plural = noun if count == 1 else f"{noun}s"
        what = f"{count:,} more {plural}" + (f" with {sized:,} bytes" if sized else "")
        parts.append(f"{what} ({qualifier})" if qualifier else what)
    return ", ".join(parts)
