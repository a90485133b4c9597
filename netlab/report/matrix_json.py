"""A Matrix as one JSON object, for programs. Pure; docs/matrix.md says what each member means."""

from __future__ import annotations

from typing import Any

from netlab import escapes
from netlab.analysis.result import Outcome
from netlab.matrix import Cell, Matrix, Standing
from netlab.report.json import trial_members

FORMAT = 1
"""Grows when a member goes or changes its meaning; new members may come without."""


def render(matrix: Matrix) -> str:
    """The object, indented by two, ending in a newline."""
    members = {
        "format": FORMAT,
        "lab": matrix.lab,
        "rootless": matrix.rootless,
        "settings": [f"{path}={value}" for path, value in matrix.settings],
        "kernel": matrix.kernel,
        "trials": matrix.trials,
        "capabilities": {each.name: {"there": each.there, "reason": each.reason} for each in matrix.capabilities},
        "experiments": [
            {"name": row.experiment, "claim": row.claim, "explanation": row.explanation} for row in matrix.rows
        ],
        "fixes": [{"name": column.fix, "summary": column.summary} for column in matrix.columns],
        "standings": {standing: matrix.count(standing) for standing in Standing},
        "cells": [_cell(cell) for cell in matrix.cells],
    }
    return escapes.as_json(members)


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "experiment": cell.experiment,
        "fix": cell.fix,
        "standing": cell.standing,
        "expected": cell.expected,
        "outcomes": {outcome: cell.count(outcome) for outcome in Outcome},
        "skipped": cell.skipped or None,
        "failed": cell.failed or None,
        "missing": list(cell.missing()),
        "invalid": cell.invalid,
        "retransmits": cell.retransmits,
        "duration_s": round(cell.duration_s, 6),
        "trials": [trial_members(number, each) for number, each in enumerate(cell.trials, 1)],
    }
